//! Who asks.
//!
//! Owns: the bearer token, what it claims, and the verdict on it. Must not know: HTTP statuses, AWS, or what the
//! caller wants. A token that merely says who it is, one that was verified, and one that was refused are different
//! types, so that no later step can mistake one for another.

pub mod authenticator;
pub mod claims;
mod memory;
pub mod token;

pub use authenticator::{Authentication, Authenticator, Refusal, UnverifiedIdentity, VerifiedIdentity};
pub use claims::UnverifiedClaims;
pub use token::{BearerToken, MalformedToken, Presented};
