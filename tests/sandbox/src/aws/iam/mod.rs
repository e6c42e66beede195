//! IAM, as far as STS and EKS Auth ask it: roles, their trust policies, and the identity providers of
//! accounts.
//!
//! ```text
//! role, oidc_provider   what is kept
//! trust, condition      who may assume a role: a pure judgement
//! context               what a judgement may look at
//! registry              where roles and providers are kept, here or elsewhere
//! ```
//!
//! Must not know: tokens, HTTP, permissions policies (what a role may do is not asked here).

pub(crate) mod arn;
pub(crate) mod condition;
pub(crate) mod context;
pub(crate) mod oidc_provider;
pub(crate) mod pattern;
pub(crate) mod registry;
pub(crate) mod role;
pub(crate) mod trust;
