//! The agent's own AWS identity: the credentials that sign calls to EKS Auth.
//!
//! Owns: the only copies in memory, their renewal in the background at half their lifetime, and reading the
//! source again after AWS rejected them. Must not know: pods. Which set signs is decided by `candidates`. The
//! container provider is never used: the agent would be asking itself (docs/design/pains.md#own-credentials).

mod candidates;
pub mod file;
pub mod imds;
pub mod load_error;
pub mod rejection;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

pub use self::candidates::SigningCredentials;
use self::candidates::{Candidates, Reading};
use self::file::CredentialsFile;
use self::imds::InstanceRole;
use self::load_error::LoadError;
use self::rejection::{RejectedCall, Rejection};
use crate::aws::answer_log::{About, AnswerLog, Asked, No, Signer};
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::config::OwnCredentials;
use crate::telemetry::error_chain::ErrorChain;

/// The shortest pause before the source is read again, however often AWS rejects.
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// The pauses after failures. IMDS shares 1,024 packets per second with DNS and NTP
/// (docs/design/facts.md#link-local-budget), so retries slow down.
const RETRY: Backoff = Backoff::new(FIRST_RETRY, Duration::from_secs(30));
/// A file is checked this often, also while it is missing; a check is one `open` and one `fstat`.
const FILE_POLL: Duration = Duration::from_secs(1);
/// IMDS is asked this often while AWS rejects what it gave: two small requests.
const REJECTED_IMDS_POLL: Duration = Duration::from_secs(1);
/// Half the lifetime of credentials without an expiry.
const ASSUMED_HALF_LIFE: Duration = Duration::from_secs(15 * 60);
/// The longest pause, whatever the source says of the expiry: half the life of an instance role's set.
const LONGEST_PAUSE: Duration = Duration::from_secs(3 * 60 * 60);
/// A failure that lasts is logged once in this time.
const FAILURE_LOG_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// The identity; clones share it.
#[derive(Clone)]
pub struct OwnIdentity {
    shared: Arc<Shared>,
}

struct Shared {
    candidates: Mutex<Candidates>,
    acceptance: watch::Sender<Acceptance>,
    answers: AnswerLog,
    clock: Clock,
    wake: Notify,
}

/// The source of the credentials.
#[derive(Debug)]
pub enum OwnSource {
    /// The node's instance role.
    Imds(InstanceRole),
    /// A shared credentials file, as on hybrid nodes.
    File(CredentialsFile),
    /// Environment variables, which cannot change.
    Environment(Credentials),
}

/// What the keeper of the identity reports to readiness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnState {
    /// There are unexpired credentials.
    Present,
    /// There are none, for this reason.
    Missing(String),
}

/// What AWS says of the credentials. Apart from whether there are any: a bad policy must not make every node
/// unready at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// The last answers were not rejections, or there was none yet.
    NotRejected,
    /// They were; this is the last one.
    Rejected(RejectedCall),
}

impl OwnIdentity {
    /// An identity without credentials yet.
    pub fn new(clock: Clock) -> Self {
        let shared = Shared {
            candidates: Mutex::default(),
            acceptance: watch::Sender::new(Acceptance::NotRejected),
            answers: AnswerLog::default(),
            clock,
            wake: Notify::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// An identity that never changes, for a simulation.
    pub fn fixed(credentials: Credentials, clock: Clock) -> Self {
        let own = Self::new(clock);
        let now = own.shared.clock.now();
        own.shared.candidates.lock().offer(credentials, "a fixed set".into(), now);
        own
    }

    /// When the credentials expire that sign at present, if they have an expiry.
    pub fn expires(&self) -> Option<SystemTime> {
        self.shared.candidates.lock().expires(self.shared.clock.now())
    }

    /// What admins know the source of these credentials by: the role of the instance, or a profile and its
    /// file. `None`: there are none.
    pub fn source(&self) -> Option<Arc<str>> {
        self.shared.candidates.lock().source(self.shared.clock.now())
    }

    /// The credentials to sign the next call with. `None`: there are none, and the keeper looks for some.
    pub fn sign(&self) -> Option<SigningCredentials> {
        let signing = self.shared.candidates.lock().sign(self.shared.clock.now());
        if signing.is_none() {
            self.shared.wake.notify_one();
        }
        signing
    }

    /// Who would sign the next call, by name. `None`: nobody can. Unlike [`sign`](Self::sign), it makes the
    /// keeper look for nothing.
    pub fn signer(&self) -> Option<Signer> {
        self.shared.candidates.lock().signer(self.shared.clock.now())
    }

    /// AWS accepted a call that these signed.
    pub fn accepted(&self, signed: &SigningCredentials) {
        self.shared.candidates.lock().accepted(signed);
        self.shared.acceptance.send_if_modified(|acceptance| {
            // What counts is what AWS says by now: a later answer may have been told already.
            let is_taken_back =
                *acceptance != Acceptance::NotRejected && !self.shared.candidates.lock().is_rejected();
            if is_taken_back {
                *acceptance = Acceptance::NotRejected;
            }
            is_taken_back
        });
    }

    /// The log of AWS's noes.
    pub fn answer_log(&self) -> &AnswerLog {
        &self.shared.answers
    }

    /// AWS rejected a call because of the credentials that signed it; `whom` says who was asked, and for
    /// what.
    pub fn rejected(&self, signed: &SigningCredentials, whom: &Arc<str>, rejection: &Arc<Rejection>) {
        let now = self.shared.clock.now().boot;
        let read_source = self.shared.candidates.lock().rejected(signed, now);
        let asked = Asked { whom: Arc::clone(whom), signer: Some(signed.signer()) };
        self.shared.answers.report(&of_agent(rejection, &asked), now);
        let call = RejectedCall { asked, rejection: Arc::clone(rejection) };
        self.shared.acceptance.send_if_modified(|acceptance| {
            let is_rejected = self.shared.candidates.lock().is_rejected();
            if is_rejected {
                *acceptance = Acceptance::Rejected(call);
            }
            is_rejected
        });
        if read_source {
            self.shared.wake.notify_one();
        }
    }

    /// Reports what AWS says of the credentials, now and at each change, without end; cancel by dropping.
    pub async fn report_acceptance(self, mut report: impl FnMut(Acceptance) + Send) {
        let mut acceptance = self.shared.acceptance.subscribe();
        loop {
            let current = acceptance.borrow_and_update().clone();
            report(current);
            if acceptance.changed().await.is_err() {
                // The sender lives as long as `self`.
                return;
            }
        }
    }

    /// Keeps the credentials fresh without end; cancel by dropping. `report` is called whenever the state
    /// changes.
    pub async fn keep(self, mut source: OwnSource, mut report: impl FnMut(OwnState) + Send) {
        let mut failures = 0;
        let mut logged_at = None;
        let mut reported = None;
        loop {
            let outcome = self.load(&mut source).await;
            match &outcome {
                Ok(()) => (failures, logged_at) = (0, None),
                Err(error) => {
                    failures += 1;
                    let now = self.shared.clock.now().boot;
                    if logged_at.is_none_or(|logged| now.since(logged) >= FAILURE_LOG_INTERVAL) {
                        logged_at = Some(now);
                        let err = ErrorChain(error);
                        tracing::warn!(%err, failures, "the agent's own AWS credentials cannot be loaded");
                    }
                }
            }
            let state = self.state(outcome.err());
            if reported.as_ref() != Some(&state) {
                report(state.clone());
                reported = Some(state);
            }
            self.wait(self.pause(&source, failures)).await;
        }
    }

    async fn load(&self, source: &mut OwnSource) -> Result<(), LoadError> {
        let now = self.shared.clock.now();
        let reading = self.shared.candidates.lock().reading(now.boot);
        let loaded = match source {
            OwnSource::Imds(imds) => Some(imds.load().await?),
            OwnSource::File(file) => file.load(reading).await?,
            OwnSource::Environment(credentials) => Some(credentials.clone()),
        };
        let name = source.name();
        let Some(loaded) = loaded else { return Ok(()) };
        if loaded.expiry().is_some_and(|expiry| now.is_surely_past(expiry)) {
            return Err(LoadError::Expired);
        }
        let access_key_id = loaded.access_key_id().to_owned();
        if self.shared.candidates.lock().offer(loaded, Arc::clone(&name), now) {
            tracing::info!(source = %name, access_key_id, "the agent's own AWS credentials are loaded");
        }
        Ok(())
    }

    fn state(&self, error: Option<LoadError>) -> OwnState {
        let is_present = self.shared.candidates.lock().has_unexpired(self.shared.clock.now());
        match error {
            _ if is_present => OwnState::Present,
            Some(error) => OwnState::Missing(ErrorChain(&error).to_string()),
            None => OwnState::Missing("the agent's own credentials have expired".to_owned()),
        }
    }

    /// The time until the source should be read again.
    fn pause(&self, source: &OwnSource, failures: u32) -> Duration {
        let now = self.shared.clock.now();
        let (reading, expires) = {
            let candidates = self.shared.candidates.lock();
            (candidates.reading(now.boot), candidates.newest_expires())
        };
        match (source, reading) {
            (OwnSource::File(_), Reading::AtOnce) => FIRST_RETRY,
            (OwnSource::File(_), Reading::Changes | Reading::Anew) => FILE_POLL,
            (OwnSource::Imds(_), Reading::Anew | Reading::AtOnce) => REJECTED_IMDS_POLL,
            (OwnSource::Imds(_), Reading::Changes) if failures > 0 => RETRY.pause(failures),
            (OwnSource::Imds(_), Reading::Changes)
            | (OwnSource::Environment(_), Reading::Changes | Reading::Anew | Reading::AtOnce) => {
                let left = expires.and_then(|at| at.duration_since(now.wall).ok());
                left.map_or(ASSUMED_HALF_LIFE, |left| (left / 2).clamp(FIRST_RETRY, LONGEST_PAUSE))
            }
        }
    }

    /// Sleeps, or wakes early because a call was rejected or had nothing to sign with, but never in a tight
    /// loop.
    async fn wait(&self, pause: Duration) {
        let at_least = FIRST_RETRY.min(pause);
        tokio::time::sleep(at_least).await;
        let rest = pause.saturating_sub(at_least);
        tokio::select! {
            // In this order: what woke it is not left for the next time as well.
            biased;
            () = self.shared.wake.notified() => {}
            () = tokio::time::sleep(rest) => {}
        }
    }
}

fn of_agent<'a>(rejection: &'a Rejection, asked: &'a Asked) -> No<'a> {
    No {
        about: About::Agent,
        status: Some(rejection.status),
        code: rejection.cause(),
        message: &rejection.message,
        request_id: rejection.request_id.as_deref(),
        asked,
    }
}

impl OwnSource {
    /// What admins know it by: the role of the instance, or the profile and its file.
    fn name(&self) -> Arc<str> {
        match self {
            Self::Imds(imds) => imds.role_name(),
            Self::File(file) => file.name(),
            Self::Environment(_) => "the environment of the agent".into(),
        }
    }

    /// The source in the configuration.
    pub fn from_config(config: &OwnCredentials, clock: &Clock) -> Self {
        match config {
            OwnCredentials::Imds(service) => Self::Imds(InstanceRole::new(service, clock)),
            OwnCredentials::File { path, kind, profile } => {
                Self::File(CredentialsFile::new(path.clone(), *kind, profile.clone()))
            }
            OwnCredentials::Environment { access_key_id, secret_access_key, session_token } => {
                Self::Environment(Credentials::new(
                    access_key_id,
                    secret_access_key.reveal(),
                    session_token.as_ref().map(|token| token.reveal().to_owned()),
                    None,
                    "environment",
                ))
            }
        }
    }
}

impl fmt::Debug for OwnIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_present = self.shared.candidates.lock().has_unexpired(self.shared.clock.now());
        f.debug_struct("OwnIdentity").field("is_present", &is_present).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    use aws_credential_types::Credentials;
    use parking_lot::Mutex;

    use super::rejection::Rejection;
    use super::{Acceptance, OwnIdentity, RETRY};
    use crate::clock::{Clock, Simulated};

    fn own() -> OwnIdentity {
        let clock = Clock::simulated(Simulated::starting_at(UNIX_EPOCH + Duration::from_secs(1000)));
        OwnIdentity::fixed(Credentials::new("AKIAONE", "planted", None, None, "test"), clock)
    }

    #[tokio::test(start_paused = true)]
    async fn acceptance_is_reported_with_the_words_of_aws_and_taken_back() {
        let own = own();
        let reports = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&reports);
        let reporting = own.clone().report_acceptance(move |acceptance| {
            seen.lock().push(match acceptance {
                Acceptance::NotRejected => "not rejected".to_owned(),
                Acceptance::Rejected(call) => call.to_string(),
            });
        });
        let answering = async {
            let asked = "EKS Auth in us-west-2 (cluster prod)".into();
            let rejection = Arc::new(Rejection::new(403, Some("AccessDeniedException"), "no", Some("r-1")));
            let a_moment = || tokio::time::sleep(Duration::from_millis(1));
            a_moment().await;
            own.rejected(&own.sign().unwrap(), &asked, &rejection);
            a_moment().await;
            assert_eq!(reports.lock().len(), 1, "one rejection may be a mistake");
            own.rejected(&own.sign().unwrap(), &asked, &rejection);
            a_moment().await;
            own.accepted(&own.sign().unwrap());
            a_moment().await;
        };
        tokio::select! {
            () = reporting => {}
            () = answering => {}
        }
        let told = "EKS Auth in us-west-2 (cluster prod) rejects the agent's own AWS credentials (a fixed \
                    set, access key id AKIAONE): 403 AccessDeniedException: no (request id r-1)";
        assert_eq!(*reports.lock(), ["not rejected", told, "not rejected"]);
    }

    #[test]
    fn what_is_told_last_is_what_aws_says_last_whoever_tells_it() {
        let own = own();
        let rejection = Arc::new(Rejection::new(403, Some("AccessDeniedException"), "no", Some("r-1")));
        let (asked, meet) = (Arc::<str>::from("EKS Auth"), std::sync::Barrier::new(2));
        for round in 0..20_000 {
            own.rejected(&own.sign().unwrap(), &asked, &rejection);
            let (rejected, accepted) = (own.sign().unwrap(), own.sign().unwrap());
            std::thread::scope(|threads| {
                threads.spawn(|| {
                    meet.wait();
                    own.rejected(&rejected, &asked, &rejection);
                });
                meet.wait();
                own.accepted(&accepted);
            });
            let is_rejected = own.shared.candidates.lock().is_rejected();
            let is_told = *own.shared.acceptance.borrow() != Acceptance::NotRejected;
            assert_eq!(is_told, is_rejected, "round {round}");
        }
    }

    #[test]
    fn retries_slow_down_to_thirty_seconds() {
        let pauses: Vec<u64> = (1..=8).map(|n| RETRY.pause(n).as_millis().try_into().unwrap()).collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
    }
}
