//! What service accounts were given, and when that ends. Pure.
//!
//! Owns: that an entitlement ends only by two successful reads some time apart. Must not know: how anything
//! is read, or who used a role.
//!
//! A half-written file, a chart that is being upgraded, or a webhook that strips annotations for a moment
//! must not take credentials from pods that run.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use super::settings::RoleSettings;
use crate::clock::BootTime;
use crate::workload::{RoleArn, ServiceAccount};

/// Two reads so far apart end an entitlement (docs/design/decisions.md#entitlement).
const APART: Duration = Duration::from_secs(10);
/// What an annotation that nobody can read may still say counts for so long after the map's entry is gone:
/// sixty good reads of the map, and twenty tries at an API server that is away (at most 30 s between two).
/// Longer would let an entry that an admin took out stay in force where the agent may not read the
/// annotation.
const LONGEST_MISSED: Duration = Duration::from_secs(10 * 60);
/// Grants of one account: today's, and former ones for the pods that have them; four roles for each of eight
/// audiences, which is the most that an agent serves. At the bound the oldest ends that no pod has, else the
/// oldest, for which nothing was read twice.
const MOST_OF_ACCOUNT: usize = 32;

/// Whether something speaks for a grant, by its own successful reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Support {
    /// It does, by the last read.
    Given,
    /// The last reads say that it does not; the first of them was made then.
    Doubted(BootTime),
    /// It does not.
    Gone,
    /// It was not read.
    Unknown,
    /// It was not read, and since then nothing else speaks for the grant.
    Missed(BootTime),
}

/// What a service account was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    /// The role.
    pub(super) role: RoleArn,
    /// The audience of the tokens that it is given for.
    pub(super) audience: Arc<str>,
    /// Whether the role map speaks for it.
    pub(super) map: Support,
    /// Whether the role map gives nothing else, which would win.
    pub(super) no_other_entry: Support,
    /// Whether the annotation speaks for it.
    pub(super) annotation: Support,
    /// Whether the limits allow it.
    pub(super) limits: Support,
    /// Whether what names the role gives it for tokens of this audience. Where it does not any more, the role
    /// is still the account's, and nothing ends: what pods have is theirs until it expires.
    pub(super) tokens: Support,
    /// For tokens of which other audience it was given by the last read.
    pub(super) other_audience: Option<Arc<str>>,
}

/// All grants in force.
#[derive(Debug, Default)]
pub(super) struct Grants {
    accounts: HashMap<ServiceAccount, Vec<Grant>>,
}

impl Support {
    /// What a successful read says that began at that time.
    pub(super) fn read(&mut self, is_given: bool, began: BootTime) {
        *self = match (*self, is_given) {
            (_, true) => Self::Given,
            (Self::Given | Self::Unknown | Self::Missed(_), false) => Self::Doubted(began),
            (Self::Doubted(since), false) if began.since(since) >= APART => Self::Gone,
            (Self::Doubted(since), false) => Self::Doubted(since),
            (Self::Gone, false) => Self::Gone,
        };
    }
}

impl Grant {
    /// Whether the entitlement has ended.
    fn has_ended(&self) -> bool {
        let is_gone = |support: Support| support == Support::Gone;
        is_gone(self.no_other_entry)
            || is_gone(self.limits)
            || (is_gone(self.map) && is_gone(self.annotation))
    }

    /// Whether it is the role that these settings give. How STS is asked decides nothing, and for which
    /// tokens is another question.
    pub(super) fn is_given_by(&self, settings: &RoleSettings) -> bool {
        settings.role == self.role
    }

    /// What names the account's role was read.
    pub(super) fn note_audience(&mut self, settings: &RoleSettings, began: BootTime) {
        if self.is_given_by(settings) {
            let is_for_these = settings.is_for(&self.audience);
            self.tokens.read(is_for_these, began);
            self.other_audience = settings.audience.clone().filter(|_| !is_for_these);
        }
    }

    /// The audience of the tokens that the role is given for by now, if it is not that of the grant.
    pub(super) fn audience_instead(&self) -> Option<&Arc<str>> {
        self.other_audience.as_ref().filter(|_| self.tokens == Support::Gone)
    }

    /// Whether it depends on an annotation that nobody has read.
    fn needs_annotation(&self) -> bool {
        self.map != Support::Given && matches!(self.annotation, Support::Unknown | Support::Missed(_))
    }

    /// Time has passed: what an annotation may say that nobody reads does not count without end.
    pub(super) fn note_time(&mut self, now: BootTime) {
        self.annotation = match (self.annotation, self.map) {
            (Support::Unknown, Support::Gone) => Support::Missed(now),
            (Support::Missed(_), Support::Given | Support::Doubted(_)) => Support::Unknown,
            (Support::Missed(since), _) if now.since(since) >= LONGEST_MISSED => Support::Gone,
            (annotation, _) => annotation,
        };
    }

    /// The same is given anew.
    fn join(&mut self, given: &Self) {
        for (known, given) in [
            (&mut self.map, given.map),
            (&mut self.no_other_entry, given.no_other_entry),
            (&mut self.annotation, given.annotation),
            (&mut self.limits, given.limits),
            (&mut self.tokens, given.tokens),
        ] {
            if given == Support::Given {
                *known = given;
            }
        }
    }
}

impl Grants {
    /// The accounts that were given something.
    pub(super) fn accounts(&self) -> impl ExactSizeIterator<Item = &ServiceAccount> {
        self.accounts.keys()
    }

    /// Whether there are grants of this account.
    pub(super) fn has(&self, account: &ServiceAccount) -> bool {
        self.accounts.contains_key(account)
    }

    /// What the account was given for tokens of this audience.
    pub(super) fn find(&self, account: &ServiceAccount, role: &RoleArn, audience: &str) -> Option<&Grant> {
        let grants = self.accounts.get(account)?;
        grants.iter().find(|grant| grant.role == *role && *grant.audience == *audience)
    }

    /// The account is given this, if it is not already. Returns the grant that had to end for it, one that is
    /// not held if there is one.
    pub(super) fn give(
        &mut self,
        account: &ServiceAccount,
        grant: Grant,
        is_held: impl Fn(&Grant) -> bool,
    ) -> Option<Grant> {
        let grants = match self.accounts.entry(account.clone()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Vec::new()),
        };
        let is_same = |known: &&mut Grant| known.role == grant.role && known.audience == grant.audience;
        if let Some(known) = grants.iter_mut().find(is_same) {
            known.join(&grant);
            return None;
        }
        let ended = (grants.len() >= MOST_OF_ACCOUNT).then(|| {
            let not_held = grants.iter().position(|grant| !is_held(grant));
            grants.remove(not_held.unwrap_or_default())
        });
        grants.push(grant);
        ended
    }

    /// Nothing is known of this account any more, and nothing ends.
    pub(super) fn forget(&mut self, account: &ServiceAccount) {
        self.accounts.remove(account);
    }

    /// Something was read that concerns all accounts, or one. `update` is given each grant of them. Returns
    /// what has ended by that.
    pub(super) fn update(
        &mut self,
        only: Option<&ServiceAccount>,
        mut update: impl FnMut(&ServiceAccount, &mut Grant),
    ) -> Vec<(ServiceAccount, Grant)> {
        let mut ended = Vec::new();
        let mut of_account = |account: &ServiceAccount, grants: &mut Vec<Grant>| {
            grants.iter_mut().for_each(|grant| update(account, grant));
            ended.extend(
                grants.extract_if(.., |grant| grant.has_ended()).map(|grant| (account.clone(), grant)),
            );
        };
        match only {
            Some(account) => {
                if let Some(grants) = self.accounts.get_mut(account) {
                    of_account(account, grants);
                }
            }
            None => self.accounts.iter_mut().for_each(|(account, grants)| of_account(account, grants)),
        }
        self.accounts.retain(|_, grants| !grants.is_empty());
        ended
    }

    /// Whether an account is given this role, for tokens of whatever audience.
    pub(super) fn give_role(&self, account: &ServiceAccount, role: &RoleArn) -> bool {
        self.accounts.get(account).into_iter().flatten().any(|grant| grant.role == *role)
    }

    /// When the annotation of this account decides what was doubted: another read is needed then.
    pub(super) fn annotation_decides_at(&self, account: &ServiceAccount) -> Option<BootTime> {
        let grants = self.accounts.get(account).into_iter().flatten();
        let decides_at = |support: Support| match support {
            Support::Doubted(since) => Some(since.plus(APART)),
            Support::Given | Support::Gone | Support::Unknown | Support::Missed(_) => None,
        };
        grants.flat_map(|grant| [grant.annotation, grant.tokens]).filter_map(decides_at).min()
    }

    /// The accounts of which the annotation is not known, and decides.
    pub(super) fn in_need_of_annotation(&self) -> Vec<ServiceAccount> {
        let needs = |grants: &Vec<Grant>| grants.iter().any(Grant::needs_annotation);
        let accounts = self.accounts.iter().filter(|(_, grants)| needs(grants));
        accounts.map(|(account, _)| account.clone()).collect()
    }
}
