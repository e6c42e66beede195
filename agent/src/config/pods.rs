//! What follows from what the cluster says of a caller's pod.
//!
//! Owns: the modes of both checks. Must not know: how they are made.

use std::time::Duration;

use super::boolean::go_bool;
use super::duration_within;
use super::problem::{Problem, Problems};
use crate::cli::ServerArgs;

/// Longer than the 5 s in which a watch must begin, and no longer than the API server takes for watches that
/// name no time themselves (30 to 60 minutes, its --min-request-timeout).
const WATCH_TIMEOUTS: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(60 * 60));

/// How strict each check of a caller's pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodChecks {
    /// That it is a pod of this node.
    pub uid: CheckMode,
    /// That it calls from its pod's address.
    pub address: CheckMode,
}

/// What a check that fails leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckMode {
    /// Nothing.
    Off,
    /// It is counted.
    Audit,
    /// The caller is refused.
    Enforce,
}

/// How long each watch of the pods of this node lasts (`None`: they are not watched), and both modes.
pub(super) fn read(args: &ServerArgs, problems: &mut Problems) -> Option<(Option<Duration>, PodChecks)> {
    let watch = problems.take(go_bool("--watch-pods", &args.watch_pods));
    let timeout = problems.take(duration_within("--watch-timeout", &args.watch_timeout, WATCH_TIMEOUTS));
    let uid = problems.take(mode("--check-pod-uid", &args.check_pod_uid));
    let address = problems.take(mode("--check-pod-address", &args.check_pod_address));
    Some((watch?.then_some(timeout?), PodChecks { uid: uid?, address: address? }))
}

fn mode(flag: &'static str, text: &str) -> Result<CheckMode, Problem> {
    match text {
        "off" => Ok(CheckMode::Off),
        "audit" => Ok(CheckMode::Audit),
        "enforce" => Ok(CheckMode::Enforce),
        other => Err(Problem::with_value(flag, "must be off, audit or enforce", other)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{CheckMode, PodChecks, read};
    use crate::cli::ServerArgs;
    use crate::config::problem::Problems;

    #[test]
    fn both_checks_audit_unless_told_otherwise_and_a_misspelt_mode_is_a_problem() {
        let reads = |arguments: &[&str]| read(&ServerArgs::of(arguments), &mut Problems::default());
        let (uid, address) = (CheckMode::Audit, CheckMode::Audit);
        let lasts = Some(Duration::from_secs(290));
        assert_eq!(reads(&[]), Some((lasts, PodChecks { uid, address })));
        let given = reads(&["--watch-pods=false", "--check-pod-uid=enforce", "--check-pod-address=off"]);
        let (uid, address) = (CheckMode::Enforce, CheckMode::Off);
        assert_eq!(given, Some((None, PodChecks { uid, address })));
        assert_eq!(reads(&["--check-pod-uid=true"]), None);
    }

    #[test]
    fn a_watch_lasts_between_ten_seconds_and_an_hour() {
        let reads = |timeout: &str| {
            let read = read(&ServerArgs::of(&["--watch-timeout", timeout]), &mut Problems::default());
            read.and_then(|(watch, _)| watch)
        };
        assert_eq!(reads("20s"), Some(Duration::from_secs(20)));
        assert_eq!(reads("1h"), Some(Duration::from_secs(3_600)));
        for bad in ["9s", "61m", "20", ""] {
            assert_eq!(reads(bad), None, "{bad:?}");
        }
    }
}
