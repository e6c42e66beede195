//! How fast one peer is answered: what exceeds a rate is answered later, never refused.
//!
//! Owns: the rate with its burst, and how many requests of a peer are delayed at once
//! (docs/design/decisions.md#fairness). Must not know: what is asked and answered. One pod in a busy loop
//! would otherwise spend the node's processors, and with them its neighbours' latency.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};

use crate::workload::PeerKey;

/// Requests of one peer that are delayed at the same time. 64: with the default rate the last of them waits
/// 32 ms. Others of the peer wait in line unread.
const DELAYED: usize = 64;
/// The burst is what two seconds of the rate allow: 4,000 requests by default, as many as the processes of a
/// large pod ask for when they start together.
const BURST: Duration = Duration::from_secs(2);

/// The pace of one peer.
pub(super) struct Pace {
    /// The time that one request takes of the rate.
    interval: Duration,
    /// When the requests so far would have been answered if they had come at an even pace.
    paid_until: Mutex<Instant>,
    turns: Semaphore,
}

impl Pace {
    /// `per_second`: what one pod may ask for.
    pub(super) fn new(per_second: u32, peer: PeerKey) -> Self {
        let per_second = peer.allowance(usize::try_from(per_second).unwrap_or(usize::MAX)).max(1);
        let nanos = 1_000_000_000 / u64::try_from(per_second).unwrap_or(u64::MAX);
        Self {
            interval: Duration::from_nanos(nanos.max(1)),
            paid_until: Mutex::new(Instant::now()),
            turns: Semaphore::new(DELAYED),
        }
    }

    /// Waits until a request may be answered. Where it has to, it says so before, since a client may leave
    /// meanwhile. Cancel-safe.
    pub(super) async fn turn(&self, is_delayed: impl FnOnce()) {
        if self.is_free() && self.charge() <= Instant::now() {
            return;
        }
        is_delayed();
        // Never closed.
        let Ok(_turn) = self.turns.acquire().await else { return };
        let due = self.charge();
        sleep_until(due).await;
    }

    /// Waits while as many requests of the peer are delayed as may be: its other connections are not read.
    pub(super) async fn until_read(&self) {
        if self.turns.available_permits() == 0 {
            // Never closed; the turn itself is taken when the request has been read.
            let _turn = self.turns.acquire().await;
        }
    }

    /// Whether nothing is left of the past: a new pace would be the same.
    pub(super) fn is_rested(&self) -> bool {
        *self.paid_until.lock() <= Instant::now()
    }

    /// Whether a request is within the rate, and nobody waits before it.
    fn is_free(&self) -> bool {
        self.turns.available_permits() == DELAYED
            && *self.paid_until.lock() + self.interval <= Instant::now() + BURST
    }

    /// Takes one request from the rate; returns when it is due.
    fn charge(&self) -> Instant {
        let now = Instant::now();
        let mut paid_until = self.paid_until.lock();
        *paid_until = (*paid_until).max(now) + self.interval;
        paid_until.checked_sub(BURST).unwrap_or(now)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::task::JoinSet;
    use tokio::time::{Instant, sleep};

    use super::{DELAYED, Pace};
    use crate::workload::PeerKey;

    fn pace(shares: usize) -> Pace {
        Pace::new(2_000, PeerKey::new(IpAddr::from([10, 0, 0, 1]), shares))
    }

    /// Waits for a turn, and returns whether that was said before.
    async fn is_delayed(pace: &Pace) -> bool {
        let mut is_delayed = false;
        pace.turn(|| is_delayed = true).await;
        is_delayed
    }

    /// How many turns a busy loop on so many connections gets in a time.
    async fn turns(pace: &Arc<Pace>, connections: usize, time: Duration) -> usize {
        let end = Instant::now() + time;
        let mut clients = JoinSet::new();
        for _ in 0..connections {
            let pace = Arc::clone(pace);
            clients.spawn(async move {
                let mut turns = 0;
                loop {
                    pace.turn(|| ()).await;
                    if Instant::now() >= end {
                        return turns;
                    }
                    turns += 1;
                    tokio::task::yield_now().await;
                }
            });
        }
        clients.join_all().await.into_iter().sum()
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_loop_gets_its_burst_and_then_the_rate() {
        for (shares, connections) in [(1, 60), (1, 400), (8, 60)] {
            let pace = Arc::new(pace(shares));
            sleep(Duration::from_secs(10)).await;
            let got = turns(&pace, connections, Duration::from_secs(3)).await;
            let (least, most) = ((4_000 + 3 * 2_000 - 200) * shares, (4_000 + 3 * 2_000 + 1) * shares);
            assert!((least..=most).contains(&got), "{got} with {shares} shares");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn four_thousand_at_once_wait_for_nothing_and_the_next_is_late_by_one_interval() {
        let pace = pace(1);
        for n in 0..4_000 {
            assert!(!is_delayed(&pace).await, "{n}");
        }
        let before = Instant::now();
        assert!(is_delayed(&pace).await);
        assert!((1..=2).contains(&before.elapsed().as_millis()), "{:?}", before.elapsed());
        assert!(!pace.is_rested());
        sleep(Duration::from_secs(3)).await;
        assert!(pace.is_rested());
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_sixty_four_are_delayed_and_those_that_leave_owe_nothing() {
        let pace = Arc::new(pace(1));
        for _ in 0..4_000 {
            pace.turn(|| ()).await;
        }
        let delayed = Arc::new(AtomicUsize::new(0));
        let mut clients = JoinSet::new();
        for _ in 0..1_000 {
            let (pace, delayed) = (Arc::clone(&pace), Arc::clone(&delayed));
            clients.spawn(async move { pace.turn(|| _ = delayed.fetch_add(1, Ordering::Relaxed)).await });
        }
        // A turn of the runtime is not enough for a thousand tasks.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(pace.turns.available_permits(), 0);
        assert_eq!(delayed.load(Ordering::Relaxed), 1_000, "those that leave now were delayed too");
        let (read, before) = (pace.until_read(), Instant::now());
        clients.shutdown().await;
        read.await;
        pace.turn(|| ()).await;
        let most = Duration::from_millis(u64::try_from(DELAYED).unwrap() / 2 + 2);
        assert!(before.elapsed() <= most, "{:?}", before.elapsed());
    }
}
