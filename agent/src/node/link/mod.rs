//! Link, addresses and routes: `pod-id-link0`, 169.254.170.23/32, fd00:ec2::23/128.
//!
//! Owns: that the node has them, once (`initialize`, `cleanup`) or for good (`keep`). Must not know: who listens there.
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
mod keep;
mod netlink;
mod observed;
mod once;
pub mod throwaway;

pub use desired::{Desired, LINK_NAME};
pub use keep::{LinkConditions, LinkKeeper};
pub use netlink::KernelError;
pub use once::{SetUpError, remove, set_up};

#[cfg(test)]
mod tests;
