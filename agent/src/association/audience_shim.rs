//! Until `workload::Audience` has these. Owns: nothing. Must not know: anything.

use std::sync::Arc;

/// For whom a token was issued.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Audience {
    /// EKS Pod Identity.
    PodIdentity,
    /// STS, by this name.
    WebIdentity(Arc<str>),
    /// No service that this agent serves.
    Foreign,
}
