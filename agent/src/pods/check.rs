//! Whether a caller is where the cluster says that it is. Pure.
//!
//! Owns: the verdicts of both checks, the pod's UID and its address. Must not know: what follows from a
//! verdict, or how it is reported.

use std::net::IpAddr;

use super::{PodName, PodStatus};
use crate::workload::Caller;

/// What is known of where a caller is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Its pod lives here, and it calls from that pod's address.
    Confirmed,
    /// Nothing speaks against it: nothing is known.
    Unknown,
    /// Its pod is gone.
    Gone,
    /// Its pod is none of this node, as far as the cluster has told.
    NotSeen(PodName),
    /// Its pod lives on another node.
    Elsewhere,
    /// Its pod lives here, and has another address.
    OtherAddress,
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// The address.
    pub address: IpAddr,
    /// Whether it is one of the node's own, from which pods on the host network call.
    pub is_of_host: bool,
}

/// The UID that a caller has, or claims to have. A claim is good enough to take away, never to give: a token
/// that says that it is a pod's which is gone is refused with the rest of them.
pub fn uid_of(caller: &Caller) -> Option<&str> {
    match caller {
        Caller::Verified(pod) => Some(&pod.uid),
        Caller::Claimed(pod) => pod.uid.as_deref(),
        Caller::Unknown => None,
    }
}

/// Judges a caller by what is known of its UID. Of a claim nothing is compared but whether that pod is gone.
pub fn presence(caller: &Caller, status: &PodStatus, origin: Origin) -> Presence {
    match (status, caller) {
        (PodStatus::Gone, _) => Presence::Gone,
        (PodStatus::NotSeen, Caller::Verified(pod)) => Presence::NotSeen(PodName {
            namespace: pod.service_account.namespace.clone(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
        }),
        (PodStatus::Elsewhere, Caller::Verified(_)) => Presence::Elsewhere,
        (PodStatus::Here(pod), Caller::Verified(_)) => {
            let address = origin.address.to_canonical();
            let knows_it = pod.addresses.iter().any(|known| known.to_canonical() == address);
            match (knows_it, pod.is_on_host_network) {
                (true, _) => Presence::Confirmed,
                (false, true) if origin.is_of_host => Presence::Confirmed,
                (false, false) if pod.addresses.is_empty() => Presence::Unknown,
                (false, true | false) => Presence::OtherAddress,
            }
        }
        (PodStatus::Unknown, _) | (_, Caller::Claimed(_) | Caller::Unknown) => Presence::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Origin, Presence, presence, uid_of};
    use crate::pods::testing::pod;
    use crate::pods::{LivePod, PodStatus};
    use crate::workload::{Caller, ClaimedPod, Pod, ServiceAccount};

    fn verified(uid: &str) -> Caller {
        let (namespace, name) = ("ns".into(), format!("pod-{uid}").into());
        let service_account = ServiceAccount { namespace, name: "sa".into(), uid: "sa-uid".into() };
        Caller::Verified(Arc::new(Pod { service_account, name, uid: uid.into(), node: None }))
    }

    fn claimed(uid: &str) -> Caller {
        Caller::Claimed(Arc::new(ClaimedPod::new("ns", "sa", None, Some(uid))))
    }

    fn from(address: &str, is_of_host: bool) -> Origin {
        Origin { address: address.parse().unwrap(), is_of_host }
    }

    fn here(change: impl FnOnce(&mut LivePod)) -> PodStatus {
        let mut pod = pod("a");
        change(&mut pod);
        PodStatus::Here(Arc::new(pod))
    }

    #[test]
    fn a_pod_calls_from_its_own_addresses_in_either_notation() {
        let both = |pod: &mut LivePod| {
            pod.addresses = ["10.0.0.7", "fd00::7"].map(|address| address.parse().unwrap()).into();
        };
        for address in ["10.0.0.7", "::ffff:10.0.0.7", "fd00::7"] {
            let presence = presence(&verified("a"), &here(both), from(address, false));
            assert_eq!(presence, Presence::Confirmed, "{address}");
        }
        for (address, is_of_host) in [("10.0.0.8", false), ("10.0.0.1", true)] {
            let presence = presence(&verified("a"), &here(both), from(address, is_of_host));
            assert_eq!(presence, Presence::OtherAddress, "{address}");
        }
    }

    #[test]
    fn a_pod_on_the_host_network_calls_from_any_address_of_the_node() {
        let on_host = |pod: &mut LivePod| pod.is_on_host_network = true;
        let judged =
            |address, is_of_host| presence(&verified("a"), &here(on_host), from(address, is_of_host));
        assert_eq!(judged("10.0.0.7", false), Presence::Confirmed, "the node's, as its status says");
        assert_eq!(judged("169.254.170.23", true), Presence::Confirmed);
        assert_eq!(judged("10.0.0.8", false), Presence::OtherAddress, "that is another pod");
    }

    #[test]
    fn a_pod_without_addresses_yet_calls_from_anywhere() {
        let none = |pod: &mut LivePod| pod.addresses = [].into();
        assert_eq!(presence(&verified("a"), &here(none), from("10.0.0.9", false)), Presence::Unknown);
    }

    #[test]
    fn who_is_gone_is_gone_by_a_claim_too_and_nothing_else_follows_from_one() {
        let origin = from("10.0.0.9", false);
        for caller in [verified("a"), claimed("a")] {
            assert_eq!(uid_of(&caller), Some("a"));
            assert_eq!(presence(&caller, &PodStatus::Gone, origin), Presence::Gone);
            assert_eq!(presence(&caller, &PodStatus::Unknown, origin), Presence::Unknown);
        }
        assert_eq!(presence(&claimed("a"), &here(|_| ()), origin), Presence::Unknown);
        assert_eq!(presence(&claimed("a"), &PodStatus::NotSeen, origin), Presence::Unknown);
        assert_eq!(presence(&verified("a"), &PodStatus::NotSeen, origin), Presence::NotSeen(pod("a").name));
        assert_eq!(presence(&verified("a"), &PodStatus::Elsewhere, origin), Presence::Elsewhere);
        assert_eq!(presence(&claimed("a"), &PodStatus::Elsewhere, origin), Presence::Unknown);
        assert_eq!(uid_of(&Caller::Unknown), None);
    }
}
