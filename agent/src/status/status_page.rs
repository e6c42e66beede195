//! The text of `status`.
//!
//! Owns: what an admin reads first. Must not know: what should be so (`checks`).

use std::fmt::Write as _;

use super::snapshot::{
    Agent, AskedSource, ClockState, Counts, Holding, Identity, LastError, OwnCredentials, ReportedCondition,
    Snapshot,
};
use super::table::{fit_for_terminal, shown, table};

const COLUMNS: [&str; 8] =
    ["NAMESPACE", "SERVICE ACCOUNT", "POD", "FROM", "ROLE", "VALID UNTIL", "NEXT RENEWAL", "LAST ERROR"];

/// The page.
pub fn page(snapshot: &Snapshot) -> String {
    let mut page = summary(snapshot);
    let unmet: Vec<_> = snapshot.conditions.iter().filter(|condition| !condition.met).collect();
    if !unmet.is_empty() {
        page += "\nConditions that are not met:\n";
        unmet.into_iter().for_each(|condition| page += &unmet_line(condition));
    }
    page += "\n";
    page += &identities(snapshot);
    page
}

/// A line about each part of the agent.
fn summary(snapshot: &Snapshot) -> String {
    let Snapshot { agent, own_credentials, sources, connections_to_aws, clock, counts, .. } = snapshot;
    let node =
        agent.node.as_deref().map_or_else(|| "an unnamed node".to_owned(), |name| format!("node {name}"));
    let ready = if agent.ready { "ready" } else { "NOT READY" };
    let since = agent.started.as_deref().unwrap_or("an unknown time");
    let mut lines = vec![
        ("Agent", format!("pod-identity-agent {} on {node}", agent.version)),
        ("Cluster", format!("{} in {}", agent.cluster, region(agent))),
        ("State", format!("{ready}; running for {}, since {since}", duration(agent.uptime_seconds))),
        ("Own credentials", own_credentials.as_ref().map_or_else(|| "none needed".to_owned(), own)),
    ];
    lines.extend(sources.iter().map(|source| (source_title(&source.name), asked(source))));
    for way in connections_to_aws {
        let addresses =
            if way.addresses.is_empty() { "no address yet".to_owned() } else { way.addresses.join(", ") };
        lines.push(("Connections to", format!("{} ({addresses})", way.to)));
    }
    lines.push(("Clock", clock_line(clock)));
    lines.push(("Identities", counted(counts)));
    let mut text = String::new();
    for (title, line) in lines {
        // Writing to a string cannot fail.
        let _written = writeln!(text, "{:<17}{}", format!("{title}:"), fit_for_terminal(&line));
    }
    text
}

fn region(agent: &Agent) -> String {
    match (&agent.region, agent.region_from_instance) {
        (None, _) => "an UNKNOWN REGION".to_owned(),
        (Some(name), false) => name.clone(),
        (Some(name), true) => format!("{name} (from the instance)"),
    }
}

fn own(own: &OwnCredentials) -> String {
    match (&own.source, &own.expires) {
        (None, _) => "NONE".to_owned(),
        (Some(source), Some(expires)) => format!("{source}, valid until {expires}"),
        (Some(source), None) => format!("{source}, without an end"),
    }
}

fn source_title(name: &str) -> &'static str {
    if name == "eks-auth" { "EKS Auth" } else { "STS" }
}

fn asked(source: &AskedSource) -> String {
    let endpoint = source.endpoint.as_deref().unwrap_or("the region's endpoint");
    let AskedSource { calls_in_flight, calls_limit, calls_waiting, .. } = source;
    let calls = format!("{calls_in_flight} of {calls_limit} calls under way, {calls_waiting} waiting");
    match &source.unanswered {
        None => format!("{endpoint}; {calls}"),
        Some(unanswered) => {
            let since = unanswered.since.as_deref().unwrap_or("an unknown time");
            let last = &unanswered.last_cause;
            format!("{endpoint}; {calls}; NO ANSWER to {} calls since {since}: {last}", unanswered.calls)
        }
    }
}

/// The same in `doctor`.
pub(super) fn clock_line(clock: &ClockState) -> String {
    let ClockState { aws_time, offset_seconds } = clock;
    match aws_time.as_str() {
        "unknown" => "AWS has not said what time it is yet; the node's clock counts".to_owned(),
        _ if *offset_seconds == 0.0 => "the node's clock agrees with AWS".to_owned(),
        _ if *offset_seconds > 0.0 => {
            format!("the node's clock is {offset_seconds:.0} s behind AWS; AWS's time counts")
        }
        _ => format!("the node's clock is {:.0} s ahead of AWS; AWS's time counts", -offset_seconds),
    }
}

fn counted(counts: &Counts) -> String {
    let Counts { verified_identities, unverified_identities, token_keys, .. } = counts;
    let pods = counts.pods.map_or_else(String::new, |pods| format!("; {pods} pods on this node"));
    format!(
        "{verified_identities} verified and {unverified_identities} unverified with credentials; \
         {token_keys} token keys{pods}"
    )
}

fn unmet_line(condition: &ReportedCondition) -> String {
    let required = if condition.required { "required" } else { "advisory" };
    format!("  {} ({required}): {}\n", condition.name, fit_for_terminal(&condition.reason))
}

fn identities(snapshot: &Snapshot) -> String {
    let left_out = snapshot.identities_left_out;
    let mut text = match (snapshot.identities.is_empty(), left_out) {
        (true, 0) => "No pod has asked for credentials, or none that still has any.\n".to_owned(),
        (true, _) => String::new(),
        (false, _) => table(COLUMNS, snapshot.identities.iter().map(row)),
    };
    if left_out > 0 {
        let _written = writeln!(text, "and {left_out} more (--limit)");
    }
    text
}

fn row(identity: &Identity) -> [String; 8] {
    let pod = identity.pod.as_deref().unwrap_or("-");
    let valid_until = match identity.holding {
        Holding::Credentials => identity.valid_until.clone().unwrap_or_default(),
        Holding::Refused => "refused".to_owned(),
        Holding::Waiting => "waiting".to_owned(),
    };
    let next_renewal = match (&identity.next_renewal, identity.holding) {
        (Some(at), _) => at.clone(),
        (None, Holding::Credentials) => "when asked".to_owned(),
        (None, Holding::Refused | Holding::Waiting) => String::new(),
    };
    [
        identity.namespace.clone(),
        identity.service_account.clone(),
        if identity.verified { pod.to_owned() } else { format!("{} (not verified)", shown(pod)) },
        given_by(identity),
        identity.role.clone().unwrap_or_default(),
        valid_until,
        next_renewal,
        identity.last_error.as_ref().map_or_else(String::new, error),
    ]
}

fn given_by(identity: &Identity) -> String {
    match (&identity.association, &identity.configured_role) {
        (Some(association), _) => format!("association {association}"),
        (None, Some(role)) => format!("annotation or map {role}"),
        (None, None) => source_title(&identity.source).to_owned(),
    }
}

fn error(error: &LastError) -> String {
    let at = error.at.as_ref().map_or_else(String::new, |at| format!(" ({at})"));
    format!("{}: {}{at}", error.code, error.message)
}

/// Seconds as `3h 12m`: the two largest units.
fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::{clock_line, duration, page};
    use crate::status::snapshot::{ClockState, Holding, Identity, LastError, Snapshot, Unanswered};
    use crate::status::testing::snapshot;

    #[test]
    fn a_region_of_the_instance_is_told_from_one_that_is_given() {
        let read = |region: Option<&str>| {
            let mut snapshot = snapshot();
            snapshot.agent.region = region.map(str::to_owned);
            snapshot.agent.region_from_instance = true;
            page(&snapshot)
        };
        assert!(read(Some("eu-west-1")).contains("prod in eu-west-1 (from the instance)\n"));
        assert!(read(None).contains("prod in an UNKNOWN REGION\n"));
    }

    #[test]
    fn the_page_says_who_has_what_from_where_until_when_and_what_went_wrong() {
        let expected = "\
Agent:           pod-identity-agent 1.2.3 on node ip-10-0-0-1
Cluster:         prod in us-west-2
State:           ready; running for 3h 12m, since 2026-11-26T06:48:00Z
Own credentials: instance role node, valid until 2026-11-26T16:00:00Z
EKS Auth:        the region's endpoint; 0 of 8 calls under way, 0 waiting
Connections to:  eks-auth.us-west-2.api.aws:443 (192.0.2.1:443)
Clock:           the node's clock agrees with AWS
Identities:      1 verified and 1 unverified with credentials; 2 token keys; 12 pods on this node

Conditions that are not met:
  listener-ipv6 (advisory): address in use

";
        let shown = page(&snapshot());
        let (summary, rows) = shown.split_at(expected.len());
        assert_eq!(summary, expected);
        // The padding has a test of its own.
        let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        for row in [
            "NAMESPACE SERVICE ACCOUNT POD FROM ROLE VALID UNTIL NEXT RENEWAL LAST ERROR",
            "shop cart cart-1 association a-1 arn:aws:sts::111122223333:assumed-role/cart \
             2026-11-26T16:00:00Z 2026-11-26T13:00:00Z -",
            "shop search search-1 (not verified) association a-2 \
             arn:aws:sts::111122223333:assumed-role/search 2026-11-26T11:00:00Z when asked timeout: AWS \
             cannot be reached (2026-11-26T09:59:00Z)",
            "shop stranger stranger-1 EKS Auth - refused - \
             ResourceNotFoundException: No association found. (2026-11-26T09:58:00Z)",
        ] {
            assert!(rows.lines().any(|line| squeeze(line) == row), "{row}\n{shown}");
        }
    }

    #[test]
    fn what_is_left_out_is_counted_and_an_empty_node_says_so() {
        let nobody = Snapshot { identities: Vec::new(), ..snapshot() };
        assert!(page(&nobody).ends_with("No pod has asked for credentials, or none that still has any.\n"));
        let many = Snapshot { identities_left_out: 7, ..snapshot() };
        assert!(page(&many).ends_with("\nand 7 more (--limit)\n"));
    }

    #[test]
    fn a_source_without_answers_is_shown_with_what_is_in_the_way() {
        let mut snapshot = snapshot();
        let unanswered = Unanswered { calls: 4, since: None, last_cause: "TLS failed".to_owned() };
        snapshot.sources[0].unanswered = Some(unanswered);
        assert!(page(&snapshot).contains("NO ANSWER to 4 calls since an unknown time: TLS failed"));
    }

    #[test]
    fn the_clock_is_behind_or_ahead_or_nobody_knows() {
        let line = |aws_time: &str, offset_seconds| {
            clock_line(&ClockState { aws_time: aws_time.to_owned(), offset_seconds })
        };
        assert!(line("unknown", 0.0).starts_with("AWS has not said"));
        assert!(line("confirmed", 90.4).contains("90 s behind AWS"));
        assert!(line("unconfirmed", -61.0).contains("61 s ahead of AWS"));
    }

    #[test]
    fn a_claim_cannot_forge_a_line() {
        let identity = Identity {
            namespace: "a\nkube-system".to_owned(),
            holding: Holding::Waiting,
            last_error: Some(LastError { message: "x\u{1b}[1A".to_owned(), ..LastError::default() }),
            ..Identity::default()
        };
        let page = page(&Snapshot { identities: vec![identity], ..Snapshot::default() });
        assert!(page.contains("a?kube-system") && !page.contains('\u{1b}'), "{page}");
    }

    #[test]
    fn durations_have_their_two_largest_units() {
        let shown = [59, 61, 3_700, 90_000].map(duration);
        assert_eq!(shown, ["59s", "1m 1s", "1h 1m", "1d 1h"]);
    }
}
