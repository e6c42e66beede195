//! AWS: the services that the agent, its pods and an administrator reach, the signatures they check and the
//! credentials they issue.
//!
//! Must not know: how faults are carried out, nor how the cluster signs.

pub(crate) mod associations;
pub(crate) mod eks;
pub(crate) mod eks_auth;
pub(crate) mod imds;
pub(crate) mod issued;
pub(crate) mod sigv4;
pub(crate) mod sts;
