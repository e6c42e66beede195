//! What must be true on a node, judged by a snapshot.
//!
//! Owns: the checks of `doctor`, their verdicts and remedies. Must not know: how they are shown. Each
//! condition is a check, in the order of their list; before them stand those that only the process itself can
//! see.

use serde::Serialize;

use super::snapshot::{ReportedCondition, Snapshot};
use super::status_page::clock_line;
use crate::lifecycle::condition_name::ConditionName;
use crate::lifecycle::readiness::{NOT_APPLICABLE, STARTING};

/// With fewer there are under 5,970 places for connections, which is 64 for each of 93 pods: three eighths of
/// what is left after the reserve (`server::door::capacity`, docs/design/decisions.md#fairness).
const FEW_DESCRIPTORS: u64 = 16_384;
/// A difference that matters: programs of the node that sign for themselves are refused from five minutes on,
/// and the agent goes by AWS's time anyway.
const CLOCK_IS_OFF: f64 = 60.0;

/// What is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It is so.
    Ok,
    /// It is not.
    NotOk,
    /// Nobody can tell yet.
    Unknown,
    /// It need not be, here.
    NotApplicable,
}

/// One thing that must be true.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name: that of a condition, or one of `doctor`'s own.
    pub name: &'static str,
    /// What must be true.
    pub meaning: &'static str,
    /// What is found.
    pub verdict: Verdict,
    /// Whether pods are not served without it.
    pub required: bool,
    /// What is seen, or why it is not so; may be empty.
    pub found: String,
    /// What to do where it is not so.
    pub remedy: Option<&'static str>,
    /// The section of docs/runbook.md that says more.
    pub runbook: Option<&'static str>,
}

/// All checks of this node.
pub fn checks(snapshot: &Snapshot) -> Vec<Check> {
    let own = [clock(snapshot), descriptors(snapshot)];
    let ways = snapshot.sources.iter().map(|source| way(snapshot, &source.name));
    let conditions = ConditionName::ALL.iter().map(|name| condition(snapshot, *name));
    own.into_iter().chain(ways).chain(conditions).collect()
}

/// Whether all that is required is so. What is unknown is not.
pub fn all_required_are_ok(checks: &[Check]) -> bool {
    checks.iter().filter(|check| check.required).all(|check| match check.verdict {
        Verdict::Ok | Verdict::NotApplicable => true,
        Verdict::NotOk | Verdict::Unknown => false,
    })
}

impl Check {
    /// One that is not required, without a remedy yet.
    const fn advisory(name: &'static str, meaning: &'static str, verdict: Verdict, found: String) -> Self {
        Self { name, meaning, verdict, required: false, found, remedy: None, runbook: None }
    }

    /// With what to do where it is not so.
    fn mended_by(self, remedy: &'static str, runbook: &'static str) -> Self {
        match self.verdict {
            Verdict::Ok | Verdict::NotApplicable => self,
            Verdict::NotOk | Verdict::Unknown => {
                Self { remedy: Some(remedy), runbook: Some(runbook), ..self }
            }
        }
    }
}

fn condition(snapshot: &Snapshot, name: ConditionName) -> Check {
    let reported = snapshot.conditions.iter().find(|reported| reported.name == name.as_str());
    let (verdict, found, required) = match reported {
        None => (Verdict::NotApplicable, "no flag asks for it".to_owned(), false),
        Some(reported) => (verdict(reported), reported.reason.clone(), reported.required),
    };
    let remedy = name.remedy();
    let check = Check { required, ..Check::advisory(name.as_str(), name.meaning(), verdict, found) };
    check.mended_by(remedy.advice, remedy.section)
}

fn verdict(reported: &ReportedCondition) -> Verdict {
    let ReportedCondition { met, reason, .. } = reported;
    match met {
        true if reason.starts_with(NOT_APPLICABLE) => Verdict::NotApplicable,
        true => Verdict::Ok,
        false if reason == STARTING || reason.starts_with("unknown") => Verdict::Unknown,
        false => Verdict::NotOk,
    }
}

fn clock(snapshot: &Snapshot) -> Check {
    let clock = &snapshot.clock;
    let verdict = match clock.aws_time.as_str() {
        "unknown" => Verdict::Unknown,
        _ if clock.offset_seconds.abs() > CLOCK_IS_OFF => Verdict::NotOk,
        _ => Verdict::Ok,
    };
    let meaning = "The node's clock is within a minute of AWS's.";
    Check::advisory("node-clock", meaning, verdict, clock_line(clock)).mended_by(
        "See that chronyd or systemd-timesyncd runs on the node; the agent itself goes by AWS's time once \
         AWS has answered.",
        "PodIdentityRejectedByAws",
    )
}

fn descriptors(snapshot: &Snapshot) -> Check {
    let counts = &snapshot.counts;
    let (verdict, limit) = match counts.descriptors_limit {
        None => (Verdict::Unknown, "unknown".to_owned()),
        Some(limit) if limit < FEW_DESCRIPTORS => (Verdict::NotOk, limit.to_string()),
        Some(limit) => (Verdict::Ok, limit.to_string()),
    };
    let (open, most) = (counts.connections_open, counts.connections_limit);
    let found = format!("{limit} descriptors; {open} of {most} connections are open");
    Check::advisory("descriptors", "The agent may have 16,384 descriptors or more.", verdict, found)
        .mended_by(
            "Raise the hard limit of open files of the container runtime (LimitNOFILE of containerd).",
            "PodIdentityLimitReached",
        )
}

/// Whether the last call was answered. The conditions wait for three calls and a minute.
fn way(snapshot: &Snapshot, source: &str) -> Check {
    let unanswered = snapshot
        .sources
        .iter()
        .find(|asked| asked.name == source)
        .and_then(|asked| asked.unanswered.as_ref());
    let ways =
        snapshot.connections_to_aws.iter().map(|way| format!("{} ({})", way.to, way.addresses.join(", ")));
    let seen = ways.collect::<Vec<_>>().join("; ");
    let (verdict, found) = match unanswered {
        Some(unanswered) => (Verdict::NotOk, unanswered.last_cause.clone()),
        None if seen.is_empty() => (
            Verdict::Unknown,
            "AWS was not called yet: the trial call or the first pod that asks has it called".to_owned(),
        ),
        None => (Verdict::Ok, seen),
    };
    let (name, section) = match source {
        "eks-auth" => ("way-to-eks-auth", "PodIdentityAwsUnreachable"),
        _ => ("way-to-sts", "PodIdentityStsUnreachable"),
    };
    let advice = "Mend the step that failed: name lookup, TCP, proxy or TLS.";
    let check = Check::advisory(name, "The last call was answered by AWS.", verdict, found);
    match check.verdict {
        // Nothing is wrong, and nothing is to be done.
        Verdict::Unknown => check,
        Verdict::Ok | Verdict::NotOk | Verdict::NotApplicable => check.mended_by(advice, section),
    }
}

#[cfg(test)]
mod tests {
    use super::{Verdict, all_required_are_ok, checks};
    use crate::lifecycle::condition_name::ConditionName;
    use crate::status::snapshot::{ClockState, Snapshot, Unanswered};
    use crate::status::testing::{condition, snapshot};

    fn verdict_of(snapshot: &Snapshot, name: &str) -> Verdict {
        checks(snapshot).into_iter().find(|check| check.name == name).unwrap().verdict
    }

    #[test]
    fn every_condition_is_a_check_and_those_of_no_flag_do_not_apply() {
        let checks = checks(&snapshot());
        assert_eq!(checks.len(), 3 + ConditionName::ALL.len());
        for name in ConditionName::ALL {
            assert!(checks.iter().any(|check| check.name == name.as_str()), "{name}");
        }
        assert_eq!(verdict_of(&snapshot(), "imds-block"), Verdict::NotApplicable);
    }

    #[test]
    fn a_condition_is_ok_or_not_or_unknown_or_does_not_apply() {
        for (met, reason, expected) in [
            (true, "", Verdict::Ok),
            (true, "on standby: another agent has it", Verdict::Ok),
            (true, "not applicable: IPv6 is switched off", Verdict::NotApplicable),
            (false, "address in use", Verdict::NotOk),
            (false, "starting", Verdict::Unknown),
            (false, "unknown: cannot set up a network namespace", Verdict::Unknown),
        ] {
            let conditions = vec![condition("self-probe", met, false, reason)];
            let snapshot = Snapshot { conditions, ..snapshot() };
            assert_eq!(verdict_of(&snapshot, "self-probe"), expected, "{reason}");
        }
    }

    #[test]
    fn what_is_not_so_has_a_remedy_and_what_is_so_has_none() {
        for check in checks(&snapshot()) {
            let is_bad = check.verdict == Verdict::NotOk;
            let is_good = matches!(check.verdict, Verdict::Ok | Verdict::NotApplicable);
            assert!(!is_bad || check.remedy.is_some() && check.runbook.is_some(), "{check:?}");
            assert!(!is_good || check.remedy.is_none(), "{check:?}");
        }
    }

    #[test]
    fn only_what_is_required_counts_and_the_unknown_is_not_good() {
        assert!(all_required_are_ok(&checks(&snapshot())), "an advisory condition is not met");
        for reason in ["there is no role", "starting"] {
            let conditions = vec![condition("own-credentials", false, true, reason)];
            assert!(!all_required_are_ok(&checks(&Snapshot { conditions, ..snapshot() })), "{reason}");
        }
    }

    #[test]
    fn the_clock_the_descriptors_and_the_way_to_aws_are_judged_by_what_the_process_sees() {
        let mut bad = snapshot();
        bad.clock = ClockState { aws_time: "confirmed".to_owned(), offset_seconds: -90.0 };
        bad.counts.descriptors_limit = Some(1_024);
        let last_cause = "EKS Auth in us-west-2: name lookup failed".to_owned();
        bad.sources[0].unanswered = Some(Unanswered { calls: 1, since: None, last_cause });
        for name in ["node-clock", "descriptors", "way-to-eks-auth"] {
            assert_eq!(verdict_of(&snapshot(), name), Verdict::Ok, "{name}");
            assert_eq!(verdict_of(&bad, name), Verdict::NotOk, "{name}");
        }
        let quiet = Snapshot { connections_to_aws: Vec::new(), ..snapshot() };
        assert_eq!(verdict_of(&quiet, "way-to-eks-auth"), Verdict::Unknown);
        let young = Snapshot { clock: ClockState { aws_time: "unknown".to_owned(), ..quiet.clock }, ..bad };
        assert_eq!(verdict_of(&young, "node-clock"), Verdict::Unknown);
    }
}
