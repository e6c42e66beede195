//! Objects of a test's own, as JSON.
//!
//! Owns: that they are created, and removed with the test. Must not know: what they are.

use serde_json::Value;

use super::{Cluster, LABEL, fed};

impl Cluster {
    /// Creates an object, to be removed with the test, and returns it as the API server keeps it. Or says why
    /// it was refused.
    pub(crate) fn create(&self, object: &Value) -> Result<Value, String> {
        let mut object = object.clone();
        let (key, value) = LABEL.split_once('=').expect("a label");
        object["metadata"]["labels"][key] = value.into();
        self.feed(&["create"], &object)
    }

    /// What the API server would keep of an object.
    pub(crate) fn try_out(&self, object: &Value) -> Result<Value, String> {
        self.feed(&["create", "--dry-run=server"], object)
    }

    /// Creates an object that stays, or makes it the same as this.
    pub(crate) fn apply(&self, object: &Value) {
        self.feed(&["apply"], object).expect("it is accepted");
    }

    fn feed(&self, command: &[&str], object: &Value) -> Result<Value, String> {
        let mut kubectl = self.tool("kubectl");
        kubectl.args(command).args(["--filename", "-", "--output", "json"]);
        let output = fed(&mut kubectl, &object.to_string());
        if output.status.success() {
            return Ok(serde_json::from_slice(&output.stdout).expect("JSON"));
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
