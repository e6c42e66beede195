//! The agent's own token, judged as a pod's would be, until a key has proven it.
//!
//! Owns: how often that is tried. Must not know: what follows from a verdict (`foreign_tokens`).
//!
//! A wrong issuer, or keys of another cluster, cost pods nothing as long as EKS Auth judges their tokens. So
//! nothing would tell of them before an outage does, and on a node without pods that ask nothing ever would.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::authenticator::{Authenticator, Lookup};
use super::verdict::{Authentication, Identity};
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::rng::Rng;
use crate::workload::{BearerToken, PeerKey, PresentedToken};

/// The first keys come within seconds. A mistake in the flags is mended by a restart.
const AGAIN: Backoff = Backoff::new(Duration::from_secs(20), Duration::from_secs(300));

/// Judges it again and again, until a key or the API server has proven it. Cancel by dropping. `read_token`
/// brings the token, which the kubelet rotates; `None` is for no token.
pub async fn prove<F: Future<Output = Option<PresentedToken>> + Send>(
    authenticator: &Authenticator,
    read_token: impl Fn() -> F + Send,
    clock: &Clock,
    rng: &Rng,
) {
    for failures in 1.. {
        let token = read_token().await;
        if let Some(PresentedToken { token, .. }) = token
            && let Authentication::Identified(Identity::Verified(_)) =
                judge(authenticator, &token, clock).await
        {
            return;
        }
        tokio::time::sleep(AGAIN.jittered(failures, rng)).await;
    }
}

async fn judge(authenticator: &Authenticator, token: &BearerToken, clock: &Clock) -> Authentication {
    let (peer, now) = (PeerKey::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1), clock.now());
    match authenticator.lookup(token, peer, now) {
        Lookup::Judged(authentication) => authentication,
        Lookup::Open(open) => authenticator.ask_others(&open, token, peer, now).await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    use parking_lot::Mutex;
    use serde_json::json;

    use super::prove;
    use crate::clock::{Clock, Simulated};
    use crate::config::VerificationMode::Auto;
    use crate::identity::Authenticator;
    use crate::identity::keys::TokenKeys;
    use crate::identity::testing::{
        EcSigner, NOW, Signer as _, authenticator, authenticator_of, claims_with, good_claims,
    };
    use crate::lifecycle::tasks::spawn_detached;
    use crate::rng::Rng;
    use crate::workload::{BearerToken, PresentedToken};

    /// Runs it with this token for half an hour; whether it ended, and what is said of tokens then.
    async fn after_half_an_hour(
        authenticator: &Authenticator,
        token: &BearerToken,
    ) -> (bool, Option<String>) {
        let clock = Clock::simulated(Simulated::starting_at(UNIX_EPOCH + Duration::from_secs(NOW)));
        let said = Arc::new(Mutex::new(None));
        let noted = Arc::clone(&said);
        let report = authenticator.foreign_tokens().report(clock.clone(), move |why| *noted.lock() = why);
        spawn_detached("test-report", report);
        let read = || async {
            let expires = UNIX_EPOCH + Duration::from_secs(NOW + 86_400);
            Some(PresentedToken { token: token.clone(), expires, issued: None })
        };
        let rng = Rng::seeded(1);
        let proving = prove(authenticator, read, &clock, &rng);
        let has_ended = tokio::time::timeout(Duration::from_secs(1_800), proving).await.is_ok();
        (has_ended, said.lock().clone())
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_of_this_cluster_is_proven_as_soon_as_its_key_is_there() {
        let key = EcSigner::new("known");
        let keys = TokenKeys::of_sources(1);
        let authenticator = authenticator_of(Auto, &keys);
        let document = json!({ "keys": [key.jwk()] });
        spawn_detached("test-source", async move {
            tokio::time::sleep(Duration::from_secs(60)).await;
            keys.replace(0, &document);
        });
        assert_eq!(after_half_an_hour(&authenticator, &key.token(&good_claims())).await, (true, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wrong_issuer_and_foreign_keys_are_said_without_a_pod_that_asks() {
        let key = EcSigner::new("known");
        let of_another = claims_with("/iss", json!("https://another.example"));
        let cases = [
            (key.token(&of_another), "tokens are of the issuer https://another.example"),
            (
                EcSigner::new("other").token(&good_claims()),
                "tokens name keys that are none of the 1 known ones",
            ),
        ];
        for (token, expected) in cases {
            let (authenticator, keys) = authenticator(Auto, &[key.jwk()]);
            spawn_detached("test-source", keys.read_for_nothing(0));
            let (has_ended, said) = after_half_an_hour(&authenticator, &token).await;
            assert!(!has_ended && said.as_ref().is_some_and(|said| said.contains(expected)), "{said:?}");
        }
    }
}
