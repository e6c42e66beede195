//! Many clients at once, and what each of them got: credentials, refusals, closed connections.
//!
//! Owns: how clients that start together ask, and what a fair judgement of it needs. Must not know: how they
//! are wired.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::boto3::attempts_up_to;
use super::http::Request;

/// One client of a pod.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// Which pod it belongs to.
    pub(crate) pod: usize,
    pub(crate) token: String,
    /// The address that it calls from, if not the namespace's own.
    pub(crate) from: Option<IpAddr>,
    /// Where it asks.
    pub(crate) to: SocketAddr,
}

/// What became of all.
#[derive(Debug, Default)]
pub(crate) struct Many {
    clients: usize,
    /// The access key ids that each pod got.
    keys: BTreeMap<usize, BTreeSet<String>>,
    served: usize,
    /// Answers that were no credentials, and came before the time of the try was over.
    pub(crate) refused: Vec<String>,
    /// Connections that ended without an answer.
    pub(crate) closed: Vec<String>,
    /// Attempts that had no answer in time, or just before its end the reason why not.
    pub(crate) late: usize,
    /// The most tries that one client needed.
    pub(crate) most_tries: usize,
    pub(crate) took: Duration,
}

/// A try of boto3 is held 1.8 s (docs/design/client-contract.md#long-outages).
const HELD: Duration = Duration::from_millis(1_750);

/// All ask within `spread`, each up to `tries` times as boto3 does.
pub(crate) async fn ask_all(clients: Vec<Client>, spread: Duration, tries: usize) -> Many {
    let mut many = Many { clients: clients.len(), ..Many::default() };
    let count = u32::try_from(clients.len()).expect("not that many");
    // Whatever it takes to start them is not part of it.
    let began = Instant::now() + Duration::from_millis(100);
    let mut asking = JoinSet::new();
    for (n, client) in (0..).zip(clients) {
        asking.spawn(async move {
            sleep_until(began + spread * n / count).await;
            let request = Request::credentials(&client.token);
            let request = client.from.map_or(request.clone(), |from| request.from(from));
            let attempts = attempts_up_to(tries, &request, client.to).await;
            (client.pod, attempts)
        });
    }
    for (pod, attempts) in asking.join_all().await {
        many.most_tries = many.most_tries.max(attempts.len());
        for attempt in attempts {
            let was_held = attempt.ended - attempt.begun >= HELD;
            match (attempt.failure(), attempt.answer) {
                (None, Ok(answer)) => {
                    many.served += 1;
                    many.keys.entry(pod).or_default().insert(answer.access_key_id());
                }
                (_, Err(error)) if error.kind() == ErrorKind::TimedOut => many.late += 1,
                (_, Err(error)) => many.closed.push(error.to_string()),
                (Some(answer), Ok(_)) if was_held && answer.starts_with("503") => many.late += 1,
                (Some(answer), Ok(_)) => many.refused.push(answer),
            }
        }
    }
    many.took = began.elapsed();
    many
}

impl Many {
    /// In one line.
    pub(crate) fn summary(&self) -> String {
        let Self { clients, served, late, most_tries, took, .. } = self;
        let (refused, closed, pods) = (self.refused.len(), self.closed.len(), self.keys.len());
        format!(
            "{clients} clients of {pods} pods in {took:?}: {served} served, {refused} refused, \
             {closed} closed, {late} late, {most_tries} tries at most"
        )
    }

    /// Every client was served, nothing was refused or closed; a pod's clients have one key, and each pod its
    /// own.
    pub(crate) fn assert_all_served(&self, pods: usize) {
        let summary = self.summary();
        assert_eq!(
            self.served,
            self.clients,
            "{summary}: {:?} {:?}",
            self.refused.first(),
            self.closed.first()
        );
        assert!(self.refused.is_empty(), "{summary}: {:?}", self.refused.first());
        assert!(self.closed.is_empty(), "{summary}: {:?}", self.closed.first());
        assert!(self.keys.values().all(|keys| keys.len() == 1), "a pod has two keys: {summary}");
        let distinct: BTreeSet<_> = self.keys.values().flatten().collect();
        assert_eq!((self.keys.len(), distinct.len()), (pods, pods), "two pods share a key: {summary}");
    }

    /// Each pod with the key that it got, or each that it got.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (usize, &str)> {
        self.keys.iter().flat_map(|(pod, keys)| keys.iter().map(|key| (*pod, key.as_str())))
    }

    /// The one key of a pod.
    pub(crate) fn key_of(&self, pod: usize) -> &str {
        self.keys[&pod].first().expect("a key")
    }
}
