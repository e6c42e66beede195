//! What AWS says no to, reported to admins in AWS's own words; what it issues that is of no use; and that it
//! says nothing.
//!
//! Owns: the one line for it, once a minute and cause. Must not know: what follows from it, or who is
//! served. Words that are in no log cost an admin hours: a misspelt cluster name looks like missing
//! associations.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::BootTime;

/// How often one cause is logged.
const INTERVAL: Duration = Duration::from_secs(60);
/// Causes that are remembered; AWS has about twenty codes.
const MAX_CAUSES: usize = 32;

/// The log of AWS's noes. Clones share what was logged.
#[derive(Clone, Debug, Default)]
pub struct AnswerLog {
    /// When each cause was logged last, oldest first.
    logged: Arc<Mutex<Vec<(Cause, BootTime)>>>,
}

/// What noes of one kind have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cause {
    about: About,
    code: Box<str>,
}

/// Whom an answer is about. The same code means opposite things of agent and pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// The agent itself: who signed.
    Agent,
    /// A pod: its token, its association, its role.
    Pod,
    /// The agent's own token, in its trial call: what meets it meets every pod.
    Trial,
    /// Nobody: AWS issued something that cannot be used.
    Issued,
    /// AWS itself: it fails, or wants less.
    Service,
    /// Nobody: something is in the way, and AWS said nothing.
    Way,
}

/// What AWS said.
#[derive(Clone, Copy, Debug)]
pub struct No<'a> {
    /// Of whom.
    pub about: About,
    /// The status, where it says more than the code.
    pub status: Option<u16>,
    /// AWS's code.
    pub code: &'a str,
    /// AWS's sentence as one line.
    pub message: &'a str,
    /// AWS's request id, for a support case.
    pub request_id: Option<&'a str>,
    /// How it was asked.
    pub asked: &'a Asked,
}

/// How AWS was asked: what an admin has to compare with what was meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The service, its region, and the cluster that was named.
    pub whom: Arc<str>,
    /// Who signed; `None`: nobody, the call needs no signature.
    pub signer: Option<Signer>,
}

/// The credentials that signed a call. Names, not secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// Where they are from: the instance role by its name, or a profile and its file.
    pub source: Arc<str>,
    /// Their access key id.
    pub access_key_id: Arc<str>,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.whom)?;
        self.signer.as_ref().map_or(Ok(()), |signer| write!(f, " by {signer}"))
    }
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, access key id {}", self.source, self.access_key_id)
    }
}

impl About {
    const fn sentence(self) -> &'static str {
        match self {
            Self::Agent => "AWS rejects the agent's own credentials",
            Self::Pod => "AWS refuses credentials for a pod",
            Self::Trial => "AWS refuses the agent's trial call",
            Self::Issued => "AWS issued credentials that no SDK can use",
            Self::Service => "AWS answers that it fails or throttles",
            Self::Way => "AWS gives no answer",
        }
    }
}

impl AnswerLog {
    /// Logs it, unless its cause was logged within the last minute.
    pub fn report(&self, no: &No<'_>, now: BootTime) {
        let cause = Cause { about: no.about, code: no.code.into() };
        if self.is_due(cause, now) {
            tracing::warn!(
                asked = %no.asked.whom,
                own.source = no.asked.signer.as_ref().map(|signer| &*signer.source),
                own.access_key_id = no.asked.signer.as_ref().map(|signer| &*signer.access_key_id),
                aws.status = no.status,
                aws.code = no.code,
                aws.message = no.message,
                aws.request_id = no.request_id,
                "{}",
                no.about.sentence()
            );
        }
    }

    /// Logs that what AWS issued is of no use for this reason, unless that was logged within the last minute:
    /// each attempt of each flight may bring such a set.
    pub fn report_unusable(&self, reason: &dyn fmt::Display, now: BootTime) {
        let about = About::Issued;
        if self.is_due(Cause { about, code: reason.to_string().into() }, now) {
            tracing::error!(err = %reason, "{}", about.sentence());
        }
    }

    /// Logs that AWS has not answered, because of this, unless that was logged within the last minute.
    pub fn report_unanswered(&self, whom: &str, cause: &str, now: BootTime) {
        let about = About::Way;
        if self.is_due(Cause { about, code: cause.into() }, now) {
            tracing::warn!(asked = whom, err = cause, "{}", about.sentence());
        }
    }

    fn is_due(&self, cause: Cause, now: BootTime) -> bool {
        let mut logged = self.logged.lock();
        if logged.iter().any(|(known, at)| *known == cause && now.since(*at) < INTERVAL) {
            return false;
        }
        logged.retain(|(known, _)| *known != cause);
        if logged.len() >= MAX_CAUSES {
            logged.remove(0);
        }
        logged.push((cause, now));
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{About, AnswerLog, Cause, MAX_CAUSES};
    use crate::clock::BootTime;

    #[test]
    fn each_cause_is_logged_once_a_minute_for_agent_and_pods_apart() {
        let log = AnswerLog::default();
        let at = |seconds| BootTime::from_boot(Duration::from_secs(seconds));
        let cause = |about, code: &str| Cause { about, code: code.into() };
        assert!(log.is_due(cause(About::Agent, "a"), at(0)));
        assert!(log.is_due(cause(About::Pod, "a"), at(0)), "the same code means another thing");
        assert!(!log.is_due(cause(About::Agent, "a"), at(59)));
        assert!(log.is_due(cause(About::Agent, "b"), at(59)));
        assert!(log.is_due(cause(About::Agent, "a"), at(60)));
        for number in 0..100 {
            log.is_due(cause(About::Pod, &number.to_string()), at(61));
        }
        assert_eq!(log.logged.lock().len(), MAX_CAUSES);
    }
}
