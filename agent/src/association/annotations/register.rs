//! Which service accounts are known, and which is read next. Pure.
//!
//! Owns: what was read last of each, when it is read again, the rate, and the order. Must not know: what
//! follows from an annotation.

mod account;
mod refusal;

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use self::account::{Account, Rank, Waiting};
use self::refusal::Refusal;
use super::pause::Pause;
use super::{Annotated, Answer};
use crate::backoff::Backoff;
use crate::clock::BootTime;
use crate::rng::Rng;
use crate::workload::ServiceAccount;

/// More service accounts than the pods of a node have; at the bound the one is forgotten that was asked for
/// longest ago. One takes about 300 bytes.
pub(in crate::association) const MOST_ACCOUNTS: usize = 1_024;
/// Reads in [`OVERALL`]: of a cluster of 1,000 nodes no more than 2,000 a second reach the API server.
const MOST_READS: usize = 2;
const OVERALL: Duration = Duration::from_secs(1);
/// As many as begin while the slowest has its answer: two a second, for 5 s.
const MOST_UNDER_WAY: usize = 10;
/// An account is read again after this time although nobody asks, give or take a fifth, so that renewals
/// notice an annotation that is gone; but only while it is in use.
const AGAIN: Duration = Duration::from_secs(10 * 60);
/// That an account has no role is remembered so long: its admin may be about to annotate it.
const NO_ROLE_COUNTS: Duration = Duration::from_secs(5);
/// And longer where there are many of them, up to this: a second for each one. So their pods, which ask
/// without end, take half of the reads, and a new pod finds a short line.
const NO_ROLE_COUNTS_AT_MOST: Duration = Duration::from_secs(60);
/// One that nobody has asked for in this time is none of the many.
const ASKED_LATELY: Duration = Duration::from_secs(60);
/// After so many reads in a row for pods that wait, one is for the others: pods without a role that ask all
/// the time must not keep the agent from noticing that another annotation is gone, nor many new accounts a
/// pod that waits for an account to be read again.
const FIRST_IN_ROW: u8 = 3;
/// Where the API server fails, or the answer about one account. Jittered: all nodes see that at once.
const AFTER_FAILURES: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
/// What was read last of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::association) struct Known {
    /// What it is annotated with.
    pub(in crate::association) annotated: Annotated,
    /// When that read began: what changed before is in it.
    pub(in crate::association) began: BootTime,
    /// For how long it counts since then that the account has no role.
    pub(in crate::association) no_role_counts: Duration,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::association) enum Next {
    /// Read this account. [`Register::note`] must follow.
    Read(ServiceAccount),
    /// Look again after this time, or when something has changed.
    Wait(Duration),
    /// Look again when something has changed.
    Idle,
}

/// The accounts.
#[derive(Debug, Default)]
pub(in crate::association) struct Register {
    accounts: HashMap<ServiceAccount, Account>,
    under_way: usize,
    /// When the last reads began, [`MOST_READS`] at most.
    recent: VecDeque<BootTime>,
    /// Reads in a row for pods that wait.
    first_in_row: u8,
    /// The API server has failed.
    failed: Pause,
    /// By namespace; no more than there are accounts.
    forbidden: HashMap<Box<str>, Refusal>,
    last_answer: Option<BootTime>,
    has_new_wish: bool,
}

impl Register {
    /// Somebody asks for an account. What is known of it, if anything; it is read again in the background
    /// where that is old. At the bound another account is forgotten, and returned.
    pub(in crate::association) fn ask(&mut self, account: &ServiceAccount, now: BootTime) -> Option<&Known> {
        let entry = self.accounts.get_mut(account)?;
        self.has_new_wish |= entry.use_at(now);
        entry.known.as_ref()
    }

    /// Credentials of one of its pods are renewed: whether it still gives the role is to be known. From now
    /// on.
    pub(in crate::association) fn note_renewal(&mut self, account: &ServiceAccount) {
        if let Some(entry) = self.accounts.get_mut(account) {
            entry.is_renewed = true;
            self.has_new_wish = true;
        }
    }

    /// Enters an account that is not known. At the bound another one is forgotten, and returned.
    pub(in crate::association) fn enter(
        &mut self,
        account: &ServiceAccount,
        now: BootTime,
    ) -> Option<ServiceAccount> {
        if let Some(entry) = self.accounts.get_mut(account) {
            entry.is_gone = false;
            return None;
        }
        let forgotten = (self.accounts.len() >= MOST_ACCOUNTS).then(|| self.forget_one()).flatten();
        let failed = Pause::default();
        let entry = Account {
            known: None,
            asked_at: now,
            is_renewed: false,
            waiting: None,
            was_tried: false,
            was_told_of_token: false,
            is_gone: false,
            due: None,
            reading: None,
            failed,
        };
        self.accounts.insert(account.clone(), entry);
        forgotten
    }

    fn forget_one(&mut self) -> Option<ServiceAccount> {
        let oldest = self.accounts.iter().min_by_key(|(_, entry)| entry.asked_at)?.0.clone();
        if self.accounts.remove(&oldest).is_some_and(|entry| entry.reading.is_some()) {
            self.under_way -= 1;
        }
        self.forget_namespaces();
        Some(oldest)
    }

    fn forget_namespaces(&mut self) {
        let accounts = &self.accounts;
        self.forbidden.retain(|namespace, _| accounts.keys().any(|account| account.namespace == *namespace));
    }

    /// All pods of an account are gone.
    pub(in crate::association) fn forget(&mut self, account: &ServiceAccount) {
        let Some(entry) = self.accounts.get_mut(account) else { return };
        if entry.reading.is_some() {
            entry.is_gone = true;
            return;
        }
        self.accounts.remove(account);
        self.forget_namespaces();
    }

    /// Somebody waits for an account to be read from now on. To be repeated while that is so.
    pub(in crate::association) fn wait_for(&mut self, account: &ServiceAccount, now: BootTime) {
        let Some(entry) = self.accounts.get_mut(account) else { return };
        let since = entry.waiting_at(now).map_or(now, |waiting| waiting.since);
        entry.waiting = Some(Waiting { since, seen: now });
        self.has_new_wish = true;
    }

    /// Has an account read at that time, unless it is read before.
    pub(in crate::association) fn read_at(&mut self, account: &ServiceAccount, at: BootTime) {
        let Some(entry) = self.accounts.get_mut(account) else { return };
        entry.due = Some(entry.due.map_or(at, |due| due.min(at)));
        self.has_new_wish = true;
    }

    /// What is known of an account.
    pub(in crate::association) fn known(&self, account: &ServiceAccount) -> Option<&Known> {
        self.accounts.get(account)?.known.as_ref()
    }

    /// A pod of an account has a token with this life. If the annotation says less, what it says; once for
    /// each account.
    pub(in crate::association) fn note_token_life(
        &mut self,
        account: &ServiceAccount,
        life: Duration,
    ) -> Option<Duration> {
        let entry = self.accounts.get_mut(account)?;
        let annotated = entry.token_life().filter(|annotated| life > *annotated)?;
        let is_news = !std::mem::replace(&mut entry.was_told_of_token, true);
        is_news.then_some(annotated)
    }

    /// Whether there is a wish that [`Register::next`] does not know of; from now on it does.
    pub(in crate::association) const fn take_new_wish(&mut self) -> bool {
        std::mem::replace(&mut self.has_new_wish, false)
    }

    /// Whether the agent may not read this account, by the last answer, and will not try for a while.
    pub(in crate::association) fn is_forbidden(&self, account: &ServiceAccount, now: BootTime) -> bool {
        self.forbidden.get(&account.namespace).is_some_and(|refusal| refusal.pause.until(now).is_some())
    }

    /// Of how many namespaces the agent may not read service accounts.
    pub(in crate::association) fn forbidden_namespaces(&self) -> usize {
        self.forbidden.len()
    }

    /// Whether the API server has answered a read at that time or later.
    pub(in crate::association) fn has_answered_since(&self, at: BootTime) -> bool {
        self.last_answer.is_some_and(|answered| answered >= at)
    }

    /// What is to be done next. A read counts as begun.
    pub(in crate::association) fn next(&mut self, now: BootTime) -> Next {
        self.has_new_wish = false;
        for entry in self.accounts.values_mut().filter(|entry| entry.is_renewed) {
            entry.use_at(now);
        }
        let most = if self.failed.is_trial() { 1 } else { MOST_UNDER_WAY };
        if self.under_way >= most {
            return Next::Idle;
        }
        let (account, rank) = match self.first(now) {
            Ok((account, rank)) => (account.clone(), rank),
            Err(Some(later)) => return Next::Wait(later.since(now)),
            Err(None) => return Next::Idle,
        };
        if let Some(until) = self.failed.until(now).or_else(|| self.next_by_rate(now)) {
            return Next::Wait(until.since(now));
        }
        self.begin(&account, rank, now);
        Next::Read(account)
    }

    /// The account that is read first, and why; else when the next one comes.
    fn first(&self, now: BootTime) -> Result<(&ServiceAccount, Rank), Option<BootTime>> {
        let is_turn_of_others = self.first_in_row >= FIRST_IN_ROW;
        let (mut first, mut later): (Option<(_, &ServiceAccount, Rank)>, Option<BootTime>) = (None, None);
        for (account, entry) in &self.accounts {
            let Some((at, rank)) = entry.wish(now) else { continue };
            let refusal = self.forbidden.get(&account.namespace);
            let pauses = [refusal.and_then(|refusal| refusal.until(rank, now)), entry.failed.until(now)];
            let from = pauses.into_iter().flatten().fold(at, BootTime::max);
            if now < from {
                later = Some(later.map_or(from, |later| later.min(from)));
                continue;
            }
            // By name among those of one moment, so that it is not the order of a hash that decides.
            let place = (rank.place(is_turn_of_others), at, account);
            if first.is_none_or(|(before, ..)| place < before) {
                first = Some((place, account, rank));
            }
        }
        first.map(|(_, account, rank)| (account, rank)).ok_or(later)
    }

    fn next_by_rate(&self, now: BootTime) -> Option<BootTime> {
        let oldest = self.recent.front().filter(|_| self.recent.len() >= MOST_READS)?;
        let next = oldest.plus(OVERALL);
        (now < next).then_some(next)
    }

    fn begin(&mut self, account: &ServiceAccount, rank: Rank, now: BootTime) {
        let was_turn_of_others = self.first_in_row >= FIRST_IN_ROW;
        self.first_in_row =
            if was_turn_of_others || rank == Rank::Due { 0 } else { self.first_in_row.saturating_add(1) };
        self.recent.push_back(now);
        if self.recent.len() > MOST_READS {
            self.recent.pop_front();
        }
        self.under_way += 1;
        if let Some(entry) = self.accounts.get_mut(account) {
            entry.reading = Some(now);
        }
    }

    /// The more accounts without a role pods ask for, the longer it counts that one has none.
    fn space_without_role(&mut self, account: &ServiceAccount, now: BootTime) {
        let is_asked_for = |entry: &&Account| now.since(entry.asked_at) < ASKED_LATELY;
        let all = self.accounts.values().filter(is_asked_for).filter(|entry| entry.is_without_role()).count();
        let seconds = u64::try_from(all).unwrap_or(u64::MAX);
        if let Some(known) = self.accounts.get_mut(account).and_then(|entry| entry.known.as_mut()) {
            known.no_role_counts = Duration::from_secs(seconds).clamp(NO_ROLE_COUNTS, NO_ROLE_COUNTS_AT_MOST);
        }
    }

    /// A read has ended. Whether its kind of answer is new: the first failure in a row, or the first answer
    /// after one.
    pub(in crate::association) fn note(
        &mut self,
        account: &ServiceAccount,
        answer: &Answer,
        now: BootTime,
        rng: &Rng,
    ) -> bool {
        let is_new = self.note_answer(account, answer, now, rng);
        if self.accounts.get(account).is_some_and(|entry| entry.is_gone) {
            self.forget(account);
        }
        is_new
    }

    fn note_answer(&mut self, account: &ServiceAccount, answer: &Answer, now: BootTime, rng: &Rng) -> bool {
        let Some(entry) = self.accounts.get_mut(account) else { return false };
        let Some(began) = entry.reading.take() else { return false };
        self.under_way -= 1;
        entry.was_tried = true;
        match answer {
            Answer::Annotated(annotated) => {
                let no_role_counts = NO_ROLE_COUNTS;
                entry.known = Some(Known { annotated: annotated.clone(), began, no_role_counts });
                entry.waiting = None;
                let again = now.plus(AGAIN.mul_f64(0.8 + 0.4 * rng.fraction()));
                entry.due = entry.is_in_use(now).then_some(again);
                entry.failed.end();
                self.last_answer = Some(now);
                let was_forbidden = self.forbidden.remove(&account.namespace).is_some();
                let had_failed = self.failed.is_trial();
                self.failed.end();
                self.space_without_role(account, now);
                was_forbidden || had_failed
            }
            Answer::Forbidden => {
                entry.let_others_first(now);
                self.last_answer = Some(now);
                self.failed.end();
                let is_new = !self.forbidden.contains_key(&account.namespace);
                self.forbidden.entry(account.namespace.clone()).or_default().note(now, rng);
                is_new
            }
            Answer::Failed => {
                entry.let_others_first(now);
                entry.failed.begin(AFTER_FAILURES, now, rng);
                let is_new = !self.failed.is_trial();
                self.failed.begin(AFTER_FAILURES, now, rng);
                is_new
            }
        }
    }
}

#[cfg(test)]
mod tests;
