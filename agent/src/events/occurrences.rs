//! What was wrong with which pod how often, and what the cluster is sent of it next. Pure.
//!
//! Owns: which occurrences are one Event, and when it is written. Must not know: how it is written, or what
//! its sentences say.
//!
//! As events.k8s.io wants it and client-go does it (tools/events): the first occurrence is an Event, and what
//! is the same but for its time makes that Event a series, with a count and the time of the last one. The
//! same is here the same pod, by its UID, and the same reason.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use super::pace::Pace;
use super::reason::Reason;
use crate::clock::{BootTime, Now};
use crate::pods::PodName;

/// Between the first two writes of one Event: client-go ends a series after so long (`finishTime`). Each
/// further write waits twice as long as the one before. Also after the API server has refused one: the next
/// will hardly do better.
const BETWEEN_WRITES: Duration = Duration::from_secs(6 * 60);
/// The longest time between two writes of one Event, so the greatest age of the counts that `kubectl` shows.
/// Shorter than [`SILENCE`], so that a last occurrence is written before it is forgotten, and than the hour
/// after which the API server deletes an Event that nobody has written.
const LONGEST_BETWEEN_WRITES: Duration = Duration::from_secs(24 * 60);
/// After a write that the API server did not answer.
const AFTER_NO_ANSWER: Duration = Duration::from_secs(60);
/// What has not occurred for so long is forgotten: the next time is a new Event. As long as client-go leaves
/// a series unwritten (`refreshTime`), and half as long as the API server keeps Events (`--event-ttl`, 1 h).
const SILENCE: Duration = Duration::from_secs(30 * 60);
/// Pods times reasons. A node has 250 pods at most, and hardly one of them two reasons. Each takes about 1.5
/// KiB, its note included.
const MOST: usize = 1_024;

/// All that occurred lately.
#[derive(Debug, Default)]
pub struct Occurrences {
    entries: HashMap<Key, Entry>,
    pace: Pace,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    uid: Box<str>,
    reason: Reason,
}

#[derive(Debug)]
struct Entry {
    pod: PodName,
    note: Box<str>,
    first: SystemTime,
    last: Now,
    count: u32,
    /// What the cluster has of it.
    stored: Option<Stored>,
    not_before: BootTime,
    /// From the next write that is stored to the one after it.
    pause: Duration,
}

#[derive(Clone, Debug)]
struct Stored {
    name: Box<str>,
    count: u32,
}

/// What the cluster is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The pod that it is about.
    pub pod: PodName,
    /// The word.
    pub reason: Reason,
    /// The sentences.
    pub note: Box<str>,
    /// When it first occurred.
    pub first: SystemTime,
    /// When it last occurred.
    pub last: SystemTime,
    /// How often.
    pub count: u32,
    /// The name of the Event that the cluster has of it and that gets the new count. `None`: a new one.
    pub existing: Option<Box<str>>,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// This is to be written, and [`Occurrences::written`] waits for how that went.
    Write(Box<Write>),
    /// Nothing for so long, unless something occurs.
    Wait(Duration),
    /// Nothing, until something occurs.
    Nothing,
}

/// How a write went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written<'a> {
    /// The cluster has it, as an Event of this name.
    Stored(&'a str),
    /// The Event that was to get a new count is not there any more: the cluster deletes them after an hour.
    Gone,
    /// The API server refused it.
    Refused,
    /// There was no answer.
    NoAnswer,
}

impl Occurrences {
    /// It occurred now. `note` is asked for the sentences if it is new; an Event keeps those it began with,
    /// because the API server lets nobody change them.
    pub fn add(&mut self, pod: PodName, reason: Reason, now: Now, note: impl FnOnce(&PodName) -> Box<str>) {
        let key = Key { uid: pod.uid.clone(), reason };
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.count = entry.count.saturating_add(1);
            entry.last = now;
            return;
        }
        if self.entries.len() >= MOST {
            self.forget_the_oldest();
        }
        let note = note(&pod);
        self.entries.insert(key, Entry::new(pod, note, now));
    }

    /// What is to be written now, or when to look again. What the cluster has nothing of goes before new
    /// counts: those of a few hundred pods take all of the pace, and an owner looks for the first Event.
    pub fn next(&mut self, now: BootTime) -> Next {
        let unwritten = self.entries.iter().filter(|(_, entry)| entry.is_unwritten());
        let Some((key, entry)) = unwritten.min_by_key(|(_, entry)| entry.turn(now)) else {
            return Next::Nothing;
        };
        let wait = entry.not_before.since(now).max(self.pace.wait(now));
        if !wait.is_zero() {
            return Next::Wait(wait);
        }
        self.pace.take(now);
        Next::Write(Box::new(Write {
            pod: entry.pod.clone(),
            reason: key.reason,
            note: entry.note.clone(),
            first: entry.first,
            last: entry.last.wall,
            count: entry.count,
            existing: entry.stored.as_ref().map(|stored| stored.name.clone()),
        }))
    }

    /// A write went so.
    pub fn written(&mut self, write: &Write, how: Written<'_>, now: BootTime) {
        let key = Key { uid: write.pod.uid.clone(), reason: write.reason };
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.not_before = match how {
            Written::Stored(name) => {
                entry.stored = Some(Stored { name: name.into(), count: write.count });
                now.plus(entry.next_pause())
            }
            Written::Gone => {
                entry.stored = None;
                now
            }
            Written::Refused => now.plus(BETWEEN_WRITES),
            Written::NoAnswer => now.plus(AFTER_NO_ANSWER),
        };
    }

    /// Forgets what has not occurred lately, and pods that are gone.
    pub fn forget(&mut self, is_gone: impl Fn(&str) -> bool, now: BootTime) {
        self.entries.retain(|key, entry| now.since(entry.last.boot) < SILENCE && !is_gone(&key.uid));
    }

    fn forget_the_oldest(&mut self) {
        let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.last.boot);
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            self.entries.remove(&key);
        }
    }
}

impl Entry {
    fn new(pod: PodName, note: Box<str>, now: Now) -> Self {
        let (first, not_before) = (now.wall, now.boot);
        Self { pod, note, first, last: now, count: 1, stored: None, not_before, pause: BETWEEN_WRITES }
    }

    /// The least is written first: what may be written now before what must wait, then the new ones, then
    /// what may have been written for longest.
    fn turn(&self, now: BootTime) -> (BootTime, bool, BootTime, BootTime) {
        (self.not_before.max(now), self.stored.is_some(), self.not_before, self.last.boot)
    }

    /// How long the next write waits for the one that has just been stored.
    fn next_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_BETWEEN_WRITES);
        pause
    }

    /// Whether the cluster does not have all of it.
    fn is_unwritten(&self) -> bool {
        self.stored.as_ref().is_none_or(|stored| stored.count < self.count)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::{AFTER_NO_ANSWER, BETWEEN_WRITES, MOST, Next, Occurrences, SILENCE, Write, Written};
    use crate::clock::{BootTime, Now};
    use crate::events::Reason::{self, NoPodIdentityAssociation, RoleNotAssumable};
    use crate::pods::PodName;

    fn pod(uid: &str) -> PodName {
        PodName { namespace: "ns".into(), name: "p".into(), uid: uid.into() }
    }

    fn at(seconds: u64) -> Now {
        let since = Duration::from_secs(seconds);
        Now::confirmed(UNIX_EPOCH + since, BootTime::from_boot(since))
    }

    fn add(occurrences: &mut Occurrences, uid: &str, reason: Reason, seconds: u64) {
        let note = |_: &PodName| format!("note of {seconds}").into();
        occurrences.add(pod(uid), reason, at(seconds), note);
    }

    fn write(occurrences: &mut Occurrences, seconds: u64) -> Write {
        match occurrences.next(at(seconds).boot) {
            Next::Write(write) => *write,
            other @ (Next::Wait(_) | Next::Nothing) => panic!("{other:?}"),
        }
    }

    /// One Event that was written as "p.1" at second 0.
    fn stored() -> Occurrences {
        let mut occurrences = Occurrences::default();
        add(&mut occurrences, "a", RoleNotAssumable, 0);
        let first = write(&mut occurrences, 0);
        assert_eq!((first.count, &first.existing), (1, &None));
        occurrences.written(&first, Written::Stored("p.1"), at(0).boot);
        occurrences
    }

    fn secs(duration: Duration) -> u64 {
        duration.as_secs()
    }

    #[test]
    fn what_is_the_same_is_one_event_with_a_count_that_is_written_after_six_minutes() {
        let mut occurrences = stored();
        assert_eq!(occurrences.next(at(0).boot), Next::Nothing);
        for seconds in 1..=100 {
            add(&mut occurrences, "a", RoleNotAssumable, seconds);
        }
        assert_eq!(occurrences.next(at(100).boot), Next::Wait(BETWEEN_WRITES - Duration::from_secs(100)));
        let repeated = write(&mut occurrences, 360);
        assert_eq!((repeated.count, repeated.existing.as_deref()), (101, Some("p.1")));
        assert_eq!((repeated.first, repeated.last), (at(0).wall, at(100).wall));
        assert_eq!(&*repeated.note, "note of 0", "nobody may change it");
        occurrences.written(&repeated, Written::Stored("p.1"), at(361).boot);
        assert_eq!(occurrences.next(at(361).boot), Next::Nothing);
        add(&mut occurrences, "a", RoleNotAssumable, 400);
        assert_eq!(occurrences.next(at(400).boot), Next::Wait(Duration::from_secs(681)));
    }

    #[test]
    fn the_time_between_writes_of_one_event_doubles_from_6_minutes_to_24() {
        let mut occurrences = stored();
        let mut minutes = Vec::new();
        for minute in 1..=90 {
            add(&mut occurrences, "a", RoleNotAssumable, minute * 60);
            occurrences.forget(|_| false, at(minute * 60).boot);
            if let Next::Write(write) = occurrences.next(at(minute * 60).boot) {
                assert_eq!(write.existing.as_deref(), Some("p.1"));
                occurrences.written(&write, Written::Stored("p.1"), at(minute * 60).boot);
                minutes.push(minute);
            }
        }
        assert_eq!(minutes, [6, 18, 42, 66, 90]);
    }

    #[test]
    fn a_new_event_goes_before_the_counts_of_250_others() {
        let mut occurrences = Occurrences::default();
        let names: Vec<_> = (0..250).map(|n| n.to_string()).collect();
        for (name, seconds) in names.iter().zip((0..).step_by(5)) {
            add(&mut occurrences, name, RoleNotAssumable, seconds);
            let write = write(&mut occurrences, seconds);
            occurrences.written(&write, Written::Stored(name), at(seconds).boot);
        }
        // All may be written now, and no more than 25 of them at once.
        let now = 250 * 5 + secs(BETWEEN_WRITES);
        names.iter().for_each(|name| add(&mut occurrences, name, RoleNotAssumable, now));
        for _ in 0..25 {
            let update = write(&mut occurrences, now);
            assert!(update.existing.is_some());
            occurrences.written(&update, Written::Stored("p.1"), at(now).boot);
        }
        add(&mut occurrences, "new", NoPodIdentityAssociation, now + 4);
        assert_eq!(occurrences.next(at(now + 4).boot), Next::Wait(Duration::from_secs(1)));
        assert_eq!(*write(&mut occurrences, now + 5).pod.uid, *"new");
    }

    #[test]
    fn what_occurs_while_it_is_written_is_counted_later() {
        let mut occurrences = stored();
        add(&mut occurrences, "a", RoleNotAssumable, 1);
        let repeated = write(&mut occurrences, 360);
        add(&mut occurrences, "a", RoleNotAssumable, 361);
        occurrences.written(&repeated, Written::Stored("p.1"), at(361).boot);
        assert_eq!(write(&mut occurrences, 361 + 720).count, 3);
    }

    #[test]
    fn another_pod_and_another_reason_are_events_of_their_own() {
        let mut occurrences = stored();
        add(&mut occurrences, "b", RoleNotAssumable, 1);
        let other_pod = write(&mut occurrences, 1);
        occurrences.written(&other_pod, Written::Stored("p.2"), at(1).boot);
        add(&mut occurrences, "a", NoPodIdentityAssociation, 2);
        let other_reason = write(&mut occurrences, 2);
        assert_eq!((&*other_pod.pod.uid, other_pod.existing), ("b", None));
        assert_eq!((&*other_reason.pod.uid, other_reason.reason), ("a", NoPodIdentityAssociation));
    }

    #[test]
    fn an_event_that_the_cluster_has_deleted_is_made_anew_with_its_count() {
        let mut occurrences = stored();
        add(&mut occurrences, "a", RoleNotAssumable, 400);
        let repeated = write(&mut occurrences, 400);
        occurrences.written(&repeated, Written::Gone, at(401).boot);
        let anew = write(&mut occurrences, 401);
        assert_eq!((anew.count, anew.existing, anew.first), (2, None, at(0).wall));
    }

    #[test]
    fn what_cannot_be_written_is_tried_again_later_and_not_for_ever() {
        for (how, after) in [(Written::NoAnswer, AFTER_NO_ANSWER), (Written::Refused, BETWEEN_WRITES)] {
            let mut occurrences = Occurrences::default();
            add(&mut occurrences, "a", RoleNotAssumable, 0);
            let (mut now, mut writes) = (0, 0);
            loop {
                occurrences.forget(|_| false, at(now).boot);
                match occurrences.next(at(now).boot) {
                    Next::Write(write) => {
                        writes += 1;
                        occurrences.written(&write, how, at(now).boot);
                    }
                    Next::Wait(wait) => {
                        assert_eq!(wait, after, "{how:?}");
                        now += secs(wait);
                    }
                    Next::Nothing => break,
                }
            }
            assert_eq!((now, writes), (secs(SILENCE), secs(SILENCE) / secs(after)), "{how:?}");
        }
    }

    #[test]
    fn a_pod_that_is_gone_and_one_that_is_silent_for_half_an_hour_are_forgotten() {
        let mut occurrences = Occurrences::default();
        for uid in ["gone", "here"] {
            add(&mut occurrences, uid, RoleNotAssumable, 0);
        }
        occurrences.forget(|uid| uid == "gone", at(1).boot);
        let left = write(&mut occurrences, 1);
        assert_eq!(&*left.pod.uid, "here");
        occurrences.written(&left, Written::Stored("p.1"), at(1).boot);
        occurrences.forget(|_| false, at(secs(SILENCE) - 1).boot);
        add(&mut occurrences, "here", RoleNotAssumable, secs(SILENCE) - 1);
        assert!(write(&mut occurrences, secs(SILENCE)).existing.is_some(), "still the same Event");
        occurrences.forget(|_| false, at(2 * secs(SILENCE)).boot);
        add(&mut occurrences, "here", RoleNotAssumable, 2 * secs(SILENCE));
        assert_eq!(write(&mut occurrences, 2 * secs(SILENCE)).existing, None, "a new one");
    }

    #[test]
    fn a_thousand_pods_at_once_are_written_at_the_pace_of_the_agent_and_the_oldest_make_room() {
        let mut occurrences = Occurrences::default();
        for n in 0..=MOST as u64 {
            add(&mut occurrences, &n.to_string(), RoleNotAssumable, n);
        }
        assert_eq!(occurrences.entries.len(), MOST);
        let now = MOST as u64;
        for n in 1..=25 {
            let write = write(&mut occurrences, now);
            assert_eq!(
                *write.pod.uid,
                n.to_string(),
                "those of the longest ago first, but for the forgotten"
            );
            occurrences.written(&write, Written::Stored("p.1"), at(now).boot);
        }
        assert_eq!(occurrences.next(at(now).boot), Next::Wait(Duration::from_secs(5)));
    }
}
