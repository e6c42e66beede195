//! What is answered.
//!
//! Owns: the credential endpoint and its rejections, the pages for operators, and the answer to our own
//! probes. Must not know: sockets.

pub mod admin;
pub mod credentials;
pub mod host;
pub mod rejection;
mod self_probe;
