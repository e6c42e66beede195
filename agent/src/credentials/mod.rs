//! What is handed out, and where it comes from.
//!
//! Owns: the credentials that are kept, and all that decides who gets them. Must not know: HTTP, tokens'
//! claims, Kubernetes. Everything here is keyed by [`CredentialKey`](crate::workload::CredentialKey) and
//! timed by the injected clock.
//!
//! ```text
//! provider ── policy::serving ─┬─ serve what is cached
//!                              ├─ refuse what AWS refused a moment ago
//!                              └─ join the flight ── limits ── source (AWS) ── outcome ── store ── renewal
//! ```
//!
//! | part | what it owns |
//! | --- | --- |
//! | [`provider`], [`waiting`] | what a request gets, carried out; one that waits for it |
//! | [`holding`] | what is served to those for whom nothing may be fetched |
//! | [`policy`] | the rules, pure: serving, freshness, young pods, entitlement |
//! | [`flight`] | the one call under way for an identity: table, waiting, attempts, outcome |
//! | [`limits`] | the share of AWS of all calls, of one peer, and the rate of renewals |
//! | [`source`] | asking AWS once, in one shape for all sources |
//! | [`cached`], [`record`] | a set that never changes; what is known of its identity |
//! | [`store`] | the records, what was refused lately, what is checked when |
//! | [`renewal`] | the worker that keeps sets fresh |
//! | [`issued`], [`receipt`] | a set as AWS issues it, the JSON that SDKs read; its names at AWS |
//! | [`trial`] | the one call before the agent is ready for the first time |
//! | [`audit_log`] | a line for each set that is issued |
//! | `listing` | who has credentials, wants them or was refused, for `status` |
//! | [`assemble`] | the parts put together |

pub mod assemble;
pub mod audit_log;
pub mod cached;
pub mod flight;
pub mod holding;
pub mod issued;
pub mod limits;
mod listing;
pub mod policy;
pub mod provider;
pub mod receipt;
pub mod record;
pub mod renewal;
pub mod revocation;
pub mod source;
pub mod store;
pub mod trial;
pub mod waiting;

#[cfg(test)]
mod tests;
