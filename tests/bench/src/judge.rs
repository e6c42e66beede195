//! Whether the figures are those that README.md gives.
//!
//! README is the one place of these numbers: its table is read, and a figure that is further outside of what
//! stands there than [`TOLERANCE`] is a fault, in the agent or in README. Pure.

use serde_json::{Map, Value};

/// How far outside a figure may be, of the bound that it passes: two idle machines differ by so much.
const TOLERANCE: f64 = 0.1;
/// What the table's first column says, and the figure's name in the summary.
const FIGURES: [(&str, &str); 12] = [
    ("hits, a new connection each", "hit_new_connection_vs_floor"),
    ("hits, keep-alive", "hit_keep_alive_vs_floor"),
    ("CPU of hits at 600 a second, a new connection each", "hit_steady_new_connection_cpu_vs_floor"),
    ("CPU of hits at 600 a second, keep-alive", "hit_steady_keep_alive_cpu_vs_floor"),
    ("exec to ready, own AWS credentials included", "ready_ms"),
    ("resident memory at start", "rss_start_mib"),
    ("resident memory with 10,000 verified identities", "rss_10k_identities_mib"),
    ("resident memory with 250 pods, without the Kubernetes API", "rss_250_pods_without_kubernetes_mib"),
    ("resident memory with 250 pods and everything on", "rss_250_pods_mib"),
    ("of which the Kubernetes API, 10,000 pods in it", "rss_250_pods_of_kubernetes_mib"),
    ("first verification of a token", "first_verification_vs_rs256"),
    ("a token verified before", "cached_authentication_vs_sha256"),
];

/// What README says of one figure: it is in one of these ranges. Machines that differ in kind have one each.
#[derive(Debug, PartialEq)]
pub(crate) struct Expected {
    name: &'static str,
    ranges: Vec<(f64, f64)>,
}

/// Why there is no judgement.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum JudgeError {
    /// README has no such table any more.
    #[error("README.md has no row \"{0}\" in its table of figures")]
    RowMissing(&'static str),
    /// A row that nobody measures.
    #[error("README.md has a row \"{0}\", which the bench does not measure")]
    RowUnknown(String),
    /// A row without a number.
    #[error("the row \"{0}\" of README.md has no range")]
    NoRange(&'static str),
    /// The summary lacks a figure.
    #[error("the summary has no {0}")]
    FigureMissing(&'static str),
}

/// Reads the table with the columns "figure", "measured" and "aim".
pub(crate) fn read(readme: &str) -> Result<Vec<Expected>, JudgeError> {
    let rows = readme.lines().skip_while(|line| !line.starts_with("| figure | measured |")).skip(2);
    let rows: Vec<Vec<&str>> = rows
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let title = |row: &[&str]| row.first().copied().unwrap_or_default().to_owned();
    if let Some(row) = rows.iter().find(|row| FIGURES.iter().all(|(known, _)| *known != title(row))) {
        return Err(JudgeError::RowUnknown(title(row)));
    }
    let expected = |(known, name): (&'static str, &'static str)| {
        let row = rows.iter().find(|row| title(row) == known).ok_or(JudgeError::RowMissing(known))?;
        let ranges = ranges(row.get(1).copied().unwrap_or_default());
        if ranges.is_empty() { Err(JudgeError::NoRange(known)) } else { Ok(Expected { name, ranges }) }
    };
    FIGURES.into_iter().map(expected).collect()
}

/// `5 ms; 12 to 14 ms with more` are two ranges, from 5 to 5 and from 12 to 14.
fn ranges(cell: &str) -> Vec<(f64, f64)> {
    let range = |part: &str| {
        let mut words = part.split_whitespace();
        let low = words.next()?.parse().ok()?;
        let high = match (words.next(), words.next()) {
            (Some("to"), Some(high)) => high.parse().ok()?,
            _ => low,
        };
        Some((low, high))
    };
    cell.split(';').filter_map(range).collect()
}

/// One sentence for each figure that is too far outside of what README says.
pub(crate) fn judge(summary: &Map<String, Value>, expected: &[Expected]) -> Result<Vec<String>, JudgeError> {
    let mut outside = Vec::new();
    for Expected { name, ranges } in expected {
        let figure = summary.get(*name).and_then(Value::as_f64).ok_or(JudgeError::FigureMissing(name))?;
        let is_in =
            |(low, high): &(f64, f64)| (low * (1.0 - TOLERANCE)..=high * (1.0 + TOLERANCE)).contains(&figure);
        if !ranges.iter().any(is_in) {
            let said: Vec<_> = ranges.iter().map(|(low, high)| format!("{low} to {high}")).collect();
            outside.push(format!("{name} is {figure}; README.md says {}", said.join(", or ")));
        }
    }
    Ok(outside)
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::{Expected, JudgeError, judge, ranges, read};

    const README: &str = include_str!("../../../README.md");

    fn summary(figures: &[(&str, f64)]) -> Map<String, Value> {
        figures.iter().map(|(name, figure)| ((*name).to_owned(), json!(figure))).collect()
    }

    #[test]
    fn the_table_in_readme_has_a_range_for_each_figure() {
        let expected = read(README).unwrap();
        assert_eq!(expected.len(), super::FIGURES.len());
        for Expected { name, ranges } in &expected {
            assert!(ranges.iter().all(|(low, high)| 0.0 < *low && low <= high), "{name}: {ranges:?}");
        }
    }

    #[test]
    fn a_table_that_lacks_a_row_has_an_unknown_one_or_no_number_is_an_error() {
        let row = "| hits, keep-alive |";
        let without: String =
            README.lines().filter(|line| !line.starts_with(row)).map(|line| format!("{line}\n")).collect();
        assert_eq!(read(&without), Err(JudgeError::RowMissing("hits, keep-alive")));
        let unknown = README.replace(row, "| hits, by pigeon |");
        assert_eq!(read(&unknown), Err(JudgeError::RowUnknown("hits, by pigeon".to_owned())));
        let numberless = README.replace("| hits, keep-alive | 0", "| hits, keep-alive | about 0");
        assert_eq!(read(&numberless), Err(JudgeError::NoRange("hits, keep-alive")));
        assert_eq!(read(""), Err(JudgeError::RowMissing("hits, a new connection each")));
    }

    #[test]
    fn a_cell_has_a_range_for_each_kind_of_machine() {
        assert_eq!(ranges("0.93 to 1.07 of the floor"), [(0.93, 1.07)]);
        assert_eq!(
            ranges("5 ms; 12 to 14 ms with `NET_ADMIN` (the chart), when"),
            [(5.0, 5.0), (12.0, 14.0)]
        );
        assert_eq!(ranges("57.2 MiB"), [(57.2, 57.2)]);
        assert_eq!(ranges("about 5 ms"), []);
    }

    #[test]
    fn a_figure_may_be_a_tenth_outside_and_no_more_on_either_side() {
        let expected = [Expected { name: "f", ranges: vec![(5.0, 5.0), (10.0, 20.0)] }];
        for (figure, is_outside) in [
            (4.49, true),
            (4.51, false),
            (5.0, false),
            (5.49, false),
            (5.51, true),
            (8.99, true),
            (9.01, false),
            (21.99, false),
            (22.01, true),
        ] {
            let said = judge(&summary(&[("f", figure)]), &expected).unwrap();
            assert_eq!(said.len(), usize::from(is_outside), "{figure}: {said:?}");
        }
        let said = judge(&summary(&[("f", 30.0)]), &expected).unwrap();
        assert_eq!(said, ["f is 30; README.md says 5 to 5, or 10 to 20"]);
        assert_eq!(judge(&summary(&[("g", 5.0)]), &expected), Err(JudgeError::FigureMissing("f")));
    }
}
