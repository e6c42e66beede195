//! The agent's own AWS identity: the credentials that sign calls to EKS Auth.
//!
//! Owns: the only copy in memory, its renewal in the background at half its lifetime, the single refresh
//! after AWS rejected it, and the rule that unexpired credentials are never dropped. Must not know: pods. The
//! container provider is never used: the agent would be asking itself (docs/design/pains.md#own-credentials).

pub mod file;
pub mod imds;
pub mod load_error;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use self::file::CredentialsFile;
use self::imds::InstanceRole;
use self::load_error::LoadError;
use crate::backoff::Backoff;
use crate::clock::{BootTime, Clock};
use crate::config::OwnCredentials;
use crate::telemetry::error_chain::ErrorChain;

/// The shortest pause before the source is read again.
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// The pauses after failures. IMDS shares 1,024 packets per second with DNS and NTP
/// (docs/design/facts.md#link-local-budget), so retries slow down.
const RETRY: Backoff = Backoff::new(FIRST_RETRY, Duration::from_secs(30));
/// A file is checked this often; a check is one `open` and one `fstat`.
const FILE_POLL: Duration = Duration::from_secs(1);
/// Half the lifetime of credentials without an expiry.
const ASSUMED_HALF_LIFE: Duration = Duration::from_secs(15 * 60);
/// Rejections cause at most one refresh in this time, however many calls are rejected.
const REJECTION_REFRESH_INTERVAL: Duration = Duration::from_secs(10);

/// The identity; clones share it.
#[derive(Clone)]
pub struct OwnIdentity {
    shared: Arc<Shared>,
}

struct Shared {
    signing: RwLock<SigningCredentials>,
    clock: Clock,
    wake: Notify,
    rejected_at: Mutex<Option<BootTime>>,
}

/// The credentials that sign, and those to fall back to.
#[derive(Default)]
struct SigningCredentials {
    current: Option<Credentials>,
    /// Whether AWS has accepted the current ones at least once.
    is_accepted: bool,
    /// The last ones that AWS accepted, while the current ones have not been accepted. A file that is read
    /// half written may parse; AWS then rejects its content, although the previous credentials are still
    /// valid.
    accepted_before: Option<Credentials>,
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

impl OwnIdentity {
    /// An identity without credentials yet.
    pub fn new(clock: Clock) -> Self {
        Self {
            shared: Arc::new(Shared {
                signing: RwLock::default(),
                clock,
                wake: Notify::new(),
                rejected_at: Mutex::new(None),
            }),
        }
    }

    /// An identity that never changes, for a simulation.
    pub fn fixed(credentials: Credentials, clock: Clock) -> Self {
        let own = Self::new(clock);
        own.shared.signing.write().replace(credentials);
        own
    }

    /// Whether there are unexpired credentials.
    pub fn is_present(&self) -> bool {
        self.unexpired().is_some()
    }

    /// When the credentials expire, if they have an expiry.
    pub fn expires(&self) -> Option<SystemTime> {
        self.unexpired()?.expiry()
    }

    /// AWS accepted a call that they signed.
    pub fn was_accepted(&self) {
        let is_first_time = !self.shared.signing.read().is_accepted;
        if is_first_time {
            let mut signing = self.shared.signing.write();
            signing.is_accepted = true;
            signing.accepted_before = None;
        }
    }

    /// AWS rejected a call that they signed: the previous accepted credentials are used again. If there are
    /// none, the keeper loads new ones at once, but not again within [`REJECTION_REFRESH_INTERVAL`].
    pub fn was_rejected(&self) {
        if self.shared.signing.write().restore_accepted() {
            tracing::warn!("AWS rejected the agent's new credentials; using the previous ones");
            return;
        }
        let now = self.shared.clock.now().boot;
        let mut rejected_at = self.shared.rejected_at.lock();
        if rejected_at.is_none_or(|last| now.since(last) >= REJECTION_REFRESH_INTERVAL) {
            *rejected_at = Some(now);
            tracing::warn!("AWS rejected the agent's own credentials; loading them again");
            self.refresh_soon();
        }
    }

    /// Wakes the keeper to load the credentials again.
    pub fn refresh_soon(&self) {
        self.shared.wake.notify_one();
    }

    fn unexpired(&self) -> Option<Credentials> {
        let current = self.shared.signing.read().current.clone()?;
        let is_unexpired = current.expiry().is_none_or(|expiry| expiry > self.shared.clock.now().wall);
        is_unexpired.then_some(current)
    }

    /// Keeps the credentials fresh without end; cancel by dropping. `report` is called whenever the state
    /// changes.
    pub async fn keep(self, mut source: OwnSource, mut report: impl FnMut(OwnState) + Send) {
        let mut failures = 0;
        let mut reported = None;
        loop {
            let outcome = self.load(&mut source).await;
            let pause = match &outcome {
                Ok(()) => {
                    failures = 0;
                    self.until_renewal(&source)
                }
                Err(error) => {
                    failures += 1;
                    log_failure(error, failures);
                    RETRY.pause(failures)
                }
            };
            let state = self.state(outcome.err());
            if reported.as_ref() != Some(&state) {
                report(state.clone());
                reported = Some(state);
            }
            self.wait(pause, &source).await;
        }
    }

    async fn load(&self, source: &mut OwnSource) -> Result<(), LoadError> {
        let now = self.shared.clock.now().wall;
        let loaded = match source {
            OwnSource::Imds(imds) => Some(imds.load().await?),
            OwnSource::File(file) => file.load_if_changed().await?,
            OwnSource::Environment(credentials) => Some(credentials.clone()),
        };
        let Some(loaded) = loaded else { return Ok(()) };
        if loaded.expiry().is_some_and(|expiry| expiry <= now) {
            return Err(LoadError::Expired);
        }
        self.shared.signing.write().replace(loaded);
        Ok(())
    }

    fn state(&self, error: Option<LoadError>) -> OwnState {
        match error {
            _ if self.is_present() => OwnState::Present,
            Some(error) => OwnState::Missing(error.to_string()),
            None => OwnState::Missing("the agent's own credentials have expired".to_owned()),
        }
    }

    /// The time until the credentials should be loaded again.
    fn until_renewal(&self, source: &OwnSource) -> Duration {
        match source {
            OwnSource::File(_) => FILE_POLL,
            OwnSource::Imds(_) | OwnSource::Environment(_) => {
                let left = self.expires().and_then(|at| at.duration_since(self.shared.clock.now().wall).ok());
                left.map_or(ASSUMED_HALF_LIFE, |left| (left / 2).max(FIRST_RETRY))
            }
        }
    }

    /// Sleeps, or wakes early because a refresh was requested, but never in a tight loop.
    async fn wait(&self, pause: Duration, source: &OwnSource) {
        let at_least = match source {
            OwnSource::File(_) => FILE_POLL.min(pause),
            OwnSource::Imds(_) | OwnSource::Environment(_) => FIRST_RETRY.min(pause),
        };
        tokio::time::sleep(at_least).await;
        let rest = pause.saturating_sub(at_least);
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            () = self.shared.wake.notified() => {}
        }
    }
}

impl SigningCredentials {
    fn replace(&mut self, credentials: Credentials) {
        if self.is_accepted {
            self.accepted_before = self.current.take();
        }
        self.current = Some(credentials);
        self.is_accepted = false;
    }

    fn restore_accepted(&mut self) -> bool {
        if self.is_accepted {
            return false;
        }
        let Some(before) = self.accepted_before.take() else { return false };
        self.current = Some(before);
        self.is_accepted = true;
        true
    }
}

fn log_failure(error: &LoadError, failures: u32) {
    // The first failure, then every tenth: at most one line in five minutes.
    if failures % 10 == 1 {
        let err = ErrorChain(error);
        tracing::warn!(%err, failures, "the agent's own AWS credentials cannot be loaded");
    }
}

impl OwnSource {
    /// The source in the configuration.
    pub fn from_config(config: &OwnCredentials, clock: &Clock) -> Self {
        match config {
            OwnCredentials::Imds { endpoint, ipv6 } => {
                Self::Imds(InstanceRole::new(endpoint.as_deref(), *ipv6, clock))
            }
            OwnCredentials::File { path, profile } => {
                Self::File(CredentialsFile::new(path.clone(), profile.clone()))
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

impl ProvideCredentials for OwnIdentity {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let answer: provider::Result = self
            .unexpired()
            .ok_or_else(|| CredentialsError::not_loaded("the agent has no AWS credentials of its own"));
        future::ProvideCredentials::ready(answer)
    }
}

impl fmt::Debug for OwnIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnIdentity").field("is_present", &self.is_present()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use aws_credential_types::Credentials;

    use super::{OwnIdentity, RETRY};
    use crate::clock::{Clock, Simulated};

    fn credentials(key: &str, expires: Option<SystemTime>) -> Credentials {
        Credentials::new(key, "secret", None, expires, "test")
    }

    fn key_of(own: &OwnIdentity) -> Option<String> {
        own.unexpired().map(|credentials| credentials.access_key_id().to_owned())
    }

    fn own() -> OwnIdentity {
        OwnIdentity::new(Clock::simulated(Simulated::starting_at(UNIX_EPOCH + Duration::from_secs(1000))))
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_rejection_the_previous_accepted_credentials_are_used_again() {
        let own = own();
        own.shared.signing.write().replace(credentials("OLD", None));
        own.was_accepted();
        own.shared.signing.write().replace(credentials("HALF", None));
        own.was_rejected();
        assert_eq!(key_of(&own).as_deref(), Some("OLD"));
        own.shared.signing.write().replace(credentials("WHOLE", None));
        own.was_accepted();
        own.was_rejected();
        assert_eq!(
            key_of(&own).as_deref(),
            Some("WHOLE"),
            "one rejection does not discard accepted credentials"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn expired_credentials_count_as_missing() {
        let own = own();
        own.shared.signing.write().replace(credentials("K", Some(UNIX_EPOCH + Duration::from_secs(1010))));
        assert!(own.is_present());
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(!own.is_present());
    }

    #[test]
    fn retries_slow_down_to_thirty_seconds() {
        let pauses: Vec<u64> = (1..=8).map(|n| RETRY.pause(n).as_millis().try_into().unwrap()).collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
    }
}
