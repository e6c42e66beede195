//! What is answered.
//!
//! Owns: the credential endpoint and its rejections, the pages for operators, and the answer to the agent's
//! own probes. Must not know: sockets.

mod account;
pub mod admin;
pub mod client;
pub mod credentials;
#[cfg(test)]
mod documented_answers;
pub mod host;
pub mod last_token;
mod negotiation;
pub mod presence;
pub mod rejection;
mod response;
mod self_probe;
