//! The phases of shutdown: running, draining until a point in time, stopped; and who asked for it.
//!
//! Owns: the phase, how it is announced, and the signals that start it. Must not know: what draining means
//! for each part; listeners, held requests and workers read the phase themselves.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;

/// The phase of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not shutting down.
    Running,
    /// Answering open and new requests, but holding none beyond `until`.
    Draining {
        /// When the grace period ends.
        until: Instant,
    },
    /// Waiting for nothing any more.
    Stopped,
}

/// Who asked the process to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A supervisor, by SIGTERM: another agent may be on its way.
    BySupervisor,
    /// A person at a terminal, by SIGINT.
    ByPerson,
}

/// The phase, shared by all clones. It only moves forward.
#[derive(Clone)]
pub struct Shutdown {
    phase: Arc<watch::Sender<Phase>>,
    asked: Arc<watch::Sender<Option<Asked>>>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    /// In the phase [`Phase::Running`].
    pub fn new() -> Self {
        Self { phase: Arc::new(watch::Sender::new(Phase::Running)), asked: Arc::default() }
    }

    /// Starts to drain, for at most `grace`. A second call changes nothing: parts already rely on the first
    /// deadline.
    pub fn begin(&self, grace: Duration) {
        let until = Instant::now() + grace;
        let begun = self.phase.send_if_modified(|phase| {
            let running = *phase == Phase::Running;
            if running {
                *phase = Phase::Draining { until };
            }
            running
        });
        if begun {
            tracing::info!(grace_ms = millis(grace), "draining");
        }
    }

    /// Ends the drain at once.
    pub fn stop(&self) {
        self.phase.send_if_modified(|phase| std::mem::replace(phase, Phase::Stopped) != Phase::Stopped);
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Whether the process is not shutting down.
    pub fn is_running(&self) -> bool {
        self.phase() == Phase::Running
    }

    /// Returns once the process is draining or stopped.
    pub async fn wait_for_draining(&self) {
        self.wait_until(|phase| *phase != Phase::Running).await;
    }

    /// Returns once [`Shutdown::stop`] was called; the end of the grace period alone does not count.
    pub async fn wait_for_stopped(&self) {
        self.wait_until(|phase| *phase == Phase::Stopped).await;
    }

    /// How long requests may still be held; `None` while running, zero once stopped.
    pub fn remaining_grace(&self) -> Option<Duration> {
        match self.phase() {
            Phase::Running => None,
            Phase::Draining { until } => Some(until.saturating_duration_since(Instant::now())),
            Phase::Stopped => Some(Duration::ZERO),
        }
    }

    /// Returns once a signal has asked the process to end, and who sent it.
    pub async fn wait_until_asked(&self) -> Asked {
        let mut asked = self.asked.subscribe();
        // Waiting fails only without a sender, and `self` holds the sender.
        let asked = asked.wait_for(Option::is_some).await.ok().and_then(|asked| *asked);
        asked.unwrap_or(Asked::ByPerson)
    }

    /// Handles SIGTERM and SIGINT from now on. The first signal asks the process to end; the second stops it,
    /// and the future returns.
    pub fn on_signal(&self) -> io::Result<impl Future<Output = ()> + Send + use<>> {
        let mut signals = Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        };
        let shutdown = self.clone();
        Ok(async move {
            let asked = signals.next().await;
            shutdown.asked.send_replace(Some(asked));
            signals.next().await;
            shutdown.stop();
        })
    }

    async fn wait_until(&self, reached: impl FnMut(&Phase) -> bool) {
        // Waiting fails only without a sender, and `self` holds the sender.
        let _phase = self.phase.subscribe().wait_for(reached).await.map(|phase| *phase);
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    async fn next(&mut self) -> Asked {
        let (name, asked) = tokio::select! {
            _ = self.terminate.recv() => ("SIGTERM", Asked::BySupervisor),
            _ = self.interrupt.recv() => ("SIGINT", Asked::ByPerson),
        };
        tracing::info!(signal = name, "signal received");
        asked
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Asked, Phase, Shutdown};

    #[tokio::test(start_paused = true)]
    async fn the_grace_period_runs_out_and_is_not_extended() {
        let shutdown = Shutdown::new();
        assert_eq!(shutdown.remaining_grace(), None);
        shutdown.begin(Duration::from_secs(10));
        tokio::time::advance(Duration::from_secs(4)).await;
        shutdown.begin(Duration::from_secs(60));
        assert_eq!(shutdown.remaining_grace(), Some(Duration::from_secs(6)));
        shutdown.stop();
        assert_eq!(shutdown.remaining_grace(), Some(Duration::ZERO));
        shutdown.begin(Duration::from_secs(60));
        assert_eq!(shutdown.phase(), Phase::Stopped);
    }

    #[tokio::test]
    async fn waiting_ends_when_draining_begins_and_is_over_at_once_afterwards() {
        let shutdown = Shutdown::new();
        let waiter = {
            let shutdown = shutdown.clone();
            async move { shutdown.wait_for_draining().await }
        };
        let begin = async { shutdown.begin(Duration::from_secs(1)) };
        tokio::time::timeout(Duration::from_secs(5), async { tokio::join!(waiter, begin) }).await.unwrap();
        tokio::time::timeout(Duration::from_secs(5), shutdown.wait_for_draining()).await.unwrap();
    }

    #[tokio::test]
    async fn the_first_signal_asks_and_the_second_stops() {
        fn send(signal: &str) {
            let pid = std::process::id().to_string();
            assert!(std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success());
        }
        let shutdown = Shutdown::new();
        let signals = shutdown.on_signal().unwrap();
        let sender = async {
            send("-TERM");
            assert_eq!(shutdown.wait_until_asked().await, Asked::BySupervisor);
            assert!(shutdown.is_running());
            send("-INT");
            shutdown.wait_for_stopped().await;
        };
        tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(signals, sender) }).await.unwrap();
    }
}
