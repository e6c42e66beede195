//! The sets of credentials that the agent may sign with, and what AWS said of each. Pure.
//!
//! Owns: which set signs the next call, and what an answer of AWS changes. Must not know: clocks, sources, or
//! how a call is made.
//!
//! An answer counts for the set that signed its call, never for the one that is newest when the answer
//! arrives: with twenty calls under way across a rotation, twenty rejections of the old set arrive after the
//! new one was loaded. So a call carries a [`SigningCredentials`], and no answer can be reported without it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;

use crate::aws::answer_log::Signer;
use crate::clock::{BootTime, Now};

/// The newest set, the one that AWS accepted last, and one more: a file may change twice before a call.
const MAX_SETS: usize = 3;
/// So many rejections in a row end an accepted set. A single 403 after accepted calls is more often a front
/// end of AWS that lags, or a proxy, than the end of the set.
const REJECTIONS_THAT_COUNT: u32 = 2;
/// While every set is rejected, an older one than the newest is tried again once in this time.
const OLDER_SET_RETRY: Duration = Duration::from_secs(2);
/// So long after a rejection the source is read more often than usual.
const DOUBT_LASTS: Duration = Duration::from_secs(30);

/// All sets, newest first. "Newest" is what the source gave last.
#[derive(Default)]
pub(super) struct Candidates {
    sets: Vec<Candidate>,
    sets_seen: u64,
    calls_signed: u64,
    /// The latest signed call that AWS accepted, whichever set it was signed with.
    accepted_call: u64,
    /// Rejections of calls signed after that one.
    rejected_in_a_row: u32,
    rejected_at: Option<BootTime>,
}

struct Candidate {
    id: u64,
    credentials: Credentials,
    /// What admins know its source by.
    source: Arc<str>,
    status: Status,
    /// The latest signed call with this set that AWS accepted; 0: none.
    accepted_call: u64,
}

/// What AWS said of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Untried,
    /// Accepted, and so often rejected since.
    Accepted {
        rejections: u32,
    },
    /// Rejected; last tried at this time.
    Rejected {
        tried_at: BootTime,
    },
}

/// The credentials that one call is signed with. The answer to that call is reported with it.
#[must_use = "the answer of AWS is reported with it"]
pub struct SigningCredentials {
    set: u64,
    call: u64,
    credentials: Credentials,
    source: Arc<str>,
}

/// How the source should be read next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// If it has changed.
    Changes,
    /// Even if it looks unchanged, but not while it is being written: another set still serves.
    Anew,
    /// At once, whatever its state: there is nothing to lose.
    AtOnce,
}

impl Candidates {
    /// The source of this name gave this set. Whether it was not known yet.
    pub(super) fn offer(&mut self, credentials: Credentials, source: Arc<str>, now: Now) -> bool {
        let known = self.sets.iter().position(|set| is_same(&set.credentials, &credentials));
        let (set, is_new) = match known {
            Some(index) => {
                // Its expiry may have been moved; what AWS said of it stands.
                let known = self.sets.remove(index);
                (Candidate { credentials, source, ..known }, false)
            }
            None => {
                self.sets_seen += 1;
                let status = Status::Untried;
                (Candidate { id: self.sets_seen, credentials, source, status, accepted_call: 0 }, true)
            }
        };
        self.sets.insert(0, set);
        self.forget_one_too_many(now);
        is_new
    }

    /// The credentials for the next call: the newest set that was not rejected. If all were, the newest, and
    /// now and then an older one: a rejection may have been a mistake. `None`: there is none that has not
    /// expired.
    pub(super) fn sign(&mut self, now: Now) -> Option<SigningCredentials> {
        let index = self.best(now)?;
        self.calls_signed += 1;
        let call = self.calls_signed;
        let set = self.sets.get_mut(index)?;
        if let Status::Rejected { tried_at } = &mut set.status {
            // One call tries it, not all that are made until the answer is here.
            *tried_at = now.boot;
        }
        let (credentials, source) = (set.credentials.clone(), Arc::clone(&set.source));
        Some(SigningCredentials { set: set.id, call, credentials, source })
    }

    /// AWS accepted the call. This counts whenever it arrives: the set was good when AWS looked at it.
    pub(super) fn accepted(&mut self, signed: &SigningCredentials) {
        self.accepted_call = self.accepted_call.max(signed.call);
        self.rejected_in_a_row = 0;
        let Some(index) = self.sets.iter().position(|set| set.id == signed.set) else { return };
        let Some(set) = self.sets.get_mut(index) else { return };
        set.accepted_call = set.accepted_call.max(signed.call);
        set.status = Status::Accepted { rejections: 0 };
        // Older sets that AWS rejected are of no use any more.
        let mut place = 0;
        self.sets.retain(|set| {
            place += 1;
            place <= index + 1 || !set.status.is_rejected()
        });
    }

    /// AWS rejected the call because of the credentials that signed it. Whether the source should be read.
    pub(super) fn rejected(&mut self, signed: &SigningCredentials, at: BootTime) -> bool {
        if signed.call > self.accepted_call {
            self.rejected_in_a_row = self.rejected_in_a_row.saturating_add(1);
        }
        let Some(set) = self.sets.iter_mut().find(|set| set.id == signed.set) else { return false };
        if signed.call < set.accepted_call {
            // A later call with the same set was accepted: this answer is out of date.
            return false;
        }
        set.status = match set.status {
            Status::Accepted { rejections } if rejections + 1 < REJECTIONS_THAT_COUNT => {
                Status::Accepted { rejections: rejections + 1 }
            }
            Status::Untried | Status::Accepted { .. } | Status::Rejected { .. } => {
                Status::Rejected { tried_at: at }
            }
        };
        self.rejected_at = Some(at);
        self.reading(at) != Reading::Changes
    }

    /// Whether the last answers of AWS were rejections.
    pub(super) const fn is_rejected(&self) -> bool {
        self.rejected_in_a_row >= REJECTIONS_THAT_COUNT
    }

    /// How the source should be read.
    pub(super) fn reading(&self, at: BootTime) -> Reading {
        let is_recent = self.rejected_at.is_some_and(|rejected| at.since(rejected) < DOUBT_LASTS);
        let is_newest_doubted = self.sets.first().is_some_and(|set| match set.status {
            Status::Untried | Status::Accepted { rejections: 0 } => false,
            Status::Accepted { .. } | Status::Rejected { .. } => true,
        });
        if !is_recent || !is_newest_doubted {
            Reading::Changes
        } else if self.sets.iter().any(|set| !set.status.is_rejected()) {
            Reading::Anew
        } else {
            Reading::AtOnce
        }
    }

    /// Whether there is a set that has not expired.
    pub(super) fn has_unexpired(&self, now: Now) -> bool {
        self.sets.iter().any(|set| set.is_unexpired(now))
    }

    /// When the set expires that signs at present, if it has an expiry.
    pub(super) fn expires(&self, now: Now) -> Option<SystemTime> {
        self.sets.get(self.best(now)?)?.credentials.expiry()
    }

    /// What admins know the source of the set by that signs at present.
    pub(super) fn source(&self, now: Now) -> Option<Arc<str>> {
        Some(Arc::clone(&self.sets.get(self.best(now)?)?.source))
    }

    /// When the newest set expires, if it has an expiry.
    pub(super) fn newest_expires(&self) -> Option<SystemTime> {
        self.sets.first()?.credentials.expiry()
    }

    /// Who would sign the next call.
    pub(super) fn signer(&self, now: Now) -> Option<Signer> {
        let set = self.sets.get(self.best(now)?)?;
        let access_key_id = set.credentials.access_key_id().into();
        Some(Signer { source: Arc::clone(&set.source), access_key_id })
    }

    fn best(&self, now: Now) -> Option<usize> {
        let mut unexpired = self.sets.iter().enumerate().filter(|(_, set)| set.is_unexpired(now));
        let (newest, first) = unexpired.next()?;
        let Status::Rejected { tried_at: newest_tried_at } = first.status else { return Some(newest) };
        let older: Vec<_> = unexpired.collect();
        let good = older.iter().find(|(_, set)| !set.status.is_rejected());
        // In turn: on a quiet node each call comes later than that, and the newest would never sign again.
        let rested = || older.iter().find(|(_, set)| set.status.is_its_turn(now.boot, newest_tried_at));
        Some(good.or_else(rested).map_or(newest, |(index, _)| *index))
    }

    /// Keeps the bound. The newest never goes; one that has expired goes first, whatever AWS said of it, then
    /// a rejected, then an untried, then an accepted one. Without that the set that was good until a bad day
    /// of AWS made room for the next, while older ones that had expired stayed; and where the next one was
    /// not good yet, nothing was left to sign with (story 2122).
    fn forget_one_too_many(&mut self, now: Now) {
        if self.sets.len() <= MAX_SETS {
            return;
        }
        let worst = self.sets.iter().enumerate().skip(1).min_by_key(|(index, set)| {
            let worth = match set.status {
                _ if !set.is_unexpired(now) => 0,
                Status::Rejected { .. } => 1,
                Status::Untried => 2,
                Status::Accepted { .. } => 3,
            };
            (worth, usize::MAX - index)
        });
        if let Some((index, _)) = worst {
            self.sets.remove(index);
        }
    }
}

impl Candidate {
    fn is_unexpired(&self, now: Now) -> bool {
        self.credentials.expiry().is_none_or(|expiry| !now.is_surely_past(expiry))
    }
}

impl Status {
    const fn is_rejected(self) -> bool {
        match self {
            Self::Rejected { .. } => true,
            Self::Untried | Self::Accepted { .. } => false,
        }
    }

    /// Whether an older set than the newest is tried now, which was last tried at `newest_tried_at`.
    fn is_its_turn(self, at: BootTime, newest_tried_at: BootTime) -> bool {
        match self {
            Self::Rejected { tried_at } => {
                at.since(tried_at) >= OLDER_SET_RETRY && tried_at <= newest_tried_at
            }
            Self::Untried | Self::Accepted { .. } => true,
        }
    }
}

impl SigningCredentials {
    /// What to sign with.
    pub const fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Their names.
    pub fn signer(&self) -> Signer {
        let access_key_id = self.credentials.access_key_id().into();
        Signer { source: Arc::clone(&self.source), access_key_id }
    }
}

/// The same secrets, whatever is said of their expiry.
fn is_same(one: &Credentials, other: &Credentials) -> bool {
    one.access_key_id() == other.access_key_id()
        && one.secret_access_key() == other.secret_access_key()
        && one.session_token() == other.session_token()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use aws_credential_types::Credentials;

    use super::{Candidates, MAX_SETS, Reading, SigningCredentials};
    use crate::clock::{BootTime, Now};

    fn at(seconds: u64) -> Now {
        let since = Duration::from_secs(seconds);
        Now::confirmed(UNIX_EPOCH + since, BootTime::from_boot(since))
    }

    fn set(key: &str, expires: Option<SystemTime>) -> Credentials {
        Credentials::new(key, "secret", None, expires, "test")
    }

    /// What happens, one letter each. `A`..`C`: the source gives this set. `s`: a call is signed. `+n` and
    /// `-n`: the n-th call signed is accepted, rejected. `.`: three seconds pass.
    fn play(story: &str) -> (Candidates, Vec<SigningCredentials>, Now) {
        let (mut candidates, mut signed, mut now) = (Candidates::default(), Vec::new(), 100);
        let mut events = story.chars().filter(|c| !c.is_whitespace());
        while let Some(event) = events.next() {
            match event {
                'A'..='Z' => {
                    let newest = set(&event.to_string(), None);
                    candidates.offer(newest, "test".into(), at(now));
                }
                's' => signed.push(candidates.sign(at(now)).unwrap()),
                '.' => now += 3,
                '+' | '-' => {
                    let call =
                        &signed[usize::try_from(events.next().unwrap().to_digit(10).unwrap()).unwrap()];
                    match event {
                        '+' => candidates.accepted(call),
                        _ => drop(candidates.rejected(call, at(now).boot)),
                    }
                }
                other => panic!("{other}"),
            }
        }
        (candidates, signed, at(now))
    }

    #[test]
    fn which_set_signs_after_what() {
        let cases = [
            ("the only one", "A", "A"),
            ("the newest, before AWS said anything of it", "A s+0 B", "B"),
            ("a rejection of the old one says nothing of the new one", "A ssss B -0-1-2-3", "B"),
            ("nor does it when the new one was accepted meanwhile", "A ss B s+2 -0-1", "B"),
            ("a new one that is rejected at once: back to the accepted one", "A s+0 B s-1", "A"),
            ("and the new one again once it proves good after all", "A s+0 B ss -1 +2", "B"),
            ("an accepted one survives one rejection", "A s+0 B s+1 s-2", "B"),
            ("but not two in a row", "A s+0 B s+1 ss-2-3", "A"),
            ("rejections before an acceptance do not add up", "A s+0 B s+1 s-2 s+3 s-4", "B"),
            ("a rejection of a call signed before an accepted one is out of date", "A s+0 B sss+3 -1-2", "B"),
            ("nothing better: the newest goes on signing", "A s-0", "A"),
            ("a transient rejection after the old one has lapsed", "A s+0 ss-1-2 B s-3", "B"),
            ("an older rejected one is tried again after a while", "A s+0 ss-1-2 B s-3 .", "A"),
            ("by one call, not by all", "A s+0 ss-1-2 B s-3 . s", "B"),
            ("and the newest before it again, however seldom calls are", "A s+0 ss-1-2 B s-3 . s-4 .", "B"),
            ("in turn", "A s+0 ss-1-2 B s-3 . s-4 . s-5 .", "A"),
            ("an unchanged source changes nothing", "A s+0 B s-1 B", "A"),
            ("a source that goes back is followed", "A s+0 B s+1 A", "A"),
            (
                "an acceptance counts even if it comes after the rejection of a later call",
                "A s+0 B ss-2 +1",
                "B",
            ),
        ];
        for (what, story, expected) in cases {
            let (mut candidates, _signed, now) = play(story);
            let signs = candidates.sign(now).unwrap();
            assert_eq!(&*signs.signer().access_key_id, expected, "{what}: {story}");
        }
    }

    #[test]
    fn when_the_last_answers_were_rejections() {
        let cases = [
            ("A", false),
            ("A s-0", false),
            ("A ss-0-1", true),
            ("A s-0 B s-1", true),
            ("A ss-0-1 s+2", false),
            // Of the calls before a rotation some are answered after the new set was accepted.
            ("A sss B s+3 -0-1-2", false),
        ];
        for (story, expected) in cases {
            assert_eq!(play(story).0.is_rejected(), expected, "{story}");
        }
    }

    #[test]
    fn how_the_source_is_read_after_what() {
        let cases = [
            ("A", Reading::Changes),
            ("A s+0", Reading::Changes),
            ("A s+0 s-1", Reading::Anew),
            ("A s+0 ss-1-2", Reading::AtOnce),
            ("A s-0", Reading::AtOnce),
            ("A s+0 B s-1", Reading::Anew),
            // The newest is untried: the source has given what it has.
            ("A s+0 ss-1-2 B", Reading::Changes),
            ("A s-0 ..........", Reading::Changes),
        ];
        for (story, expected) in cases {
            let (candidates, _signed, now) = play(story);
            assert_eq!(candidates.reading(now.boot), expected, "{story}");
        }
    }

    #[test]
    fn expired_sets_do_not_sign_and_an_expiry_can_be_moved() {
        let mut candidates = Candidates::default();
        assert!(candidates.sign(at(0)).is_none());
        candidates.offer(set("A", Some(at(10).wall)), "test".into(), at(0));
        assert!(candidates.sign(at(9)).is_some() && candidates.sign(at(10)).is_none());
        assert!(!candidates.has_unexpired(at(10)));
        assert!(!candidates.offer(set("A", Some(at(20).wall)), "test".into(), at(10)), "the same set");
        assert_eq!(candidates.expires(at(10)), Some(at(20).wall));
        // An older one without an end serves when the newest has expired.
        candidates.offer(set("B", None), "test".into(), at(10));
        candidates.offer(set("C", Some(at(15).wall)), "test".into(), at(10));
        assert_eq!(&*candidates.sign(at(16)).unwrap().signer().access_key_id, "B");
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_accepted_set_stays_longest() {
        let (mut candidates, _signed, now) = play("A s+0 B C D E F");
        assert_eq!(candidates.sets.len(), MAX_SETS);
        let signed = candidates.sign(now).unwrap();
        assert_eq!(&*signed.signer().access_key_id, "F");
        candidates.rejected(&signed, now.boot);
        let signed = candidates.sign(now).unwrap();
        assert_eq!(&*signed.signer().access_key_id, "E");
        candidates.rejected(&signed, now.boot);
        assert_eq!(&*candidates.sign(now).unwrap().signer().access_key_id, "A");
    }

    /// AWS rejects everybody for a while, and the next set is given meanwhile, which AWS does not know yet.
    #[test]
    fn an_expired_set_makes_room_before_one_that_aws_rejected_on_a_bad_day() {
        let mut candidates = Candidates::default();
        for (key, given, expires) in [("A", 0, 1_000), ("B", 900, 2_000), ("C", 1_900, 6_000)] {
            candidates.offer(set(key, Some(at(expires).wall)), "test".into(), at(given));
            let signed = candidates.sign(at(given)).unwrap();
            candidates.accepted(&signed);
        }
        let bad_day = at(3_000);
        for _ in 0..2 {
            let signed = candidates.sign(bad_day).unwrap();
            candidates.rejected(&signed, bad_day.boot);
        }
        candidates.offer(set("D", Some(at(9_000).wall)), "test".into(), at(3_001));
        assert_eq!(candidates.sets.len(), MAX_SETS);
        let signed = candidates.sign(at(3_003)).unwrap();
        candidates.rejected(&signed, at(3_003).boot);
        let signers: Vec<String> =
            (0..2).map(|_| candidates.sign(at(3_006)).unwrap().signer().access_key_id.to_string()).collect();
        assert_eq!(signers, ["C", "D"]);
    }
}
