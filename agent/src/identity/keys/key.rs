//! One public key of the cluster, and the algorithms it may be used with.
//!
//! Owns: which keys of a key document (RFC 7517) are usable and which signatures each may verify. Must not
//! know: where the document came from, or what a token claims. The key determines the algorithm, never the
//! token's header: trusting the header made the attacks with `none` and with HS256 (the public key as secret)
//! possible.
//!
//! Signatures are verified with aws-lc-rs, which the agent links anyway. jsonwebtoken would add only its
//! pitfalls: claims that are optional by default, and a panic at run time when two of its backends are linked
//! (docs/design/facts.md#jsonwebtoken).

use std::fmt;

use aws_lc_rs::signature::{self, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::identity::json::Object;

/// The longest key id: those of EKS have 40 bytes, those of file keys 43 (docs/design/facts.md#tokens).
const MAX_ID_BYTES: usize = 256;
/// RSA key sizes in bits: NIST SP 800-131A requires 2048, and aws-lc-rs supports no more than 8192.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// A signature algorithm. `none` and the HMACs have no variant, so no token can select them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::identity) enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// The same with SHA-384.
    Rs384,
    /// The same with SHA-512.
    Rs512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
}

/// A public key. Two are equal if they have the same id and verify the same signatures.
pub(in crate::identity) struct TokenKey {
    id: Box<str>,
    /// One entry per algorithm that the key may be used with; not empty.
    verifiers: Vec<(Algorithm, ParsedPublicKey)>,
}

/// The members of a key that are used here.
#[derive(Deserialize)]
struct Jwk {
    kty: Box<str>,
    kid: Box<str>,
    #[serde(rename = "use")]
    usage: Option<Box<str>>,
    alg: Option<Box<str>>,
    n: Option<Box<str>>,
    e: Option<Box<str>>,
    crv: Option<Box<str>>,
    x: Option<Box<str>>,
    y: Option<Box<str>>,
}

impl Algorithm {
    /// The algorithm of that name (RFC 7518 section 3.1); `None` for those that are not supported.
    pub(in crate::identity) fn named(name: &str) -> Option<Self> {
        match name {
            "RS256" => Some(Self::Rs256),
            "RS384" => Some(Self::Rs384),
            "RS512" => Some(Self::Rs512),
            "ES256" => Some(Self::Es256),
            "ES384" => Some(Self::Es384),
            _ => None,
        }
    }

    fn rsa(self) -> Option<&'static RsaParameters> {
        match self {
            Self::Rs256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
            Self::Rs384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
            Self::Rs512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
            Self::Es256 | Self::Es384 => None,
        }
    }
}

impl TokenKey {
    /// The key in one element of `keys`. `None`: of an unknown type, for another use, too weak or malformed.
    pub(super) fn read(member: serde_json::Value) -> Option<Self> {
        let Object(jwk): Object<Jwk> = serde_json::from_value(member).ok()?;
        let is_for_signatures = jwk.usage.as_deref().is_none_or(|usage| usage == "sig");
        if !is_for_signatures || jwk.kid.is_empty() || jwk.kid.len() > MAX_ID_BYTES {
            return None;
        }
        let verifiers = match &*jwk.kty {
            "RSA" => rsa_verifiers(&jwk)?,
            "EC" => ec_verifiers(&jwk)?,
            _ => return None,
        };
        Some(Self { id: jwk.kid, verifiers })
    }

    /// Its id (`kid`) in token headers.
    pub(in crate::identity) fn id(&self) -> &str {
        &self.id
    }

    /// Whether it may verify signatures of this algorithm.
    pub(in crate::identity) fn is_for(&self, algorithm: Algorithm) -> bool {
        self.verifiers.iter().any(|(own, _)| *own == algorithm)
    }

    /// Whether it made this signature.
    pub(in crate::identity) fn verifies(
        &self,
        algorithm: Algorithm,
        signed: &[u8],
        signature: &[u8],
    ) -> bool {
        let verifier = self.verifiers.iter().find(|(own, _)| *own == algorithm);
        verifier.is_some_and(|(_, key)| key.verify_sig(signed, signature).is_ok())
    }
}

impl PartialEq for TokenKey {
    fn eq(&self, other: &Self) -> bool {
        let parts = |key: &Self| -> Vec<_> {
            key.verifiers.iter().map(|(algorithm, key)| (*algorithm, key.as_ref().to_vec())).collect()
        };
        self.id == other.id && parts(self) == parts(other)
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKey({})", self.id)
    }
}

fn rsa_verifiers(jwk: &Jwk) -> Option<Vec<(Algorithm, ParsedPublicKey)>> {
    let modulus = decode(jwk.n.as_deref()?)?;
    // Leading zeros add no strength.
    let significant = modulus.iter().position(|byte| *byte != 0)?;
    let n = modulus.get(significant..)?;
    let bits = n.len() * 8 - usize::try_from(n.first()?.leading_zeros()).ok()?;
    if !RSA_BITS.contains(&bits) {
        return None;
    }
    let e = decode(jwk.e.as_deref()?)?;
    if !is_exponent(&e) {
        return None;
    }
    let algorithms = match jwk.alg.as_deref() {
        None => vec![Algorithm::Rs256, Algorithm::Rs384, Algorithm::Rs512],
        Some(name) => vec![Algorithm::named(name)?],
    };
    let verifier = |algorithm: Algorithm| {
        let components = RsaPublicKeyComponents { n, e: &e };
        Some((algorithm, components.to_parsed_public_key(algorithm.rsa()?).ok()?))
    };
    algorithms.into_iter().map(verifier).collect()
}

/// Whether a number is odd and at least 3: an even exponent is none of RSA's (RFC 8017, 3.1), and with 1
/// every message is its own signature.
fn is_exponent(e: &[u8]) -> bool {
    let is_one = e.split_last().is_some_and(|(last, rest)| *last == 1 && rest.iter().all(|byte| *byte == 0));
    e.last().is_some_and(|last| last % 2 == 1) && !is_one
}

fn ec_verifiers(jwk: &Jwk) -> Option<Vec<(Algorithm, ParsedPublicKey)>> {
    let (algorithm, name, parameters, length) = match jwk.crv.as_deref()? {
        "P-256" => (Algorithm::Es256, "ES256", &signature::ECDSA_P256_SHA256_FIXED, 32),
        "P-384" => (Algorithm::Es384, "ES384", &signature::ECDSA_P384_SHA384_FIXED, 48),
        _ => return None,
    };
    if jwk.alg.as_deref().is_some_and(|alg| alg != name) {
        return None;
    }
    let (x, y) = (decode(jwk.x.as_deref()?)?, decode(jwk.y.as_deref()?)?);
    if x.len() != length || y.len() != length {
        return None;
    }
    // SEC 1, 2.3.3: an uncompressed point. Parsing checks that it lies on the curve.
    let point = [&[4], x.as_slice(), y.as_slice()].concat();
    Some(vec![(algorithm, ParsedPublicKey::new(parameters, point).ok()?)])
}

fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()
}
