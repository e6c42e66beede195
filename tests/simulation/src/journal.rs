//! What happened, in order.
//!
//! Owns: a digest over all events (two runs of one seed must have the same), and the last events of each pod
//! for the story of a failure. Must not know: secrets; tokens and sets appear by number.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use parking_lot::Mutex;

use crate::source::Source;

/// So many events of each pod are kept, and so many of the node as a whole.
pub const KEPT: usize = 40;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// A pod started; its generation in its slot.
    Born(u32),
    /// The pod is gone.
    Gone(u32),
    /// The kubelet wrote a new token; its number.
    Token(usize),
    /// A process asks.
    Asks(&'static str),
    /// It was served: the number of the set, and the seconds left of it.
    Served(usize, u64),
    /// It was told no or not now; the cause.
    Failed(&'static str),
    /// It hung up before there was an answer.
    HungUp,
    /// AWS was called, with so many calls under way.
    Called(u32),
    /// AWS answered with this status and code.
    Said(u16, &'static str),
    /// AWS issued the set of this number, with so many seconds of life.
    Issued(usize, u64),
    /// The metadata service gave the node's own set of this number.
    OwnSet(usize),
    /// This key signs tokens from now on, and these are in the document (a bit for each), if it can be read.
    Keys(u32, Option<u32>),
    /// Answers of AWS have a `Date` that is so many seconds off, so many of them (0: no more).
    WrongDates(i64, u32),
    /// How a service of AWS is from now on.
    Weather(Source, &'static str),
    /// The node's wall clock is off by so many seconds from now on.
    ClockOff(i64),
    /// The node was paused for so many seconds.
    Paused(u64),
    /// The node's quartz is fast by so many millionths from now on.
    Quartz(i32),
    /// The agent was killed, and another one is started.
    Restarted,
}

/// One event.
#[derive(Clone, Copy, Debug, Hash)]
pub struct Event {
    /// Milliseconds since the story began.
    pub at_ms: u64,
    /// The slot of the pod; `None` for the node as a whole.
    pub slot: Option<u32>,
    /// What.
    pub what: What,
    number: u64,
}

/// The journal.
#[derive(Debug, Default)]
pub struct Journal {
    pages: Mutex<Pages>,
}

#[derive(Debug, Default)]
struct Pages {
    digest: Fnv,
    count: u64,
    recent: BTreeMap<Option<u32>, VecDeque<Event>>,
}

impl Journal {
    /// Notes an event.
    pub fn note(&self, at: Duration, slot: Option<u32>, what: What) {
        let mut pages = self.pages.lock();
        let at_ms = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        let event = Event { at_ms, slot, what, number: pages.count };
        pages.count += 1;
        event.hash(&mut pages.digest);
        let recent = pages.recent.entry(slot).or_default();
        // The agent looks at them every second while it likes none.
        if matches!(what, What::OwnSet(_)) && recent.back().is_some_and(|last| last.what == what) {
            return;
        }
        if recent.len() == KEPT {
            recent.pop_front();
        }
        recent.push_back(event);
    }

    /// The digest of all events so far, and how many there were.
    pub fn digest(&self) -> (u64, u64) {
        let pages = self.pages.lock();
        (pages.digest.finish(), pages.count)
    }

    /// The last events of these pods and of the node, in order.
    pub fn recent(&self, slots: &[u32]) -> Vec<Event> {
        let pages = self.pages.lock();
        let of = |slot: Option<u32>| pages.recent.get(&slot).into_iter().flatten().copied();
        let mut events: Vec<Event> = slots.iter().flat_map(|slot| of(Some(*slot))).chain(of(None)).collect();
        events.sort_by_key(|event| event.number);
        events.dedup_by_key(|event| event.number);
        events
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, ms) = (self.at_ms / 1000, self.at_ms % 1000);
        let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(f, "{hours:3}:{minutes:02}:{seconds:02}.{ms:03}  ")?;
        match self.slot {
            Some(slot) => write!(f, "pod {slot:<3} ")?,
            None => write!(f, "node    ")?,
        }
        match self.what {
            What::Born(generation) => write!(f, "starts (generation {generation})"),
            What::Gone(generation) => write!(f, "is gone (generation {generation})"),
            What::Token(number) => write!(f, "gets token {number}"),
            What::Asks(habit) => write!(f, "{habit} asks"),
            What::Served(set, left) => write!(f, "is served set {set}, {left} s left"),
            What::Failed(cause) => write!(f, "is told: {cause}"),
            What::HungUp => write!(f, "hangs up"),
            What::Called(under_way) => write!(f, "AWS is called ({under_way} calls under way)"),
            What::Said(status, code) => write!(f, "AWS says {status} {code}"),
            What::Issued(set, life) => write!(f, "AWS issues set {set}, good for {life} s"),
            What::OwnSet(number) => write!(f, "the metadata service gives own set {number}"),
            What::Keys(signer, Some(bits)) => write!(f, "key {signer} signs, keys {bits:b} are published"),
            What::Keys(signer, None) => write!(f, "key {signer} signs, and no keys can be read"),
            What::WrongDates(off, count) => write!(f, "{count} answers have a date that is {off} s off"),
            What::Weather(source, sky) => write!(f, "{source:?}: {sky}"),
            What::Quartz(ppm) => write!(f, "the quartz is {ppm} ppm fast"),
            What::Restarted => write!(f, "the agent is killed and started again"),
            What::Paused(seconds) => write!(f, "wakes from a pause of {seconds} s"),
            What::ClockOff(seconds) => write!(f, "the wall clock is off by {seconds} s"),
        }
    }
}

/// FNV-1a: the same on every machine, which the standard hasher does not promise.
#[derive(Debug)]
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
