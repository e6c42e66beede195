//! How long the end of the agent may take.
//!
//! Owns: the flags about it, and their limits. Must not know: what is done in that time.

use std::fmt;
use std::time::Duration;

use super::duration_of;
use super::problem::{Problem, Problems};
use crate::cli::ServerArgs;

/// The longest useful grace in minutes: a pod's termination grace period is 30 s by default.
const MAX_SHUTDOWN_GRACE_MINUTES: u64 = 5;

/// The parts of the end, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShutdownTimes {
    /// How long pods are served on after SIGTERM, unless another agent takes over before.
    pub delay: Duration,
    /// Maximum time to answer pending requests after that.
    pub grace: Duration,
}

pub(super) fn read(args: &ServerArgs, problems: &mut Problems) -> Option<ShutdownTimes> {
    let delay = problems.take(at_most_minutes("--shutdown-delay", &args.shutdown_delay));
    let grace = problems.take(at_most_minutes("--shutdown-grace", &args.shutdown_grace));
    Some(ShutdownTimes { delay: delay?, grace: grace? })
}

fn at_most_minutes(flag: &'static str, text: &str) -> Result<Duration, Problem> {
    let lasts = duration_of(flag, text)?;
    if lasts <= Duration::from_secs(60 * MAX_SHUTDOWN_GRACE_MINUTES) {
        Ok(lasts)
    } else {
        let rule = format!(
            "must be at most {MAX_SHUTDOWN_GRACE_MINUTES}m: the kubelet would kill the pod before that"
        );
        Err(Problem::with_value(flag, rule, text))
    }
}

impl fmt::Display for ShutdownTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shutdown_delay={:?} shutdown_grace={:?}", self.delay, self.grace)
    }
}
