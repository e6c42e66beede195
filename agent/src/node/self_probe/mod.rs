//! Asking ourselves, as a pod would: does the agent answer on its address, or somebody else?
//!
//! Owns: the question, the judgement of what came back, when it is asked and what readiness hears of it. Must not know:
//! rules and links, which are mended elsewhere. It only tells: nothing is ever switched off for a probe's sake (design,
//! invariant 10). A hostPort, a proxy or a stray rule may divert the address to another process, which then reads the
//! tokens of pods; nobody would notice until credentials are missing.

mod host;
mod namespace;
mod outcome;
mod pod;
mod probe_key;
mod request;
#[cfg(test)]
mod tests;

pub use host::{HostProbe, HostProbeSpec};
pub use namespace::serve as serve_from_namespace;
pub use pod::{PodProbe, PodProbeSpec, Prober};
pub use probe_key::{Nonce, PATH_PREFIX, ProbeKey, ProbeKeyError};
