//! Keys that sign, and tokens that are wrong in one point. For this folder's tests only.

use std::net::Ipv4Addr;
use std::time::{Duration, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{self, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::clock::{BootTime, Now};
use crate::config::{ApiServer, KeyLocation, TokenVerification, VerificationMode};
use crate::identity::{Authenticator, Policy};
use crate::workload::{BearerToken, PeerKey};

use super::keys::TokenKeys;

pub(super) const ISSUER: &str = "https://oidc.eks.us-west-2.amazonaws.com/id/EXAMPLE";
/// When the tests happen, in seconds since the epoch.
pub(super) const NOW: u64 = 1_800_000_000;

/// A peer that is a pod.
pub(super) fn pod() -> PeerKey {
    PeerKey::new(Ipv4Addr::new(10, 0, 0, 1).into(), 1)
}

pub(super) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The tests' moment, by AWS's time.
pub(super) fn now() -> Now {
    after(Duration::ZERO)
}

/// So long after it.
pub(super) fn after(time: Duration) -> Now {
    let wall = UNIX_EPOCH + Duration::from_secs(NOW) + time;
    Now::confirmed(wall, BootTime::from_boot(Duration::from_secs(1000) + time))
}

pub(super) fn bearer(text: &str) -> BearerToken {
    BearerToken::from_header(text.as_bytes()).unwrap()
}

/// Signs any bytes.
pub(super) trait Signer {
    fn id(&self) -> &str;
    fn algorithm(&self) -> &str;
    fn sign(&self, message: &[u8]) -> Vec<u8>;
    fn jwk(&self) -> Value;

    fn token(&self, claims: &Value) -> BearerToken {
        self.token_with(&json!({ "alg": self.algorithm(), "kid": self.id() }), claims)
    }

    fn token_with(&self, header: &Value, claims: &Value) -> BearerToken {
        let signed =
            format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
        let signature = self.sign(signed.as_bytes());
        bearer(&format!("{signed}.{}", encode(&signature)))
    }
}

/// An RSA key of 2048 bits; RS256 unless told otherwise.
pub(super) struct RsaSigner {
    id: String,
    pair: RsaKeyPair,
}

/// An EC key, on P-256 unless told otherwise.
pub(super) struct EcSigner {
    id: String,
    pair: EcdsaKeyPair,
    curve: &'static str,
}

impl RsaSigner {
    pub(super) fn new(id: &str) -> Self {
        Self { id: id.to_owned(), pair: RsaKeyPair::generate(KeySize::Rsa2048).unwrap() }
    }

    pub(super) fn sign_with(&self, padding: &'static dyn signature::RsaEncoding, message: &[u8]) -> Vec<u8> {
        let mut signed = vec![0; self.pair.public_modulus_len()];
        self.pair.sign(padding, &SystemRandom::new(), message, &mut signed).unwrap();
        signed
    }

    pub(super) fn modulus(&self) -> Vec<u8> {
        self.pair.public_key().modulus().big_endian_without_leading_zero().to_vec()
    }

    pub(super) fn jwk(&self) -> Value {
        Signer::jwk(self)
    }
}

impl EcSigner {
    pub(super) fn new(id: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self { id: id.to_owned(), pair, curve: "P-256" }
    }

    pub(super) fn p384(id: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&signature::ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        Self { id: id.to_owned(), pair, curve: "P-384" }
    }

    pub(super) fn jwk(&self) -> Value {
        Signer::jwk(self)
    }
}

impl Signer for RsaSigner {
    fn id(&self) -> &str {
        &self.id
    }

    fn algorithm(&self) -> &str {
        "RS256"
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.sign_with(&signature::RSA_PKCS1_SHA256, message)
    }

    fn jwk(&self) -> Value {
        json!({ "kty": "RSA", "kid": self.id, "e": "AQAB", "n": encode(&self.modulus()) })
    }
}

impl Signer for EcSigner {
    fn id(&self) -> &str {
        &self.id
    }

    fn algorithm(&self) -> &str {
        if self.curve == "P-384" { "ES384" } else { "ES256" }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
    }

    fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        let (x, y) = point[1..].split_at(point.len() / 2);
        json!({ "kty": "EC", "kid": self.id, "crv": self.curve, "x": encode(x), "y": encode(y) })
    }
}

/// The claims of a good token of pod `p` (uid `p-uid`) on node `node-1`, an hour long.
pub(super) fn good_claims() -> Value {
    json!({
        "iss": ISSUER,
        "aud": ["pods.eks.amazonaws.com"],
        "sub": "system:serviceaccount:ns:sa",
        "exp": NOW + 3600,
        "nbf": NOW,
        "kubernetes.io": {
            "namespace": "ns",
            "serviceaccount": { "name": "sa", "uid": "sa-uid" },
            "pod": { "name": "p", "uid": "p-uid" },
            "node": { "name": "node-1", "uid": "n-uid" },
        },
    })
}

/// The good claims with one of them changed; `path` as in a JSON pointer.
pub(super) fn claims_with(path: &str, value: Value) -> Value {
    let mut claims = good_claims();
    *claims.pointer_mut(path).unwrap() = value;
    claims
}

/// On `node-1`, with one source that has these keys.
pub(super) fn authenticator(mode: VerificationMode, jwks: &[Value]) -> (Authenticator, TokenKeys) {
    let keys = TokenKeys::of_sources(1);
    keys.replace(0, &json!({ "keys": jwks }));
    (authenticator_of(mode, &keys), keys)
}

/// On `node-1`, with these keys.
pub(super) fn authenticator_of(mode: VerificationMode, keys: &TokenKeys) -> Authenticator {
    authenticator_with(mode, &[ISSUER], &["/keys"], keys)
}

/// On `node-1`, with the keys of the API server, which names its issuer, and these issuers beside it.
pub(super) fn authenticator_of_api_server(
    mode: VerificationMode,
    issuers: &[&str],
    keys: &TokenKeys,
) -> Authenticator {
    let api_server = ApiServer {
        url: "https://10.0.0.1".to_owned(),
        token_file: "/token".into(),
        ca_file: "/ca.crt".into(),
    };
    let verification = TokenVerification {
        mode,
        issuers: issuers.iter().map(|&issuer| issuer.to_owned()).collect(),
        api_server: Some(api_server),
        keys: Vec::new(),
    };
    keys.await_issuer(0);
    Authenticator::new(keys.clone(), Policy::new(&verification, "cluster", Some("node-1")))
}

/// On `node-1`, with these issuers, and keys that come from these places.
pub(super) fn authenticator_with(
    mode: VerificationMode,
    issuers: &[&str],
    places: &[&str],
    keys: &TokenKeys,
) -> Authenticator {
    let place = |&place: &&str| {
        if place.starts_with('/') {
            KeyLocation::File(place.into())
        } else {
            KeyLocation::Url(place.to_owned())
        }
    };
    let verification = TokenVerification {
        mode,
        issuers: issuers.iter().map(|&issuer| issuer.to_owned()).collect(),
        api_server: None,
        keys: places.iter().map(place).collect(),
    };
    Authenticator::new(keys.clone(), Policy::new(&verification, "cluster", Some("node-1")))
}
