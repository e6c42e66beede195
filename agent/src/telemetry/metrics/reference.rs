//! docs/metrics.md: every series of the page, made from the page itself.
//!
//! Owns: the tables of that document, and the test that they are up to date. `WRITE_DOCS=1` has the test
//! write them; what stands between the tables is written by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::requests::OUTCOMES;
use super::upstream::outcomes;
use super::{
    Authenticated, BudgetNumbers, CachedIdentities, CallOutcome, ConnectionNumbers, Format,
    MetadataClientNumbers, Metrics, MetricsPage, ProbedFrom, Readings, TokenKeyNumbers, UpstreamNumbers,
};
use crate::clock::Clock;
use crate::credentials::limits::upstream_budget::UpstreamBudget;
use crate::lifecycle::limits::LIMITS;
use crate::workload::Source;

/// Labels with values that are not listed, and what the document says instead.
const NOT_LISTED: [(&str, &str, &str); 3] = [
    ("pod_identity_http_response", "code", "HTTP status"),
    ("pod_identity_agent_build_info", "version", "of the agent"),
    ("pod_identity_agent_condition", "condition", "as in `/readyz`"),
];

/// A page on which every series has each of its label values.
pub(crate) fn page_with_everything() -> MetricsPage {
    let metrics = Metrics::new();
    for outcome in OUTCOMES {
        metrics.requests.answered(outcome, Some(200), Duration::from_micros(20));
    }
    for verdict in
        [Authenticated::Verified, Authenticated::Unverified, Authenticated::Refused, Authenticated::Undecided]
    {
        metrics.authentications.judged(verdict);
    }
    for source in Source::ALL {
        for label in outcomes(source) {
            let outcome = match label {
                "ok" => CallOutcome::Done,
                code if code.ends_with("Exception") => CallOutcome::Final(code),
                passing => CallOutcome::Passing(passing),
            };
            metrics.upstream.called(source, outcome, Duration::from_millis(20));
        }
    }
    for from in [ProbedFrom::Host, ProbedFrom::Namespace] {
        for address in ["127.0.0.1", "::1"] {
            metrics.self_probe.probed(from, address.parse::<IpAddr>().unwrap(), true);
        }
    }
    MetricsPage::new(Arc::new(metrics), readings())
}

fn readings() -> Readings {
    let known = Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_250));
    let budget: BudgetNumbers = UpstreamBudget::new(Clock::system()).numbers();
    Readings {
        cached_identities: Box::new(|| CachedIdentities { verified: 2, unverified: 1 }),
        upstream: Box::new(move || {
            Source::ALL.map(|source| UpstreamNumbers { source, identities_in_flight: 1, budget }).to_vec()
        }),
        own_credentials_expiration: Box::new(move || known),
        token_keys: Box::new(move || TokenKeyNumbers { count: 2, refreshed: known }),
        clock_offset_seconds: Box::new(|| -0.5),
        pods: Box::new(|| Some([("asked", 3), ("silent", 1), ("missed", 1), ("other", 5)])),
        connections: Box::new(ConnectionNumbers::default),
        limits_reached: Box::new(|| LIMITS.map(|limit| (limit.label(), 3)).to_vec()),
        metadata_clients: Box::new(|| {
            Some(MetadataClientNumbers { connections: [("passed", 6), ("blocked", 2)], pods: 1 })
        }),
        log_lines_dropped: Box::new(|| 4),
        conditions: Box::new(|| vec![("running", true), ("link", false)]),
    }
}

/// A family of series, as the page has it.
#[derive(Debug, Default)]
struct Family {
    name: String,
    kind: String,
    help: String,
    unit: String,
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// The families of an OpenMetrics page, by the names that one asks for: a counter's has its `_total`.
fn families(page: &str) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    for line in page.lines() {
        if let Some((_name, help)) = line.strip_prefix("# HELP ").and_then(|line| line.split_once(' ')) {
            families.push(Family { help: help.to_owned(), ..Family::default() });
            continue;
        }
        let Some(family) = families.last_mut() else { continue };
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "info"),
                "unknown" => ("", "counter"),
                same => ("", same),
            };
            (family.name, family.kind) = (format!("{name}{suffix}"), kind.to_owned());
        } else if let Some((_name, unit)) = line.strip_prefix("# UNIT ").and_then(|line| line.split_once(' '))
        {
            family.unit = unit.to_owned();
        } else if let Some((_name, labels)) = line.split_once('{') {
            for label in labels.split_once('}').unwrap().0.split(',') {
                let (name, value) = label.split_once('=').unwrap();
                if name != "le" {
                    family.labels.entry(name.to_owned()).or_default().insert(value.replace('"', ""));
                }
            }
        }
    }
    families
}

impl Family {
    fn row(&self) -> String {
        let labels: Vec<String> = self.labels.iter().map(|(name, values)| self.label(name, values)).collect();
        let labels = labels.join("; ");
        let (labels, unit) = (or_dash(&labels), or_dash(&self.unit));
        format!("| `{}` | {} | {unit} | {labels} | {} |\n", self.name, self.kind, self.help)
    }

    fn label(&self, name: &str, values: &BTreeSet<String>) -> String {
        let instead = NOT_LISTED.iter().find(|(of, label, _)| *of == self.name && *label == name);
        if let Some((_, _, instead)) = instead {
            return format!("`{name}`: {instead}");
        }
        let values: Vec<String> = values
            .iter()
            .map(|value| if value.is_empty() { "empty".to_owned() } else { format!("`{value}`") })
            .collect();
        format!("`{name}`: {}", values.join(", "))
    }
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "–" } else { text }
}

/// The rows of the families with names that begin with one of these, and with none of those.
fn table(families: &[Family], begin: &str, and_not: &str) -> String {
    let mut table = "| Name | Type | Unit | Labels | Meaning |\n|---|---|---|---|---|\n".to_owned();
    let of_table = |family: &&Family| {
        family.name.starts_with(begin) && (and_not.is_empty() || !family.name.starts_with(and_not))
    };
    table.extend(families.iter().filter(of_table).map(Family::row));
    table
}

/// The document with its tables made anew. Each stands between two comments.
fn with_tables(document: &str, tables: &[(&str, String)]) -> String {
    let mut document = document.to_owned();
    for (name, table) in tables {
        let (begin, end) = (format!("<!-- table: {name} -->\n"), format!("<!-- end: {name} -->\n"));
        let from = document.find(&begin).unwrap_or_else(|| panic!("no {begin}")) + begin.len();
        let to = document.find(&end).unwrap_or_else(|| panic!("no {end}"));
        document.replace_range(from..to, table);
    }
    document
}

#[test]
fn the_document_lists_every_series() {
    let families = families(&page_with_everything().render(Format::OpenMetrics));
    let tables = [
        ("agent", table(&families, "pod_identity_agent_", "")),
        ("amazon", table(&families, "pod_identity_", "pod_identity_agent_")),
        ("process", table(&families, "process_", "")),
    ];
    let rows: usize = tables.iter().map(|(_, table)| table.lines().count() - 2).sum();
    assert_eq!(rows, families.len(), "a family that no table has");

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let stored = std::fs::read_to_string(&path).unwrap();
    let written = with_tables(&stored, &tables);
    #[expect(clippy::disallowed_methods, reason = "the switch of a test, not configuration of the agent")]
    if std::env::var_os("WRITE_DOCS").is_some() {
        std::fs::write(&path, written).unwrap();
        return;
    }
    assert!(
        written == stored,
        "docs/metrics.md is not what the page has: WRITE_DOCS=1 cargo test -p pod-identity-agent --lib \
         the_document_lists_every_series\n{written}"
    );
}

#[test]
fn every_name_and_help_follows_prometheus_conventions() {
    for family in families(&page_with_everything().render(Format::OpenMetrics)) {
        let Family { name, kind, help, unit, .. } = &family;
        let bare = name.trim_end_matches("_total");
        assert!(unit.is_empty() || bare.ends_with(unit), "{name} does not end with its unit {unit}");
        for wrong in ["milliseconds", "minutes", "_ms", "percent", "gauge", "counter"] {
            assert!(!name.contains(wrong), "{name} has {wrong} in it");
        }
        assert_eq!(name.ends_with("_total"), kind == "counter" && !is_amazons(name), "{name} is a {kind}");
        assert!(help.ends_with('.') && !help.ends_with(".."), "{name}: {help}");
        // The library does not escape it.
        assert!(!help.contains(['\\', '"', '\n']), "{name}: {help}");
    }
}

fn is_amazons(name: &str) -> bool {
    name.starts_with("pod_identity_") && !name.starts_with("pod_identity_agent_")
}

#[test]
fn what_is_not_known_has_no_sample() {
    let unknown = Readings {
        own_credentials_expiration: Box::new(|| None),
        token_keys: Box::new(TokenKeyNumbers::default),
        pods: Box::new(|| None),
        ..readings()
    };
    let known = page_with_everything().render(Format::Text);
    let unknown = MetricsPage::new(Arc::new(Metrics::new()), unknown).render(Format::Text);
    for (series, value) in [
        ("pod_identity_agent_own_credentials_expiration_timestamp_seconds", "1700000000.25"),
        ("pod_identity_agent_token_keys_refresh_timestamp_seconds", "1700000000.25"),
    ] {
        assert!(known.lines().any(|line| line == format!("{series} {value}")), "{known}");
        assert!(!unknown.contains(series), "{unknown}");
    }
    assert!(!unknown.contains("pod_identity_agent_pods{"), "{unknown}");
    assert!(unknown.contains("pod_identity_agent_token_keys 0\n"), "{unknown}");
    assert!(!unknown.contains("pod_identity_agent_self_probe"), "{unknown}");
}
