//! The end of what a pod has when the pod is gone.
//!
//! Owns: that it ends within moments, and not with the life of a set (docs/design/decisions.md#pods). Must
//! not know: how a pod is known to be gone, or who still shows its token (`server::pages`).

use crate::credentials::store::Store;
use crate::pods::Pods;

/// The worker.
pub struct Revocations {
    pub(in crate::credentials) pods: Pods,
    pub(in crate::credentials) store: Store,
}

impl Revocations {
    /// Works for ever; cancel by dropping. `also`: what others are to forget of a pod.
    pub async fn run(self, also: impl Fn(&str) + Send) {
        loop {
            let uid = self.pods.next_gone().await;
            also(&uid);
            if self.store.remove_pod(&uid) {
                tracing::info!(
                    pod.uid = %uid,
                    "the pod is gone; its credentials are not served or renewed any more"
                );
            }
        }
    }
}
