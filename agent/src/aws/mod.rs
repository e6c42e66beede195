//! How AWS is reached, and who the agent is there.
//!
//! Owns: the HTTP client under the AWS SDK, the correction of the clock by AWS's answers, the agent's own
//! credentials, the region, and the node details that are sent. Must not know: pods, caches, or how often AWS
//! is called. With `credentials/source` these are the only users of the AWS SDK crates.

pub mod answer_log;
#[cfg(any(test, fuzzing))]
pub(crate) mod canned;
pub mod http_client;
pub mod node_details;
pub mod own_identity;
pub mod reach;
pub mod region;
pub mod time;
