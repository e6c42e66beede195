//! What an agent says of itself, and the tokens that are shown to it.
//!
//! Owns: its pages on its node. Must not know: what is expected of them.

use serde_json::Value;

use super::{Cluster, eventually};

/// Shows a token once, and says with which status it was answered.
const SHOWS_A_TOKEN: &str = r#"
import http.client, sys
connection = http.client.HTTPConnection("169.254.170.23", 80, timeout=10)
connection.request("GET", "/v1/credentials", headers={"Authorization": sys.argv[1]})
print(connection.getresponse().status)
"#;

const READYZ: &str = "http://127.0.0.1:2703/readyz";
const METRICS: &str = "http://127.0.0.1:2705/metrics";

/// A condition of an agent.
#[derive(Debug)]
pub(crate) struct Condition {
    pub(crate) is_met: bool,
    pub(crate) reason: String,
}

fn read_condition(page: &str, name: &str) -> Option<Condition> {
    let page: Value = serde_json::from_str(page).ok()?;
    let condition = page["conditions"].as_array()?.iter().find(|condition| condition["name"] == name)?;
    Some(Condition { is_met: condition["met"] == true, reason: condition["reason"].to_string() })
}

/// What there is in a moment.
fn found<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let mut found = None;
    eventually(what, || {
        found = look();
        found.is_some()
    });
    found.expect("it was found")
}

fn read_metric(page: &str, series: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(series))?.trim().parse().ok()
}

impl Cluster {
    /// A condition of the agent on a node. One that is replaced answers until it has left, and has those that
    /// its own flags asked for.
    pub(crate) fn condition(&self, node: &str, name: &str) -> Condition {
        found(&format!("{node} has a condition {name}"), || self.try_condition(node, name))
    }

    /// The same; `None` while no agent answers.
    pub(crate) fn try_condition(&self, node: &str, name: &str) -> Option<Condition> {
        let page = self.try_on_node(node, &["curl", "--silent", "--max-time", "5", READYZ]);
        read_condition(&String::from_utf8_lossy(&page.stdout), name)
    }

    /// Whether the agent on a node knows its pods.
    pub(crate) fn knows_pods(&self, node: &str) -> bool {
        self.condition(node, "pods").is_met
    }

    /// A number among an agent's metrics, by series with labels.
    pub(crate) fn metric(&self, node: &str, series: &str) -> f64 {
        found(&format!("{node} has a series {series}"), || self.try_metric(node, series))
    }

    /// The same where there may be no agent yet that has the port: one that follows another waits for it.
    pub(crate) fn try_metric(&self, node: &str, series: &str) -> Option<f64> {
        let page = self.try_on_node(node, &["curl", "--silent", "--max-time", "5", METRICS]);
        read_metric(&String::from_utf8_lossy(&page.stdout), series)
    }

    /// How many callers' pods an agent has checked with this outcome.
    pub(crate) fn pod_checks(&self, node: &str, outcome: &str) -> u64 {
        let series = format!("pod_identity_agent_pod_checks_total{{outcome=\"{outcome}\"}}");
        self.metric(node, &series).round() as u64
    }

    /// The token that EKS has mounted into a pod.
    pub(crate) fn token_of(&self, pod: &str) -> String {
        self.kubectl(&["exec", pod, "--", "sh", "-c", "cat \"$AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE\""])
    }

    /// A new token of a pod of a service account, as its node's kubelet would get it.
    pub(crate) fn new_token(&self, pod: &str, account: &str) -> String {
        let uid = self.kubectl(&["get", "pod", pod, "-o", "jsonpath={.metadata.uid}"]);
        let bound = ["--bound-object-kind=Pod", "--bound-object-name", pod, "--bound-object-uid", uid.trim()];
        let token = [&["create", "token", account, "--audience=pods.eks.amazonaws.com"], &bound[..]].concat();
        self.kubectl(&token).trim().to_owned()
    }

    /// The status that a token is answered with, shown by this pod, its own or not.
    pub(crate) fn shown(&self, pod: &str, token: &str) -> String {
        self.kubectl(&["exec", pod, "--", "python3", "-c", SHOWS_A_TOKEN, token]).trim().to_owned()
    }

    /// The lines about a pod in the access logs of all agents.
    pub(crate) fn access_lines(&self, pod: &str) -> Vec<Value> {
        let agents =
            ["logs", "-n", "kube-system", "-l", "app.kubernetes.io/name=pod-identity-agent", "--tail=-1"];
        let logs = self.kubectl(&agents);
        let lines = logs.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["target"] == "access" && line["pod.name"] == pod).collect()
    }

    /// A page of the agent that works on a node. One that follows another waits for the port, also after the
    /// rollout has ended: for a moment nobody has it.
    pub(super) fn page(&self, node: &str, url: &str) -> String {
        let again = ["--retry", "15", "--retry-delay", "1", "--retry-connrefused"];
        self.on_node(node, &[&["curl", "--silent", "--max-time", "5"], &again[..], &[url]].concat())
    }
}
