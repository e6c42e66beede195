//! HTTP on the loopback: messages, listeners, and the faults put between a service and its caller.
//!
//! Must not know: what any service answers.

pub(crate) mod body;
pub(crate) mod client;
pub(crate) mod message;
pub(crate) mod server;
pub(crate) mod stream;
