//! Credentials as AWS issues them and as SDKs read them.
//!
//! Owns: the wire JSON of a success (docs/design/client-contract.md#success-rules). Must not know: how long
//! anything is kept.

use std::fmt;
use std::time::SystemTime;

use bytes::Bytes;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::clock::{Trust, rfc3339};
use crate::credentials::policy::freshness::MIN_REMAINING_LIFE;
use crate::credentials::receipt::Receipt;
use crate::secret::Secret;
use crate::workload::RoleArn;

/// The largest body that every SDK takes: aws-c-auth stops at 10,000 bytes
/// (docs/design/client-contract.md#success-body).
pub const MAX_BODY: usize = 10_000;

/// One set of credentials, fresh from AWS.
#[derive(Clone, Debug)]
pub struct Issued {
    /// `ASIA…`; a name, not a secret.
    pub access_key_id: String,
    /// The secret key.
    pub secret_access_key: Secret,
    /// The session token.
    pub session_token: Secret,
    /// When AWS stops taking them.
    pub expiration: SystemTime,
    /// AWS's own clock when it issued them, if it said so: with it their life is known whatever the node's
    /// clock says.
    pub answered_at: Option<SystemTime>,
    /// What they were issued for.
    pub grant: Grant,
    /// By which names AWS knows them.
    pub receipt: Receipt,
}

/// What a set of credentials was issued for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What gave the role.
    pub origin: GrantOrigin,
    /// The role as STS names it, without the session: `arn:aws:sts::<account>:assumed-role/<role>`. The
    /// session's name is new with every call, so two sets of one role would not be alike with it.
    pub role: Box<str>,
}

/// What gives a pod its role, and what an admin would take away to end it. The memory of entitlements is
/// keyed by it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GrantOrigin {
    /// A pod identity association, by its id, e.g. `a-4wvljrezsukshq1bv`.
    Association(Box<str>),
    /// An annotation of the service account, or an entry of the role map.
    Role(RoleArn),
}

impl fmt::Display for GrantOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Association(id) => write!(f, "association {id}"),
            Self::Role(role) => write!(f, "role {role}"),
        }
    }
}

impl Grant {
    /// From what gave the role, and the ARN of the session that it gave.
    pub fn new(origin: GrantOrigin, assumed_role_arn: &str) -> Self {
        let role = assumed_role_arn.rsplit_once('/').map_or(assumed_role_arn, |(role, _session)| role);
        Self { origin, role: role.into() }
    }

    /// The id of the association, if that gave the role.
    pub fn association(&self) -> Option<&str> {
        match &self.origin {
            GrantOrigin::Association(id) => Some(id),
            GrantOrigin::Role(_) => None,
        }
    }

    /// The account that the role lives in, cut from the ARN.
    pub fn account_id(&self) -> Option<&str> {
        self.role.split(':').nth(4).filter(|account| !account.is_empty())
    }
}

/// Why a set of credentials cannot be handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unservable {
    /// The expiration cannot be written as RFC 3339.
    #[error("the expiration is out of range")]
    Expiration,
    /// They had expired when they came.
    #[error("they have expired already")]
    Expired,
    /// The JSON could not be written.
    #[error("the credentials cannot be written as JSON")]
    Json,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Wire<'a> {
    access_key_id: &'a str,
    secret_access_key: &'a str,
    token: &'a str,
    /// Left out rather than empty: Go v2 refuses a number here, others take "" for an account.
    #[serde(skip_serializing_if = "Option::is_none")]
    account_id: Option<&'a str>,
    expiration: &'a str,
}

impl Issued {
    /// Whether they had expired when they came, at this time by the best guess. While AWS's time is unknown
    /// the answer's own clock judges, as it does later; else never: an old answer that somebody in between
    /// gives again has a clock that is right about it. Where the guess is doubtful its stricter reading does
    /// not judge here: were that one wrong, it would refuse for ever what AWS gives.
    pub fn is_over(&self, guess: SystemTime, trust: Trust) -> bool {
        let time = match trust {
            Trust::Unknown => self.answered_at.unwrap_or(guess),
            Trust::Unconfirmed | Trust::Confirmed => guess,
        };
        self.expiration.duration_since(time).unwrap_or_default() < MIN_REMAINING_LIFE
    }

    /// The body that SDKs get: written once, shared by all who ask, wiped when the last answer has been sent.
    ///
    /// # Errors
    /// [`Unservable`], when AWS sent something that no SDK could read.
    pub fn to_body(&self) -> Result<Bytes, Unservable> {
        let wire = Wire {
            access_key_id: &self.access_key_id,
            secret_access_key: self.secret_access_key.reveal(),
            token: self.session_token.reveal(),
            account_id: self.grant.account_id(),
            expiration: &rfc3339(self.expiration).ok_or(Unservable::Expiration)?,
        };
        // Written twice: a Vec that grows leaves copies behind that nobody wipes, and one that is too large
        // costs memory for as long as the set is held. So the first time only counts.
        let mut counted = Counting(0);
        serde_json::to_writer(&mut counted, &wire).map_err(|_| Unservable::Json)?;
        let mut body = Zeroizing::new(Vec::with_capacity(counted.0));
        serde_json::to_writer(&mut *body, &wire).map_err(|_| Unservable::Json)?;
        Ok(Bytes::from_owner(body))
    }
}

/// A writer that keeps nothing.
struct Counting(usize);

impl std::io::Write for Counting {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use super::{Grant, GrantOrigin, Issued, Unservable};
    use crate::clock::Trust::{Confirmed, Unconfirmed, Unknown};
    use crate::credentials::receipt::Receipt;
    use crate::secret::Secret;

    pub(crate) fn grant(association: &str, role: &str) -> Grant {
        Grant::new(GrantOrigin::Association(association.into()), role)
    }

    pub(crate) fn issued(expiration: SystemTime) -> Issued {
        Issued {
            access_key_id: "ASIAEXAMPLE".to_owned(),
            secret_access_key: Secret::new("planted-secret".to_owned()),
            session_token: Secret::new("planted-session".to_owned()),
            expiration,
            answered_at: None,
            grant: grant("a-1", "arn:aws:sts::111122223333:assumed-role/app/eks-x"),
            receipt: Receipt::default(),
        }
    }

    #[test]
    fn the_body_has_the_five_fields_as_strings_and_whole_seconds() {
        let body = issued(UNIX_EPOCH + Duration::from_millis(1_700_000_000_750)).to_body().unwrap();
        assert_eq!(
            str::from_utf8(&body).unwrap(),
            r#"{"AccessKeyId":"ASIAEXAMPLE","SecretAccessKey":"planted-secret","Token":"planted-session","AccountId":"111122223333","Expiration":"2023-11-14T22:13:20Z"}"#
        );
    }

    #[test]
    fn an_unknown_account_is_left_out() {
        let mut issued = issued(UNIX_EPOCH);
        issued.grant = grant("a-1", "nonsense");
        assert!(!str::from_utf8(&issued.to_body().unwrap()).unwrap().contains("AccountId"));
    }

    #[test]
    fn a_date_that_cannot_be_written_is_an_error_and_not_a_panic() {
        const YEAR_10000: u64 = 253_402_300_800;
        let body = |seconds| issued(UNIX_EPOCH + Duration::from_secs(seconds)).to_body();
        assert!(body(YEAR_10000 - 1).is_ok());
        for seconds in [YEAR_10000, u64::try_from(i64::MAX).unwrap()] {
            assert_eq!(body(seconds), Err(Unservable::Expiration), "{seconds}");
        }
        let before_1970 = issued(UNIX_EPOCH - Duration::from_secs(1)).to_body();
        assert_eq!(before_1970, Err(Unservable::Expiration));
    }

    #[test]
    fn issued_credentials_never_print_their_secrets() {
        assert!(!format!("{:?}", issued(UNIX_EPOCH)).contains("planted"));
    }

    #[test]
    fn what_came_expired_is_judged_by_aws_time_and_by_its_own_date_while_that_is_unknown() {
        const HOUR: u64 = 3600;
        let at = |hours: u64| UNIX_EPOCH + Duration::from_secs(hours * HOUR);
        let over = |expires, answered_at: Option<u64>, guess| {
            let issued = Issued { answered_at: answered_at.map(at), ..issued(at(expires)) };
            [Unknown, Unconfirmed, Confirmed].map(|trust| issued.is_over(at(guess), trust))
        };
        // It ends at, it was answered at, it is.
        assert_eq!(over(16, Some(10), 10), [false, false, false], "fresh");
        assert_eq!(over(9, Some(3), 10), [false, true, true], "an old answer, given again");
        assert_eq!(over(16, Some(10), 35), [false, true, true], "by a clock that is 25 h fast");
        assert_eq!(over(9, Some(10), 3), [true, false, false], "by one that is 7 h slow");
        assert_eq!(over(9, None, 10), [true, true, true], "without a date");
        assert_eq!(over(16, Some(34), 10), [true, false, false], "a date that is 24 h ahead");
    }
}
