//! What the keeper of the table is given, and when its agent can answer.
//!
//! Owns: how long readiness waits for the table. Must not know: what is written.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::outcome::TableConditions;
use crate::config::Lasting;
use crate::lifecycle::readiness::Condition;

/// The agent is not ready until the table leads to it or cannot be written, but this long at most after it
/// could answer: pods are better served without the guard than not at all. A look takes up to three calls of
/// `nft`, 2 s each, so that the slowest look that succeeds ends in this time.
pub(super) const START_PATIENCE: Duration = Duration::from_secs(10);
/// While the agent cannot answer yet: nothing tells when it can.
const ANSWER_POLL: Duration = Duration::from_millis(50);

/// What the table is for, and who gets reports.
pub struct TableSpec {
    /// The port that SDKs use.
    pub port: u16,
    /// Whether the addresses are guarded at all.
    pub guards: bool,
    /// Whether pods are kept from the instance metadata service.
    pub block_imds: bool,
    /// How long elements last.
    pub lasting: Lasting,
    /// Where a pod's agent keeps between restarts that it has stood back.
    pub state_dir: Option<PathBuf>,
    /// The conditions.
    pub conditions: TableConditions,
}

/// Whether the agent is ready but for the table and the port of SDKs.
pub struct CanAnswer {
    /// So that it takes the table from an agent that answers.
    pub beside_others: Arc<dyn Fn() -> bool + Send + Sync>,
    /// So that it takes a table that is nobody's: it may miss more.
    pub alone: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// From some time after the agent could answer, readiness waits for the table no longer.
pub(super) async fn be_patient(guard: Option<Condition>, can_answer: Arc<dyn Fn() -> bool + Send + Sync>) {
    can_answer_now(&*can_answer, true).await;
    sleep(START_PATIENCE).await;
    if let Some(guard) = guard {
        guard.no_longer_required();
    }
}

/// Returns when the agent can answer; never, if that is not waited for.
pub(super) async fn can_answer_now(can_answer: &(dyn Fn() -> bool + Send + Sync), is_waited_for: bool) {
    if !is_waited_for {
        std::future::pending::<()>().await;
    }
    while !can_answer() {
        sleep(ANSWER_POLL).await;
    }
}
