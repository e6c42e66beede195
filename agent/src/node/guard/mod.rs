//! Our nftables table: the guard of our addresses, and the block of the instance's metadata.
//!
//! Owns: that the table is there as its flags say, whole or not at all, and gone when no flag asks for it. Must not know:
//! who listens behind it. See docs/guard.md for what it is good for and what it cannot do.
//!
//! ```text
//! table (pure: the JSON) ── keep ── nft (runs it) ── the kernel ── events ── keep
//! ```

mod events;
mod keeper;
mod nft;
mod table;

pub use keeper::{RuleConditions, RuleKeeper};
pub use nft::NftError;
pub use table::{Guarded, Rules};

/// Removes the table; returns whether there was one. Where there is no `nft` there is none.
///
/// # Errors
/// [`NftError`], if `nft` cannot do it.
pub async fn remove() -> Result<bool, NftError> {
    match nft::list().await {
        Ok(Some(_)) => nft::write(&table::removal()).await.map(|()| true),
        Ok(None) | Err(NftError::Missing) => Ok(false),
        Err(error) => Err(error),
    }
}
