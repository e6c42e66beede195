//! The judgement of one token. Pure: token, keys, policy and time in, verdict out.
//!
//! Owns: the order of the checks (design 4.3). Must not know: where keys come from, or what follows from the verdict.
//! What the token says of itself may refuse it early, before any key is looked at; nothing it says makes it good.

use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::config::{TokenVerification, VerificationMode};
use crate::identity::claims::{ClaimedWorkload, UnreadableClaims, Untimely, UnverifiedClaims, Validity};
use crate::identity::keys::KeyTable;
use crate::identity::keys::key::Algorithm;
use crate::identity::token::BearerToken;
use crate::identity::verdict::{Refusal, VerifiedIdentity};
use crate::workload::{Audience, CredentialSource, Pod, ServiceAccount, VerifiedKey};

/// What a token must be.
#[derive(Clone, Debug)]
pub struct Policy {
    mode: VerificationMode,
    has_keys: bool,
    issuers: Vec<Box<str>>,
    cluster: Box<str>,
    node: Option<Box<str>>,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Verdict {
    /// A key proves it.
    Verified(VerifiedIdentity),
    /// It is worth nothing.
    Refused(Refusal),
    /// Nothing speaks against it, and nothing here can speak for it.
    Unproven {
        /// Its times.
        validity: Validity,
        /// For whom it says it is.
        audience: Audience,
        /// The sources may have the key meanwhile.
        is_key_unknown: bool,
    },
}

/// RFC 7515 section 4.1: the members that decide.
#[derive(Deserialize)]
struct Header {
    alg: Box<str>,
    kid: Option<Box<str>>,
    /// Extensions that one must understand; we understand none.
    crit: Option<serde::de::IgnoredAny>,
}

impl Policy {
    /// What `--token-verification`, `--jwks`, `--issuer`, `--cluster-name` and `--node-name` amount to.
    pub fn new(verification: &TokenVerification, cluster: &str, node: Option<&str>) -> Self {
        let has_keys = match verification.mode {
            VerificationMode::Auto | VerificationMode::Required => !verification.keys.is_empty(),
            VerificationMode::Off => false,
        };
        Self {
            mode: verification.mode,
            has_keys,
            issuers: verification.issuers.iter().map(|issuer| issuer.as_str().into()).collect(),
            cluster: cluster.into(),
            node: node.map(Into::into),
        }
    }

    /// Nothing is verified here.
    pub(super) fn off() -> Self {
        let verification =
            TokenVerification { mode: VerificationMode::Off, issuers: Vec::new(), keys: Vec::new() };
        Self::new(&verification, "", None)
    }

    /// What becomes of tokens that no key can decide.
    pub(super) fn mode(&self) -> VerificationMode {
        self.mode
    }
}

/// Judges a token at the wall time `now`.
pub(super) fn verify(token: &BearerToken, keys: &KeyTable, policy: &Policy, now: SystemTime) -> Verdict {
    judge(token, keys, policy, now).unwrap_or_else(Verdict::Refused)
}

fn judge(token: &BearerToken, keys: &KeyTable, policy: &Policy, now: SystemTime) -> Result<Verdict, Refusal> {
    let claims = UnverifiedClaims::of(token).map_err(Refusal::Unreadable)?;
    check_times(claims.validity, now)?;
    let audience = Audience::of(&claims.audiences);
    let unproven = |is_key_unknown| Verdict::Unproven { validity: claims.validity, audience, is_key_unknown };
    if policy.mode != VerificationMode::Off && Audience::are_several_of_ours(&claims.audiences) {
        return Err(Refusal::SeveralAudiences);
    }
    if !policy.has_keys {
        return Ok(unproven(false));
    }
    let header = header_of(token)?;
    if !policy.issuers.contains(&claims.issuer) {
        return Err(Refusal::ForeignIssuer);
    }
    if audience == Audience::Foreign {
        return Err(Refusal::ForeignAudience);
    }
    if !is_signed(token, &header, keys)? {
        return Ok(unproven(true));
    }
    // From here on the claims are the issuer's word.
    let pod = pod_of(&claims)?;
    if let (Some(ours), Some(its)) = (&policy.node, &pod.node)
        && ours != its
    {
        return Err(Refusal::OtherNode);
    }
    let key = VerifiedKey {
        cluster: policy.cluster.clone(),
        source: CredentialSource::EksAuth,
        namespace: pod.service_account.namespace.clone(),
        service_account_uid: pod.service_account.uid.clone(),
        pod_uid: pod.uid.clone(),
    };
    Ok(Verdict::Verified(VerifiedIdentity::proven(
        token.digest(),
        pod,
        Arc::new(key),
        claims.validity,
        audience,
    )))
}

/// Judges the times.
pub(super) fn check_times(validity: Validity, now: SystemTime) -> Result<(), Refusal> {
    validity.check(now).map_err(|untimely| match untimely {
        Untimely::Expired => Refusal::Expired,
        Untimely::NotYetValid => Refusal::NotYetValid,
    })
}

fn header_of(token: &BearerToken) -> Result<Header, Refusal> {
    let unreadable = |_| Refusal::Unreadable(UnreadableClaims::NotClaims);
    let json = URL_SAFE_NO_PAD
        .decode(token.header().trim_end_matches('='))
        .map_err(|_| Refusal::Unreadable(UnreadableClaims::NotBase64))?;
    let header: Header = serde_json::from_slice(&json).map_err(unreadable)?;
    // No key of any cluster signs like this, known or not: `none` proves nothing, and for an HMAC the verifier would have
    // to hold the secret.
    if header.crit.is_some() || header.alg.eq_ignore_ascii_case("none") || header.alg.starts_with("HS") {
        return Err(Refusal::Algorithm);
    }
    Ok(header)
}

/// Whether a key proves it. `false`: its key is not known. A known key that does not prove it refutes it.
fn is_signed(token: &BearerToken, header: &Header, keys: &KeyTable) -> Result<bool, Refusal> {
    let candidates = header.kid.as_deref().map(|id| keys.find(id)).unwrap_or_default();
    if candidates.is_empty() {
        return Ok(false);
    }
    let algorithm = Algorithm::named(&header.alg).ok_or(Refusal::Algorithm)?;
    if !candidates.iter().any(|entry| entry.key.is_for(algorithm)) {
        return Err(Refusal::Algorithm);
    }
    let (signed, signature) = token.signed_and_signature();
    let signature = URL_SAFE_NO_PAD.decode(signature.trim_end_matches('=')).map_err(|_| Refusal::Forged)?;
    let prover = candidates.iter().find(|entry| entry.key.verifies(algorithm, signed.as_bytes(), &signature));
    let prover = prover.ok_or(Refusal::Forged)?;
    tracing::trace!(token = %token.digest(), key = prover.key.id(), source = prover.source, "token verified");
    Ok(true)
}

/// The pod that a proven token is bound to.
fn pod_of(claims: &UnverifiedClaims) -> Result<Pod, Refusal> {
    let Some(ClaimedWorkload {
        namespace,
        service_account,
        service_account_uid: Some(service_account_uid),
        pod: Some(pod),
        pod_uid: Some(pod_uid),
        node,
    }) = &claims.workload
    else {
        return Err(Refusal::NotPodBound);
    };
    if [namespace, service_account, service_account_uid, pod, pod_uid].iter().any(|text| text.is_empty()) {
        return Err(Refusal::NotPodBound);
    }
    if *claims.subject != *format!("system:serviceaccount:{namespace}:{service_account}") {
        return Err(Refusal::Contradiction);
    }
    Ok(Pod {
        service_account: ServiceAccount {
            namespace: namespace.clone(),
            name: service_account.clone(),
            uid: service_account_uid.clone(),
        },
        name: pod.clone(),
        uid: pod_uid.clone(),
        node: node.clone(),
    })
}
