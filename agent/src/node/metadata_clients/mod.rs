//! Which pods connect to the instance metadata service, and so can take the node's role.
//!
//! Owns: an nftables table that counts these connections by the pod's address, and touches none; what the
//! log and the metrics say of it. Must not know: how pods are kept from that service, which is the guard's.
//! docs/metadata-block.md tells an admin what to do with the counts.
//!
//! It is a table of its own, so that the counts outlive each change of the guard's table.
//!
//! ```text
//! keeper ── step (pure: what is to be written?) ── table (pure: the transaction) ── nft ── the kernel
//!   │                                                                                        │
//!   └── clients (pure: who is named?) ◄── listing (pure: what was counted) ◄──────────────────┘
//! ```

mod clients;
mod keeper;
mod listing;
mod step;
mod table;

pub use keeper::{CounterSpec, CountsKeeper};

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::sleep;

use self::table::TABLE;
use super::nft::{self, NftError};
use super::other_agents;

/// How often an agent that counts nothing looks whether it is alone.
const BETWEEN_LOOKS: Duration = Duration::from_secs(5);

/// The numbers of the last reading. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    last: Arc<Mutex<Option<Reading>>>,
}

/// What was read last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Connections that came as far as nothing on the node could stop, since the table was made.
    pub passed: u64,
    /// Connections that came to the block, since the table was made.
    pub blocked: u64,
    /// Pods that connected in the last day; addresses, where the pods of the node are not known.
    pub pods: usize,
}

impl Numbers {
    /// What was read last; `None` where nothing is counted.
    pub fn last(&self) -> Option<Reading> {
        *self.last.lock()
    }

    fn show(&self, reading: Option<Reading>) {
        *self.last.lock() = reading;
    }
}

/// Removes the table; returns whether there was one. Without `nft` on the node there is none. Nothing goes
/// through it, so that no connection notices.
///
/// # Errors
/// [`NftError`], if `nft` fails.
pub async fn remove() -> Result<bool, NftError> {
    match nft::list(TABLE).await {
        Ok(Some(_)) => nft::write(table::removal()).await.map(|()| true),
        Ok(None) | Err(NftError::Missing) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes what an earlier agent has counted, when this one is alone: the other one may still count.
pub async fn remove_leftover() {
    loop {
        // Until then this agent may not be one of those that are found.
        sleep(BETWEEN_LOOKS).await;
        if !other_agents::is_there_one() {
            break;
        }
    }
    match remove().await {
        Ok(true) => tracing::info!("removed the nftables table that counted for an earlier run"),
        Ok(false) => {}
        Err(error) => tracing::debug!(err = %error, "cannot look for a table that counts"),
    }
}
