//! Pods for tests.
//!
//! Owns: their names. Must not know: which test uses them.

use std::sync::Arc;

use super::{Asked, Injection, LivePod, PodName};
use crate::workload::{Caller, Pod, ServiceAccount, ServiceAccountName};

/// A pod of this UID, of the service account "sa", with the variables of EKS Pod Identity.
pub(crate) fn pod(uid: &str) -> LivePod {
    LivePod {
        name: PodName { namespace: "ns".into(), name: format!("pod-{uid}").into(), uid: uid.into() },
        service_account: ServiceAccountName { namespace: "ns".into(), name: "sa".into() },
        addresses: [[10, 0, 0, 7].into()].into(),
        is_on_host_network: false,
        is_finished: false,
        injection: Injection::Injected,
        asked: Asked::default(),
    }
}

/// The same, without them.
pub(crate) fn missing(uid: &str) -> LivePod {
    LivePod { injection: Injection::Missing, ..pod(uid) }
}

/// A verified caller of this service account.
pub(crate) fn caller(service_account: &str) -> Caller {
    let service_account =
        ServiceAccount { namespace: "ns".into(), name: service_account.into(), uid: "sa-uid".into() };
    Caller::Verified(Arc::new(Pod { service_account, name: "p".into(), uid: "u".into(), node: None }))
}
