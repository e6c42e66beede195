//! What a token says of itself, before anybody verified a word of it. Pure.
//!
//! Owns: reading the claims of a Kubernetes service account token (docs/design/facts.md#tokens) and judging
//! its times. Must not know: keys, clocks, HTTP. The type is called [`UnverifiedClaims`] so that no reader
//! takes it for more: it may be used to refuse early and to name a pod in a log, never to find credentials.

#[cfg(any(test, fuzzing))]
pub(crate) mod properties;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::identity::json::{self, Object};
use crate::workload::{BearerToken, Caller, ClaimedPod};

/// How far the clocks of issuer and node may disagree: what Kubernetes itself allows (`jwt.DefaultLeeway`, 60
/// s).
const LEEWAY: Duration = Duration::from_secs(60);

/// The claims of a token that nobody has verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnverifiedClaims {
    /// Who says it issued the token.
    pub issuer: Box<str>,
    /// Whom it is about, as `system:serviceaccount:<namespace>:<name>`.
    pub subject: Box<str>,
    /// For whom it was issued.
    pub audiences: Vec<Box<str>>,
    /// From when until when it is valid.
    pub validity: Validity,
    /// Namespace, service account and pod, where it says so.
    pub workload: Option<ClaimedWorkload>,
}

/// The times of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Until when it is valid.
    pub expires: SystemTime,
    /// From when on it is valid, where it says so.
    pub not_before: Option<SystemTime>,
    /// When it was issued, where it says so.
    pub issued: Option<SystemTime>,
}

/// The workload that a token claims to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedWorkload {
    /// Namespace of pod and service account.
    pub namespace: Box<str>,
    /// Name of the service account.
    pub service_account: Box<str>,
    /// UID of the service account.
    pub service_account_uid: Option<Box<str>>,
    /// Name of the pod, for a pod-bound token.
    pub pod: Option<Box<str>>,
    /// UID of the pod, for a pod-bound token.
    pub pod_uid: Option<Box<str>>,
    /// Name of the node the pod was bound to, where it says so.
    pub node: Option<Box<str>>,
}

/// Why the claims cannot be read. Says nothing of their content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableClaims {
    /// The middle part is not base64url.
    #[error("the token's payload is not base64url")]
    NotBase64,
    /// Not JSON, or not the JSON of a service account token.
    #[error("the token's payload is not the JSON of a service account token")]
    NotClaims,
    /// A time that no clock can show.
    #[error("the token's times are out of range")]
    TimesOutOfRange,
}

/// Why a token is not valid at this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untimely {
    /// `exp` has passed.
    Expired,
    /// `nbf` is still to come.
    NotYetValid,
}

#[derive(Deserialize)]
struct Payload {
    #[serde(default)]
    iss: Box<str>,
    #[serde(default)]
    sub: Box<str>,
    #[serde(default)]
    aud: Audiences,
    exp: f64,
    nbf: Option<f64>,
    iat: Option<f64>,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<Object<Kubernetes>>,
}

/// RFC 7519 section 4.1.3: one string or an array of them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(Box<str>),
    Many(Vec<Box<str>>),
}

#[derive(Deserialize)]
struct Kubernetes {
    namespace: Box<str>,
    serviceaccount: Object<Named>,
    pod: Option<Object<Named>>,
    node: Option<Object<Named>>,
}

#[derive(Deserialize)]
struct Named {
    name: Box<str>,
    uid: Option<Box<str>>,
}

impl Default for Audiences {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl UnverifiedClaims {
    /// Reads the claims of a token.
    ///
    /// # Errors
    /// [`UnreadableClaims`], when this is no service account token.
    pub fn of(token: &BearerToken) -> Result<Self, UnreadableClaims> {
        let json = URL_SAFE_NO_PAD
            .decode(token.payload().trim_end_matches('='))
            .map_err(|_| UnreadableClaims::NotBase64)?;
        let payload: Payload = json::object(&json).ok_or(UnreadableClaims::NotClaims)?;
        Ok(Self {
            issuer: payload.iss,
            subject: payload.sub,
            audiences: match payload.aud {
                Audiences::One(audience) => vec![audience],
                Audiences::Many(audiences) => audiences,
            },
            validity: Validity {
                expires: numeric_date(payload.exp)?,
                not_before: payload.nbf.map(numeric_date).transpose()?,
                issued: payload.iat.map(numeric_date).transpose()?,
            },
            workload: payload.kubernetes.map(|Object(kubernetes)| kubernetes.into()),
        })
    }

    /// Who the token says it is.
    pub fn caller(&self) -> Caller {
        let Some(workload) = &self.workload else { return Caller::Unknown };
        Caller::Claimed(Arc::new(ClaimedPod::new(
            &workload.namespace,
            &workload.service_account,
            workload.pod.as_deref(),
            workload.pod_uid.as_deref(),
        )))
    }
}

impl From<Kubernetes> for ClaimedWorkload {
    fn from(kubernetes: Kubernetes) -> Self {
        let Object(service_account) = kubernetes.serviceaccount;
        let (pod, pod_uid) = kubernetes.pod.map(|Object(pod)| (pod.name, pod.uid)).unzip();
        Self {
            namespace: kubernetes.namespace,
            service_account: service_account.name,
            service_account_uid: service_account.uid,
            pod,
            pod_uid: pod_uid.flatten(),
            node: kubernetes.node.map(|Object(node)| node.name),
        }
    }
}

impl Validity {
    /// Judges the times, with the leeway that Kubernetes grants.
    ///
    /// # Errors
    /// [`Untimely`], when the token is not valid at `now`.
    pub fn check(&self, now: SystemTime) -> Result<(), Untimely> {
        if self.expires + LEEWAY <= now {
            return Err(Untimely::Expired);
        }
        match self.not_before {
            Some(not_before) if now + LEEWAY < not_before => Err(Untimely::NotYetValid),
            Some(_) | None => Ok(()),
        }
    }
}

/// RFC 7519 NumericDate: seconds since the epoch, perhaps with a fraction.
fn numeric_date(seconds: f64) -> Result<SystemTime, UnreadableClaims> {
    // The year 9999, the last that RFC 3339 can write; later additions (leeway) cannot overflow.
    const LATEST: f64 = 253_402_300_799.0;
    if !(0.0..=LATEST).contains(&seconds) {
        return Err(UnreadableClaims::TimesOutOfRange);
    }
    Ok(UNIX_EPOCH + Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::{UnreadableClaims, Untimely, UnverifiedClaims};
    use crate::workload::BearerToken;

    fn claims(payload: &str) -> Result<UnverifiedClaims, UnreadableClaims> {
        let token = format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(payload));
        UnverifiedClaims::of(&BearerToken::from_header(token.as_bytes()).unwrap())
    }

    #[test]
    fn the_claims_of_a_pod_bound_token_are_read() {
        let read = claims(
            r#"{"aud":["pods.eks.amazonaws.com"],"exp":2000,"nbf":1000,"iss":"https://issuer",
                "kubernetes.io":{"namespace":"ns","serviceaccount":{"name":"sa","uid":"u1"},"pod":{"name":"p","uid":"u2"}}}"#,
        )
        .unwrap();
        assert_eq!(read.audiences, [Box::<str>::from("pods.eks.amazonaws.com")]);
        assert_eq!(read.validity.expires, UNIX_EPOCH + Duration::from_secs(2000));
        let workload = read.workload.unwrap();
        assert_eq!(
            (&*workload.namespace, &*workload.service_account, workload.pod.as_deref()),
            ("ns", "sa", Some("p"))
        );
    }

    #[test]
    fn one_audience_may_be_a_bare_string() {
        assert_eq!(claims(r#"{"aud":"a","exp":1}"#).unwrap().audiences, [Box::<str>::from("a")]);
    }

    #[test]
    fn payloads_that_are_no_claims_are_told_apart() {
        assert_eq!(claims("[]"), Err(UnreadableClaims::NotClaims));
        assert_eq!(claims(r#"{"aud":"a"}"#), Err(UnreadableClaims::NotClaims), "exp is required");
        assert_eq!(claims(r#"{"exp":-1}"#), Err(UnreadableClaims::TimesOutOfRange));
        assert_eq!(claims(r#"{"exp":1e300}"#), Err(UnreadableClaims::TimesOutOfRange));
        for out_of_range in ["-1", "-1e300", "1e300", "253402300800", "18446744073709551616"] {
            for member in ["nbf", "iat"] {
                let payload = format!(r#"{{"exp":1,"{member}":{out_of_range}}}"#);
                assert_eq!(claims(&payload), Err(UnreadableClaims::TimesOutOfRange), "{payload}");
            }
        }
        for no_number in ["NaN", "Infinity", "1e999", "-1e999", r#""1""#] {
            let payload = format!(r#"{{"exp":{no_number}}}"#);
            assert_eq!(claims(&payload), Err(UnreadableClaims::NotClaims), "{payload}");
        }
        for smallest_and_largest in ["-0.0", "5e-324", "253402300799"] {
            let read = claims(&format!(r#"{{"exp":{smallest_and_largest},"nbf":0,"iat":null}}"#)).unwrap();
            let _either = read.validity.check(UNIX_EPOCH);
        }
        let token = BearerToken::from_header(b"e30.a.sig").unwrap();
        assert_eq!(UnverifiedClaims::of(&token), Err(UnreadableClaims::NotBase64));
    }

    #[test]
    fn times_are_judged_with_a_minute_of_leeway() {
        let read = claims(r#"{"exp":2000,"nbf":1000}"#).unwrap();
        let at = |seconds| read.validity.check(UNIX_EPOCH + Duration::from_secs(seconds));
        let cases = [
            (939, Err(Untimely::NotYetValid)),
            (940, Ok(())),
            (2059, Ok(())),
            (2060, Err(Untimely::Expired)),
        ];
        for (seconds, expected) in cases {
            assert_eq!(at(seconds), expected, "at {seconds}");
        }
    }
}
