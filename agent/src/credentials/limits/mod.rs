//! How much of AWS may be used: by all calls together, by one peer, and by renewals per second.
//!
//! Owns: these three limits. Must not know: what is called.

pub mod budgets;
pub mod peer_quota;
pub mod renewal_rate;
pub mod upstream_budget;
