//! The local EKS as its users have it: `sandbox up --eks`, the real AWS CLI as administrator, and pods that
//! take their credentials from the agent.

mod addons;
mod associations;
mod mistakes;
mod permissions;
pub(crate) mod up;
