//! The agent installed for real: by its chart, as its image, on a cluster of two nodes. Run alone: see
//! tests/run.sh.

mod amazon;
mod failures;
mod host_port;
mod identities;
mod nothing_left;
mod removal;
mod update;

use serde_json::{Value, json};

/// With the guard, which is on by default, no port is declared, and a new pod may stand beside the old
/// one: an update that nobody feels.
fn guarded() -> Value {
    json!({
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
    })
}
