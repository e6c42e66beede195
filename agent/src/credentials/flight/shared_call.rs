//! One flight: a call to AWS under way, and those aboard.
//!
//! Owns: how those who wait learn how it goes, and for how long somebody still wants it. Must not know: which others are
//! under way (`flights`), or how it is flown (`crew`).

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::clock::BootTime;
use crate::credentials::held::Held;
use crate::credentials::limits::upstream_budget::Priority;
use crate::credentials::source::{SourceError, Unavailable};
use crate::identity::PresentedToken;
use crate::workload::PeerKey;

/// A flight that somebody waits for lives this long at most (design 4.6).
const LONGEST_FLIGHT: Duration = Duration::from_secs(30);
/// It is given up when nobody asked for this long: SDKs that mean it ask again every second or so (sdk-contract 7.1).
const STILL_WANTED: Duration = Duration::from_secs(10);

/// How a flight goes.
#[derive(Clone, Debug)]
pub enum Progress {
    /// Under way; with what went wrong at the last attempt, if one failed.
    Aloft(Option<SourceError>),
    /// Over.
    Landed(Result<Arc<Held>, SourceError>),
}

/// Why somebody boards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A client waits for it.
    Awaited,
    /// It is good to have: a renewal.
    Background,
}

/// A seat on a flight. Leaving it changes nothing for the flight.
pub struct FlightHandle {
    flight: Arc<Flight>,
    progress: watch::Receiver<Progress>,
}

pub(super) struct Flight {
    progress: watch::Sender<Progress>,
    demand: Mutex<Demand>,
    priority_raised: Notify,
    /// On whose account it goes, if it is for an unverified identity with nothing in hand.
    peer: Option<PeerKey>,
}

struct Demand {
    lane: Priority,
    presented: PresentedToken,
    awaited_since: Option<BootTime>,
    last_awaited: Option<BootTime>,
}

impl Flight {
    pub(super) fn new(presented: PresentedToken, lane: Priority, peer: Option<PeerKey>) -> Arc<Self> {
        let demand = Demand { lane, presented, awaited_since: None, last_awaited: None };
        Arc::new(Self {
            progress: watch::Sender::new(Progress::Aloft(None)),
            demand: Mutex::new(demand),
            priority_raised: Notify::new(),
            peer,
        })
    }

    /// Takes a seat: the better lane and the longer-lived token win.
    pub(super) fn board(
        self: &Arc<Self>,
        presented: &PresentedToken,
        lane: Priority,
        purpose: Purpose,
        now: BootTime,
    ) -> FlightHandle {
        let mut demand = self.demand.lock();
        if presented.expires > demand.presented.expires {
            demand.presented = presented.clone();
        }
        if purpose == Purpose::Awaited {
            let is_still_wanted = demand.last_awaited.is_some_and(|last| now.since(last) < STILL_WANTED);
            demand.awaited_since = demand.awaited_since.filter(|_| is_still_wanted).or(Some(now));
            demand.last_awaited = Some(now);
        }
        if lane < demand.lane || (purpose == Purpose::Awaited && demand.awaited_since == Some(now)) {
            demand.lane = demand.lane.min(lane);
            self.priority_raised.notify_one();
        }
        drop(demand);
        FlightHandle { flight: Arc::clone(self), progress: self.progress.subscribe() }
    }

    pub(super) fn lane(&self) -> Priority {
        self.demand.lock().lane
    }

    pub(super) fn presented(&self) -> PresentedToken {
        self.demand.lock().presented.clone()
    }

    pub(super) fn peer(&self) -> Option<PeerKey> {
        self.peer
    }

    /// Tells those who wait how it ended.
    pub(super) fn land(&self, outcome: Result<Arc<Held>, SourceError>) {
        self.progress.send_replace(Progress::Landed(outcome));
    }

    /// Tells those who wait that the last attempt failed.
    pub(super) fn report_failure(&self, trouble: SourceError) {
        self.progress.send_replace(Progress::Aloft(Some(trouble)));
    }

    /// Waits until it has priority_raised to a better lane, or somebody has begun to wait for it.
    pub(super) async fn priority_raised(&self) {
        self.priority_raised.notified().await;
    }

    pub(super) fn trouble(&self) -> Option<SourceError> {
        match &*self.progress.borrow() {
            Progress::Aloft(trouble) => trouble.clone(),
            Progress::Landed(_) => None,
        }
    }

    /// Whether another attempt is worth it: a client asked lately, and has not been asking for too long.
    pub(super) fn is_wanted(&self, now: BootTime) -> bool {
        self.patience_left(now).is_some_and(|left| !left.is_zero())
    }

    /// How long somebody will still want it; `None` when nobody waits for it at all.
    pub(super) fn patience_left(&self, now: BootTime) -> Option<Duration> {
        let demand = self.demand.lock();
        let since = demand.awaited_since?;
        let last = demand.last_awaited?;
        let life = LONGEST_FLIGHT.saturating_sub(now.since(since));
        Some(life.min(STILL_WANTED.saturating_sub(now.since(last))))
    }
}

impl FlightHandle {
    /// Waits until the flight has landed. Cancel-safe.
    pub async fn landed(&mut self) -> Result<Arc<Held>, SourceError> {
        let lost = Err(SourceError::Unavailable(Unavailable::Lost));
        let landed = self.progress.wait_for(|progress| matches!(progress, Progress::Landed(_))).await;
        match landed.as_deref() {
            Ok(Progress::Landed(outcome)) => outcome.clone(),
            Ok(Progress::Aloft(_)) | Err(_) => lost,
        }
    }

    /// What went wrong at the flight's last attempt, if one has failed.
    pub fn trouble(&self) -> Option<SourceError> {
        self.flight.trouble()
    }

    /// For how long clients have been waiting for this flight.
    pub fn awaited_for(&self, now: BootTime) -> Duration {
        self.flight.demand.lock().awaited_since.map_or(Duration::ZERO, |since| now.since(since))
    }
}
