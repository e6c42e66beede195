//! The rules, as functions without I/O, each with a table of cases beside it.
//!
//! Owns: when to serve, wait or refuse; what is renewed for whom, and when AWS is back; patience with young
//! pods; what ends an entitlement. Must not know: where the facts come from, or how a decision is carried
//! out.

pub mod entitlement;
pub mod freshness;
pub mod hold;
pub mod not_found_streak;
pub mod recovery;
pub mod renewing;
pub mod serving;
pub mod young_pod;
