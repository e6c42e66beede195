//! The pods of this node, as the cluster reports them: who lives here, and who is gone.
//!
//! Owns: what all parts of the agent share of that. Must not know: who reports it (`kubernetes::pods` today;
//! the kubelet's own socket may one day), or what follows for tokens and credentials.
//!
//! Without a report nothing is known of anybody, and nobody is worse off for it.

mod associations;
pub mod check;
mod injection;
pub mod missed;
mod register;
#[cfg(test)]
pub(crate) mod testing;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use tokio::sync::{Notify, mpsc};

pub use self::injection::{Injection, PodStates};
pub use self::register::PodStatus;
use self::register::Register;
use crate::clock::{BootTime, Clock};
use crate::workload::{Caller, ServiceAccountName};

/// Questions that wait to be asked. One more is dropped: its pod asks again.
const MOST_QUESTIONS: usize = 64;

/// What is kept of a pod: a few hundred bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LivePod {
    /// Which pod it is.
    pub name: PodName,
    /// The service account that it runs under; a mirror pod has none, and an empty name here.
    pub service_account: ServiceAccountName,
    /// Its addresses; none before its network is set up.
    pub addresses: Box<[IpAddr]>,
    /// Whether it has no network of its own, and calls from the node's addresses.
    pub is_on_host_network: bool,
    /// Whether it has ended, or is being deleted: nobody needs to mend it any more.
    pub is_finished: bool,
    /// Whether it has the variables by which SDKs find this agent.
    pub injection: Injection,
    /// Whether it has asked this agent.
    pub asked: Asked,
}

impl LivePod {
    /// Whether it has asked this agent for credentials, with a verified token, as far as is known.
    pub fn has_asked(&self) -> bool {
        self.asked.0.load(Ordering::Relaxed)
    }
}

/// A mark that requests set without waiting for a lock of their own.
#[derive(Debug, Default)]
pub struct Asked(AtomicBool);

impl Asked {
    fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Clone for Asked {
    fn clone(&self) -> Self {
        Self(AtomicBool::new(self.0.load(Ordering::Relaxed)))
    }
}

impl PartialEq for Asked {
    fn eq(&self, other: &Self) -> bool {
        self.0.load(Ordering::Relaxed) == other.0.load(Ordering::Relaxed)
    }
}

impl Eq for Asked {}

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
    /// Notified when a pod may be missed: at a report, or when AWS has granted something.
    missed: Notify,
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
        let (reported, gone, missed) = (Notify::new(), Notify::new(), Notify::new());
        let shared = Shared { register: RwLock::default(), reported, gone, missed, questions };
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

    /// Every pod that lives here, as far as is known; `None` before the first list has ended.
    pub fn all(&self) -> Option<Vec<Arc<LivePod>>> {
        self.shared.register.read().all()
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

    /// The next pod that lacks the variables of EKS Pod Identity though its service account has an
    /// association. Each is returned once, as long as it is known. Cancel-safe.
    pub async fn next_missed(&self, clock: &Clock) -> Arc<LivePod> {
        loop {
            let may_be_missed = self.shared.missed.notified();
            if let Some(pod) = self.shared.register.write().next_missed(clock.now().boot) {
                return pod;
            }
            may_be_missed.await;
        }
    }

    /// How many pods are in each state; `None` while that is not known.
    pub fn states(&self, now: BootTime) -> Option<PodStates> {
        self.shared.register.read().states(now)
    }

    /// A pod that lives here has asked for credentials, with a token that a key has verified.
    pub fn note_asked(&self, uid: &str) {
        self.shared.register.read().note_asked(uid);
    }

    /// AWS granted a caller a set that lives so long. So it has verified the token, whatever this agent
    /// could, and the service account has an association.
    pub fn granted(&self, caller: &Caller, until: BootTime) {
        if let Some(account) = caller.service_account() {
            self.shared.register.write().granted(account, until);
            self.shared.missed.notify_one();
        }
    }

    /// AWS said that a caller's service account has no association.
    pub fn has_no_association(&self, caller: &Caller) {
        if let Some(account) = caller.service_account() {
            self.shared.register.write().has_no_association(&account);
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
        self.shared.missed.notify_one();
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

    use super::testing::{caller, missing, pod};
    use super::{PodName, PodStates, PodStatus, Pods};
    use crate::clock::{BootTime, Clock};

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

    #[tokio::test(start_paused = true)]
    async fn a_pod_is_missed_whether_its_association_or_the_pod_is_known_first() {
        let (pods, _questions) = Pods::new();
        let clock = Clock::system();
        let later = clock.now().boot.plus(Duration::from_secs(3_600));
        let next = || tokio::time::timeout(Duration::from_secs(1), pods.next_missed(&clock));
        pods.here(missing("before"));
        assert!(next().await.is_err(), "nothing is known of its account");
        let (found, ()) = tokio::join!(next(), async { pods.granted(&caller("sa"), later) });
        assert_eq!(&*found.unwrap().name.uid, "before");
        let (found, ()) = tokio::join!(next(), async { pods.here(missing("after")) });
        assert_eq!(&*found.unwrap().name.uid, "after");
        pods.here(missing("after"));
        pods.granted(&caller("sa"), later);
        assert!(next().await.is_err(), "each is returned once");
    }

    #[test]
    fn states_are_counted_while_reports_are_fresh() {
        let (pods, _questions) = Pods::new();
        pods.begin_list();
        ["a", "b"].into_iter().for_each(|uid| pods.here(pod(uid)));
        assert_eq!(pods.states(now()), None);
        pods.end_list().unwrap();
        pods.note_asked("a");
        let one_of_two = PodStates { asked: 1, silent: 1, missed: 0, other: 0 };
        assert_eq!(pods.states(now()), Some(one_of_two));
        pods.here(pod("a"));
        assert_eq!(pods.states(now()), Some(one_of_two), "a change of the pod takes nothing back");
        pods.lost();
        assert_eq!(pods.states(now()), None);
    }
}
