//! Problems of pods, for the place where their owners look first: Kubernetes Events about these pods.
//!
//! Owns: which problems of a pod are worth an Event, the words for them, and about whom one may be written.
//! Must not know: how Events are written (`kubernetes::events`), or how a problem was found.
//!
//! Only about a pod that the cluster itself has named, and only for a caller that was verified or that its
//! source has accepted: a forger writes no Events. Never for a fault of the agent's own (invariant 7).

mod occurrences;
mod pace;
mod problem;
mod reason;

use std::sync::Arc;

use tokio::sync::mpsc;

pub use self::occurrences::{Next, Occurrences, Write, Written};
pub use self::problem::{AwsWords, Names, Problem};
pub use self::reason::Reason;
use crate::pods::{PodName, PodStatus, Pods};
use crate::telemetry::metrics::{EventMetrics, EventOutcome};
use crate::workload::{Caller, is_name};

/// Problems that wait to be taken. They wait for no request to the API server, so this is one burst.
const MOST_REPORTS: usize = 256;

/// Where problems of pods are reported. Clones share it.
#[derive(Clone)]
pub struct Events {
    /// `None`: nobody is interested.
    shared: Option<Arc<Shared>>,
}

struct Shared {
    reports: mpsc::Sender<Report>,
    pods: Pods,
    metrics: Arc<EventMetrics>,
}

/// A problem of a pod.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    /// The pod.
    pub pod: PodName,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is reported.
pub type Reports = mpsc::Receiver<Report>;

impl Events {
    /// About pods of this node.
    pub fn new(pods: Pods, metrics: Arc<EventMetrics>) -> (Self, Reports) {
        let (reports, reported) = mpsc::channel(MOST_REPORTS);
        (Self { shared: Some(Arc::new(Shared { reports, pods, metrics })) }, reported)
    }

    /// None.
    pub const fn off() -> Self {
        Self { shared: None }
    }

    /// Reports a problem of a pod that the cluster has named. Never waits: where too many wait already, it is
    /// counted and dropped.
    pub fn tell(&self, pod: PodName, problem: Problem) {
        let Some(shared) = &self.shared else { return };
        if shared.reports.try_send(Report { pod, problem }).is_err() {
            shared.metrics.counted(EventOutcome::Dropped);
        }
    }

    /// The same of a caller that a key or its source has verified: reported if the pods of this node are
    /// known and its pod is one of them.
    pub fn tell_of_caller(&self, caller: &Caller, problem: impl FnOnce(&str) -> Problem) {
        let Some(shared) = &self.shared else { return };
        if let Some((pod, service_account)) = shared.pod_of(caller) {
            self.tell(pod, problem(service_account));
        }
    }

    /// The token of a verified pod was presented here, though that pod runs on another node.
    ///
    /// No watch of this node names that pod, so the cluster is asked about it, and the Event is written when
    /// the token comes again and the cluster has said by then that the pod lives elsewhere: nobody waits for
    /// it, and there is none about a pod that is gone. Its owner should know: such a token was copied.
    pub fn tell_of_other_node(&self, caller: &Caller) {
        let (Some(shared), Some(pod)) = (&self.shared, caller.verified()) else { return };
        let pod = PodName {
            namespace: pod.service_account.namespace.clone(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
        };
        match shared.pods.status_of(&pod.uid) {
            PodStatus::Elsewhere => self.tell(pod, Problem::OtherNode),
            PodStatus::NotSeen => shared.pods.ask(&pod),
            // Here: then the cluster contradicts its own token, and nobody knows what is wrong.
            PodStatus::Here(_) | PodStatus::Gone | PodStatus::Unknown => {}
        }
    }
}

impl Shared {
    /// The pod, by the names that the cluster gave it, and its service account.
    fn pod_of<'a>(&self, caller: &'a Caller) -> Option<(PodName, &'a str)> {
        let (uid, namespace, service_account) = match caller {
            Caller::Verified(pod) => {
                let account = &pod.service_account;
                (&*pod.uid, &*account.namespace, &*account.name)
            }
            Caller::Claimed(pod) => (pod.uid.as_deref()?, &*pod.namespace, &*pod.service_account),
            Caller::Unknown => return None,
        };
        let PodStatus::Here(pod) = self.pods.status_of(uid) else { return None };
        // A note quotes the service account within a command. A source that does not know the cluster may not
        // have read the token that closely.
        (*pod.name.namespace == *namespace && is_name(service_account))
            .then(|| (pod.name.clone(), service_account))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::{AwsWords, Events, MOST_REPORTS, Problem, Report, Reports};
    use crate::clock::BootTime;
    use crate::pods::testing::pod;
    use crate::pods::{PodName, Pods, Questions};
    use crate::telemetry::metrics::Metrics;
    use crate::workload::{Caller, ClaimedPod, Pod, ServiceAccount};

    struct Node {
        events: Events,
        reports: Reports,
        metrics: Metrics,
        pods: Pods,
        questions: Questions,
    }

    /// Where the pod "here" lives, "gone" does not any more, and "away" lives on another node.
    fn node() -> Node {
        let (pods, questions) = Pods::new();
        pods.begin_list();
        pods.here(pod("here"));
        pods.end_list().unwrap();
        pods.gone("gone", BootTime::from_boot(Duration::from_secs(1)));
        pods.elsewhere("away");
        let metrics = Metrics::new();
        let (events, reports) = Events::new(pods.clone(), Arc::clone(&metrics.events));
        Node { events, reports, metrics, pods, questions }
    }

    fn name(uid: &str) -> PodName {
        PodName { namespace: "ns".into(), name: format!("pod-{uid}").into(), uid: uid.into() }
    }

    fn verified(uid: &str) -> Caller {
        let service_account = ServiceAccount { namespace: "ns".into(), name: "sa".into(), uid: "s".into() };
        let name = format!("pod-{uid}").into();
        Caller::Verified(Arc::new(Pod { service_account, name, uid: uid.into(), node: None }))
    }

    fn claimed(namespace: &str, service_account: &str, uid: Option<&str>) -> Caller {
        Caller::Claimed(Arc::new(ClaimedPod::new(namespace, service_account, Some("lie"), uid)))
    }

    fn no_association(service_account: &str) -> Problem {
        let said = AwsWords { code: "ResourceNotFoundException", message: "".into() };
        Problem::NoAssociation { service_account: service_account.into(), said }
    }

    #[test]
    fn an_event_is_about_a_pod_of_this_node_by_the_names_that_the_cluster_gave_it() {
        let mut node = node();
        for caller in [verified("here"), claimed("ns", "sa", Some("here"))] {
            node.events.tell_of_caller(&caller, no_association);
            let report = Report { pod: name("here"), problem: no_association("sa") };
            assert_eq!(node.reports.try_recv(), Ok(report), "{caller:?}");
        }
        for caller in [
            verified("gone"),
            verified("away"),
            verified("never-seen"),
            claimed("ns", "sa", None),
            claimed("kube-system", "sa", Some("here")),
            claimed("ns", "sa; reboot", Some("here")),
            Caller::Unknown,
        ] {
            node.events.tell_of_caller(&caller, no_association);
            assert!(node.reports.try_recv().is_err(), "{caller:?}");
        }
    }

    #[test]
    fn a_token_of_another_node_is_an_event_once_the_cluster_has_said_that_its_pod_is_elsewhere() {
        let mut node = node();
        node.events.tell_of_other_node(&verified("other"));
        assert!(node.reports.try_recv().is_err());
        assert_eq!(node.questions.try_recv().unwrap(), name("other"), "the cluster is asked");
        node.pods.elsewhere("other");
        node.events.tell_of_other_node(&verified("other"));
        let report = Report { pod: name("other"), problem: Problem::OtherNode };
        assert_eq!(node.reports.try_recv(), Ok(report));
        for caller in [claimed("ns", "sa", Some("away")), verified("gone"), verified("here"), Caller::Unknown]
        {
            node.events.tell_of_other_node(&caller);
            assert!(node.reports.try_recv().is_err() && node.questions.try_recv().is_err(), "{caller:?}");
        }
    }

    #[test]
    fn too_many_reports_are_dropped_and_counted() {
        let node = node();
        for _ in 0..MOST_REPORTS + 3 {
            node.events.tell(name("here"), Problem::OtherNode);
        }
        let counts = node.metrics.counts();
        assert!(counts.contains("pod_identity_agent_events_total{outcome=\"dropped\"} 3\n"), "{counts}");
        Events::off().tell(name("here"), Problem::OtherNode);
        Events::off().tell_of_other_node(&verified("away"));
    }
}
