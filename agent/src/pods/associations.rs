//! Which service accounts have an association, as far as AWS's answers to their pods tell. Pure.
//!
//! Owns: for how long such an answer is believed. Must not know: who asked, or what is concluded.

use std::collections::HashMap;

use crate::clock::BootTime;
use crate::workload::ServiceAccountName;

/// More service accounts than pods of a node have; at the bound the one is forgotten that AWS has granted
/// nothing for longest. One takes about 100 bytes.
const MOST_ACCOUNTS: usize = 1_024;
/// So many refusals in a row say that an association is gone, as for a set that is kept
/// (docs/design/decisions.md#entitlement). One alone may be a bad moment of AWS.
const REFUSALS: u8 = 3;

/// Service accounts with an association.
#[derive(Debug, Default)]
pub(super) struct Associations {
    accounts: HashMap<ServiceAccountName, Association>,
}

#[derive(Debug)]
struct Association {
    /// When the last set ends that it gave: nobody renews sets of an association that is gone.
    until: BootTime,
    refusals: u8,
}

impl Associations {
    /// AWS granted a pod of this account a set that lives so long.
    pub(super) fn granted(&mut self, account: ServiceAccountName, until: BootTime) {
        if self.accounts.len() >= MOST_ACCOUNTS && !self.accounts.contains_key(&account) {
            self.forget_oldest();
        }
        self.accounts.insert(account, Association { until, refusals: 0 });
    }

    /// AWS said that this account has no association. That is believed when it was said [`REFUSALS`] times.
    pub(super) fn refused(&mut self, account: &ServiceAccountName) {
        let Some(association) = self.accounts.get_mut(account) else { return };
        association.refusals += 1;
        if association.refusals >= REFUSALS {
            self.accounts.remove(account);
        }
    }

    /// Whether this account has an association.
    pub(super) fn has(&self, account: &ServiceAccountName, now: BootTime) -> bool {
        self.accounts.get(account).is_some_and(|association| now < association.until)
    }

    fn forget_oldest(&mut self) {
        let oldest = self.accounts.iter().min_by_key(|(_, association)| association.until);
        if let Some(account) = oldest.map(|(account, _)| account.clone()) {
            self.accounts.remove(&account);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Associations, MOST_ACCOUNTS};
    use crate::clock::BootTime;
    use crate::workload::ServiceAccountName;

    fn account(namespace: &str, name: &str) -> ServiceAccountName {
        ServiceAccountName { namespace: namespace.into(), name: name.into() }
    }

    fn at(seconds: u64) -> BootTime {
        BootTime::from_boot(Duration::from_secs(seconds))
    }

    #[test]
    fn a_grant_is_believed_as_long_as_its_set_lives() {
        let mut associations = Associations::default();
        associations.granted(account("ns", "sa"), at(100));
        assert!(associations.has(&account("ns", "sa"), at(99)));
        assert!(!associations.has(&account("ns", "sa"), at(100)));
        for another in [account("ns", "other"), account("other", "sa")] {
            assert!(!associations.has(&another, at(99)), "{another:?}");
        }
    }

    #[test]
    fn three_refusals_in_a_row_end_it_and_a_grant_in_between_begins_anew() {
        let mut associations = Associations::default();
        let account = account("ns", "sa");
        associations.refused(&account);
        for _ in 0..2 {
            associations.granted(account.clone(), at(100));
            (0..2).for_each(|_| associations.refused(&account));
            assert!(associations.has(&account, at(1)));
        }
        associations.refused(&account);
        assert!(!associations.has(&account, at(1)));
    }

    #[test]
    fn there_are_1024_and_the_one_without_a_grant_for_longest_makes_room() {
        let mut associations = Associations::default();
        for n in 0..=MOST_ACCOUNTS as u64 {
            associations.granted(account("ns", &n.to_string()), at(100 + n));
        }
        assert_eq!(associations.accounts.len(), 1_024);
        assert!(!associations.has(&account("ns", "0"), at(1)));
        assert!(
            associations.has(&account("ns", "1"), at(1)) && associations.has(&account("ns", "1024"), at(1))
        );
        associations.granted(account("ns", "1"), at(5_000));
        assert!(associations.has(&account("ns", "2"), at(1)), "one that is known takes nobody's room");
    }
}
