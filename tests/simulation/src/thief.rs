//! A thief with a key of the cluster that leaked: once the key is withdrawn, it is worth nothing.
//!
//! Owns: what it signs, and that it gets nothing. Must not know: how the agent judges a token. As long as the
//! agent has the key, it cannot tell the thief from the pod, so the thief waits.

use std::sync::Arc;
use std::time::Duration;

use pod_identity_agent::workload::BearerToken;

use crate::journal::What;
use crate::ledger::{Pod, Token};
use crate::node::Answer;
use crate::story::World;
use crate::token::{Claims, mint};
use crate::watch::{Found, Invariant};

/// It tries a pod this often.
const PAUSE: Duration = Duration::from_secs(5 * 60);
/// The life that it gives its tokens.
const LIFE: Duration = Duration::from_secs(3600);
/// It comes from an address of its own.
const ITS_ADDRESS: usize = 0x00ff_fff0;

/// Tries one pod after the other, for ever; cancel by dropping.
pub async fn steal(world: Arc<World>) {
    for turn in 0_usize.. {
        tokio::time::sleep(PAUSE).await;
        let Some(key) = world.issuer.withdrawn() else { continue };
        let number = {
            let pods = &world.ledger.lock().pods;
            let living = pods.iter().enumerate().filter(|(_, pod)| pod.gone_at.is_none());
            let living: Vec<usize> = living.map(|(number, _)| number).collect();
            turn.checked_rem(living.len()).and_then(|turn| living.get(turn)).copied()
        };
        if let Some(number) = number {
            try_one(&world, number, key).await;
        }
    }
}

async fn try_one(world: &World, pod: usize, key: u32) {
    let Some(token) = forge(world, pod, key) else { return };
    world.note(pod, What::Asks("a thief"));
    let Some(node) = world.node_of(world.slot_of(pod)) else { return };
    let answer = node.ask(ITS_ADDRESS, &token, |_is_verified| ()).await;
    let is_withdrawn = world.issuer.known_since(key).is_none();
    if let (Answer::Served(_), true) = (answer, is_withdrawn) {
        let what = "a token that a withdrawn key made was served";
        world.watch.report(world.now(), Some(Found::new(Invariant::OwnSetOnly, what, vec![pod])));
    }
}

fn forge(world: &World, pod: usize, key: u32) -> Option<BearerToken> {
    let (issued_at, issued) = (world.true_wall(), world.now());
    let mut ledger = world.ledger.lock();
    let &Pod { slot, generation, source, .. } = ledger.pods.get(pod)?;
    let number = ledger.tokens.len();
    let text = mint(&world.issuer, &Claims { slot, generation, number, issued_at, life: LIFE, key, source });
    let token = BearerToken::from_header(text.as_bytes()).ok()?;
    let expires = issued + LIFE;
    ledger.add_token(text, Token { is_forged: true, ..Token::new(pod, number, key, issued, expires) });
    Some(token)
}
