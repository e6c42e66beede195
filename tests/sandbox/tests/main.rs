//! The sandbox from outside, over its sockets: one test binary, a module per subject.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests may panic: a failed expectation is their way of speaking; clippy does not know these files as tests"
)]

mod binary;
mod client;
mod clock;
mod connections;
mod control;
mod eks;
mod eks_auth;
mod faults;
mod imds;
mod issuer;
mod pods;
mod roles;
mod sts;
mod web_identity;
