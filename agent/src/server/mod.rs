//! The front door: sockets, connections, and what is answered on them. `hyper` is named only here.

pub mod access;
pub mod activity;
pub mod admin;
pub mod connection;
pub mod endpoint;
pub mod error;
pub mod host;
pub mod limits;
pub mod listener;
pub mod peers;
mod probe;
pub mod stats;
#[cfg(test)]
mod testing;
pub mod wire;
