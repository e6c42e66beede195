//! Who lives on this node, at one moment. Pure.
//!
//! Owns: the tombstones, what a list that lacks somebody means, and who was missed by the injection
//! (docs/design/decisions.md#pods). Must not know: who reports, or who waits.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::associations::Associations;
use super::{DoubtfulList, Injection, LivePod, PodName, PodStates};
use crate::clock::BootTime;
use crate::workload::ServiceAccountName;

/// A token of a pod that is gone is good for so long at most, as far as EKS and Kubernetes' defaults go: 24
/// hours, and the leeway of clocks (docs/design/facts.md#tokens).
const TOMBSTONE: Duration = Duration::from_secs(24 * 3600 + 300);
/// Of that many pods it is remembered that they are elsewhere; all are forgotten when there is one more.
const MOST_ELSEWHERE: usize = 1_024;
/// Of that many pods of the last day it is remembered that they are gone, those of the latest first.
const MOST_TOMBSTONES: usize = 16_384;

/// What is known of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodStatus {
    /// It lives here.
    Here(Arc<LivePod>),
    /// It is gone: the cluster has said so.
    Gone,
    /// All pods of this node are known, and it is not among them.
    NotSeen,
    /// It lives on another node: the cluster has said so.
    Elsewhere,
    /// Nothing: reports have stopped, or never began.
    Unknown,
}

/// The pods of this node.
#[derive(Debug, Default)]
pub(super) struct Register {
    pods: HashMap<Box<str>, Known>,
    /// Until when it is remembered that they are gone.
    tombstones: HashMap<Box<str>, BootTime>,
    elsewhere: HashSet<Box<str>>,
    to_revoke: VecDeque<Box<str>>,
    associations: Associations,
    is_fresh: bool,
    /// Whether a list was whole once.
    was_fresh: bool,
    /// The number of the list that was begun last.
    list: u64,
    /// How many were known when it began.
    known_before: usize,
}

#[derive(Debug)]
struct Known {
    pod: Arc<LivePod>,
    /// The number of the list after which it was reported last.
    reported_in: u64,
    /// Whether it was returned as missed: that is done once, however often its association comes and goes.
    was_reported: bool,
}

impl Register {
    pub(super) fn status_of(&self, uid: &str) -> PodStatus {
        if let Some(known) = self.pods.get(uid) {
            return PodStatus::Here(Arc::clone(&known.pod));
        }
        match (self.is_gone(uid), self.elsewhere.contains(uid), self.is_fresh) {
            (true, _, _) => PodStatus::Gone,
            (false, true, _) => PodStatus::Elsewhere,
            (false, false, true) => PodStatus::NotSeen,
            (false, false, false) => PodStatus::Unknown,
        }
    }

    pub(super) fn is_gone(&self, uid: &str) -> bool {
        self.tombstones.contains_key(uid)
    }

    pub(super) fn lives(&self, uid: &str) -> bool {
        self.is_fresh && self.pods.contains_key(uid)
    }

    pub(super) fn count(&self) -> (usize, bool) {
        (self.pods.len(), self.is_fresh)
    }

    pub(super) fn all(&self) -> Option<Vec<Arc<LivePod>>> {
        self.was_fresh.then(|| self.pods.values().map(|known| Arc::clone(&known.pod)).collect())
    }

    pub(super) fn here(&mut self, pod: LivePod) {
        let uid = pod.name.uid.clone();
        self.tombstones.remove(&uid);
        self.elsewhere.remove(&uid);
        let before = self.pods.get(&uid);
        if before.is_some_and(|before| before.pod.has_asked()) {
            pod.asked.note();
        }
        let was_reported = before.is_some_and(|before| before.was_reported);
        self.pods.insert(uid, Known { pod: Arc::new(pod), reported_in: self.list, was_reported });
    }

    pub(super) fn note_asked(&self, uid: &str) {
        if let Some(known) = self.pods.get(uid) {
            known.pod.asked.note();
        }
    }

    pub(super) fn granted(&mut self, account: ServiceAccountName, until: BootTime) {
        self.associations.granted(account, until);
    }

    pub(super) fn has_no_association(&mut self, account: &ServiceAccountName) {
        self.associations.refused(account);
    }

    /// Looks at all pods: there are few hundred, and reports and grants are rare.
    pub(super) fn next_missed(&mut self, now: BootTime) -> Option<Arc<LivePod>> {
        let associations = &self.associations;
        let is_next = |known: &&mut Known| {
            let pod = &known.pod;
            let lacks_variables = pod.injection == Injection::Missing && !pod.is_finished && !pod.has_asked();
            lacks_variables && !known.was_reported && associations.has(&pod.service_account, now)
        };
        let next = self.pods.values_mut().find(is_next)?;
        next.was_reported = true;
        Some(Arc::clone(&next.pod))
    }

    /// A pod is missed only while its account is known to have an association: nobody would mend one that
    /// lacks what it is not meant to have any more.
    pub(super) fn states(&self, now: BootTime) -> Option<PodStates> {
        let mut states = PodStates::default();
        for known in self.pods.values() {
            let is_missed = self.associations.has(&known.pod.service_account, now);
            states.count(&known.pod, is_missed);
        }
        self.is_fresh.then_some(states)
    }

    pub(super) fn gone(&mut self, uid: &str, now: BootTime) {
        self.pods.remove(uid);
        if self.tombstones.len() >= MOST_TOMBSTONES {
            self.make_room(now);
        }
        self.tombstones.insert(uid.into(), now.plus(TOMBSTONE));
        self.to_revoke.push_back(uid.into());
        // Each of these has a tombstone; one without is nobody's business any more.
        if self.to_revoke.len() > MOST_TOMBSTONES {
            self.to_revoke.pop_front();
        }
    }

    /// A pod is never moved: one that was bound to another node will not be here.
    pub(super) fn elsewhere(&mut self, uid: &str) {
        if self.elsewhere.len() >= MOST_ELSEWHERE {
            self.elsewhere.clear();
        }
        self.elsewhere.insert(uid.into());
    }

    /// Forgets those with tokens that have expired, and of the others the oldest eighth: rarely, so that a
    /// look at all of them costs little.
    fn make_room(&mut self, now: BootTime) {
        self.tombstones.retain(|_, until| *until > now);
        if self.tombstones.len() < MOST_TOMBSTONES {
            return;
        }
        let mut ends: Vec<_> = self.tombstones.values().copied().collect();
        ends.sort_unstable();
        if let Some(oldest) = ends.get(MOST_TOMBSTONES / 8).copied() {
            self.tombstones.retain(|_, until| *until > oldest);
        }
    }

    pub(super) fn next_to_revoke(&mut self) -> Option<Box<str>> {
        self.to_revoke.pop_front()
    }

    pub(super) fn begin_list(&mut self) {
        self.list += 1;
        self.known_before = self.pods.len();
    }

    pub(super) fn end_list(&mut self) -> Result<Vec<PodName>, DoubtfulList> {
        let missing: Vec<_> = self
            .pods
            .values()
            .filter(|known| known.reported_in < self.list)
            .map(|known| known.pod.name.clone())
            .collect();
        // The agent itself is a pod of this node, so no list of it is empty.
        if self.pods.len() == missing.len() || missing.len() * 2 > self.known_before {
            self.is_fresh = false;
            let list = self.list;
            self.pods.retain(|_, known| known.reported_in == list);
            return Err(DoubtfulList { known: self.known_before, missing: missing.len() });
        }
        self.set_fresh(true);
        Ok(missing)
    }

    pub(super) fn set_fresh(&mut self, is_fresh: bool) {
        self.is_fresh = is_fresh;
        self.was_fresh |= is_fresh;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{MOST_ELSEWHERE, MOST_TOMBSTONES, PodStatus, Register, TOMBSTONE};
    use crate::clock::BootTime;
    use crate::pods::testing::{missing, pod};
    use crate::pods::{DoubtfulList, Injection, LivePod, PodStates};
    use crate::workload::ServiceAccountName;

    fn at(seconds: u64) -> BootTime {
        BootTime::from_boot(Duration::from_secs(seconds))
    }

    fn listed(uids: &[&str]) -> Register {
        let mut register = Register::default();
        list(&mut register, uids).unwrap();
        register
    }

    /// The UIDs that the list lacked.
    fn list(register: &mut Register, uids: &[&str]) -> Result<Vec<String>, DoubtfulList> {
        register.begin_list();
        uids.iter().for_each(|uid| register.here(pod(uid)));
        let mut missing: Vec<_> = register.end_list()?.into_iter().map(|name| name.uid.to_string()).collect();
        missing.sort();
        Ok(missing)
    }

    fn is_here(register: &Register, uid: &str) -> bool {
        matches!(register.status_of(uid), PodStatus::Here(_))
    }

    #[test]
    fn the_unknown_are_not_seen_only_while_reports_are_fresh() {
        let mut register = Register::default();
        assert_eq!(register.status_of("a"), PodStatus::Unknown);
        list(&mut register, &["a"]).unwrap();
        assert!(is_here(&register, "a") && register.lives("a"));
        assert_eq!(register.status_of("b"), PodStatus::NotSeen);
        register.set_fresh(false);
        assert_eq!(register.status_of("b"), PodStatus::Unknown);
        assert!(is_here(&register, "a"), "what was known stays known");
        assert!(!register.lives("a"), "but nothing is done for it on that word alone");
    }

    #[test]
    fn all_are_known_from_the_first_list_on_and_stay_known_without_reports() {
        let mut register = Register::default();
        register.begin_list();
        register.here(pod("a"));
        assert_eq!(register.all(), None, "some of a list");
        register.end_list().unwrap();
        register.set_fresh(false);
        assert_eq!(register.all().unwrap().len(), 1);
    }

    #[test]
    fn one_that_a_list_lacks_counts_as_living_until_the_cluster_was_asked_about_it() {
        let mut register = listed(&["a", "b", "c"]);
        assert_eq!(list(&mut register, &["a", "b"]).unwrap(), ["c"]);
        assert!(is_here(&register, "c"));
        assert_eq!(list(&mut register, &["a", "b"]).unwrap(), ["c"], "and the next list says it again");
        register.gone("c", at(1));
        assert_eq!(register.status_of("c"), PodStatus::Gone);
        assert_eq!(list(&mut register, &["a", "b"]).unwrap(), [""; 0]);
    }

    #[test]
    fn an_empty_list_and_one_that_lacks_more_than_half_are_not_believed() {
        for (uids, missing) in [(&[][..], 4), (&["a"][..], 3)] {
            let mut register = listed(&["a", "b", "c", "d"]);
            assert_eq!(list(&mut register, uids), Err(DoubtfulList { known: 4, missing }));
            assert_eq!(register.status_of("d"), PodStatus::Unknown, "neither here nor gone");
            assert!(!register.lives("a"));
        }
        let mut register = listed(&["a", "b", "c", "d"]);
        assert_eq!(list(&mut register, &["a", "b"]).unwrap(), ["c", "d"], "half of them may be gone");
        assert_eq!(list(&mut Register::default(), &[]), Err(DoubtfulList { known: 0, missing: 0 }));
    }

    #[test]
    fn a_list_of_others_is_no_better_than_an_empty_one() {
        let mut register = listed(&["a", "b"]);
        assert!(list(&mut register, &["x", "y", "z"]).is_err());
        assert_eq!(list(&mut register, &["x", "y", "z"]).unwrap(), [""; 0], "asked again, it says the same");
    }

    #[test]
    fn a_pod_that_is_seen_again_is_not_gone() {
        let mut register = listed(&["a", "b"]);
        register.gone("a", at(1));
        assert!(register.is_gone("a"));
        register.here(pod("a"));
        assert!(is_here(&register, "a") && !register.is_gone("a"));
    }

    #[test]
    fn a_pod_of_another_node_is_known_to_be_elsewhere() {
        let mut register = listed(&["a"]);
        register.elsewhere("b");
        assert_eq!(register.status_of("b"), PodStatus::Elsewhere);
        register.gone("b", at(1));
        assert_eq!(register.status_of("b"), PodStatus::Gone);
        (0..=MOST_ELSEWHERE).for_each(|n| register.elsewhere(&n.to_string()));
        assert!(register.elsewhere.len() <= MOST_ELSEWHERE);
    }

    #[test]
    fn the_latest_of_too_many_tombstones_are_kept_and_the_expired_go_first() {
        let mut register = Register::default();
        for n in 0..MOST_TOMBSTONES as u64 {
            register.gone(&n.to_string(), at(n));
        }
        register.gone("newest", at(MOST_TOMBSTONES as u64));
        assert!(register.is_gone("newest") && register.is_gone(&(MOST_TOMBSTONES / 2).to_string()));
        assert!(!register.is_gone("0"));
        assert!(register.tombstones.len() <= MOST_TOMBSTONES);
        let later = at(2 * MOST_TOMBSTONES as u64).plus(TOMBSTONE);
        for n in 0..=MOST_TOMBSTONES {
            register.gone(&format!("later-{n}"), later);
        }
        assert!(!register.is_gone("newest"));
    }

    fn account() -> ServiceAccountName {
        ServiceAccountName { namespace: "ns".into(), name: "sa".into() }
    }

    /// With an association of "sa" that is known until second 100.
    fn with_association() -> Register {
        let mut register = Register::default();
        register.granted(account(), at(100));
        register.set_fresh(true);
        register
    }

    fn missed_at(register: &mut Register, seconds: u64) -> Option<String> {
        register.next_missed(at(seconds)).map(|pod| pod.name.uid.to_string())
    }

    #[test]
    fn a_pod_is_missed_only_if_it_lives_lacks_its_variables_and_has_not_asked() {
        let changed = |change: fn(&mut LivePod)| {
            let mut pod = missing("a");
            change(&mut pod);
            pod
        };
        let cases = [
            ("it lacks them", changed(|_| ()), true),
            ("on the host network too", changed(|pod| pod.is_on_host_network = true), true),
            ("it has them", changed(|pod| pod.injection = Injection::Injected), false),
            ("it needs none", changed(|pod| pod.injection = Injection::NotWanted), false),
            ("it has ended", changed(|pod| pod.is_finished = true), false),
            ("it has asked", changed(|pod| pod.asked.note()), false),
            ("of another account", changed(|pod| pod.service_account.name = "other".into()), false),
            ("of another namespace", changed(|pod| pod.service_account.namespace = "other".into()), false),
        ];
        for (what, pod, is_missed) in cases {
            let mut register = with_association();
            register.here(pod);
            assert_eq!(missed_at(&mut register, 99).is_some(), is_missed, "{what}");
        }
    }

    #[test]
    fn a_pod_is_reported_once_and_missed_only_while_its_association_is_known() {
        let mut register = with_association();
        register.here(missing("a"));
        assert_eq!(missed_at(&mut register, 99).as_deref(), Some("a"));
        register.here(missing("a"));
        assert_eq!(missed_at(&mut register, 99), None);
        register.here(missing("later"));
        assert_eq!(missed_at(&mut register, 100), None, "by then nobody knows of an association");
        let states = |missed, other| Some(PodStates { missed, other, ..PodStates::default() });
        assert_eq!(register.states(at(99)), states(2, 0));
        assert_eq!(register.states(at(100)), states(0, 2), "its last set has ended");
        register.granted(account(), at(200));
        assert_eq!(register.states(at(101)), states(2, 0), "it is known again");
        (0..3).for_each(|_| register.has_no_association(&account()));
        assert_eq!(register.states(at(101)), states(0, 2), "AWS knows of none");
        register.granted(account(), at(200));
        assert_eq!(missed_at(&mut register, 101).as_deref(), Some("later"));
        assert_eq!(missed_at(&mut register, 101), None, "the other was reported before");
        register.gone("a", at(102));
        register.here(missing("a"));
        assert_eq!(
            missed_at(&mut register, 102).as_deref(),
            Some("a"),
            "nothing is kept of one that was gone"
        );
    }
}
