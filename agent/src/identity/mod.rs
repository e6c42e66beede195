//! Who asks.
//!
//! Owns: the bearer token, what it claims, the keys that prove it, reviews where none does, and the verdict
//! on it. Must not know: HTTP statuses, AWS, or what the caller wants. An identity that is only claimed, one
//! that was verified, and a token that was refused are different types, so that no later step can mistake one
//! for another.

pub mod authenticator;
pub mod claims;
pub mod foreign_tokens;
mod json;
pub mod keys;
mod last_told;
pub mod own_proof;
pub mod own_token;
pub mod review;
mod verdict;
mod verdict_cache;
mod verify;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use authenticator::{Authenticator, FIRST_KEYS_WAIT, Lookup, OpenToken};
pub use verdict::{Authentication, Identity, RefusedToken, TokenFault, UnverifiedIdentity, VerifiedIdentity};
pub use verify::Policy;
