//! What an agent says of itself, and the tokens that are shown to it.
//!
//! Owns: its pages on its node. Must not know: what is expected of them.

use serde_json::Value;

use super::Cluster;

/// Shows a token once, and says with which status it was answered.
const SHOWS_A_TOKEN: &str = r#"
import http.client, sys
connection = http.client.HTTPConnection("169.254.170.23", 80, timeout=10)
connection.request("GET", "/v1/credentials", headers={"Authorization": sys.argv[1]})
print(connection.getresponse().status)
"#;

/// A condition of an agent.
#[derive(Debug)]
pub(crate) struct Condition {
    pub(crate) is_met: bool,
    pub(crate) reason: String,
}

impl Cluster {
    /// A condition of the agent on a node.
    pub(crate) fn condition(&self, node: &str, name: &str) -> Condition {
        let page: Value =
            serde_json::from_str(&self.page(node, "http://127.0.0.1:2703/readyz")).expect("JSON");
        let conditions = page["conditions"].as_array().expect("a list").iter();
        let mut of_name = conditions.filter(|condition| condition["name"] == name);
        let condition = of_name.next().expect("each agent has all that its flags ask for");
        Condition { is_met: condition["met"] == true, reason: condition["reason"].to_string() }
    }

    /// Whether the agent on a node knows its pods.
    pub(crate) fn knows_pods(&self, node: &str) -> bool {
        self.condition(node, "pods").is_met
    }

    /// A number among an agent's metrics, by series with labels.
    pub(crate) fn metric(&self, node: &str, series: &str) -> f64 {
        let metrics = self.page(node, "http://127.0.0.1:2705/metrics");
        let line = metrics.lines().find_map(|line| line.strip_prefix(series));
        line.expect("the series is there").trim().parse().expect("a number")
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

    fn page(&self, node: &str, url: &str) -> String {
        self.on_node(node, &["curl", "--silent", "--max-time", "5", url])
    }
}
