//! What can be made to go wrong, for whom and how often.
//!
//! Owns: the list of faults in force, and which of them meet a request. Must not know: how a fault is carried
//! out (`http::server`), nor what the services would have answered.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::cluster::pod::PodSpec;

/// A service that faults can be set for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// EKS Auth, over http and https.
    EksAuth,
    /// The node's metadata service.
    Imds,
    /// The security token service.
    Sts,
    /// The issuer of service account tokens: discovery and keys.
    Issuer,
    /// EKS's own API: associations, add-ons, the cluster.
    Eks,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Effect {
    /// The answer comes later, by `ms` and up to `jitter_ms` more.
    Latency {
        /// Milliseconds added to every answer.
        ms: u64,
        /// At most so many milliseconds more, evenly spread.
        #[serde(default)]
        jitter_ms: u64,
    },
    /// This answer, whatever was asked.
    Status {
        /// HTTP status, 400 to 599.
        status: u16,
        /// Error code, spelt as the service would.
        code: String,
        /// The text beside it.
        #[serde(default = "no_reason")]
        message: String,
    },
    /// Calls above `max_concurrent` in flight are throttled: ThrottlingException (429) of EKS Auth,
    /// Throttling (400) of STS. These two only.
    Throttle {
        /// Calls in flight that are still served.
        max_concurrent: usize,
    },
    /// What a proxy or a captive portal says in the service's place: HTML, and nothing that the service puts
    /// on its own answers.
    ProxyError {
        /// HTTP status, 200 to 599.
        status: u16,
    },
    /// The connection is reset as soon as it is accepted.
    Refuse,
    /// The kernel takes the connection, and nobody else does: no byte is ever read.
    HangInAccept,
    /// Over https: the first bytes of the server's handshake come, and then nothing.
    HangInTls,
    /// The connection ends after so many answers.
    CloseAfter {
        /// Answers that are still given on it.
        answers: u64,
        /// Whether the last one says so (`Connection: close`). Else the connection is closed a moment later.
        announced: bool,
    },
    /// The right answer comes in pieces, head included.
    Pieces {
        /// Bytes of each.
        bytes: usize,
        /// Milliseconds before each.
        pause_ms: u64,
    },
    /// Half of the right answer, then a reset.
    ResetMidBody,
    /// No answer, ever.
    Hang,
    /// Status 200 with half a document.
    BadJson,
    /// The right answer behind so much white space that it is this long.
    Padded {
        /// MiB of it.
        mib: u64,
    },
    /// Status 200 and white space in chunks, for ever: 64 KiB at once, or a byte each `pause_ms`.
    Endless {
        /// Milliseconds between two bytes; 0 is as fast as they are read.
        pause_ms: u64,
    },
    /// The right answer without a `Date`.
    NoDate,
    /// The `Date` header is off by `seconds`, either way; the rest is right.
    DateSkew {
        /// Seconds ahead of the clock; negative is behind it.
        seconds: i64,
    },
}

fn no_reason() -> String {
    "set by a fault of the sandbox".to_owned()
}

/// Limits a fault to some pods; what is not given matches all. A request that names no pod matches only the
/// empty one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Match {
    /// The pod's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its service account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
}

impl Match {
    fn is_everyone(&self) -> bool {
        *self == Self::default()
    }

    fn meets(&self, pod: Option<&PodSpec>) -> bool {
        let is = |wanted: &Option<String>, has: &str| wanted.as_deref().is_none_or(|wanted| wanted == has);
        match pod {
            None => self.is_everyone(),
            Some(pod) => {
                is(&self.namespace, &pod.namespace)
                    && is(&self.service_account, &pod.service_account)
                    && is(&self.pod, &pod.pod)
            }
        }
    }
}

/// One thing that goes wrong in one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Where.
    pub service: Service,
    /// What.
    pub effect: Effect,
    /// For whom.
    #[serde(default, rename = "match", skip_serializing_if = "Match::is_everyone")]
    pub matching: Match,
    /// How many requests it still meets; `None` is until removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

impl Fault {
    /// A fault for everyone, until removed.
    #[must_use]
    pub fn new(service: Service, effect: Effect) -> Self {
        Self { service, effect, matching: Match::default(), count: None }
    }

    /// The same for the next `count` requests only.
    #[must_use]
    pub fn times(self, count: u64) -> Self {
        Self { count: Some(count), ..self }
    }

    /// The same for some pods only.
    #[must_use]
    pub fn matching(self, matching: Match) -> Self {
        Self { matching, ..self }
    }

    fn check(&self) -> Result<(), FaultError> {
        if let Effect::Status { status, code, .. } = &self.effect {
            if !(400..=599).contains(status) {
                return Err(FaultError::Status(*status));
            }
            if !code.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                return Err(FaultError::Code);
            }
        }
        if let Effect::ProxyError { status } = self.effect
            && !(200..=599).contains(&status)
        {
            return Err(FaultError::ProxyStatus(status));
        }
        if let Effect::Pieces { bytes: 0, .. } = self.effect {
            return Err(FaultError::NoPieces);
        }
        if matches!(self.effect, Effect::Throttle { .. })
            && !matches!(self.service, Service::EksAuth | Service::Sts)
        {
            return Err(FaultError::ThrottleElsewhere);
        }
        if matches!(self.effect, Effect::Refuse | Effect::HangInAccept | Effect::HangInTls)
            && !self.matching.is_everyone()
        {
            return Err(FaultError::RefusePods);
        }
        if self.count == Some(0) { Err(FaultError::NoCount) } else { Ok(()) }
    }
}

/// A fault that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FaultError {
    /// Not an error status.
    #[error("a status fault needs a status from 400 to 599, not {0}")]
    Status(u16),
    /// Not a status that a proxy gives.
    #[error("a proxy's answer needs a status from 200 to 599, not {0}")]
    ProxyStatus(u16),
    /// Nothing would ever come.
    #[error("pieces are of at least one byte")]
    NoPieces,
    /// Codes go into a header.
    #[error("an error code is made of letters and digits")]
    Code,
    /// Other services have no limit that is modelled.
    #[error("throttle is for eks-auth and sts only")]
    ThrottleElsewhere,
    /// Before the request is read, nobody knows the pod.
    #[error("what happens to a connection happens before the pod is known, so it takes no match")]
    RefusePods,
    /// Never meets anyone.
    #[error("a count is at least 1")]
    NoCount,
}

/// What the faults in force do to a connection that has just been made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Welcome {
    /// It is served.
    Served,
    /// It is reset.
    Refused,
    /// Nobody reads what comes.
    Ignored,
    /// The handshake begins, and does not end.
    StuckInTls,
}

/// How a connection is closed once it has given its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closing {
    /// After so many answers.
    pub(crate) answers: u64,
    /// Whether the last one says so.
    pub(crate) announced: bool,
}

/// In which pieces an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pieces {
    /// Bytes of each.
    pub(crate) bytes: usize,
    /// Before each.
    pub(crate) pause: Duration,
}

/// What the faults in force do to one request.
#[derive(Debug, Default)]
pub(crate) struct Interference {
    /// Wait this long first.
    pub(crate) latency: Duration,
    /// Move the `Date` header by so many seconds.
    pub(crate) date_skew: i64,
    /// Leave it away.
    pub(crate) no_date: bool,
    /// Write the answer so.
    pub(crate) pieces: Option<Pieces>,
    /// Then close the connection so.
    pub(crate) closing: Option<Closing>,
    /// Then do this in place of the right answer: the first in force of all that change the answer.
    pub(crate) instead: Option<Effect>,
}

/// The faults in force. Clones share one list.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Vec<Fault>>>);

impl Faults {
    /// Replaces all faults.
    ///
    /// # Panics
    /// If a fault makes no sense; [`Faults::try_set`] reports it instead.
    #[expect(clippy::panic, reason = "tests set constants; a wrong one must stop the test that wrote it")]
    pub fn set(&self, faults: impl IntoIterator<Item = Fault>) {
        if let Err(error) = self.try_set(faults) {
            panic!("{error}");
        }
    }

    /// Replaces all faults, or none if one of them makes no sense.
    ///
    /// # Errors
    /// The first fault that makes no sense.
    pub fn try_set(&self, faults: impl IntoIterator<Item = Fault>) -> Result<(), FaultError> {
        let faults: Vec<_> = faults.into_iter().collect();
        faults.iter().try_for_each(Fault::check)?;
        *self.0.lock() = faults;
        Ok(())
    }

    /// Adds a fault behind the others.
    ///
    /// # Errors
    /// If it makes no sense.
    pub fn add(&self, fault: Fault) -> Result<(), FaultError> {
        fault.check()?;
        self.0.lock().push(fault);
        Ok(())
    }

    /// Removes all faults. Requests that hang already, hang on.
    pub fn clear(&self) {
        self.0.lock().clear();
    }

    /// The faults in force, with what is left of their counts.
    #[must_use]
    pub fn list(&self) -> Vec<Fault> {
        self.0.lock().clone()
    }

    /// Whether a connection to `service` is to be reset now; counts it.
    pub(crate) fn refuses(&self, service: Service) -> bool {
        self.take(service, |effect| matches!(effect, Effect::Refuse)).is_some()
    }

    /// What happens to a new connection; counts it. The first fault of those that are about connections.
    pub(crate) fn welcome(&self, service: Service, is_https: bool) -> Welcome {
        let about_connections = |effect: &Effect| match effect {
            Effect::Refuse | Effect::HangInAccept => true,
            Effect::HangInTls => is_https,
            Effect::Latency { .. }
            | Effect::Status { .. }
            | Effect::Throttle { .. }
            | Effect::ProxyError { .. }
            | Effect::CloseAfter { .. }
            | Effect::Pieces { .. }
            | Effect::ResetMidBody
            | Effect::Hang
            | Effect::BadJson
            | Effect::Padded { .. }
            | Effect::Endless { .. }
            | Effect::NoDate
            | Effect::DateSkew { .. } => false,
        };
        match self.take(service, about_connections) {
            Some(Effect::Refuse) => Welcome::Refused,
            Some(Effect::HangInAccept) => Welcome::Ignored,
            Some(Effect::HangInTls) => Welcome::StuckInTls,
            Some(_) | None => Welcome::Served,
        }
    }

    /// The first fault of a service that is wanted; counts it.
    fn take(&self, service: Service, is_wanted: impl Fn(&Effect) -> bool) -> Option<Effect> {
        let mut faults = self.0.lock();
        let found = faults.iter_mut().find(|fault| fault.service == service && is_wanted(&fault.effect));
        let effect = found.map(|fault| {
            spend(fault);
            fault.effect.clone()
        });
        faults.retain(|fault| fault.count != Some(0));
        effect
    }

    /// What happens to a request for `pod`, the `concurrent`-th in flight; counts the faults that take part.
    pub(crate) fn meet(&self, service: Service, pod: Option<&PodSpec>, concurrent: usize) -> Interference {
        let mut interference = Interference::default();
        let mut faults = self.0.lock();
        for fault in faults.iter_mut().filter(|fault| fault.service == service && fault.matching.meets(pod)) {
            let takes_part = match &fault.effect {
                Effect::Latency { ms, jitter_ms } => {
                    interference.latency += Duration::from_millis(ms + fastrand::u64(..=*jitter_ms));
                    true
                }
                Effect::DateSkew { seconds } => {
                    interference.date_skew += seconds;
                    true
                }
                Effect::NoDate => {
                    interference.no_date = true;
                    true
                }
                Effect::Pieces { bytes, pause_ms } => {
                    let pieces = Pieces { bytes: *bytes, pause: Duration::from_millis(*pause_ms) };
                    interference.pieces.replace(pieces).is_none()
                }
                Effect::CloseAfter { answers, announced } => {
                    let closing = Closing { answers: *answers, announced: *announced };
                    interference.closing.replace(closing).is_none()
                }
                // Carried out before the request was read.
                Effect::Refuse | Effect::HangInAccept | Effect::HangInTls => false,
                Effect::Throttle { max_concurrent } if concurrent <= *max_concurrent => false,
                effect @ (Effect::Status { .. }
                | Effect::Throttle { .. }
                | Effect::ProxyError { .. }
                | Effect::ResetMidBody
                | Effect::Hang
                | Effect::BadJson
                | Effect::Padded { .. }
                | Effect::Endless { .. }) => {
                    let first = interference.instead.is_none();
                    interference.instead.get_or_insert_with(|| effect.clone());
                    first
                }
            };
            if takes_part {
                spend(fault);
            }
        }
        faults.retain(|fault| fault.count != Some(0));
        interference
    }
}

fn spend(fault: &mut Fault) {
    fault.count = fault.count.map(|count| count.saturating_sub(1));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: &str) -> Effect {
        Effect::Status { status: 503, code: code.to_owned(), message: no_reason() }
    }

    #[test]
    fn a_fault_with_a_count_is_gone_after_so_many_requests() {
        let faults = Faults::default();
        faults.set([Fault::new(Service::Imds, status("A")).times(2)]);
        let met = || faults.meet(Service::Imds, None, 0).instead.is_some();
        assert_eq!([met(), met(), met()], [true, true, false]);
        assert!(faults.list().is_empty());
    }

    #[test]
    fn faults_add_up_and_the_first_answer_wins_without_spending_the_second() {
        let faults = Faults::default();
        let latency = Effect::Latency { ms: 10, jitter_ms: 0 };
        faults.set([
            Fault::new(Service::Sts, latency.clone()),
            Fault::new(Service::Sts, status("A")).times(1),
            Fault::new(Service::Sts, status("B")).times(1),
            Fault::new(Service::Sts, latency),
        ]);
        let first = faults.meet(Service::Sts, None, 0);
        assert_eq!((first.latency.as_millis(), first.instead), (20, Some(status("A"))));
        assert_eq!(faults.meet(Service::Sts, None, 0).instead, Some(status("B")));
        assert_eq!(faults.meet(Service::EksAuth, None, 1).latency, Duration::ZERO);
    }

    #[test]
    fn a_match_meets_only_its_pods() {
        let faults = Faults::default();
        let matching = Match { namespace: Some("shop".to_owned()), ..Match::default() };
        faults.set([Fault::new(Service::EksAuth, Effect::Hang).matching(matching)]);
        let met = |pod: Option<&PodSpec>| faults.meet(Service::EksAuth, pod, 1).instead.is_some();
        assert!(met(Some(&PodSpec::new("shop", "cart", "cart-0"))));
        assert!(!met(Some(&PodSpec::new("default", "cart", "cart-0"))));
        assert!(!met(None));
    }

    #[test]
    fn throttling_starts_above_its_number() {
        let faults = Faults::default();
        faults.set([Fault::new(Service::EksAuth, Effect::Throttle { max_concurrent: 2 })]);
        let throttled = |concurrent| faults.meet(Service::EksAuth, None, concurrent).instead.is_some();
        assert_eq!([throttled(2), throttled(3)], [false, true]);
    }

    #[test]
    fn faults_that_make_no_sense_change_nothing() {
        let faults = Faults::default();
        faults.set([Fault::new(Service::EksAuth, Effect::Hang)]);
        let bad_status = Effect::Status { status: 200, code: "A".to_owned(), message: String::new() };
        let bad_code = Effect::Status { status: 500, code: "A\r\nB".to_owned(), message: String::new() };
        for (bad, error) in [
            (Fault::new(Service::EksAuth, bad_status), FaultError::Status(200)),
            (Fault::new(Service::EksAuth, bad_code), FaultError::Code),
            (
                Fault::new(Service::Imds, Effect::Throttle { max_concurrent: 1 }),
                FaultError::ThrottleElsewhere,
            ),
            (Fault::new(Service::Sts, Effect::Hang).times(0), FaultError::NoCount),
        ] {
            assert_eq!(faults.try_set([bad]), Err(error));
        }
        assert_eq!(faults.list().len(), 1);
    }

    #[test]
    fn a_fault_is_written_as_the_control_port_documents_it() {
        let text = r#"{"service":"eks-auth","effect":{"latency":{"ms":300,"jitterMs":50}},"match":{"pod":"app-0"},"count":3}"#;
        let fault: Fault = serde_json::from_str(text).unwrap();
        assert_eq!(fault.effect, Effect::Latency { ms: 300, jitter_ms: 50 });
        assert_eq!(serde_json::to_string(&fault).unwrap(), text);
        let hang: Fault = serde_json::from_str(r#"{"service":"imds","effect":"hang"}"#).unwrap();
        assert_eq!(hang, Fault::new(Service::Imds, Effect::Hang));
        assert!(serde_json::from_str::<Fault>(r#"{"service":"imds","effect":"hang","cuont":1}"#).is_err());
    }
}
