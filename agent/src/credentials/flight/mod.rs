//! One upstream call per identity: the only way to AWS.
//!
//! Owns: the table of calls under way, those who wait for one, its attempts, and what becomes of its outcome.
//! Must not know: HTTP, or who asks.

pub(in crate::credentials) mod attempts;
pub mod final_answers;
pub(in crate::credentials) mod outcome;
pub(in crate::credentials) mod patience;
pub mod shared_call;
pub mod table;
