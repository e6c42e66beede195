//! The credentials AWS has issued, and to whom.
//!
//! Owns: their shape, their lives, finding them by a request's signature. Must not know: why they were
//! issued.

use std::collections::HashMap;
use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::session::Session;
use super::sigv4::{self, Scope, SignatureError};
use crate::clock::Clock;
use crate::cluster::pod::PodSpec;
use crate::http::message::Received;
use crate::random;

/// Random bytes in a session token: 1,468 characters of base64, the size of real ones with session tags.
const SESSION_TOKEN_BYTES: usize = 1100;
/// The unique id of the one user, of the shape that those of users have.
const ADMINISTRATOR_ID: &str = "AIDASANDBOXADMIN23456";
/// How long lapsed credentials are remembered, so that their holder is told "expired" and not "unknown".
const REMEMBERED: Duration = Duration::from_hours(24);

/// AWS credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct AwsCredentials {
    /// `ASIA…` for temporary ones, `AKIA…` for those of a user.
    pub access_key_id: String,
    /// The secret, 40 characters.
    pub secret_access_key: String,
    /// Temporary ones have it.
    pub session_token: Option<String>,
    /// Temporary ones end.
    pub expires_at: Option<SystemTime>,
}

impl AwsCredentials {
    /// Temporary credentials from `now` on. The same shape serves nodes and pods.
    fn temporary(now: SystemTime, lifetime: Duration) -> Self {
        Self {
            access_key_id: random::aws_id("ASIA", 16),
            secret_access_key: random::base64(30),
            session_token: Some(random::base64(SESSION_TOKEN_BYTES)),
            expires_at: now.checked_add(lifetime),
        }
    }

    /// Those of a user, which do not end.
    pub(crate) fn lasting() -> Self {
        Self {
            access_key_id: random::aws_id("AKIA", 16),
            secret_access_key: random::base64(30),
            session_token: None,
            expires_at: None,
        }
    }

    /// The text of a credentials file with these in its default profile.
    #[must_use]
    pub fn as_file(&self) -> String {
        let token = self.session_token.as_ref();
        let token = token.map(|token| format!("aws_session_token = {token}\n")).unwrap_or_default();
        format!(
            "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n{token}",
            self.access_key_id, self.secret_access_key
        )
    }

    fn lapsed_at(&self, now: SystemTime) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= now)
    }
}

impl fmt::Debug for AwsCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("AwsCredentials");
        debug.field("access_key_id", &self.access_key_id).field("expires_at", &self.expires_at);
        debug.finish_non_exhaustive()
    }
}

/// Who credentials were issued to, and in which role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) bearer: Bearer,
    pub(crate) session: Session,
}

/// Who credentials were issued to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Bearer {
    /// The node, or the agent on it.
    Node,
    /// A pod.
    Pod(PodSpec),
    /// The holder of a token that names no pod, by its `sub`.
    Subject(String),
    /// The account's administrator: a user, so the session's role is the user and its name the user's.
    Administrator,
}

impl Holder {
    pub(crate) fn pod(&self) -> Option<PodSpec> {
        match &self.bearer {
            Bearer::Pod(pod) => Some(pod.clone()),
            Bearer::Node | Bearer::Subject(_) | Bearer::Administrator => None,
        }
    }

    /// Its ARN: a session's, or the user's.
    pub(crate) fn arn(&self) -> String {
        if self.is_administrator() { self.session.role_arn.clone() } else { self.session.arn() }
    }

    /// Its unique id.
    pub(crate) fn user_id(&self) -> String {
        if self.is_administrator() { ADMINISTRATOR_ID.to_owned() } else { self.session.user_id() }
    }

    /// Its account.
    pub(crate) fn account(&self) -> String {
        self.session.role_arn.split(':').nth(4).unwrap_or_default().to_owned()
    }

    pub(crate) fn is_node(&self) -> bool {
        self.bearer == Bearer::Node
    }

    pub(crate) fn is_administrator(&self) -> bool {
        self.bearer == Bearer::Administrator
    }
}

#[derive(Clone, Debug)]
struct Issued {
    credentials: AwsCredentials,
    holder: Holder,
}

/// All credentials issued.
#[derive(Debug)]
pub(crate) struct IssuedCredentials {
    clock: Clock,
    by_access_key_id: Mutex<HashMap<String, Issued>>,
    /// An emulator of AWS that must know what pods and nodes are given, before they are.
    told: OnceLock<Told>,
}

/// Takes new credentials, the session they are for and how long they live.
type Tell = dyn Fn(&AwsCredentials, &Session, Duration) + Send + Sync;

/// Tells an emulator.
pub(crate) struct Told(Box<Tell>);

impl Told {
    pub(crate) fn by(tell: impl Fn(&AwsCredentials, &Session, Duration) + Send + Sync + 'static) -> Self {
        Self(Box::new(tell))
    }
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Told").finish_non_exhaustive()
    }
}

impl IssuedCredentials {
    /// None yet. Their lives go by this clock.
    pub(crate) fn by(clock: Clock) -> Self {
        Self { clock, by_access_key_id: Mutex::default(), told: OnceLock::new() }
    }

    /// Issues temporary credentials.
    pub(crate) fn mint(&self, holder: Holder, lifetime: Duration) -> AwsCredentials {
        let credentials = AwsCredentials::temporary(self.clock.now(), lifetime);
        if let Some(Told(tell)) = self.told.get() {
            tell(&credentials, &holder.session, lifetime);
        }
        self.honour(credentials.clone(), holder);
        credentials
    }

    /// From now on that emulator is told of what pods and nodes are given.
    pub(crate) fn tell(&self, told: Told) {
        // Twice cannot be: a sandbox has one emulator.
        let _ = self.told.set(told);
    }

    /// Honours credentials made elsewhere.
    pub(crate) fn honour(&self, credentials: AwsCredentials, holder: Holder) {
        let now = self.clock.now();
        let mut issued = self.by_access_key_id.lock();
        // Now and then is enough: at most twice as many as needed are kept.
        if issued.len().is_power_of_two() {
            let forgotten = |end: SystemTime| end.checked_add(REMEMBERED).is_none_or(|end| end > now);
            issued.retain(|_, issued| issued.credentials.expires_at.is_none_or(forgotten));
        }
        issued.insert(credentials.access_key_id.clone(), Issued { credentials, holder });
    }

    /// Everything secret that was issued, with whose it is.
    pub(crate) fn secrets(&self) -> Vec<(String, String)> {
        let issued = self.by_access_key_id.lock();
        let secrets = issued.values().flat_map(|issued| {
            let whose = match issued.holder.bearer {
                Bearer::Node => "node",
                Bearer::Pod(_) | Bearer::Subject(_) => "pod",
                Bearer::Administrator => "administrator",
            };
            let key = (format!("{whose}'s secret key"), issued.credentials.secret_access_key.clone());
            let token = issued.credentials.session_token.clone();
            std::iter::once(key).chain(token.map(|token| (format!("{whose}'s session token"), token)))
        });
        secrets.collect()
    }

    /// Ends the life of all credentials of nodes.
    pub(crate) fn expire_nodes(&self) {
        let now = self.clock.now();
        for issued in self.by_access_key_id.lock().values_mut().filter(|issued| issued.holder.is_node()) {
            issued.credentials.expires_at = Some(now);
        }
    }

    /// Whether these credentials are honoured at `now`.
    pub(crate) fn lives(&self, credentials: &AwsCredentials, now: SystemTime) -> bool {
        let issued = self.by_access_key_id.lock();
        issued.get(&credentials.access_key_id).is_some_and(|issued| !issued.credentials.lapsed_at(now))
    }

    /// Who holds that access key, without any proof.
    pub(crate) fn holder(&self, access_key_id: &str) -> Option<Holder> {
        self.by_access_key_id.lock().get(access_key_id).map(|issued| issued.holder.clone())
    }

    /// Who signed `request`.
    pub(crate) fn signer(&self, request: &Received, scope: Scope<'_>) -> Result<Holder, SignatureError> {
        let signed = sigv4::check(request, scope)?;
        let issued = self
            .by_access_key_id
            .lock()
            .get(signed.access_key_id())
            .cloned()
            .ok_or(SignatureError::UnknownKey)?;
        if request.header("x-amz-security-token") != issued.credentials.session_token.as_deref() {
            return Err(SignatureError::UnknownKey);
        }
        signed.verify(&issued.credentials.secret_access_key)?;
        if issued.credentials.lapsed_at(scope.now) {
            return Err(SignatureError::Expired);
        }
        Ok(issued.holder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issued_credentials_have_the_shape_of_real_ones() {
        let credentials = AwsCredentials::temporary(Clock::default().now(), Duration::from_hours(1));
        assert!(credentials.access_key_id.starts_with("ASIA") && credentials.access_key_id.len() == 20);
        assert_eq!(credentials.secret_access_key.len(), 40);
        assert!(credentials.session_token.as_ref().unwrap().len() >= 1400);
        let debug = format!("{credentials:?}");
        assert!(!debug.contains(&credentials.secret_access_key), "{debug}");
    }
}
