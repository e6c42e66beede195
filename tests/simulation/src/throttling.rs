//! What AWS sees of the agent's share: how often it must refuse, and who is called for first.
//!
//! Owns: the bounds of invariant 5 in AWS's own terms. Must not know: how the agent keeps to them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Calls of one agent at most, whatever happens (docs/design/decisions.md#upstream): under way, or refused a
/// moment ago and about to be made again.
pub const MOST_CALLS: u32 = 50;
/// So soon a refused call is made again at the latest.
const ABOUT_TO_ASK: Duration = Duration::from_secs(2);
/// So long after AWS has begun to throttle the agent must have come down.
const TO_COME_DOWN: Duration = Duration::from_secs(10);
/// What is counted at a time.
const WINDOW: Duration = Duration::from_secs(10);
/// AWS has stopped throttling after this long without.
const CALM: Duration = Duration::from_secs(5);
/// Of its calls so many may be refused for each that is granted, once it has come down ...
const REFUSED_PER_GRANT: usize = 2;
/// ... and a few more, because a call that asks whether the throttling is over must be made.
const ATTEMPTS: usize = 10;
/// Pods that have waited for so long with nothing come before renewals ...
const LONG_WAIT: Duration = Duration::from_secs(2);
/// ... if so many do; one alone may be in a pause of its own ...
const MANY: usize = 5;
/// ... but for one call in four, and what was begun before.
const ONE_IS_A_RENEWAL: usize = 4;
const BEGUN_BEFORE: usize = 4;
/// So many are called for at once at first (docs/design/decisions.md#upstream): if more wait, and AWS takes
/// seconds for each, some have their turn late.
const CROWD: usize = 8;

/// What AWS has granted and refused lately.
#[derive(Debug, Default)]
pub struct Throttling {
    /// When, and whether it was granted.
    recent: VecDeque<(Duration, bool)>,
    /// Since when, and when last.
    spell: Option<(Duration, Duration)>,
    /// The tokens of calls that were refused and not made again, and when.
    refused: BTreeMap<usize, Duration>,
    /// What is in the account's bucket, and when it was looked at.
    bucket: Option<(f64, Duration)>,
}

impl Throttling {
    /// An answer that is none of the account's limit.
    pub fn granted(&mut self, now: Duration) {
        self.note(now, true);
    }

    /// Whether AWS throttles.
    pub fn is_on(&self, now: Duration) -> bool {
        self.spell.is_some_and(|(_, last)| now.saturating_sub(last) < CALM)
    }

    /// A call is made with this token. How many others are about to be made again.
    pub fn called(&mut self, token: usize, now: Duration) -> u32 {
        self.refused.remove(&token);
        self.refused.retain(|_, at| *at + ABOUT_TO_ASK >= now);
        u32::try_from(self.refused.len()).unwrap_or(u32::MAX)
    }

    /// A 429; what is wrong about it, if something is.
    pub fn throttled(&mut self, token: usize, now: Duration) -> Option<String> {
        self.refused.insert(token, now);
        self.note(now, false);
        let since = match self.spell {
            Some((since, last)) if now.saturating_sub(last) < CALM => since,
            Some(_) | None => now,
        };
        self.spell = Some((since, now));
        if now < since + TO_COME_DOWN + WINDOW {
            return None;
        }
        let granted = self.recent.iter().filter(|(_, is_granted)| *is_granted).count();
        let refused = self.recent.len() - granted;
        (refused > REFUSED_PER_GRANT * granted + ATTEMPTS).then(|| {
            format!("AWS throttles, and of the calls of 10 s {granted} were granted and {refused} refused")
        })
    }

    /// Takes a call out of the bucket, if there is one in it.
    pub fn take(&mut self, per_second: u32, at_once: u32, now: Duration) -> bool {
        let (level, at) = self.bucket.unwrap_or((f64::from(at_once), now));
        let added = now.saturating_sub(at).as_secs_f64() * f64::from(per_second);
        let level = (level + added).min(f64::from(at_once));
        let is_in_it = level >= 1.0;
        self.bucket = Some((if is_in_it { level - 1.0 } else { level }, now));
        is_in_it
    }

    fn note(&mut self, now: Duration, is_granted: bool) {
        self.recent.push_back((now, is_granted));
        while self.recent.front().is_some_and(|(at, _)| *at + WINDOW < now) {
            self.recent.pop_front();
        }
    }
}

/// The pods that wait with nothing, and the calls that AWS has had meanwhile.
#[derive(Debug, Default)]
pub struct Waiting {
    /// Since when which pod waits.
    pub since: BTreeMap<usize, Duration>,
    /// When there was last a crowd of them.
    pub crowd_at: Option<Duration>,
    calls: usize,
    renewals: usize,
}

impl Waiting {
    /// A pod begins to wait.
    pub fn begins(&mut self, pod: usize, now: Duration) {
        self.since.entry(pod).or_insert(now);
        if self.since.len() > CROWD {
            self.crowd_at = Some(now);
        }
    }

    /// A call for a pod that has nothing, or a renewal; what is wrong about it, if something is.
    pub fn called(&mut self, is_first: bool, now: Duration) -> Option<String> {
        let waiting = self.since.values().filter(|since| **since + LONG_WAIT < now).count();
        if waiting < MANY {
            (self.calls, self.renewals) = (0, 0);
            return None;
        }
        self.calls += 1;
        self.renewals += usize::from(!is_first);
        let Self { calls, renewals, .. } = *self;
        (renewals * ONE_IS_A_RENEWAL > calls + ONE_IS_A_RENEWAL * BEGUN_BEFORE).then(|| {
            format!("{waiting} pods wait with nothing, and of {calls} calls {renewals} are renewals")
        })
    }
}
