//! What is handed out, and how it comes here.
//!
//! Owns: the credentials held, the decision to serve, wait or refuse (`decide`), the one call per identity (`flight`),
//! the share of AWS that all calls together (`budget`) and one peer's (`quota`) may take, what failed lately (`failures`),
//! what ends an entitlement (`entitlement`), patience with young pods (`grace`), and keeping sets fresh (`renewal`). Must not know: HTTP, tokens' claims, Kubernetes. Everything here is keyed by
//! [`CredentialKey`](crate::workload::CredentialKey) and timed by the injected clock.
//!
//! ```text
//! provider ── decide ─┬─ serve what is held
//!                     ├─ refuse what failed a moment ago
//!                     └─ join the flight ── quota ── budget ── source (AWS) ── store ── renewal
//! ```

pub mod flight;
pub mod held;
pub mod limits;
pub mod model;
pub mod policy;
pub mod provider;
pub mod renewal;
pub mod source;
pub mod store;

#[cfg(test)]
mod tests;
