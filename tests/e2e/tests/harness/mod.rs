//! What every test needs: an agent process, a raw HTTP client, a little patience; and a node with pods where
//! it matters.

mod agent;
mod api_server;
pub(crate) mod boto3;
mod cgroup;
pub(crate) mod cluster;
mod dns;
mod http;
mod load;
mod many;
mod middlebox;
mod namespace;
mod node;
mod tampering;
mod thief;
mod wired;

pub(crate) use agent::{Agent, Builder, binary, free_port};
pub(crate) use api_server::ApiServer;
pub(crate) use boto3::{as_boto3, attempt};
pub(crate) use cgroup::Cgroup;
pub(crate) use dns::{Dns, Says, Zone};
pub(crate) use http::{Answer, Request, read_answer, read_next_answer};
pub(crate) use load::{Asker, Load, Window};
pub(crate) use many::{Client, Many, ask_all};
pub(crate) use middlebox::{Delays, Middlebox};
pub(crate) use namespace::Namespace;
pub(crate) use node::{IMDS_IPV4, IMDS_IPV6, IPV4, IPV6, Node, on_a_node};
pub(crate) use tampering::{Tamper, Tampering};
pub(crate) use thief::{Shape, Thief};
pub(crate) use wired::Wired;

use namespace::runtime;

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use sandbox::{Call, Effect, Fault, Options, Pod, PodSpec, Sandbox, Service, TokenSpec};

/// A sandbox with the default association.
pub(crate) fn sandbox() -> Sandbox {
    Sandbox::start(Options::default()).expect("the sandbox starts")
}

/// A pod of the default association.
pub(crate) fn pod(sandbox: &Sandbox, name: &str) -> Pod {
    let spec = PodSpec { pod: name.to_owned(), ..PodSpec::default() };
    sandbox.pod(spec).expect("the sandbox makes a pod")
}

/// Gives a pod a new token as the kubelet does: a new file in the place of the old one.
pub(crate) fn rotate_token(pod: &Pod) {
    let token = pod.token_as(&TokenSpec::new(pod.spec.clone())).expect("a token");
    let next = pod.token_file.with_extension("next");
    std::fs::write(&next, token).expect("a file");
    std::fs::rename(&next, &pod.token_file).expect("a file");
}

/// Whether what is too long for each change has its full length.
pub(crate) fn is_nightly() -> bool {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one setting of these tests; the agent's are elsewhere"
    )]
    let is_set = std::env::var_os("NIGHTLY").is_some();
    is_set
}

/// When the set in an answer ends.
pub(crate) fn expiration(answer: &Answer) -> SystemTime {
    let text = answer.json()["Expiration"].as_str().expect("a string").to_owned();
    // Whole seconds and Z, as `wire` has it.
    let number = |from: usize, to: usize| text[from..to].parse::<u64>().expect("digits");
    let days = days_from_1970(number(0, 4), number(5, 7), number(8, 10));
    let seconds = number(11, 13) * 3600 + number(14, 16) * 60 + number(17, 19);
    SystemTime::UNIX_EPOCH + Duration::from_secs(days * 86_400 + seconds)
}

/// Howard Hinnant's days_from_civil, for dates after 1970.
fn days_from_1970(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// A time so far ahead by the machine's clock, as AWS writes it.
pub(crate) fn in_future(ahead: Duration) -> String {
    #[expect(clippy::disallowed_methods, reason = "AWS goes by the wall clock")]
    let at = SystemTime::now() + ahead;
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
    let (of_day, days) = (seconds % 86_400, seconds / 86_400);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    // The inverse of days_from_1970: there are few enough to look through.
    let dates = (2020..2200).flat_map(|year| (1..=12).map(move |month| (year, month)));
    let month = dates.take_while(|(year, month)| days_from_1970(*year, *month, 1) <= days).last();
    let (year, month) = month.expect("after 2020");
    let day = days - days_from_1970(year, month, 1) + 1;
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// How much life it has by the machine's clock; none if it has ended.
pub(crate) fn left(answer: &Answer) -> Duration {
    #[expect(clippy::disallowed_methods, reason = "an SDK judges by the wall clock")]
    let now = SystemTime::now();
    expiration(answer).duration_since(now).unwrap_or_default()
}

/// The calls that reached EKS Auth, in order.
pub(crate) fn eks_auth_calls(sandbox: &Sandbox) -> Vec<Call> {
    sandbox.calls_of(Service::EksAuth)
}

/// An answer of AWS with this status and code.
pub(crate) fn failing(status: u16, code: &str) -> Effect {
    Effect::Status { status, code: code.to_owned(), message: "set by a test".to_owned() }
}

/// EKS Auth answers late by so many milliseconds.
pub(crate) fn slow(ms: u64) -> Fault {
    Fault::new(Service::EksAuth, Effect::Latency { ms, jitter_ms: 0 })
}

/// Nothing goes wrong any more.
pub(crate) fn heal(sandbox: &Sandbox) {
    sandbox.faults().set([]);
}

/// Runs a test for each of these, so many at the same time, each on a thread of its own: what one blocks for
/// (a sandbox makes keys, and takes a moment to stop) is not held against the others.
pub(crate) fn side_by_side<T, F>(
    at_once: usize,
    all: impl IntoIterator<Item = T>,
    test: impl Fn(T) -> F + Sync,
) where
    T: Send,
    F: Future<Output = ()>,
{
    let waiting = Mutex::new(all.into_iter().collect::<VecDeque<_>>());
    let next = || waiting.lock().pop_front();
    std::thread::scope(|threads| {
        for _ in 0..at_once {
            threads.spawn(|| {
                while let Some(one) = next() {
                    runtime().block_on(test(one));
                }
            });
        }
    });
}

/// Waits until something is so; fails with `what` after ten seconds.
pub(crate) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while tokio::time::Instant::now() < deadline {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not within ten seconds: {what}");
}
