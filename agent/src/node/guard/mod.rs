//! The agent's nftables table: it guards the agent's addresses, leads connections from an old agent to a new
//! one, and blocks the instance metadata service.
//!
//! Owns: the table. Must not know: what listens behind the addresses. docs/guard.md tells what the table is
//! for and what it cannot do.
//!
//! ```text
//! places ── keeper ── ownership (pure: who owns it?) ── elements (pure: the transaction) ── nft ── the
//! kernel
//!             ▲                                                                                      │
//!             └────────────────── events, listing (what is in force) ◄───────────────────────────────┘
//! ```

mod answering;
mod elements;
mod events;
mod keeper;
mod listing;
mod note;
mod outcome;
mod ownership;
mod places;
mod spec;
mod switch;
mod table;

pub use keeper::TableKeeper;
pub use outcome::TableConditions;
pub use places::{Place, Places};
pub use spec::{CanAnswer, TableSpec};
pub use switch::{AFTER_TURNING, State, Switch, TableStatus};

use self::table::TABLE;
use super::nft::{self, NftError};
use super::other_agents;

/// Removes the table; returns whether there was one. Without `nft` on the node there is none.
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

/// Takes everything in the table out of force, and leaves the table itself: deleting it would reset open
/// connections to a guard port. Returns whether there was one. That of another agent that is there is left
/// alone.
///
/// # Errors
/// [`NftError`], if `nft` fails.
pub async fn put_out_of_force() -> Result<bool, NftError> {
    // This agent does not answer others yet, so that it finds itself nowhere.
    if other_agents::is_there_any() {
        return Ok(false);
    }
    match nft::list(TABLE).await {
        Ok(Some(_)) => match nft::write(elements::flush()).await {
            Ok(()) => Ok(true),
            // A table of another kind, which has no such maps.
            Err(NftError::Failed(why)) if why.contains("No such file or directory") => remove().await,
            Err(error) => Err(error),
        },
        Ok(None) | Err(NftError::Missing) => Ok(false),
        Err(error) => Err(error),
    }
}
