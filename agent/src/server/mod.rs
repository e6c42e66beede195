//! The front door: sockets, connections, and what is answered on them. `hyper` is named only here.

pub mod access_log;
pub mod door;
pub mod pages;
