//! What was asked of the services, and how much of it at the same time.
//!
//! Owns: the log that tests read. Must not know: what the services do.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

use crate::cluster::pod::PodSpec;
use crate::faults::Service;

/// Calls kept; the oldest go first. A long benchmark must not fill the memory.
const KEPT: usize = 100_000;

/// One request that reached a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    /// Which service.
    pub service: Service,
    /// `AssumeRoleForPodIdentity`, `GetCallerIdentity`, or method and path.
    pub operation: String,
    /// The pod on whose behalf, as far as the request says so.
    pub pod: Option<PodSpec>,
    /// HTTP status; `None` while unanswered, and for ever if the connection was lost first.
    pub status: Option<u16>,
    /// Error code; `None` for success.
    pub code: Option<String>,
    #[serde(skip)]
    id: u64,
}

/// Calls of EKS Auth in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Concurrency {
    /// Right now.
    pub now: usize,
    /// The most since the start or the last reset.
    pub max: usize,
}

#[derive(Debug, Default)]
struct Log {
    calls: VecDeque<Call>,
    next_id: u64,
    eks_auth: Concurrency,
    tls_versions: BTreeSet<String>,
}

/// The log of calls.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calls(Arc<Mutex<Log>>);

impl Calls {
    /// Notes a call that has just arrived. It counts as in flight until the returned value is dropped.
    pub(crate) fn begin(&self, service: Service, operation: String, pod: Option<PodSpec>) -> InFlight {
        let mut log = self.0.lock();
        log.next_id += 1;
        let id = log.next_id;
        if log.calls.len() == KEPT {
            log.calls.pop_front();
        }
        log.calls.push_back(Call { service, operation, pod, status: None, code: None, id });
        let mut concurrent = 0;
        if service == Service::EksAuth {
            log.eks_auth.now += 1;
            log.eks_auth.max = log.eks_auth.max.max(log.eks_auth.now);
            concurrent = log.eks_auth.now;
        }
        InFlight { calls: self.clone(), id, service, concurrent }
    }

    /// Notes a version of TLS that was agreed on.
    pub(crate) fn speaks(&self, version: String) {
        self.0.lock().tls_versions.insert(version);
    }

    /// Those noted since the start.
    pub(crate) fn tls_versions(&self) -> Vec<String> {
        self.0.lock().tls_versions.iter().cloned().collect()
    }

    /// All calls, oldest first.
    pub(crate) fn list(&self) -> Vec<Call> {
        self.0.lock().calls.iter().cloned().collect()
    }

    /// Calls of EKS Auth in flight, now and at most.
    pub(crate) fn concurrency(&self) -> Concurrency {
        self.0.lock().eks_auth
    }

    /// Forgets all calls and the maximum.
    pub(crate) fn reset(&self) {
        let mut log = self.0.lock();
        log.calls.clear();
        log.eks_auth.max = log.eks_auth.now;
    }
}

/// A call that has not been answered yet.
#[derive(Debug)]
pub(crate) struct InFlight {
    calls: Calls,
    id: u64,
    service: Service,
    /// Calls of EKS Auth in flight when this one arrived, itself included; 0 for other services.
    pub(crate) concurrent: usize,
}

impl InFlight {
    /// Notes the answer.
    pub(crate) fn answered(&self, status: u16, code: Option<&str>) {
        let mut log = self.calls.0.lock();
        // Ids are consecutive, so an id is a place; a reset may have removed this call.
        let oldest = log.calls.front().map_or(self.id, |call| call.id);
        let place = self.id.checked_sub(oldest).and_then(|place| usize::try_from(place).ok());
        if let Some(call) = place.and_then(|place| log.calls.get_mut(place)) {
            call.status = Some(status);
            call.code = code.map(str::to_owned);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.service == Service::EksAuth {
            self.calls.0.lock().eks_auth.now -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_in_the_log_from_its_arrival_and_in_flight_until_it_is_dropped() {
        let calls = Calls::default();
        let first = calls.begin(Service::EksAuth, "A".to_owned(), None);
        let second = calls.begin(Service::EksAuth, "B".to_owned(), None);
        assert_eq!(calls.list()[1].status, None);
        second.answered(429, Some("ThrottlingException"));
        drop((first, second));
        assert_eq!(calls.list()[1].code.as_deref(), Some("ThrottlingException"));
        assert_eq!(calls.concurrency(), Concurrency { now: 0, max: 2 });
    }

    #[test]
    fn an_answer_after_a_reset_goes_nowhere() {
        let calls = Calls::default();
        let old = calls.begin(Service::EksAuth, "A".to_owned(), None);
        calls.reset();
        let new = calls.begin(Service::EksAuth, "B".to_owned(), None);
        old.answered(500, None);
        assert_eq!((calls.list().len(), calls.list()[0].status), (1, None));
        drop((old, new));
    }
}
