//! The agent's nftables table: it guards the agent's addresses and blocks the instance metadata service.
//!
//! Owns: the table, which exists completely or not at all, as the flags say. Must not know: what listens
//! behind the addresses. docs/guard.md tells what the table is for and what it cannot do.
//!
//! ```text
//! table (pure: the JSON) ── keeper ── nft (runs it) ── the kernel ── events ── keeper
//! ```

mod events;
mod keeper;
pub(crate) mod nft;
mod table;

pub use keeper::{RuleConditions, RuleKeeper};
pub use nft::NftError;
pub use table::{Guarded, Rules};

/// Removes the table; returns whether there was one. Without `nft` on the node there is none.
///
/// # Errors
/// [`NftError`], if `nft` fails.
pub async fn remove() -> Result<bool, NftError> {
    match nft::list().await {
        Ok(Some(_)) => nft::write(&table::removal()).await.map(|()| true),
        Ok(None) | Err(NftError::Missing) => Ok(false),
        Err(error) => Err(error),
    }
}
