//! The pods of this node, as the cluster reports them: who lives here, and who is gone.
//!
//! Owns: what all parts of the agent share of that. Must not know: who reports it (`kubernetes::pods` today;
//! the kubelet's own socket may one day), or what follows for tokens and credentials.
//!
//! Without a report nothing is known of anybody, and nobody is worse off for it.

pub mod check;
mod register;

use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::{Notify, mpsc};

pub use self::register::PodStatus;
use self::register::Register;
use crate::clock::BootTime;

/// Questions that wait to be asked. One more is dropped: its pod asks again.
const MOST_QUESTIONS: usize = 64;

/// What is kept of a pod: a few hundred bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LivePod {
    /// Which pod it is.
    pub name: PodName,
    /// Its addresses; none before its network is set up.
    pub addresses: Box<[IpAddr]>,
    /// Whether it has no network of its own, and calls from the node's addresses.
    pub is_on_host_network: bool,
}

/// A pod by all its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodName {
    /// Its namespace.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// Its UID; a pod made again under the same name has another.
    pub uid: Box<str>,
}

/// The pods of this node; clones share them.
#[derive(Clone, Debug)]
pub struct Pods {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    register: RwLock<Register>,
    /// Notified at each report.
    reported: Notify,
    /// Notified when a pod is gone.
    gone: Notify,
    questions: mpsc::Sender<PodName>,
}

/// Pods about which the cluster is to be asked one by one.
pub type Questions = mpsc::Receiver<PodName>;

/// A list from which too many are missing to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoubtfulList {
    /// How many pods were known before.
    pub known: usize,
    /// How many of them it lacks.
    pub missing: usize,
}

impl Pods {
    /// Nobody yet. Those who report take the questions; dropping them means that nobody will.
    pub fn new() -> (Self, Questions) {
        let (questions, asked) = mpsc::channel(MOST_QUESTIONS);
        let shared =
            Shared { register: RwLock::default(), reported: Notify::new(), gone: Notify::new(), questions };
        (Self { shared: Arc::new(shared) }, asked)
    }

    /// Nobody ever: no pod is reported.
    pub fn unreported() -> Self {
        Self::new().0
    }

    /// What is known of the pod with this UID.
    pub fn status_of(&self, uid: &str) -> PodStatus {
        self.shared.register.read().status_of(uid)
    }

    /// Whether this pod is gone for sure.
    pub fn is_gone(&self, uid: &str) -> bool {
        self.shared.register.read().is_gone(uid)
    }

    /// Whether this pod lives, by a report that is fresh.
    pub fn lives(&self, uid: &str) -> bool {
        self.shared.register.read().lives(uid)
    }

    /// How many live here, and whether that is fresh.
    pub fn count(&self) -> (usize, bool) {
        self.shared.register.read().count()
    }

    /// Has the cluster asked about a pod that has not been reported.
    pub fn ask(&self, pod: &PodName) {
        // Dropped where too many wait: it is asked about again with its next request.
        let _asked = self.shared.questions.try_send(pod.clone());
    }

    /// The same, and waits until it has been reported; without end where nobody reports. Cancel-safe.
    pub async fn until_seen(&self, pod: &PodName) {
        self.ask(pod);
        loop {
            // First the notice, then the look: a report in between is not missed.
            let reported = self.shared.reported.notified();
            match self.status_of(&pod.uid) {
                PodStatus::NotSeen => reported.await,
                PodStatus::Here(_) | PodStatus::Gone | PodStatus::Elsewhere | PodStatus::Unknown => return,
            }
        }
    }

    /// The next pod that is gone and about which something may have to be taken away. Cancel-safe.
    pub async fn next_gone(&self) -> Box<str> {
        loop {
            let gone = self.shared.gone.notified();
            if let Some(uid) = self.shared.register.write().next_to_revoke() {
                return uid;
            }
            gone.await;
        }
    }

    /// A list begins: what it does not name is missing.
    pub fn begin_list(&self) {
        self.shared.register.write().begin_list();
    }

    /// A list has ended, and with it what is known is fresh. Returns the known pods that it lacked: they
    /// count as living until the cluster was asked about each, because a list may be of the past.
    ///
    /// # Errors
    /// [`DoubtfulList`], when it is empty or lacks more than half of the known pods. Then nothing is fresh,
    /// and nobody is gone.
    pub fn end_list(&self) -> Result<Vec<PodName>, DoubtfulList> {
        let ended = self.shared.register.write().end_list();
        self.shared.reported.notify_waiters();
        ended
    }

    /// A pod lives here.
    pub fn here(&self, pod: LivePod) {
        self.shared.register.write().here(pod);
        self.shared.reported.notify_waiters();
    }

    /// A pod is gone: the cluster says so of this very UID.
    pub fn gone(&self, uid: &str, now: BootTime) {
        self.shared.register.write().gone(uid, now);
        self.shared.reported.notify_waiters();
        self.shared.gone.notify_one();
    }

    /// A pod lives on another node.
    pub fn elsewhere(&self, uid: &str) {
        self.shared.register.write().elsewhere(uid);
        self.shared.reported.notify_waiters();
    }

    /// Reports go on where they stopped.
    pub fn resumed(&self) {
        self.shared.register.write().set_fresh(true);
    }

    /// Reports have stopped: from now on the unknown may live here.
    pub fn lost(&self) {
        self.shared.register.write().set_fresh(false);
        self.shared.reported.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::register::tests::pod;
    use super::{PodName, PodStatus, Pods};
    use crate::clock::BootTime;

    fn now() -> BootTime {
        BootTime::from_boot(Duration::from_secs(100))
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_is_not_seen_is_asked_about_and_waited_for() {
        let (pods, mut questions) = Pods::new();
        pods.begin_list();
        pods.here(pod("a"));
        pods.end_list().unwrap();
        let unseen: PodName = pod("b").name;
        let waiting = pods.until_seen(&unseen);
        tokio::pin!(waiting);
        let short = Duration::from_secs(1);
        assert!(tokio::time::timeout(short, &mut waiting).await.is_err());
        assert_eq!(questions.try_recv().unwrap(), unseen);
        pods.here(pod("b"));
        tokio::time::timeout(short, waiting).await.unwrap();
        assert!(matches!(pods.status_of("b"), PodStatus::Here(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_reports_that_have_stopped() {
        let (pods, _questions) = Pods::new();
        pods.until_seen(&pod("a").name).await;
        pods.resumed();
        let unseen = pod("a").name;
        let waiting = pods.until_seen(&unseen);
        tokio::pin!(waiting);
        assert!(tokio::time::timeout(Duration::from_secs(1), &mut waiting).await.is_err());
        pods.lost();
        waiting.await;
    }

    #[tokio::test]
    async fn each_that_is_gone_is_told_once_in_order() {
        let (pods, _questions) = Pods::new();
        for uid in ["a", "b"] {
            pods.here(pod(uid));
            pods.gone(uid, now());
        }
        assert_eq!((&*pods.next_gone().await, &*pods.next_gone().await), ("a", "b"));
        let waiting = tokio::time::timeout(Duration::from_millis(10), pods.next_gone()).await;
        assert!(waiting.is_err());
        pods.gone("never-seen", now());
        assert_eq!(&*pods.next_gone().await, "never-seen", "its credentials may be here anyway");
    }
}
