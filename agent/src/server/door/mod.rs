//! Sockets and connections.
//!
//! Owns: listening, accepting, limits per peer, and HTTP/1 with a time limit for everything. Must not know:
//! what is requested and answered; that is behind [`connection::Respond`].

pub mod accept;
pub mod activity;
mod arrival;
pub mod bind;
pub mod capacity;
pub mod connection;
mod drain;
pub(crate) mod head_end;
pub mod limits;
mod pace;
pub mod peers;
pub mod places;
pub mod stats;
#[cfg(test)]
mod testing;
pub mod watched_stream;
