//! The pods that the injection missed, reported one by one.
//!
//! Owns: the pace of reports, and the words of the log. Must not know: when a pod counts as missed
//! (`register`), or who else is given the report.

use std::time::Duration;

use super::{LivePod, Pods};
use crate::clock::Clock;

/// A Deployment of a hundred such pods must not fill the log: one line a second at most.
const BETWEEN_REPORTS: Duration = Duration::from_secs(1);

/// Gives `report` each missed pod once, without end; cancel by dropping. It must not wait.
pub async fn report_each(pods: Pods, clock: Clock, report: impl Fn(&LivePod)) {
    loop {
        let pod = pods.next_missed(&clock).await;
        report(&pod);
        tokio::time::sleep(BETWEEN_REPORTS).await;
    }
}

/// Logs a missed pod, with what to do.
pub fn warn(pod: &LivePod) {
    tracing::warn!(
        pod.namespace = &*pod.name.namespace,
        pod.name = &*pod.name.name,
        pod.uid = &*pod.name.uid,
        pod.service_account = &*pod.service_account.name,
        "the pod has none of the variables of EKS Pod Identity, though its service account has an \
         association, so its SDKs use other credentials, perhaps the node's; unless the association was \
         deleted, delete the pod so that it is created again: its variables are set only at creation"
    );
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use parking_lot::Mutex;

    use super::report_each;
    use crate::clock::{BootTime, Clock};
    use crate::lifecycle::tasks::spawn_detached;
    use crate::pods::testing::{caller, missing};
    use crate::pods::{LivePod, Pods};

    #[tokio::test(start_paused = true)]
    async fn a_hundred_missed_pods_are_reported_each_once_and_one_a_second() {
        let (pods, _questions) = Pods::new();
        (0..100).for_each(|n| pods.here(missing(&n.to_string())));
        pods.granted(&caller("sa"), BootTime::from_boot(Duration::MAX));
        let reported: Arc<Mutex<Vec<Box<str>>>> = Arc::default();
        let all = Arc::clone(&reported);
        let report = move |pod: &LivePod| all.lock().push(pod.name.uid.clone());
        spawn_detached("test-missed", report_each(pods.clone(), Clock::system(), report));
        tokio::time::sleep(Duration::from_millis(9_500)).await;
        assert_eq!(reported.lock().len(), 10);
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        let reported = reported.lock();
        let mut uids = reported.clone();
        uids.sort();
        uids.dedup();
        assert_eq!((reported.len(), uids.len()), (100, 100));
    }
}
