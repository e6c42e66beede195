//! The judgement of one token. Pure: token, keys, policy and time in, verdict out.
//!
//! Owns: the order of the checks (docs/design/decisions.md#identity). Must not know: where keys come from, or
//! what follows from the verdict. What the token says of itself may refuse it early, before any key is looked
//! at; nothing it says makes it good.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::clock::Now;
use crate::config::{TokenVerification, VerificationMode};
use crate::identity::claims::{ClaimedWorkload, UnreadableClaims, Untimely, UnverifiedClaims, Validity};
use crate::identity::json;
use crate::identity::keys::key::Algorithm;
use crate::identity::keys::{Entry, KeyTable};
use crate::identity::verdict::{RefusedToken, TokenFacts, TokenFault, UnverifiedIdentity, VerifiedIdentity};
use crate::workload::{Audience, BearerToken, Caller, ForeignAudience, Pod, ServedAudiences, ServiceAccount};

/// What a token must be.
#[derive(Clone, Debug)]
pub struct Policy {
    mode: VerificationMode,
    has_keys: bool,
    has_given_keys: bool,
    issuers: Vec<Box<str>>,
    /// Of each source of keys, by its number, the one issuer that its keys verify; `None`: any of `issuers`,
    /// and the one that the source names itself.
    issuers_of_keys: Vec<Option<Box<str>>>,
    audiences: ServedAudiences,
    cluster: Arc<str>,
    node: Option<Box<str>>,
}

/// The verdict on a token.
#[derive(Debug)]
pub(super) enum Verdict {
    /// A key proves it.
    Verified(VerifiedIdentity),
    /// It is worth nothing.
    Refused(RefusedToken),
    /// Nothing speaks against it, and no key here can prove it.
    Unproven {
        /// What it says of itself.
        identity: UnverifiedIdentity,
        /// Why no key proves it.
        why: Unproven,
    },
}

/// Why a token that nothing speaks against is not proven.
#[derive(Clone, Debug)]
pub(super) enum Unproven {
    /// There are no keys.
    NoKeys,
    /// The sources may have the key meanwhile.
    KeyUnknown,
    /// It says that it is of this issuer, which is none of `--issuer` and which no source names; no key here
    /// is that issuer's.
    ForeignIssuer(Box<str>),
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
            VerificationMode::Auto | VerificationMode::Required => verification.sources() > 0,
            VerificationMode::Off => false,
        };
        Self {
            mode: verification.mode,
            has_keys,
            has_given_keys: has_keys && !verification.keys.is_empty(),
            issuers: verification.issuers.iter().map(|issuer| issuer.as_str().into()).collect(),
            issuers_of_keys: verification.issuers_of_keys().map(|issuer| issuer.map(Into::into)).collect(),
            audiences: ServedAudiences::default(),
            cluster: cluster.into(),
            node: node.map(Into::into),
        }
    }

    /// The same, of tokens for these audiences.
    #[must_use]
    pub fn serving(self, audiences: ServedAudiences) -> Self {
        Self { audiences, ..self }
    }

    /// Whether an admin has given keys by `--jwks`.
    pub(super) const fn has_given_keys(&self) -> bool {
        self.has_given_keys
    }

    /// What the audiences of a token amount to.
    pub(super) fn audience(&self, audiences: &[Box<str>]) -> Result<Audience, ForeignAudience> {
        self.audiences.meant_by(audiences)
    }

    /// Nothing is verified here.
    pub(super) fn off() -> Self {
        let verification = TokenVerification {
            mode: VerificationMode::Off,
            issuers: Vec::new(),
            api_server: None,
            keys: Vec::new(),
        };
        Self::new(&verification, "", None)
    }

    /// Whether keys of that source may verify tokens of that issuer.
    fn trusts(&self, keys: &KeyTable, source: usize, issuer: &str) -> bool {
        match self.issuers_of_keys.get(source).and_then(Option::as_deref) {
            Some(bound) => bound == issuer,
            None => self.is_given(issuer) || keys.is_issuer_of(source, issuer),
        }
    }

    /// Whether it is one of `--issuer`.
    fn is_given(&self, issuer: &str) -> bool {
        self.issuers.iter().any(|given| **given == *issuer)
    }

    /// All issuers that are accepted, for people.
    pub(super) fn issuers(&self, keys: &KeyTable) -> String {
        let given = self.issuers.iter().map(AsRef::as_ref);
        let named = keys.issuers().filter(|issuer| !self.is_given(issuer));
        given.chain(named).collect::<Vec<_>>().join(", ")
    }

    /// What happens to tokens for this audience that no key can decide.
    pub(super) fn mode_for(&self, audience: &Audience) -> VerificationMode {
        if audience.has_judge() { self.mode } else { VerificationMode::Required }
    }

    /// The verdict on a genuine token of this pod, of which all else was judged.
    pub(super) fn admit(&self, token: TokenFacts, pod: Arc<Pod>) -> Result<VerifiedIdentity, RefusedToken> {
        match (&self.node, &pod.node) {
            (Some(ours), Some(its)) if ours != its => {
                Err(RefusedToken { fault: TokenFault::OtherNode, caller: Caller::Verified(pod) })
            }
            (Some(_) | None, _) => Ok(VerifiedIdentity::proven(token, Arc::clone(&self.cluster), pod)),
        }
    }
}

/// Judges a token: all of it but its times, of which one is decided already if it is [`is_over`].
pub(super) fn verify(token: &BearerToken, keys: &KeyTable, policy: &Policy, now: Now) -> Verdict {
    let claims = match UnverifiedClaims::of(token) {
        Ok(claims) => claims,
        Err(error) => {
            return Verdict::Refused(RefusedToken {
                fault: TokenFault::Unreadable(error),
                caller: Caller::Unknown,
            });
        }
    };
    judge(token, &claims, keys, policy, now)
        .unwrap_or_else(|fault| Verdict::Refused(RefusedToken { fault, caller: claims.caller() }))
}

fn judge(
    token: &BearerToken,
    claims: &UnverifiedClaims,
    keys: &KeyTable,
    policy: &Policy,
    now: Now,
) -> Result<Verdict, TokenFault> {
    if is_over(claims.validity, now) {
        return Err(TokenFault::Expired);
    }
    if policy.mode != VerificationMode::Off && policy.audiences.are_several_in(&claims.audiences) {
        return Err(TokenFault::SeveralAudiences);
    }
    let header = policy.has_keys.then(|| header_of(token)).transpose()?;
    let audience = match policy.audience(&claims.audiences) {
        Ok(audience) => audience,
        Err(foreign) => {
            // Who made this mistake matters only if it is proven: a forger must not speak for a pod.
            let pod = header.and_then(|header| proven_pod(token, &header, claims, keys, policy));
            let caller = pod.map_or_else(|| claims.caller(), |pod| Caller::Verified(Arc::new(pod)));
            let fault = TokenFault::ForeignAudience(foreign);
            return Ok(Verdict::Refused(RefusedToken { fault, caller }));
        }
    };
    let facts = TokenFacts { digest: token.digest(), validity: claims.validity, audience };
    let unproven = |why| {
        let identity = UnverifiedIdentity::claimed(facts.clone(), claims.caller());
        Verdict::Unproven { identity, why }
    };
    let Some(header) = header else { return Ok(unproven(Unproven::NoKeys)) };
    if !policy.is_given(&claims.issuer) && !keys.issuers().any(|named| *named == *claims.issuer) {
        // Like a token of an unknown key: no key speaks against it, and it is more often our --issuer that is
        // wrong (a slash too much) than the token.
        return Ok(unproven(match keys.lacks_issuers() {
            true => Unproven::KeyUnknown,
            false => Unproven::ForeignIssuer(claims.issuer.clone()),
        }));
    }
    if !is_signed(token, &header, &candidates(&header, claims, keys, policy))? {
        return Ok(unproven(Unproven::KeyUnknown));
    }
    // From here on the claims are the issuer's word.
    Ok(match policy.admit(facts.clone(), Arc::new(pod_of(claims)?)) {
        Ok(identity) => Verdict::Verified(identity),
        Err(refused) => Verdict::Refused(refused),
    })
}

/// Whether a token has expired for sure. That is the one thing that times alone decide: a clock that may be
/// wrong decides nothing, and one that seems right may be behind, because the machine was paused and nothing
/// has told it so. A final no to fresh tokens would keep away the very calls that set the clock right.
pub(super) fn is_over(validity: Validity, now: Now) -> bool {
    now.is_confirmed() && validity.check(now.wall) == Err(Untimely::Expired)
}

fn header_of(token: &BearerToken) -> Result<Header, TokenFault> {
    let json = URL_SAFE_NO_PAD
        .decode(token.header().trim_end_matches('='))
        .map_err(|_| TokenFault::Unreadable(UnreadableClaims::NotBase64))?;
    let header: Header = json::object(&json).ok_or(TokenFault::Unreadable(UnreadableClaims::NotClaims))?;
    // No key of any cluster signs like this, known or not: `none` proves nothing, and for an HMAC the
    // verifier would have to hold the secret.
    if header.crit.is_some() || header.alg.eq_ignore_ascii_case("none") || header.alg.starts_with("HS") {
        return Err(TokenFault::Algorithm);
    }
    Ok(header)
}

/// The keys that may prove it: its issuer's with its id.
fn candidates<'a>(
    header: &Header,
    claims: &UnverifiedClaims,
    keys: &'a KeyTable,
    policy: &Policy,
) -> Vec<&'a Entry> {
    let named = header.kid.as_deref().map(|id| keys.find(id)).unwrap_or_default();
    named.iter().filter(|entry| policy.trusts(keys, entry.source, &claims.issuer)).collect()
}

/// The pod of a token that is refused anyway, if a key proves it.
fn proven_pod(
    token: &BearerToken,
    header: &Header,
    claims: &UnverifiedClaims,
    keys: &KeyTable,
    policy: &Policy,
) -> Option<Pod> {
    let is_proven = is_signed(token, header, &candidates(header, claims, keys, policy)) == Ok(true);
    is_proven.then(|| pod_of(claims).ok()).flatten()
}

/// Whether a key proves it. `false`: its key is not known. A known key that does not prove it refutes it. The
/// candidates are its issuer's keys with its id: another issuer's key of the same id decides nothing.
fn is_signed(token: &BearerToken, header: &Header, candidates: &[&Entry]) -> Result<bool, TokenFault> {
    if candidates.is_empty() {
        return Ok(false);
    }
    let algorithm = Algorithm::named(&header.alg).ok_or(TokenFault::Algorithm)?;
    if !candidates.iter().any(|entry| entry.key.is_for(algorithm)) {
        return Err(TokenFault::Algorithm);
    }
    let (signed, signature) = token.signed_and_signature();
    let signature =
        URL_SAFE_NO_PAD.decode(signature.trim_end_matches('=')).map_err(|_| TokenFault::Forged)?;
    let prover = candidates.iter().find(|entry| entry.key.verifies(algorithm, signed.as_bytes(), &signature));
    let prover = prover.ok_or(TokenFault::Forged)?;
    tracing::trace!(token = %token.digest(), key = prover.key.id(), source = prover.source, "token verified");
    Ok(true)
}

/// The pod that a proven token is bound to.
fn pod_of(claims: &UnverifiedClaims) -> Result<Pod, TokenFault> {
    let Some(ClaimedWorkload {
        namespace,
        service_account,
        service_account_uid: Some(service_account_uid),
        pod: Some(pod),
        pod_uid: Some(pod_uid),
        node,
    }) = &claims.workload
    else {
        return Err(TokenFault::NotPodBound);
    };
    if [namespace, service_account, service_account_uid, pod, pod_uid].iter().any(|text| text.is_empty()) {
        return Err(TokenFault::NotPodBound);
    }
    if *claims.subject != *format!("system:serviceaccount:{namespace}:{service_account}") {
        return Err(TokenFault::Contradiction);
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
