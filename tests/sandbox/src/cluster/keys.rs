//! The keys that sign service account tokens, and which of them the issuer publishes.
//!
//! Owns: keys and their kinds, their ids, rotation. Must not know: what a token says.

use std::collections::BTreeSet;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{self, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use serde_json::{Value, json};
use thiserror::Error;

use crate::random;

/// A key could not be made or would not sign.
#[derive(Clone, Copy, Debug, Error)]
#[error("the key could not be made or used")]
pub struct KeyError;

impl From<aws_lc_rs::error::Unspecified> for KeyError {
    fn from(_: aws_lc_rs::error::Unspecified) -> Self {
        Self
    }
}

/// Who names the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// EKS: 40 lower-case hex digits (docs/design/facts.md#tokens).
    Eks,
    /// An API server that is given the key as a file: the SHA-256 of its public half in DER
    /// (k/k pkg/serviceaccount/jwt.go, keyIDFromPublicKey).
    Kubernetes,
}

/// What a key is made of, and so how it signs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA of 2048 bits, the size EKS uses: RS256.
    #[default]
    Rsa,
    /// The elliptic curve P-256: ES256.
    P256,
    /// The elliptic curve P-384: ES384.
    P384,
}

impl KeyKind {
    /// Its name in headers and documents (RFC 7518).
    const fn algorithm(self) -> &'static str {
        match self {
            Self::Rsa => "RS256",
            Self::P256 => "ES256",
            Self::P384 => "ES384",
        }
    }
}

#[derive(Debug)]
enum Pair {
    Rsa(Box<KeyPair>),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
}

/// One key.
#[derive(Debug)]
pub(crate) struct SigningKey {
    /// As the ring's naming has it.
    pub(crate) kid: String,
    pair: Pair,
}

impl SigningKey {
    fn generate(naming: Naming, kind: KeyKind) -> Result<Self, KeyError> {
        let pair = match kind {
            KeyKind::Rsa => Pair::Rsa(Box::new(KeyPair::generate(KeySize::Rsa2048)?)),
            KeyKind::P256 => Pair::P256(EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING)?),
            KeyKind::P384 => Pair::P384(EcdsaKeyPair::generate(&signature::ECDSA_P384_SHA384_FIXED_SIGNING)?),
        };
        let kid = match naming {
            Naming::Eks => random::hex(&random::bytes(20)),
            Naming::Kubernetes => URL_SAFE_NO_PAD.encode(digest(&SHA256, &pair.public_der()?)),
        };
        Ok(Self { kid, pair })
    }

    /// How it signs, as a token's header names it.
    pub(crate) const fn algorithm(&self) -> &'static str {
        self.pair.kind().algorithm()
    }

    /// The private key as PKCS#8 in PEM, for somebody else who signs in the issuer's name.
    pub(crate) fn pem(&self) -> Result<String, KeyError> {
        let der: Pkcs8V1Der<'_> = match &self.pair {
            Pair::Rsa(pair) => pair.as_der()?,
            // No cluster of ours is given one.
            Pair::P256(_) | Pair::P384(_) => return Err(KeyError),
        };
        let encoded = STANDARD.encode(der.as_ref());
        // RFC 7468: lines of 64 characters.
        let lines: Vec<_> = encoded.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        Ok(format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n")))
    }

    /// The signature of `message`.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signed = vec![0; pair.public_modulus_len()];
                pair.sign(&signature::RSA_PKCS1_SHA256, &random, message, &mut signed)?;
                Ok(signed)
            }
            Pair::P256(pair) | Pair::P384(pair) => Ok(pair.sign(&random, message)?.as_ref().to_vec()),
        }
    }

    /// Whether `signed` is the signature of `message` by this key.
    pub(crate) fn verifies(&self, message: &[u8], signed: &[u8]) -> bool {
        let verification: &'static dyn signature::VerificationAlgorithm = match self.pair {
            Pair::Rsa(_) => &signature::RSA_PKCS1_2048_8192_SHA256,
            Pair::P256(_) => &signature::ECDSA_P256_SHA256_FIXED,
            Pair::P384(_) => &signature::ECDSA_P384_SHA384_FIXED,
        };
        let Ok(public) = self.pair.public_der() else { return false };
        UnparsedPublicKey::new(verification, public).verify(message, signed).is_ok()
    }

    fn jwk(&self) -> Value {
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match &self.pair {
            Pair::Rsa(pair) => {
                let public = pair.public_key();
                json!({
                    "kty": "RSA",
                    "e": part(public.exponent().big_endian_without_leading_zero()),
                    "n": part(public.modulus().big_endian_without_leading_zero()),
                })
            }
            Pair::P256(pair) | Pair::P384(pair) => {
                // SEC 1, 2.3.3: 4, then both coordinates.
                let point = pair.public_key().as_ref().get(1..).unwrap_or_default();
                let (x, y) = point.split_at(point.len() / 2);
                let curve = if matches!(self.pair, Pair::P256(_)) { "P-256" } else { "P-384" };
                json!({ "kty": "EC", "crv": curve, "x": part(x), "y": part(y) })
            }
        };
        if let Some(jwk) = jwk.as_object_mut() {
            jwk.extend([
                ("use".to_owned(), json!("sig")),
                ("kid".to_owned(), json!(self.kid)),
                ("alg".to_owned(), json!(self.algorithm())),
            ]);
        }
        jwk
    }
}

impl Pair {
    const fn kind(&self) -> KeyKind {
        match self {
            Self::Rsa(_) => KeyKind::Rsa,
            Self::P256(_) => KeyKind::P256,
            Self::P384(_) => KeyKind::P384,
        }
    }

    /// The public half, as X.509 has it.
    fn public_der(&self) -> Result<Vec<u8>, KeyError> {
        let der: PublicKeyX509Der<'_> = match self {
            Self::Rsa(pair) => pair.public_key().as_der()?,
            Self::P256(pair) | Self::P384(pair) => pair.public_key().as_der()?,
        };
        Ok(der.as_ref().to_vec())
    }
}

#[derive(Debug)]
struct Ring {
    naming: Naming,
    current: Arc<SigningKey>,
    /// Older keys that are still published.
    kept: Vec<Arc<SigningKey>>,
    /// The next one, which is published and does not sign yet.
    next: Option<Arc<SigningKey>>,
    /// Keys of somebody else that stand in the document too.
    beside: Vec<Value>,
    /// A key that was never published; made when first asked for.
    stray: Option<Arc<SigningKey>>,
}

/// The issuer's keys.
#[derive(Debug)]
pub(crate) struct Keys(Mutex<Ring>);

impl Keys {
    /// One fresh key.
    pub(crate) fn generate(naming: Naming) -> Result<Self, KeyError> {
        let current = Arc::new(SigningKey::generate(naming, KeyKind::Rsa)?);
        let (kept, next, beside, stray) = (Vec::new(), None, Vec::new(), None);
        Ok(Self(Mutex::new(Ring { naming, current, kept, next, beside, stray })))
    }

    /// The key that signs.
    pub(crate) fn current(&self) -> Arc<SigningKey> {
        Arc::clone(&self.0.lock().current)
    }

    /// A key of somebody else, always the same.
    pub(crate) fn stray(&self) -> Result<Arc<SigningKey>, KeyError> {
        if let Some(stray) = &self.0.lock().stray {
            return Ok(Arc::clone(stray));
        }
        let made = Arc::new(SigningKey::generate(Naming::Eks, KeyKind::Rsa)?);
        Ok(Arc::clone(self.0.lock().stray.get_or_insert(made)))
    }

    /// Publishes the key that the next rotation signs with.
    pub(crate) fn publish_next(&self, kind: KeyKind) -> Result<String, KeyError> {
        let naming = self.0.lock().naming;
        let next = Arc::new(SigningKey::generate(naming, kind)?);
        let kid = next.kid.clone();
        self.0.lock().next = Some(next);
        Ok(kid)
    }

    /// Publishes these before our own.
    pub(crate) fn publish_beside(&self, others: Vec<Value>) {
        self.0.lock().beside = others;
    }

    /// Signs with the next key from now on, or with a new one if none was published; the old one stays
    /// published, or all old ones are withdrawn.
    pub(crate) fn rotate(&self, withdraw_old: bool) -> Result<String, KeyError> {
        let (naming, next) = {
            let mut ring = self.0.lock();
            (ring.naming, ring.next.take())
        };
        let new = match next {
            Some(next) => next,
            None => Arc::new(SigningKey::generate(naming, KeyKind::Rsa)?),
        };
        let kid = new.kid.clone();
        let mut ring = self.0.lock();
        let old = std::mem::replace(&mut ring.current, new);
        if withdraw_old {
            ring.kept.clear();
        } else {
            ring.kept.push(old);
        }
        Ok(kid)
    }

    /// The published key of that id.
    pub(crate) fn published(&self, kid: &str) -> Option<Arc<SigningKey>> {
        let ring = self.0.lock();
        ring.published().find(|key| key.kid == kid).cloned()
    }

    /// The key document (RFC 7517), newest key first.
    pub(crate) fn document(&self) -> Value {
        let ring = self.0.lock();
        let keys: Vec<_> = ring.beside.iter().cloned().chain(ring.published().map(|key| key.jwk())).collect();
        json!({ "keys": keys })
    }

    /// The algorithms of the published keys.
    pub(crate) fn algorithms(&self) -> BTreeSet<&'static str> {
        self.0.lock().published().map(|key| key.algorithm()).collect()
    }
}

impl Ring {
    /// Our own, newest first.
    fn published(&self) -> impl Iterator<Item = &Arc<SigningKey>> {
        self.next.iter().chain([&self.current]).chain(self.kept.iter().rev())
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::RsaPublicKeyComponents;

    use super::*;

    #[test]
    fn what_the_document_publishes_verifies_what_the_key_signs() {
        let keys = Keys::generate(Naming::Eks).unwrap();
        let signed = keys.current().sign(b"message").unwrap();
        let document = keys.document();
        let part = |name: &str| URL_SAFE_NO_PAD.decode(document["keys"][0][name].as_str().unwrap()).unwrap();
        let public = RsaPublicKeyComponents { n: part("n"), e: part("e") };
        let verify = |message: &[u8]| public.verify(&signature::RSA_PKCS1_2048_8192_SHA256, message, &signed);
        assert!(verify(b"message").is_ok());
        assert!(verify(b"massage").is_err());
        assert!(
            keys.current().verifies(b"message", &signed) && !keys.current().verifies(b"massage", &signed)
        );
        assert_eq!((part("n").len(), part("e")), (256, vec![1, 0, 1]));
    }

    #[test]
    fn keys_of_every_kind_verify_what_they_sign_and_say_how() {
        let keys = Keys::generate(Naming::Eks).unwrap();
        for (kind, algorithm, length) in
            [(KeyKind::Rsa, "RS256", 256), (KeyKind::P256, "ES256", 64), (KeyKind::P384, "ES384", 96)]
        {
            let next = keys.publish_next(kind).unwrap();
            assert!(keys.published(&next).is_some(), "published before it signs");
            assert_ne!(keys.current().kid, next);
            assert_eq!(keys.rotate(true).unwrap(), next);
            let key = keys.current();
            let signed = key.sign(b"message").unwrap();
            assert_eq!((key.algorithm(), signed.len()), (algorithm, length));
            assert!(key.verifies(b"message", &signed) && !key.verifies(b"massage", &signed), "{kind:?}");
            assert_eq!(keys.document()["keys"][0]["alg"], algorithm);
            assert_eq!(keys.algorithms(), BTreeSet::from([algorithm]));
        }
        keys.publish_beside(vec![json!({ "kty": "AKP", "kid": "other" })]);
        assert_eq!(keys.document()["keys"][0]["kty"], "AKP");
    }

    #[test]
    fn rotation_keeps_or_withdraws_the_old_key() {
        let keys = Keys::generate(Naming::Eks).unwrap();
        let first = keys.current().kid.clone();
        let second = keys.rotate(false).unwrap();
        assert!(keys.published(&first).is_some() && keys.published(&second).is_some());
        let third = keys.rotate(true).unwrap();
        assert!(keys.published(&first).is_none() && keys.published(&second).is_none());
        assert_eq!(keys.document()["keys"].as_array().unwrap().len(), 1);
        assert_eq!(keys.current().kid, third);
        assert!(third.len() == 40 && third.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
        assert!(keys.published(&keys.stray().unwrap().kid).is_none());
    }
}
