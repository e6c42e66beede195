//! One service account: what is known of it, who waits for it, and when it is read. Pure.
//!
//! Owns: its place in line, and for how long it is in use. Must not know: other accounts, the rate, or the
//! API server.

use std::time::Duration;

use super::super::Annotated;
use super::super::pause::Pause;
use super::Known;
use crate::clock::BootTime;

/// An answer older than this is renewed when somebody asks.
const STALE: Duration = Duration::from_secs(60);
/// An account is in use for so long after a pod has asked, or its credentials were renewed, which is at the
/// latest an hour after STS gave them: those of pods that are gone, where nobody says so, are not read for
/// longer.
const IN_USE: Duration = Duration::from_secs(2 * 60 * 60);
/// A client keeps its place in line for so long after it was seen: SDKs and applications ask again some
/// seconds after a refusal, and each time a new place at the end would be none.
const PLACE_KEPT: Duration = Duration::from_secs(15);
/// And so long where the account was never read: a whole line takes 512 s (1,024 accounts at two a second).
const NEW_PLACE_KEPT: Duration = Duration::from_secs(10 * 60);

#[derive(Debug)]
pub(super) struct Account {
    pub(super) known: Option<Known>,
    /// When somebody asked, or credentials of a pod were renewed.
    pub(super) asked_at: BootTime,
    /// Since `Register::next` was called last, credentials of a pod were renewed.
    pub(super) is_renewed: bool,
    pub(super) waiting: Option<Waiting>,
    /// There was an answer, or none: a read was made.
    pub(super) was_tried: bool,
    /// It was said that a token lives longer than the annotation says.
    pub(super) was_told_of_token: bool,
    /// All its pods are gone: it is forgotten when the read is over that is under way.
    pub(super) is_gone: bool,
    /// When it is read although nobody waits.
    pub(super) due: Option<BootTime>,
    /// When the read began that is under way.
    pub(super) reading: Option<BootTime>,
    /// The answer about this one has failed.
    pub(super) failed: Pause,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    /// Its place in the order.
    pub(super) since: BootTime,
    /// When somebody last said so.
    pub(super) seen: BootTime,
}

/// Why an account is to be read, the first one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rank {
    /// A pod waits, or did a while ago, and nobody has tried.
    New,
    /// A pod waits.
    Waiting,
    /// It is time.
    Due,
}

impl Account {
    /// Since when it is to be read, or from when on; and why.
    pub(super) fn wish(&self, now: BootTime) -> Option<(BootTime, Rank)> {
        if self.reading.is_some() {
            return None;
        }
        if let Some(waiting) = self.waiting_at(now) {
            return Some((waiting.since, if self.was_tried { Rank::Waiting } else { Rank::New }));
        }
        self.due.map(|due| (due, Rank::Due))
    }

    /// The place in line, which a client that has left keeps for a while.
    pub(super) fn waiting_at(&self, now: BootTime) -> Option<Waiting> {
        let kept = if self.was_tried { PLACE_KEPT } else { NEW_PLACE_KEPT };
        self.waiting.filter(|waiting| now.since(waiting.seen) < kept)
    }

    /// How long tokens are to live by the annotation.
    pub(super) fn token_life(&self) -> Option<Duration> {
        match &self.known.as_ref()?.annotated {
            Annotated::Role(settings) => settings.token_life,
            Annotated::None | Annotated::Invalid(_) => None,
        }
    }

    pub(super) fn is_without_role(&self) -> bool {
        self.known.as_ref().is_some_and(|known| match &known.annotated {
            Annotated::Role(_) => false,
            Annotated::None | Annotated::Invalid(_) => true,
        })
    }

    /// One of its pods asks, or its credentials are renewed. Whether a read is due by that: of an answer that
    /// is old.
    pub(super) fn use_at(&mut self, now: BootTime) -> bool {
        (self.asked_at, self.is_renewed, self.is_gone) = (now, false, false);
        let is_old = self.known.as_ref().is_some_and(|known| now.since(known.began) > STALE);
        let is_due = self.wish(now).is_some_and(|(at, _)| at <= now);
        let is_new_wish = is_old && self.reading.is_none() && !is_due;
        if is_new_wish {
            self.due = Some(now);
        }
        is_new_wish
    }

    pub(super) fn is_in_use(&self, now: BootTime) -> bool {
        now.since(self.asked_at) < IN_USE
    }

    /// There was no answer: others come first now, so that one that always fails holds nobody up.
    pub(super) fn let_others_first(&mut self, now: BootTime) {
        if let Some(waiting) = &mut self.waiting {
            waiting.since = now;
        }
        // Though nobody waits any more: what failed is to be found mended.
        self.due = self.is_in_use(now).then_some(now);
    }
}

impl Rank {
    /// Which comes first, the lowest.
    pub(super) const fn place(self, is_turn_of_others: bool) -> u8 {
        match (self, is_turn_of_others) {
            (Self::New, false) | (Self::Due, true) => 0,
            (Self::Waiting, _) => 1,
            (Self::Due, false) | (Self::New, true) => 2,
        }
    }
}
