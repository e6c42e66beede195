//! Service account tokens as the API server of an EKS cluster issues them, and tokens that are wrong in one
//! point.
//!
//! Owns: claims and header (docs/design/facts.md#tokens), signing, and the reading of both. Must not know:
//! who accepts what.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::keys::{KeyError, Keys};
use super::pod::PodSpec;
use crate::clock::{moved, unix_seconds};
use crate::random;

/// The audience of tokens for EKS Pod Identity.
pub(crate) const AUDIENCE: &str = "pods.eks.amazonaws.com";

/// The usual audience of tokens for `AssumeRoleWithWebIdentity`.
pub(crate) const WEB_IDENTITY_AUDIENCE: &str = "sts.amazonaws.com";

/// The uids that make a pod this pod and no other of its name, and its node.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) pod_uid: String,
    pub(crate) service_account_uid: String,
    pub(crate) node_name: String,
    pub(crate) node_uid: String,
}

/// Which key signs a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenKey {
    /// The issuer's.
    #[default]
    Current,
    /// One that the issuer never published, under its own id.
    Stray,
    /// The same, but named as the issuer's: a forgery.
    Forged,
    /// None: `alg` is `none` and the signature is empty.
    Unsigned,
}

/// A token, and how it differs from a good one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSpec {
    /// Whose it is.
    pub pod: PodSpec,
    /// `aud`.
    pub audiences: Vec<String>,
    /// `iat`, and `nbf` with it, in seconds from now by the sandbox's clock; positive is not yet valid.
    pub issued_in: i64,
    /// `exp` less `iat`.
    pub lifetime: Duration,
    /// `iss`, if not the cluster's.
    pub issuer: Option<String>,
    /// Who signs.
    pub key: TokenKey,
    /// Whether it is bound to a pod: the members `pod` and `node`.
    pub pod_claims: bool,
}

impl TokenSpec {
    /// A good token.
    #[must_use]
    pub fn new(pod: PodSpec) -> Self {
        Self {
            pod,
            audiences: vec![AUDIENCE.to_owned()],
            issued_in: 0,
            lifetime: Duration::from_hours(24),
            issuer: None,
            key: TokenKey::Current,
            pod_claims: true,
        }
    }

    /// The same for other audiences.
    #[must_use]
    pub fn audiences(self, audiences: &[&str]) -> Self {
        Self { audiences: audiences.iter().map(|&audience| audience.to_owned()).collect(), ..self }
    }

    /// The same, expired since ten minutes: longer than any verifier's leeway.
    #[must_use]
    pub fn expired(self) -> Self {
        Self { issued_in: -4200, lifetime: Duration::from_hours(1), ..self }
    }

    /// The same, valid from ten minutes hence.
    #[must_use]
    pub fn not_yet_valid(self) -> Self {
        Self { issued_in: 600, ..self }
    }

    /// The same, signed otherwise.
    #[must_use]
    pub fn key(self, key: TokenKey) -> Self {
        Self { key, ..self }
    }

    /// The same without the members that bind it to a pod.
    #[must_use]
    pub fn without_pod_claims(self) -> Self {
        Self { pod_claims: false, ..self }
    }
}

/// Issues the token.
pub(crate) fn issue(
    spec: &TokenSpec,
    subject: &Subject,
    issuer: &str,
    keys: &Keys,
    now: SystemTime,
) -> Result<String, KeyError> {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let (signer, kid) = match spec.key {
        TokenKey::Current | TokenKey::Unsigned => (keys.current(), keys.current().kid.clone()),
        TokenKey::Stray => (keys.stray()?, keys.stray()?.kid.clone()),
        TokenKey::Forged => (keys.stray()?, keys.current().kid.clone()),
    };
    let algorithm = if spec.key == TokenKey::Unsigned { "none" } else { signer.algorithm() };
    let header = part(&json!({ "alg": algorithm, "kid": kid }));
    let signed = format!("{header}.{}", part(&claims(spec, subject, issuer, now)));
    let signature =
        if spec.key == TokenKey::Unsigned { Vec::new() } else { signer.sign(signed.as_bytes())? };
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

fn claims(spec: &TokenSpec, subject: &Subject, issuer: &str, now: SystemTime) -> Value {
    let PodSpec { namespace, service_account, pod } = &spec.pod;
    let issued = unix_seconds(moved(now, spec.issued_in));
    let lifetime = i64::try_from(spec.lifetime.as_secs()).unwrap_or(i64::MAX);
    let mut private = json!({
        "namespace": namespace,
        "serviceaccount": { "name": service_account, "uid": subject.service_account_uid },
    });
    if let (true, Some(private)) = (spec.pod_claims, private.as_object_mut()) {
        private.insert("node".to_owned(), json!({ "name": subject.node_name, "uid": subject.node_uid }));
        private.insert("pod".to_owned(), json!({ "name": pod, "uid": subject.pod_uid }));
    }
    json!({
        "aud": spec.audiences,
        "exp": issued.saturating_add(lifetime),
        "iat": issued,
        "iss": spec.issuer.as_deref().unwrap_or(issuer),
        "jti": random::uuid(),
        "kubernetes.io": private,
        "nbf": issued,
        "sub": format!("system:serviceaccount:{namespace}:{service_account}"),
    })
}

/// A token taken apart, nothing of it verified.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) algorithm: String,
    pub(crate) kid: String,
    pub(crate) claims: Claims,
    signed: Vec<u8>,
    signature: Vec<u8>,
}

/// The claims that matter to a judge.
#[derive(Debug, Deserialize)]
pub(crate) struct Claims {
    pub(crate) iss: String,
    pub(crate) sub: String,
    pub(crate) aud: Vec<String>,
    pub(crate) exp: i64,
    nbf: i64,
    #[serde(rename = "kubernetes.io")]
    private: Private,
}

#[derive(Debug, Deserialize)]
struct Private {
    namespace: String,
    serviceaccount: Named,
    pod: Option<Named>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Named {
    name: String,
    #[serde(default)]
    uid: String,
}

impl Claims {
    /// The pod it is bound to, if it is.
    pub(crate) fn pod(&self) -> Option<PodSpec> {
        let pod = self.private.pod.as_ref()?;
        Some(PodSpec::new(&self.private.namespace, &self.private.serviceaccount.name, &pod.name))
    }

    /// The uid of that pod.
    pub(crate) fn pod_uid(&self) -> Option<&str> {
        self.private.pod.as_ref().map(|pod| pod.uid.as_str())
    }

    pub(crate) fn expired_at(&self, now: SystemTime) -> bool {
        self.exp <= unix_seconds(now)
    }

    pub(crate) fn valid_yet_at(&self, now: SystemTime) -> bool {
        self.nbf <= unix_seconds(now)
    }
}

impl Parsed {
    /// Whether a key is published under its `kid`.
    pub(crate) fn names_one_of(&self, keys: &Keys) -> bool {
        keys.published(&self.kid).is_some()
    }

    /// Whether the published key of its `kid` signed it.
    pub(crate) fn signed_by_one_of(&self, keys: &Keys) -> bool {
        keys.published(&self.kid).is_some_and(|key| {
            self.algorithm == key.algorithm() && key.verifies(&self.signed, &self.signature)
        })
    }
}

/// Takes a token apart; `None` if it is not a service account token at all.
pub(crate) fn parse(token: &str) -> Option<Parsed> {
    #[derive(Deserialize)]
    struct Header {
        alg: String,
        #[serde(default)]
        kid: String,
    }
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, claims) = signed.split_once('.')?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
    let header: Header = serde_json::from_slice(&decode(header)?).ok()?;
    Some(Parsed {
        algorithm: header.alg,
        kid: header.kid,
        claims: serde_json::from_slice(&decode(claims)?).ok()?,
        signed: signed.as_bytes().to_vec(),
        signature: decode(signature)?,
    })
}
