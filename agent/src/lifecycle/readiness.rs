//! Readiness as a list of named conditions, each with the reason why it is not met.
//!
//! Owns: the list, whether the agent is ready, and one log line per change. Must not know: which part reports
//! a condition, and which part reads it. The health of EKS Auth is never
//! required: restarting or unscheduling the agent would not repair it (docs/design/decisions.md#readiness).

use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;

use super::condition_name::ConditionName;

/// Why a condition is not met that nobody has reported yet.
pub const STARTING: &str = "starting";
/// How the reason begins of a condition that has nothing to meet.
pub const NOT_APPLICABLE: &str = "not applicable: ";

/// All conditions of the process. Clones share them.
#[derive(Clone)]
pub struct Readiness {
    shared: Arc<Mutex<State>>,
}

struct State {
    started: Instant,
    was_ready: bool,
    ever_ready: bool,
    conditions: Vec<Report>,
    /// Those that follow from others, each after what it follows from.
    derived: Vec<Derived>,
}

/// A condition that is met while all conditions of one of these groups are.
struct Derived {
    index: usize,
    groups: Vec<Vec<usize>>,
}

/// One condition as probes and people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The name of the condition.
    pub name: ConditionName,
    /// Whether it is met.
    pub met: bool,
    /// Whether the agent is unready while it is not met; if not, it is only shown.
    pub required: bool,
    /// Why it is not met, or why it does not apply; else empty.
    pub reason: String,
}

/// The handle of one condition, for the part that knows whether it is met.
#[derive(Clone)]
pub struct Condition {
    shared: Arc<Mutex<State>>,
    index: usize,
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Readiness {
    /// No conditions yet, and not ready: so far nothing defines what ready means.
    pub fn new() -> Self {
        let state = State {
            started: Instant::now(),
            was_ready: false,
            ever_ready: false,
            conditions: Vec::new(),
            derived: Vec::new(),
        };
        Self { shared: Arc::new(Mutex::new(state)) }
    }

    /// A required condition: the agent is unready while it is not met. It starts unmet. The same name returns
    /// the same condition.
    pub fn condition(&self, name: ConditionName) -> Condition {
        self.register(name, true)
    }

    /// An advisory condition: it is shown, but never makes the agent unready, such as an IPv6 listener on a
    /// node without IPv6.
    pub fn advisory(&self, name: ConditionName) -> Condition {
        self.register(name, false)
    }

    /// Has a condition follow from others: it is met while all of one of these groups are. Nobody else may
    /// report it. `groups` are of this list, and not empty.
    pub fn follows_from(&self, condition: &Condition, groups: &[&[&Condition]]) {
        let mut state = self.shared.lock();
        let groups = groups.iter().map(|group| group.iter().map(|condition| condition.index).collect());
        let derived = Derived { index: condition.index, groups: groups.collect() };
        state.derived.push(derived);
        state.derive();
        state.note_readiness();
    }

    /// Whether every required condition is met, and there is one.
    pub fn is_ready(&self) -> bool {
        self.shared.lock().is_ready()
    }

    /// Whether every required condition but these is met.
    pub fn is_ready_but_for(&self, names: &[ConditionName]) -> bool {
        let state = self.shared.lock();
        let others = state.conditions.iter().filter(|condition| !names.contains(&condition.name));
        others.filter(|condition| condition.required).all(|condition| condition.met)
    }

    /// Every condition, in the order of registration.
    pub fn report(&self) -> Vec<Report> {
        self.shared.lock().conditions.clone()
    }

    fn register(&self, name: ConditionName, required: bool) -> Condition {
        let mut state = self.shared.lock();
        let known = state.conditions.iter().position(|condition| condition.name == name);
        let index = known.unwrap_or_else(|| {
            state.conditions.push(Report { name, met: false, required, reason: STARTING.to_owned() });
            state.conditions.len() - 1
        });
        state.note_readiness();
        drop(state);
        Condition { shared: Arc::clone(&self.shared), index }
    }
}

impl Condition {
    /// The condition is met.
    pub fn met(&self) {
        self.set(true, String::new());
    }

    /// The condition counts as met, because there is nothing to meet: IPv6 is switched off, for instance.
    pub fn not_applicable(&self, reason: impl Into<String>) {
        self.set(true, format!("{NOT_APPLICABLE}{}", reason.into()));
    }

    /// The condition is met in another way than usual.
    pub fn met_by(&self, way: impl Into<String>) {
        self.set(true, way.into());
    }

    /// The condition is not met, and why. Never put a secret into a reason: probes show it.
    pub fn unmet(&self, reason: impl Into<String>) {
        self.set(false, reason.into());
    }

    /// From now on it is advisory: shown, but never a reason for being unready.
    pub fn no_longer_required(&self) {
        let mut state = self.shared.lock();
        if let Some(condition) = state.conditions.get_mut(self.index) {
            condition.required = false;
        }
        state.note_readiness();
    }

    /// Whether it is met, according to the last report.
    pub fn is_met(&self) -> bool {
        self.shared.lock().conditions.get(self.index).is_some_and(|condition| condition.met)
    }

    fn set(&self, met: bool, reason: String) {
        let mut state = self.shared.lock();
        state.set(self.index, met, reason);
        state.derive();
        state.note_readiness();
    }
}

impl State {
    fn set(&mut self, index: usize, met: bool, reason: String) {
        let Some(condition) = self.conditions.get_mut(index) else { return };
        // Only changes are logged: not the initial state, and not the same state for another reason.
        let changed = condition.met != met || (!met && condition.reason == STARTING && reason != STARTING);
        condition.met = met;
        condition.reason = reason;
        if changed && met {
            tracing::info!(condition = condition.name.as_str(), "condition met");
        } else if changed {
            tracing::warn!(
                condition = condition.name.as_str(),
                reason = condition.reason,
                "condition not met"
            );
        }
    }

    fn derive(&mut self) {
        let follows: Vec<_> =
            self.derived.iter().map(|derived| (derived.index, self.follow(derived))).collect();
        for (index, (met, reason)) in follows {
            self.set(index, met, reason);
        }
    }

    /// What follows for a derived condition: met with the reason of what it is met by, or unmet with all
    /// reasons.
    fn follow(&self, derived: &Derived) -> (bool, String) {
        let groups: Vec<Vec<&Report>> = derived
            .groups
            .iter()
            .map(|group| group.iter().filter_map(|index| self.conditions.get(*index)).collect())
            .collect();
        let by = groups.iter().find(|group| group.iter().all(|report| report.met));
        let is_missing = |report: &&&Report| by.is_some() || !report.met;
        let told = by.map_or_else(|| groups.iter().flatten().collect::<Vec<_>>(), |by| by.iter().collect());
        let mut reasons: Vec<_> =
            told.into_iter().filter(is_missing).map(|report| report.reason.as_str()).collect();
        reasons.retain(|reason| !reason.is_empty());
        reasons.dedup();
        (by.is_some(), reasons.join("; "))
    }

    fn is_ready(&self) -> bool {
        let mut required = self.conditions.iter().filter(|condition| condition.required).peekable();
        required.peek().is_some() && required.all(|condition| condition.met)
    }

    fn note_readiness(&mut self) {
        let ready = self.is_ready();
        if ready == self.was_ready {
            return;
        }
        self.was_ready = ready;
        if ready && !self.ever_ready {
            self.ever_ready = true;
            let took = self.started.elapsed();
            tracing::info!(took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX), "ready");
        } else if ready {
            tracing::info!("ready again");
        } else {
            tracing::warn!("not ready");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Readiness;
    use crate::lifecycle::condition_name::ConditionName;

    #[test]
    fn without_conditions_the_agent_is_not_ready() {
        assert!(!Readiness::new().is_ready());
    }

    #[test]
    fn ready_depends_on_every_required_condition_and_on_no_advisory_one() {
        let readiness = Readiness::new();
        let listener = readiness.condition(ConditionName::ListenerIpv4);
        let credentials = readiness.condition(ConditionName::OwnCredentials);
        let ipv6 = readiness.advisory(ConditionName::ListenerIpv6);
        listener.met();
        assert!(!readiness.is_ready());
        credentials.met();
        ipv6.unmet("address family not supported");
        assert!(readiness.is_ready());
        credentials.unmet("expired");
        assert!(!readiness.is_ready());
        let reasons: Vec<String> = readiness.report().into_iter().map(|report| report.reason).collect();
        assert_eq!(reasons, ["", "expired", "address family not supported"]);
    }

    #[test]
    fn what_does_not_apply_to_this_node_keeps_it_from_nothing_and_says_why() {
        let readiness = Readiness::new();
        let ipv6 = readiness.condition(ConditionName::AddressIpv6);
        ipv6.not_applicable("IPv6 is switched off");
        assert!(readiness.is_ready());
        assert_eq!(readiness.report()[0].reason, "not applicable: IPv6 is switched off");
        ipv6.met();
        assert_eq!(readiness.report()[0].reason, "");
        ipv6.unmet("gone");
        assert!(!readiness.is_ready());
    }

    #[test]
    fn a_condition_that_follows_from_others_is_met_by_one_group_of_them() {
        let readiness = Readiness::new();
        let reached = readiness.condition(ConditionName::ListenerIpv4);
        let own = readiness.advisory(ConditionName::ListenerIpv4Own);
        let guard = readiness.advisory(ConditionName::ListenerIpv4Guard);
        let table = readiness.advisory(ConditionName::AddressGuard);
        readiness.follows_from(&reached, &[&[&own], &[&guard, &table]]);
        assert_eq!(readiness.report()[0].reason, "starting");
        own.unmet("port 80 in use");
        guard.met();
        assert!(!readiness.is_ready(), "nobody is redirected to the guard's port");
        table.unmet("no nft");
        assert_eq!(readiness.report()[0].reason, "port 80 in use; no nft");
        table.met();
        assert!(readiness.is_ready());
        assert_eq!(readiness.report()[0].reason, "");
        guard.unmet("port 2707 in use");
        assert!(!readiness.is_ready());
        own.not_applicable("no IPv6");
        assert!(readiness.is_ready());
        assert_eq!(readiness.report()[0].reason, "not applicable: no IPv6");
    }

    #[test]
    fn what_is_no_longer_required_is_shown_and_keeps_from_nothing() {
        let readiness = Readiness::new();
        let guard = readiness.condition(ConditionName::AddressGuard);
        readiness.condition(ConditionName::ListenerIpv4).met();
        guard.unmet("nft is not installed");
        assert!(!readiness.is_ready());
        guard.no_longer_required();
        assert!(readiness.is_ready());
        let report = &readiness.report()[0];
        assert_eq!(
            (report.met, report.required, report.reason.as_str()),
            (false, false, "nft is not installed")
        );
    }

    #[test]
    fn a_condition_starts_unmet_and_one_name_is_one_condition() {
        let readiness = Readiness::new();
        let first = readiness.condition(ConditionName::ListenerIpv4);
        assert_eq!(readiness.report()[0].reason, "starting");
        readiness.condition(ConditionName::ListenerIpv4).met();
        assert!(readiness.is_ready());
        first.unmet("gone");
        assert_eq!(readiness.report().len(), 1);
        assert!(!readiness.is_ready());
    }
}
