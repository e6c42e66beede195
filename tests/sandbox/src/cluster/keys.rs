//! The keys that sign service account tokens, and which of them the issuer publishes.
//!
//! Owns: RSA keys, their ids, rotation. Must not know: what a token says.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{self, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use serde_json::{Value, json};
use thiserror::Error;

use crate::random;

/// A key could not be made or would not sign.
#[derive(Clone, Copy, Debug, Error)]
#[error("the RSA key could not be made or used")]
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

/// One RSA key of 2048 bits, the size EKS uses.
#[derive(Debug)]
pub(crate) struct SigningKey {
    /// As the ring's naming has it.
    pub(crate) kid: String,
    pair: KeyPair,
}

impl SigningKey {
    fn generate(naming: Naming) -> Result<Self, KeyError> {
        let pair = KeyPair::generate(KeySize::Rsa2048)?;
        let kid = match naming {
            Naming::Eks => random::hex(&random::bytes(20)),
            Naming::Kubernetes => {
                let public: PublicKeyX509Der<'_> = pair.public_key().as_der()?;
                URL_SAFE_NO_PAD.encode(digest(&SHA256, public.as_ref()))
            }
        };
        Ok(Self { kid, pair })
    }

    /// The private key as PKCS#8 in PEM, for somebody else who signs in the issuer's name.
    pub(crate) fn pem(&self) -> Result<String, KeyError> {
        let der: Pkcs8V1Der<'_> = self.pair.as_der()?;
        let encoded = STANDARD.encode(der.as_ref());
        // RFC 7468: lines of 64 characters.
        let lines: Vec<_> = encoded.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        Ok(format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n")))
    }

    /// The RS256 signature of `message`.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let mut signed = vec![0; self.pair.public_modulus_len()];
        self.pair.sign(&signature::RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signed)?;
        Ok(signed)
    }

    /// Whether `signed` is the RS256 signature of `message` by this key.
    pub(crate) fn verifies(&self, message: &[u8], signed: &[u8]) -> bool {
        let Ok(public) = self.pair.public_key().as_der() else { return false };
        UnparsedPublicKey::new(&signature::RSA_PKCS1_2048_8192_SHA256, public.as_ref())
            .verify(message, signed)
            .is_ok()
    }

    fn jwk(&self) -> Value {
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let public = self.pair.public_key();
        json!({
            "kty": "RSA",
            "e": part(public.exponent().big_endian_without_leading_zero()),
            "use": "sig",
            "kid": self.kid,
            "alg": "RS256",
            "n": part(public.modulus().big_endian_without_leading_zero()),
        })
    }
}

#[derive(Debug)]
struct Ring {
    naming: Naming,
    current: Arc<SigningKey>,
    /// Older keys that are still published.
    kept: Vec<Arc<SigningKey>>,
    /// A key that was never published; made when first asked for.
    stray: Option<Arc<SigningKey>>,
}

/// The issuer's keys.
#[derive(Debug)]
pub(crate) struct Keys(Mutex<Ring>);

impl Keys {
    /// One fresh key.
    pub(crate) fn generate(naming: Naming) -> Result<Self, KeyError> {
        let current = Arc::new(SigningKey::generate(naming)?);
        Ok(Self(Mutex::new(Ring { naming, current, kept: Vec::new(), stray: None })))
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
        let made = Arc::new(SigningKey::generate(Naming::Eks)?);
        Ok(Arc::clone(self.0.lock().stray.get_or_insert(made)))
    }

    /// Signs with a new key from now on; the old one stays published, or all old ones are withdrawn.
    pub(crate) fn rotate(&self, withdraw_old: bool) -> Result<String, KeyError> {
        let naming = self.0.lock().naming;
        let new = Arc::new(SigningKey::generate(naming)?);
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
        ring.kept.iter().chain([&ring.current]).find(|key| key.kid == kid).cloned()
    }

    /// The key document (RFC 7517), newest key first.
    pub(crate) fn document(&self) -> Value {
        let ring = self.0.lock();
        let keys: Vec<_> =
            [&ring.current].into_iter().chain(ring.kept.iter().rev()).map(|key| key.jwk()).collect();
        json!({ "keys": keys })
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
