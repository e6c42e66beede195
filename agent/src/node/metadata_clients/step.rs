//! What has to be written to the table. Pure.
//!
//! Owns: that decision. Must not know: how it is written.
//!
//! Two agents are on a node during an update, and may differ in what they count. So only the owner of the
//! guard's table writes this one; where that table is not kept, only an agent that is alone. Everybody reads.

use super::listing::Counted;
use super::table::sets_of;
use crate::config::ImdsBlock;
use crate::node::guard::TableStatus;

/// What has to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Nothing,
    /// Make the table.
    Create,
    /// Make it anew.
    Replace,
    /// Write what is in force again.
    Renew,
}

/// Whether this agent may write.
pub(super) fn may_write(status: TableStatus, is_alone: impl FnOnce() -> bool) -> bool {
    match status {
        TableStatus::Owner => true,
        TableStatus::StoodBack => false,
        TableStatus::None => is_alone(),
    }
}

/// `is_due`: whether what is in force has to last longer.
pub(super) fn next(counted: Option<&Counted>, mode: ImdsBlock, is_due: bool) -> Step {
    let Some(counted) = counted else { return Step::Create };
    let desired = sets_of(mode).unwrap_or_default();
    match (counted.is_whole, counted.in_force == desired && !is_due) {
        (false, _) => Step::Replace,
        (true, false) => Step::Renew,
        (true, true) => Step::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::{Step, may_write, next};
    use crate::config::ImdsBlock;
    use crate::node::guard::TableStatus;
    use crate::node::metadata_clients::listing::Counted;

    #[test]
    fn the_owner_writes_and_without_one_an_agent_that_is_alone() {
        for (status, is_alone, may) in [
            (TableStatus::Owner, false, true),
            (TableStatus::Owner, true, true),
            (TableStatus::StoodBack, true, false),
            (TableStatus::None, true, true),
            (TableStatus::None, false, false),
        ] {
            assert_eq!(may_write(status, || is_alone), may, "{status:?}, alone: {is_alone}");
        }
    }

    #[test]
    fn a_table_with_counts_is_kept_and_one_that_is_not_whole_is_made_anew() {
        let of = |is_whole, in_force: &[&'static str]| Counted {
            is_whole,
            in_force: in_force.to_vec(),
            ..Counted::default()
        };
        let observing = of(true, &["passing_ipv4", "passing_ipv6"]);
        assert_eq!(next(None, ImdsBlock::Observe, false), Step::Create);
        assert_eq!(next(Some(&observing), ImdsBlock::Observe, false), Step::Nothing);
        assert_eq!(next(Some(&observing), ImdsBlock::Observe, true), Step::Renew);
        assert_eq!(next(Some(&observing), ImdsBlock::On, false), Step::Renew);
        assert_eq!(next(Some(&of(true, &[])), ImdsBlock::Observe, false), Step::Renew, "it has lapsed");
        assert_eq!(next(Some(&of(false, &[])), ImdsBlock::Observe, false), Step::Replace);
    }
}
