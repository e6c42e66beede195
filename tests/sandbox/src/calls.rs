//! What was asked of the services, and how much of it at the same time.
//!
//! Owns: the log that tests read. Must not know: what the services do.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

use crate::cluster::pod::PodSpec;
use crate::faults::Service;
use crate::http::message::Reply;

/// Calls kept; the oldest go first. A long benchmark must not fill the memory.
const KEPT: usize = 100_000;

/// One request that reached a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    /// Which service.
    pub service: Service,
    /// `AssumeRoleForPodIdentity`, `AssumeRoleWithWebIdentity`, `GetCallerIdentity`, or method and path.
    pub operation: String,
    /// The pod on whose behalf, as far as the request says so.
    pub pod: Option<PodSpec>,
    /// HTTP status; `None` while unanswered, and for ever if the connection was lost first.
    pub status: Option<u16>,
    /// Error code; `None` for success.
    pub code: Option<String>,
    /// The id that the answer has in `x-amzn-requestid`; `None` where it has none.
    pub request_id: Option<String>,
    /// What the request says of its node: `eksNodeName`, `instanceId` and `zone`, as far as they are there.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_details: BTreeMap<String, String>,
    /// The role that is asked for, where the caller chooses it: AssumeRoleWithWebIdentity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role_arn: Option<String>,
    /// The session name that is asked for, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_name: Option<String>,
    #[serde(skip)]
    id: u64,
}

/// What a request asks for.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) operation: String,
    pub(crate) pod: Option<PodSpec>,
    pub(crate) node_details: BTreeMap<String, String>,
    pub(crate) wanted: Option<Wanted>,
}

/// The session that a caller asks for, by what the request says itself.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) role_arn: String,
    pub(crate) session_name: String,
}

/// Calls of one service in flight.
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
    in_flight: HashMap<Service, Concurrency>,
    tls_versions: BTreeSet<String>,
}

/// The log of calls.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calls(Arc<Mutex<Log>>);

impl Calls {
    /// Notes a call that has just arrived. It counts as in flight until the returned value is dropped.
    pub(crate) fn begin(&self, service: Service, asked: Asked) -> InFlight {
        let mut log = self.0.lock();
        log.next_id += 1;
        let id = log.next_id;
        if log.calls.len() == KEPT {
            log.calls.pop_front();
        }
        let Asked { operation, pod, node_details, wanted } = asked;
        let (status, code, request_id) = (None, None, None);
        let (role_arn, session_name) = wanted.map(|wanted| (wanted.role_arn, wanted.session_name)).unzip();
        log.calls.push_back(Call {
            service,
            operation,
            pod,
            status,
            code,
            request_id,
            node_details,
            role_arn,
            session_name,
            id,
        });
        let in_flight = log.in_flight.entry(service).or_default();
        in_flight.now += 1;
        in_flight.max = in_flight.max.max(in_flight.now);
        let concurrent = in_flight.now;
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

    /// Calls of a service in flight, now and at most.
    pub(crate) fn concurrency(&self, service: Service) -> Concurrency {
        self.0.lock().in_flight.get(&service).copied().unwrap_or_default()
    }

    /// Forgets all calls and the maxima.
    pub(crate) fn reset(&self) {
        let mut log = self.0.lock();
        log.calls.clear();
        for in_flight in log.in_flight.values_mut() {
            in_flight.max = in_flight.now;
        }
    }
}

/// A call that has not been answered yet.
#[derive(Debug)]
pub(crate) struct InFlight {
    calls: Calls,
    id: u64,
    service: Service,
    /// Calls of its service in flight when this one arrived, itself included.
    pub(crate) concurrent: usize,
}

impl InFlight {
    /// Notes the answer.
    pub(crate) fn answered(&self, reply: &Reply) {
        let mut log = self.calls.0.lock();
        // Ids are consecutive, so an id is a place; a reset may have removed this call.
        let oldest = log.calls.front().map_or(self.id, |call| call.id);
        let place = self.id.checked_sub(oldest).and_then(|place| usize::try_from(place).ok());
        if let Some(call) = place.and_then(|place| log.calls.get_mut(place)) {
            call.status = Some(reply.status.as_u16());
            call.code.clone_from(&reply.code);
            call.request_id = reply.request_id().map(str::to_owned);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(in_flight) = self.calls.0.lock().in_flight.get_mut(&self.service) {
            in_flight.now -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn asked(operation: &str) -> Asked {
        Asked { operation: operation.to_owned(), pod: None, node_details: BTreeMap::new(), wanted: None }
    }

    #[test]
    fn a_call_is_in_the_log_from_its_arrival_and_in_flight_until_it_is_dropped() {
        let calls = Calls::default();
        let first = calls.begin(Service::EksAuth, asked("A"));
        let second = calls.begin(Service::EksAuth, asked("B"));
        assert_eq!(calls.list()[1].status, None);
        second.answered(&Reply::text(StatusCode::TOO_MANY_REQUESTS, "").code("ThrottlingException"));
        drop((first, second));
        assert_eq!(calls.list()[1].code.as_deref(), Some("ThrottlingException"));
        assert_eq!(calls.concurrency(Service::EksAuth), Concurrency { now: 0, max: 2 });
    }

    #[test]
    fn an_answer_after_a_reset_goes_nowhere() {
        let calls = Calls::default();
        let old = calls.begin(Service::EksAuth, asked("A"));
        calls.reset();
        let new = calls.begin(Service::EksAuth, asked("B"));
        old.answered(&Reply::text(StatusCode::OK, ""));
        assert_eq!((calls.list().len(), calls.list()[0].status), (1, None));
        drop((old, new));
    }
}
