//! The agent installed for real: by its chart, as its image, on a cluster of two nodes. Run alone: see
//! tests/run.sh.
//!
//! They run in the order of their names. One that needs another installation than the chart's default costs
//! a rollout before it and one after it, so names bring those of one installation together.

mod amazon;
mod api_server;
mod callers;
mod end;
mod events;
mod failures;
mod host_port;
mod identities;
mod injection;
mod metadata;
mod mistakes;
mod removal;
mod rights;
mod status;
mod update;
mod walk;

use serde_json::{Value, json};

/// With the guard, which is on by default, no port is declared, and a new pod may stand beside the old
/// one: an update that nobody feels.
fn guarded() -> Value {
    json!({})
}
