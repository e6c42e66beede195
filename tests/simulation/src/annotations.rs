//! The API server, as far as roles go: what the service account of a slot is annotated with.
//!
//! Owns: the form of a role's ARN and of the annotation. Must not know: when roles change (`ledger::Pod`).

use std::sync::Arc;
use std::time::Duration;

use pod_identity_agent::association::annotations::{FoundAccount, NotRead};
use pod_identity_agent::workload::ServiceAccountName;

use crate::story::World;

/// What a read takes.
const TAKES: Duration = Duration::from_millis(20);
const ROLE: &str = "arn:aws:iam::111122223333:role/r";

/// Reads an account.
///
/// # Errors
/// None: it is always there.
pub async fn read(world: Arc<World>, account: ServiceAccountName) -> Result<Option<FoundAccount>, NotRead> {
    tokio::time::sleep(TAKES).await;
    let Some(slot) = account.namespace.strip_prefix("namespace-").and_then(|slot| slot.parse().ok()) else {
        return Ok(None);
    };
    let role = world.ledger.lock().annotated(slot, world.now());
    let annotations =
        role.map(|role| ("eks.amazonaws.com/role-arn".into(), format!("{ROLE}{role}").into())).into_iter();
    Ok(Some(FoundAccount { uid: account_uid(slot).into(), annotations: annotations.collect() }))
}

/// The UID of a slot's service account.
pub fn account_uid(slot: u32) -> String {
    format!("00000000-0000-4000-b000-{slot:012}")
}

/// Which of the pod's roles an ARN names.
pub fn number_of(role: &str) -> Option<usize> {
    role.strip_prefix(ROLE)?.parse().ok()
}
