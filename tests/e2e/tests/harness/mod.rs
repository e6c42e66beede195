//! What every test needs: an agent process, a raw HTTP client, a little patience; and a node with pods where
//! it matters.

mod agent;
mod cgroup;
pub(crate) mod cluster;
mod http;
mod load;
mod many;
mod middlebox;
mod namespace;
mod node;
mod thief;
mod wired;

pub(crate) use agent::{Agent, Builder, binary, free_port};
pub(crate) use cgroup::Cgroup;
pub(crate) use http::{Answer, Request, read_answer, read_next_answer};
pub(crate) use load::{Asker, Load, Window, as_boto3};
pub(crate) use many::{Client, Many, ask_all};
pub(crate) use middlebox::{Delays, Middlebox};
pub(crate) use namespace::Namespace;
pub(crate) use node::{IMDS_IPV4, IMDS_IPV6, IPV4, IPV6, Node, on_a_node};
pub(crate) use thief::{Shape, Thief};
pub(crate) use wired::Wired;

use std::time::Duration;

use sandbox::{Call, Effect, Fault, Options, Pod, PodSpec, Sandbox, Service};

/// A sandbox with the default association.
pub(crate) fn sandbox() -> Sandbox {
    Sandbox::start(Options::default()).expect("the sandbox starts")
}

/// A pod of the default association.
pub(crate) fn pod(sandbox: &Sandbox, name: &str) -> Pod {
    let spec = PodSpec { pod: name.to_owned(), ..PodSpec::default() };
    sandbox.pod(spec).expect("the sandbox makes a pod")
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
