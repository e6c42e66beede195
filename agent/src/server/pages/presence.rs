//! What the cluster says of where a caller is, and what follows from it.
//!
//! Owns: the modes of both checks, and for how long a pod is waited for that nobody has reported yet. Must
//! not know: how a pod is reported (`crate::pods`), or statuses.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{CheckMode, PodChecks};
use crate::pods::check::{Origin, Presence, presence, uid_of};
use crate::pods::{PodStatus, Pods};
use crate::telemetry::metrics::{PodCheckMetrics, PodPresence};
use crate::workload::Caller;

/// A report follows the start of a pod within a second; clients wait for two.
const UNSEEN_WAIT: Duration = Duration::from_millis(1_500);

/// Both checks.
pub struct PresenceChecks {
    /// The pods of this node.
    pub pods: Pods,
    /// How strict each check is.
    pub modes: PodChecks,
    /// What is counted.
    pub metrics: Arc<PodCheckMetrics>,
}

/// Why a caller gets nothing, whatever its token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// Its pod is gone.
    Gone,
    /// Its pod has not been reported as one of this node; it may be in a moment.
    NotSeen,
    /// Its pod is on another node.
    Elsewhere,
    /// Its pod has another address.
    OtherAddress,
}

impl PresenceChecks {
    /// Whether a caller is where its pod is.
    ///
    /// # Errors
    /// [`Absent`], when it is not, and the mode of that check says that this matters.
    pub async fn check(&self, caller: &Caller, origin: Origin) -> Result<(), Absent> {
        let Some(uid) = uid_of(caller) else { return Ok(()) };
        let judge = || {
            let status = self.pods.status_of(uid);
            self.note(caller, &status);
            presence(caller, &status, origin)
        };
        let mut judged = judge();
        if let Presence::NotSeen(pod) = &judged {
            match self.modes.uid {
                CheckMode::Off => {}
                CheckMode::Audit => self.pods.ask(pod),
                CheckMode::Enforce => {
                    let _seen_or_not = tokio::time::timeout(UNSEEN_WAIT, self.pods.until_seen(pod)).await;
                    judged = judge();
                }
            }
        }
        self.metrics.judged(label(&judged));
        let (absent, mode) = match judged {
            Presence::Confirmed | Presence::Unknown => return Ok(()),
            // The cluster has said so of this very pod: no mode serves it.
            Presence::Gone => return Err(Absent::Gone),
            Presence::NotSeen(_) => (Absent::NotSeen, self.modes.uid),
            Presence::Elsewhere => (Absent::Elsewhere, self.modes.uid),
            Presence::OtherAddress => (Absent::OtherAddress, self.modes.address),
        };
        match mode {
            CheckMode::Off | CheckMode::Audit => Ok(()),
            CheckMode::Enforce => Err(absent),
        }
    }

    /// Notes that a pod asks. Once is enough: the others only look at the mark.
    fn note(&self, caller: &Caller, status: &PodStatus) {
        match (caller, status) {
            (Caller::Verified(caller), PodStatus::Here(pod)) if !pod.has_asked() => {
                self.pods.note_asked(&caller.uid);
            }
            (Caller::Verified(_) | Caller::Claimed(_) | Caller::Unknown, _) => {}
        }
    }

    /// The same of one that was held meanwhile: whether its pod has gone.
    ///
    /// # Errors
    /// [`Absent::Gone`].
    pub fn check_again(&self, caller: &Caller) -> Result<(), Absent> {
        match uid_of(caller).is_some_and(|uid| self.pods.is_gone(uid)) {
            true => Err(Absent::Gone),
            false => Ok(()),
        }
    }
}

const fn label(presence: &Presence) -> PodPresence {
    match presence {
        Presence::Confirmed => PodPresence::Confirmed,
        Presence::Unknown => PodPresence::Unknown,
        Presence::Gone => PodPresence::Gone,
        Presence::NotSeen(_) => PodPresence::NotSeen,
        Presence::Elsewhere => PodPresence::Elsewhere,
        Presence::OtherAddress => PodPresence::OtherAddress,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{Absent, PresenceChecks, UNSEEN_WAIT};
    use crate::clock::BootTime;
    use crate::config::CheckMode::{self, Audit, Enforce, Off};
    use crate::config::PodChecks;
    use crate::pods::check::Origin;
    use crate::pods::testing::pod as live;
    use crate::pods::{Pods, Questions};
    use crate::telemetry::metrics::Metrics;
    use crate::workload::{Caller, ClaimedPod, Pod, ServiceAccount};

    const ITS_ADDRESS: [u8; 4] = [10, 0, 0, 7];

    fn verified(uid: &str) -> Caller {
        let service_account = ServiceAccount { namespace: "ns".into(), name: "sa".into(), uid: "sa".into() };
        Caller::Verified(Arc::new(Pod { service_account, name: "p".into(), uid: uid.into(), node: None }))
    }

    fn from(address: [u8; 4]) -> Origin {
        Origin { address: address.into(), is_of_host: false }
    }

    /// Of a node where the pod "here" lives, "gone" does not any more, and "away" lives on another one.
    fn checks(uid: CheckMode, address: CheckMode) -> (PresenceChecks, Questions) {
        let (pods, questions) = Pods::new();
        pods.begin_list();
        pods.here(live("here"));
        pods.end_list().unwrap();
        pods.gone("gone", BootTime::from_boot(Duration::from_secs(1)));
        pods.elsewhere("away");
        let (modes, metrics) = (PodChecks { uid, address }, Metrics::new().pod_checks);
        (PresenceChecks { pods, modes, metrics }, questions)
    }

    #[tokio::test(start_paused = true)]
    async fn off_and_audit_refuse_only_a_pod_that_is_gone_and_make_nobody_wait() {
        for mode in [Off, Audit] {
            let (checks, mut questions) = checks(mode, mode);
            let began = Instant::now();
            for (uid, address) in
                [("here", ITS_ADDRESS), ("here", [10, 0, 0, 8]), ("away", ITS_ADDRESS), ("new", ITS_ADDRESS)]
            {
                assert_eq!(checks.check(&verified(uid), from(address)).await, Ok(()), "{uid} {mode:?}");
            }
            let claimed = Caller::Claimed(Arc::new(ClaimedPod::new("ns", "sa", None, Some("gone"))));
            for gone in [verified("gone"), claimed] {
                assert_eq!(checks.check(&gone, from(ITS_ADDRESS)).await, Err(Absent::Gone), "{mode:?}");
                assert_eq!(checks.check_again(&gone), Err(Absent::Gone));
            }
            assert_eq!(began.elapsed(), Duration::ZERO);
            assert_eq!(
                questions.try_recv().is_ok(),
                mode == Audit,
                "an audit finds out where the new one is"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn enforced_each_check_refuses_what_it_is_about_and_nothing_else() {
        let (uid_only, _questions) = checks(Enforce, Off);
        let (address_only, _questions) = checks(Off, Enforce);
        let elsewhere = from([10, 0, 0, 8]);
        assert_eq!(uid_only.check(&verified("here"), elsewhere).await, Ok(()));
        assert_eq!(uid_only.check(&verified("away"), elsewhere).await, Err(Absent::Elsewhere));
        assert_eq!(address_only.check(&verified("away"), elsewhere).await, Ok(()));
        assert_eq!(address_only.check(&verified("here"), elsewhere).await, Err(Absent::OtherAddress));
        assert_eq!(address_only.check(&verified("here"), from(ITS_ADDRESS)).await, Ok(()));
        assert_eq!(address_only.check(&Caller::Unknown, elsewhere).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn enforced_a_pod_that_nobody_has_reported_is_waited_for_and_then_told_to_come_again() {
        let (checks, mut questions) = checks(Enforce, Off);
        let began = Instant::now();
        let new = verified("new");
        let reported = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert_eq!(&*questions.try_recv().unwrap().uid, "new");
            checks.pods.here(live("new"));
        };
        let (seen, ()) = tokio::join!(checks.check(&new, from(ITS_ADDRESS)), reported);
        assert_eq!((seen, began.elapsed()), (Ok(()), Duration::from_millis(300)));
        let began = Instant::now();
        assert_eq!(checks.check(&verified("never"), from(ITS_ADDRESS)).await, Err(Absent::NotSeen));
        assert_eq!(began.elapsed(), UNSEEN_WAIT);
        // Where reports have stopped nothing is known of it, and it is served.
        checks.pods.lost();
        assert_eq!(checks.check(&verified("never"), from(ITS_ADDRESS)).await, Ok(()));
    }

    #[tokio::test]
    async fn a_pod_has_asked_once_its_token_was_verified_and_no_claim_makes_it_so() {
        let (checks, _questions) = checks(Audit, Audit);
        let silent = || checks.pods.states(BootTime::from_boot(Duration::ZERO)).unwrap().silent;
        let claimed = Caller::Claimed(Arc::new(ClaimedPod::new("ns", "sa", None, Some("here"))));
        assert_eq!(checks.check(&claimed, from(ITS_ADDRESS)).await, Ok(()));
        assert_eq!(checks.check(&verified("away"), from(ITS_ADDRESS)).await, Ok(()));
        assert_eq!(silent(), 1);
        assert_eq!(checks.check(&verified("here"), from(ITS_ADDRESS)).await, Ok(()));
        assert_eq!(silent(), 0);
    }
}
