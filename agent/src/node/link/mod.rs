//! Link, addresses and routes: `pod-id-link0`, 169.254.170.23/32, fd00:ec2::23/128.
//!
//! Owns: adding them to the node and removing them once (`set_up`), or keeping them in place (`keeper`). Must
//! not know: what listens on the addresses.
//!
//! ```text
//! desired ─┐
//!          ├─ difference (pure) ── netlink ── the kernel
//! observed ┘
//! ```

mod converge;
mod desired;
mod difference;
mod events;
mod keeper;
mod netlink;
mod observed;
mod set_up;
pub mod veth_pair;

pub(in crate::node) use desired::CILIUM;
pub use desired::{Desired, LINK_NAME};
pub use keeper::{LinkConditions, LinkKeeper};
pub use netlink::KernelError;
pub use set_up::{SetUpError, remove, set_up};

#[cfg(test)]
mod tests;
