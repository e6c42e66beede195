//! Where roles and identity providers are kept: in this process, or by an emulator of IAM.
//!
//! Owns: finding them, changing them, and how long a change takes to be seen. Must not know: who asks.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use thiserror::Error;

use super::oidc_provider::OidcProvider;
use super::role::Role;
use super::trust::MalformedPolicy;
use crate::clock::Clock;
use crate::eventually::Eventually;

/// What IAM would not take, or could not say.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IamError {
    /// A role that is none.
    #[error("{0:?} is not arn:aws:iam::<12 digits>:role/<name>")]
    RoleArn(String),
    /// Sessions too short or too long.
    #[error("{0} has sessions of at most {1} s; IAM takes 3600 to 43200")]
    MaxSessionDuration(String, u64),
    /// MalformedPolicyDocument.
    #[error("the trust policy of {0} is not one: {1}")]
    Trust(String, MalformedPolicy),
    /// A provider that is none.
    #[error("{0:?} is not arn:aws:iam::<account>:oidc-provider/<issuer without https://>")]
    ProviderArn(String),
    /// Not ours to change.
    #[error("roles and identity providers are kept elsewhere; change them there")]
    KeptElsewhere,
    /// The emulator does not answer, or not to this.
    #[error("IAM could not be asked: {0}")]
    Unavailable(String),
}

/// Finds one thing by its ARN; a failure is a sentence.
type Ask<T> = Arc<dyn Fn(&str) -> Result<Option<T>, String> + Send + Sync>;

/// IAM as somebody else keeps it. It is asked anew each time, on a thread that may block.
#[derive(Clone)]
pub struct IamElsewhere {
    role: Ask<Role>,
    oidc_provider: Ask<OidcProvider>,
}

impl IamElsewhere {
    /// Asked by these two, each with an ARN.
    #[must_use]
    pub fn new(
        role: impl Fn(&str) -> Result<Option<Role>, String> + Send + Sync + 'static,
        oidc_provider: impl Fn(&str) -> Result<Option<OidcProvider>, String> + Send + Sync + 'static,
    ) -> Self {
        Self { role: Arc::new(role), oidc_provider: Arc::new(oidc_provider) }
    }
}

impl fmt::Debug for IamElsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IamElsewhere").finish_non_exhaustive()
    }
}

/// What this process keeps, by ARN.
#[derive(Clone, Debug, Default)]
struct Held {
    roles: BTreeMap<String, Role>,
    oidc_providers: BTreeMap<String, OidcProvider>,
}

#[derive(Debug)]
enum Source {
    Held(Eventually<Held>),
    Elsewhere(IamElsewhere),
}

/// IAM.
#[derive(Debug)]
pub(crate) struct Iam {
    clock: Clock,
    source: Mutex<Source>,
}

impl Iam {
    /// Kept here, with one provider and no role.
    pub(crate) fn held(clock: Clock, provider: OidcProvider) -> Self {
        let oidc_providers = BTreeMap::from([(provider.arn.clone(), provider)]);
        let held = Held { roles: BTreeMap::new(), oidc_providers };
        Self { clock, source: Mutex::new(Source::Held(Eventually::new(held))) }
    }

    /// From now on kept elsewhere; what was kept here is forgotten.
    pub(crate) fn ask_elsewhere(&self, elsewhere: IamElsewhere) {
        *self.source.lock() = Source::Elsewhere(elsewhere);
    }

    /// Whether somebody else keeps all of it.
    pub(crate) fn is_elsewhere(&self) -> bool {
        matches!(&*self.source.lock(), Source::Elsewhere(_))
    }

    /// A role, if there is one.
    pub(crate) fn role(&self, arn: &str) -> Result<Option<Role>, IamError> {
        self.find(|held| held.roles.get(arn).cloned(), |elsewhere| (elsewhere.role)(arn))
    }

    /// An identity provider, if there is one.
    pub(crate) fn oidc_provider(&self, arn: &str) -> Result<Option<OidcProvider>, IamError> {
        self.find(|held| held.oidc_providers.get(arn).cloned(), |elsewhere| (elsewhere.oidc_provider)(arn))
    }

    /// All roles kept here, whether seen already or not.
    pub(crate) fn roles(&self) -> Vec<Role> {
        self.newest(|held| held.roles.values().cloned().collect())
    }

    /// All providers kept here, whether seen already or not.
    pub(crate) fn oidc_providers(&self) -> Vec<OidcProvider> {
        self.newest(|held| held.oidc_providers.values().cloned().collect())
    }

    /// Adds a role or replaces it; seen after `delay`.
    pub(crate) fn set_role(&self, role: Role, delay: Duration) -> Result<(), IamError> {
        role.check()?;
        self.change(delay, |held| held.roles.insert(role.arn.clone(), role).is_some()).map(drop)
    }

    /// Removes a role; says whether there was one.
    pub(crate) fn remove_role(&self, arn: &str, delay: Duration) -> Result<bool, IamError> {
        self.change(delay, |held| held.roles.remove(arn).is_some())
    }

    /// Adds a provider or replaces it; seen after `delay`.
    pub(crate) fn set_oidc_provider(&self, provider: OidcProvider, delay: Duration) -> Result<(), IamError> {
        provider.check()?;
        let insert = |held: &mut Held| held.oidc_providers.insert(provider.arn.clone(), provider).is_some();
        self.change(delay, insert).map(drop)
    }

    /// Removes a provider; says whether there was one.
    pub(crate) fn remove_oidc_provider(&self, arn: &str, delay: Duration) -> Result<bool, IamError> {
        self.change(delay, |held| held.oidc_providers.remove(arn).is_some())
    }

    fn find<T>(
        &self,
        here: impl FnOnce(&Held) -> Option<T>,
        there: impl FnOnce(&IamElsewhere) -> Result<Option<T>, String>,
    ) -> Result<Option<T>, IamError> {
        let elsewhere = match &mut *self.source.lock() {
            Source::Held(held) => return Ok(here(held.at(self.clock.now()))),
            Source::Elsewhere(elsewhere) => elsewhere.clone(),
        };
        // Without the lock: another process takes its time to answer. The servers' other requests go on
        // meanwhile.
        tokio::task::block_in_place(|| there(&elsewhere)).map_err(IamError::Unavailable)
    }

    fn newest<T>(&self, list: impl FnOnce(&Held) -> Vec<T>) -> Vec<T> {
        match &*self.source.lock() {
            Source::Held(held) => list(held.newest()),
            Source::Elsewhere(_) => Vec::new(),
        }
    }

    fn change(&self, delay: Duration, change: impl FnOnce(&mut Held) -> bool) -> Result<bool, IamError> {
        let now = self.clock.now();
        let mut source = self.source.lock();
        let Source::Held(held) = &mut *source else { return Err(IamError::KeptElsewhere) };
        // What is seen by now stays seen, whatever comes.
        held.at(now);
        let mut next = held.newest().clone();
        let changed = change(&mut next);
        held.change(next, now, delay);
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:iam::111122223333:role/app";
    const ISSUER: &str = "https://issuer.example/id/1";

    fn iam() -> (Iam, Clock) {
        let clock = Clock::default();
        let provider = OidcProvider::new("111122223333", ISSUER, &["sts.amazonaws.com"]);
        (Iam::held(clock.clone(), provider), clock)
    }

    #[test]
    fn a_change_is_listed_at_once_and_seen_after_its_delay() {
        let (iam, clock) = iam();
        iam.set_role(Role::trusting_pod_identity(ARN), Duration::from_secs(10)).unwrap();
        assert_eq!((iam.role(ARN), iam.roles().len()), (Ok(None), 1));
        clock.set_ahead(10);
        assert!(iam.role(ARN).unwrap().is_some());
        assert_eq!(iam.remove_role(ARN, Duration::ZERO), Ok(true));
        assert_eq!((iam.role(ARN), iam.remove_role(ARN, Duration::ZERO)), (Ok(None), Ok(false)));
    }

    #[test]
    fn providers_are_found_by_their_arn_and_can_go() {
        let (iam, _) = iam();
        let arn = "arn:aws:iam::111122223333:oidc-provider/issuer.example/id/1";
        assert_eq!(iam.oidc_provider(arn).unwrap().unwrap().client_ids, ["sts.amazonaws.com"]);
        assert_eq!(iam.oidc_provider(&arn.replace("1111", "4444")), Ok(None), "another account");
        iam.remove_oidc_provider(arn, Duration::ZERO).unwrap();
        assert_eq!(iam.oidc_provider(arn), Ok(None));
        let bad = OidcProvider { arn: ISSUER.to_owned(), client_ids: Vec::new() };
        assert_eq!(iam.set_oidc_provider(bad, Duration::ZERO), Err(IamError::ProviderArn(ISSUER.to_owned())));
    }

    #[test]
    fn elsewhere_is_asked_each_time_and_is_not_changed_from_here() {
        let (iam, _) = iam();
        let known = |arn: &str| match arn {
            ARN => Ok(Some(Role::trusting_pod_identity(arn))),
            "down" => Err("connection refused".to_owned()),
            _ => Ok(None),
        };
        iam.ask_elsewhere(IamElsewhere::new(known, |_| Ok(None)));
        assert!(iam.role(ARN).unwrap().is_some());
        assert_eq!(iam.role("another"), Ok(None));
        assert_eq!(iam.role("down"), Err(IamError::Unavailable("connection refused".to_owned())));
        assert_eq!(iam.remove_role(ARN, Duration::ZERO), Err(IamError::KeptElsewhere));
    }
}
