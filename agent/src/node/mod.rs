//! The node's network: the link and the addresses that credentials are served on, and the rules that protect
//! them.
//!
//! Owns: what the agent adds to the node's network, and keeping it in place. Must not know: requests, tokens,
//! credentials. Each part states the desired state, observes the actual one, computes the difference (a pure
//! function) and applies it. Nothing here stops the credential endpoint (invariant 10): if a step
//! fails, a condition is unmet with the reason, and the step is tried again.

pub mod guard;
pub mod ipv6;
mod kernel_events;
pub mod link;
pub mod listening;
pub mod metadata_clients;
pub mod nft;
pub mod open_connections;
pub mod other_agents;
pub mod self_probe;
mod sockets;
