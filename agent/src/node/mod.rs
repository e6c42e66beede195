//! The node's network: where the addresses live that credentials are served on.
//!
//! Owns: what of the node is ours, and keeping it so. Must not know: requests, tokens, credentials. Each part says what
//! it wants, looks at what is there, takes the difference (pure), and applies it. Nothing here takes the credential
//! endpoint down (design, invariant 10): what cannot be done is a condition with its reason, and is tried again.

pub mod guard;
mod kernel_events;
pub mod link;
pub mod self_probe;
