//! Releases of the chart, by Helm.
//!
//! Owns: what Helm is asked, and that its end is waited for. Must not know: what a test is about.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use super::{Cluster, RELEASE, eventually, fed, repository, succeeded};

/// Helm waits until everything is ready.
const AND_WAIT: [&str; 3] = ["--wait", "--timeout", "90s"];

impl Cluster {
    /// Installs or upgrades the chart with the cluster's own values and those, and waits until every node has
    /// it.
    pub(crate) fn install(&self, values: &Value) {
        self.install_as(RELEASE, &[], values);
    }

    /// The same under another name, on top of files of values. Two agents on a node would share its pods:
    /// another release that a failed test left goes first.
    pub(crate) fn install_as(&self, release: &str, files: &[PathBuf], values: &Value) {
        self.uninstall_all_but(release);
        self.install_beside(release, files, values);
    }

    /// The same, with other releases left as they are.
    pub(crate) fn install_beside(&self, release: &str, files: &[PathBuf], values: &Value) {
        self.expect(&self.upgrade(&repository("deploy/chart"), release, files, &AND_WAIT, values));
    }

    /// The same, and nothing is waited for: the agents may never be ready.
    pub(crate) fn install_without_waiting(&self, values: &Value) {
        self.expect(&self.upgrade(&repository("deploy/chart"), RELEASE, &[], &[], values));
    }

    /// Applies a file of deploy/manifests as its first lines say, with this cluster's name and image.
    pub(crate) fn apply_manifest(&self, name: &str) {
        let text = fs::read_to_string(repository(&format!("deploy/manifests/{name}.yaml")));
        let values = fs::read_to_string(self.text("values")).expect("the cluster has values");
        let values: Value = serde_json::from_str(&values).expect("JSON");
        let value = |pointer| values.pointer(pointer).and_then(Value::as_str).expect("a text");
        let text = text
            .expect("there is such a file")
            .replace("REPLACE-WITH-CLUSTER-NAME", value("/clusterName"))
            .replace("REPLACE-WITH-IMAGE", value("/image/override"));
        let output = fed(self.tool("kubectl").args(["apply", "--filename", "-"]), &text);
        succeeded("kubectl", &["apply", name], &output);
    }

    /// The same, over objects that Helm did not create.
    pub(crate) fn take_over(&self, values: &Value) {
        let arguments = [&AND_WAIT[..], &["--take-ownership", "--force-conflicts"]].concat();
        self.expect(&self.upgrade(&repository("deploy/chart"), RELEASE, &[], &arguments, values));
    }

    /// A release of Amazon's chart, as far as ours can follow it: tests/cluster/amazon.
    pub(crate) fn install_amazons(&self, release: &str, values: &Value) {
        self.uninstall_all_but(release);
        self.expect(&self.upgrade(&repository("tests/cluster/amazon"), release, &[], &AND_WAIT, values));
    }

    /// Goes back to the revision before.
    pub(crate) fn roll_back(&self, release: &str) {
        self.helm(&[&["rollback", release, "--namespace", "kube-system"], &AND_WAIT[..]].concat());
    }

    fn upgrade(
        &self,
        chart: &Path,
        release: &str,
        files: &[PathBuf],
        arguments: &[&str],
        values: &Value,
    ) -> Output {
        let mut helm = self.tool("helm");
        helm.args(["upgrade", "--install", release, "--namespace", "kube-system"]).args(arguments);
        for file in files {
            helm.arg("--values").arg(file);
        }
        helm.args(["--values", self.text("values"), "--values", "-"]).arg(chart);
        fed(&mut helm, &values.to_string())
    }

    /// Removes the chart, if it is there, and waits until its pods are gone.
    pub(crate) fn uninstall(&self, release: &str) {
        self.helm(&["uninstall", release, "--namespace", "kube-system", "--ignore-not-found", "--wait"]);
        eventually("the agent's pods are gone", || {
            // Of a release of Amazon's chart too, of which the DaemonSet may have any name.
            let its = format!("app.kubernetes.io/instance={release}");
            self.kubectl(&["-n", "kube-system", "get", "pods", "-l", &its, "-o", "name"]).is_empty()
        });
    }

    fn uninstall_all_but(&self, release: &str) {
        let list = self.helm(&["list", "--short", "--namespace", "kube-system"]);
        for other in list.lines().filter(|&name| name != release) {
            self.uninstall(other);
        }
    }

    fn helm(&self, arguments: &[&str]) -> String {
        let output = self.tool("helm").args(arguments).output().expect("helm runs");
        self.expect(&output);
        succeeded("helm", arguments, &output)
    }

    /// That Helm has succeeded; otherwise it says what the pods do.
    fn expect(&self, output: &Output) {
        if !output.status.success() {
            let pods = self.try_kubectl(&["-n", "kube-system", "describe", "pods"]);
            panic!(
                "helm: {}\n{}",
                String::from_utf8_lossy(&output.stderr),
                String::from_utf8_lossy(&pods.stdout)
            );
        }
    }
}
