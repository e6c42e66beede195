//! Tokens as the kubelet projects them: the claims, the size and the signature are real.
//!
//! Owns: minting. Must not know: who verifies.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::annotations::account_uid;
use crate::issuer::{ISSUER, Issuer};
use crate::source::Source;

/// For whom and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Claims {
    /// The slot of the pod.
    pub slot: u32,
    /// Which pod of its slot.
    pub generation: u32,
    /// The token's number in the story.
    pub number: usize,
    /// From when.
    pub issued_at: SystemTime,
    /// For how long.
    pub life: Duration,
    /// The key that signs it.
    pub key: u32,
    /// For which service.
    pub source: Source,
}

/// A token of about 1.2 KB, as EKS issues them.
pub fn mint(issuer: &Issuer, claims: &Claims) -> String {
    let seconds = |at: SystemTime| at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let Claims { slot, generation, number, issued_at, life, key, source } = *claims;
    let header = serde_json::json!({ "alg": "ES256", "kid": Issuer::name_of(key) });
    let payload = serde_json::json!({
        "aud": [source.audience()],
        "exp": seconds(issued_at + life),
        "iat": seconds(issued_at),
        "nbf": seconds(issued_at),
        "iss": ISSUER,
        "jti": format!("00000000-0000-4000-8000-{number:012}"),
        "kubernetes.io": {
            "namespace": format!("namespace-{slot}"),
            "node": {"name": "ip-192-0-2-1.us-west-2.compute.internal", "uid": "00000000-0000-4000-9000-000000000001"},
            "pod": {"name": format!("pod-{slot}-{generation}"), "uid": format!("00000000-{generation:04}-4000-a000-{slot:012}")},
            "serviceaccount": {"name": "app", "uid": account_uid(slot)},
        },
        "sub": format!("system:serviceaccount:namespace-{slot}:app"),
        // An RSA signature has 256 bytes and this one 64: the rest of the size.
        "padding": "p".repeat(192),
    });
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let signed = format!("{}.{}", part(header.to_string().as_bytes()), part(payload.to_string().as_bytes()));
    format!("{signed}.{}", part(&issuer.sign(key, signed.as_bytes())))
}
