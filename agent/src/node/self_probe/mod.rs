//! The self-probe: does a request to the agent's address, sent as a pod sends it, reach this agent?
//!
//! Owns: the request, the evaluation of the response, when probes run, and what is reported to readiness and
//! metrics. Must not know: rules and links, which are repaired elsewhere. It only reports: a failed probe
//! never switches anything off (invariant 10). A hostPort, a proxy or a stray rule may redirect the
//! address to another process, which then reads the tokens of pods. Without a probe this stays unnoticed
//! until credentials are missing.

mod host;
mod namespace;
mod outcome;
mod pod;
mod probe_key;
mod request;
#[cfg(test)]
mod tests;

pub(super) use host::from_host;
pub use host::{HostProbe, HostProbeSpec, is_another_agents};
pub use namespace::serve as serve_from_namespace;
pub(super) use outcome::ProbeOutcome;
pub use pod::{PodProbe, PodProbeSpec, Prober};
pub use probe_key::{Nonce, PATH_PREFIX, ProbeKey, ProbeKeyError};
