//! The HTTP server: sockets, connections, and what is answered on them.
//!
//! Owns: hyper's server half. Its client half is named where documents are fetched over HTTP
//! (`identity::keys`). Must not know: where credentials come from.

pub mod access_log;
pub mod door;
pub mod local_socket;
pub mod pages;
