//! The text of `doctor`.
//!
//! Owns: its order: first what is wrong, with its remedy; last what does not matter here. Must not know: how
//! a verdict comes about (`checks`).

use std::fmt::Write as _;

use super::checks::{Check, Verdict, all_required_are_ok};
use super::table::fit_for_terminal;

/// The page.
pub fn page(checks: &[Check]) -> String {
    let mut page = String::new();
    for verdict in [Verdict::NotOk, Verdict::Unknown, Verdict::Ok] {
        checks.iter().filter(|check| check.verdict == verdict).for_each(|check| write(&mut page, check));
    }
    let elsewhere: Vec<_> = checks
        .iter()
        .filter(|check| check.verdict == Verdict::NotApplicable)
        .map(|check| check.name)
        .collect();
    if !elsewhere.is_empty() {
        let _written = writeln!(page, "not applicable here: {}", elsewhere.join(", "));
    }
    page += summary(checks);
    page
}

fn summary(checks: &[Check]) -> &'static str {
    let is_wrong = |check: &Check| check.verdict == Verdict::NotOk;
    if !all_required_are_ok(checks) {
        "\nPods are not served as they should be: mend what is required first.\n"
    } else if checks.iter().any(is_wrong) {
        "\nPods are served; something else is not as it should be.\n"
    } else {
        "\nAll is as it should be.\n"
    }
}

fn write(page: &mut String, check: &Check) {
    let verdict = match check.verdict {
        Verdict::Ok => "ok",
        Verdict::NotOk => "NOT OK",
        Verdict::Unknown => "unknown",
        Verdict::NotApplicable => "not applicable",
    };
    let required = if check.required { " (required)" } else { "" };
    // Writing to a string cannot fail.
    let _written = writeln!(page, "{verdict:<8} {}{required}: {}", check.name, check.meaning);
    if !check.found.is_empty() {
        let _written = writeln!(page, "         found: {}", fit_for_terminal(&check.found));
    }
    if let (Some(remedy), Some(section)) = (check.remedy, check.runbook) {
        let anchor = section.to_ascii_lowercase();
        let _written = writeln!(page, "         to do: {remedy}\n         more:  docs/runbook.md#{anchor}");
    }
}

#[cfg(test)]
mod tests {
    use super::page;
    use crate::status::checks::checks;
    use crate::status::snapshot::Snapshot;
    use crate::status::testing::{condition, snapshot};

    #[test]
    fn what_is_wrong_comes_first_with_its_remedy_and_its_section() {
        let conditions = vec![
            condition("running", true, true, ""),
            condition("own-credentials", false, true, "no such file: \u{1b}/x"),
        ];
        let page = page(&checks(&Snapshot { conditions, ..snapshot() }));
        let expected = "\
NOT OK   own-credentials (required): The agent has AWS credentials of its own to call EKS Auth with.
         found: no such file: ?/x
         to do: Attach an instance profile and switch the metadata service on, or, on a hybrid node, \
see that the credentials file is there.
         more:  docs/runbook.md#podidentitynotserving
ok       node-clock: The node's clock is within a minute of AWS's.
         found: the node's clock agrees with AWS
";
        assert!(page.starts_with(expected), "{page}");
        assert!(page.contains("\nok       running (required): "), "{page}");
        assert!(page.contains("\nnot applicable here: region, upstream-accepts-us, "), "{page}");
        assert!(page.ends_with("mend what is required first.\n"), "{page}");
    }

    #[test]
    fn the_last_line_says_whether_pods_are_served() {
        assert!(
            page(&checks(&snapshot())).ends_with("Pods are served; something else is not as it should be.\n")
        );
        let conditions = vec![condition("running", true, true, "")];
        let good = page(&checks(&Snapshot { conditions, ..snapshot() }));
        assert!(good.ends_with("\nAll is as it should be.\n"), "{good}");
    }
}
