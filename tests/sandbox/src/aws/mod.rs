//! AWS: the services that the agent, its pods and an administrator reach, the signatures they check, the
//! roles they ask IAM about and the credentials they issue.
//!
//! Must not know: how faults are carried out, nor how the cluster signs.

pub(crate) mod associations;
pub(crate) mod eks;
pub(crate) mod eks_auth;
pub(crate) mod gateway;
pub(crate) mod iam;
pub(crate) mod imds;
pub(crate) mod issued;
pub(crate) mod moto;
pub(crate) mod session;
pub(crate) mod sigv4;
pub(crate) mod sts;
