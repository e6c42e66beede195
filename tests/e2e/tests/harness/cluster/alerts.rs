//! Which of the chart's alerts fire on what the cluster shows now, if it stays like that.
//!
//! Owns: that promtool judges them, by their own times. Must not know: what is expected.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use super::{Cluster, binary, repository};

/// Longer than any alert of a mistake waits.
const LASTS: &str = "35m";

impl Cluster {
    /// The alerts that fire half an hour later on the page of metrics of the agent on a node.
    pub(crate) fn alerts_of_agent(&self, node: &str) -> BTreeSet<String> {
        let page = self.page(node, "http://127.0.0.1:2705/metrics");
        let samples = page.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        self.alerts(samples.filter_map(|line| line.rsplit_once(' ')))
    }

    /// The same on what kube-state-metrics says of a DaemonSet.
    pub(crate) fn alerts_of_daemonset(&self, name: &str) -> BTreeSet<String> {
        let object = self.kubectl(&["-n", "kube-system", "get", "daemonset", name, "-o", "json"]);
        let object: Value = serde_json::from_str(&object).expect("JSON");
        let count = |field: &str| object["status"][field].as_u64().unwrap_or(0).to_string();
        // As kube-state-metrics names them.
        let series = [
            ("kube_daemonset_status_desired_number_scheduled", count("desiredNumberScheduled")),
            ("kube_daemonset_status_updated_number_scheduled", count("updatedNumberScheduled")),
            ("kube_daemonset_status_number_unavailable", count("numberUnavailable")),
        ];
        let labelled = series.map(|(series, value)| {
            (format!("{series}{{namespace=\"kube-system\", daemonset=\"{name}\"}}"), value)
        });
        // Without it, Prometheus would scrape no agent.
        let known = ("pod_identity_agent_build_info".to_owned(), "1".to_owned());
        let all = [&labelled[..], &[known]].concat();
        self.alerts(all.iter().map(|(series, value)| (series.as_str(), value.as_str())))
    }

    fn alerts<'a>(&self, samples: impl Iterator<Item = (&'a str, &'a str)>) -> BTreeSet<String> {
        let series: Vec<Value> = samples
            .map(|(series, value)| json!({"series": series, "values": format!("{value}x40")}))
            .collect();
        assert!(!series.is_empty(), "there is nothing to judge");
        let rules = repository("deploy/chart/alerts.yaml").canonicalize().expect("the chart has alerts");
        // promtool says what it got where something else is expected.
        let nothing = json!({
            "expr": "count by (alertname) (ALERTS{alertstate=\"firing\"})",
            "eval_time": LASTS,
            "exp_samples": [],
        });
        let test = json!({
            "rule_files": [rules], "evaluation_interval": "1m",
            "tests": [{"interval": "1m", "input_series": series, "promql_expr_test": [nothing]}],
        });
        let file = self.folder().join("alerts-test.json");
        fs::write(&file, test.to_string()).expect("it can be written");
        let promtool = binary().with_file_name("../chart-tools/bin/promtool");
        let output = Command::new(&promtool).args(["test", "rules"]).arg(&file).output();
        let output = output.expect("tests/chart/run.sh --prometheus has made promtool");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let firing = said.split("alertname=\"").skip(1).filter_map(|after| after.split('"').next());
        let firing: BTreeSet<String> = firing.map(str::to_owned).collect();
        assert_eq!(firing.is_empty(), output.status.success(), "promtool judges something else: {said}");
        firing
    }
}
