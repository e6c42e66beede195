//! What follows from what the cluster says of a caller's pod.
//!
//! Owns: the modes of both checks. Must not know: how they are made.

use super::boolean::go_bool;
use super::problem::{Problem, Problems};
use crate::cli::ServerArgs;

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

/// Whether the pods of this node are watched, and both modes.
pub(super) fn read(args: &ServerArgs, problems: &mut Problems) -> Option<(bool, PodChecks)> {
    let watch = problems.take(go_bool("--watch-pods", &args.watch_pods));
    let uid = problems.take(mode("--check-pod-uid", &args.check_pod_uid));
    let address = problems.take(mode("--check-pod-address", &args.check_pod_address));
    Some((watch?, PodChecks { uid: uid?, address: address? }))
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
    use super::{CheckMode, PodChecks, read};
    use crate::cli::ServerArgs;
    use crate::config::problem::Problems;

    #[test]
    fn both_checks_audit_unless_told_otherwise_and_a_misspelt_mode_is_a_problem() {
        let reads = |arguments: &[&str]| read(&ServerArgs::of(arguments), &mut Problems::default());
        let (uid, address) = (CheckMode::Audit, CheckMode::Audit);
        assert_eq!(reads(&[]), Some((true, PodChecks { uid, address })));
        let given = reads(&["--watch-pods=false", "--check-pod-uid=enforce", "--check-pod-address=off"]);
        let (uid, address) = (CheckMode::Enforce, CheckMode::Off);
        assert_eq!(given, Some((false, PodChecks { uid, address })));
        assert_eq!(reads(&["--check-pod-uid=true"]), None);
    }
}
