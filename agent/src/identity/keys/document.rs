//! A key document (JWKS, RFC 7517 section 5), bounded.
//!
//! Owns: what a whole document is. Must not know: where it came from. A key that we cannot use is skipped, because a newer
//! Kubernetes publishes kinds that we do not know (facts 2.1: ES512, ML-DSA); one such must not cost us all others.

use std::sync::Arc;

use serde::Deserialize;

use super::key::TokenKey;

/// The longest document read, in bytes: more than 64 of the longest keys.
pub(super) const MAX_DOCUMENT_BYTES: usize = 256 * 1024;
/// The most keys of one document: an issuer has two or three.
const MAX_KEYS: usize = 64;

/// Why a document is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Longer than any.
    #[error("the key document is longer than 256 KiB")]
    TooLong,
    /// Not JSON with a member `keys`; a file that is being written looks like this.
    #[error("the key document is not a JSON Web Key Set")]
    NotKeys,
    /// More keys than any issuer has.
    #[error("the key document has more than 64 keys")]
    TooMany,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

/// Reads the usable keys of a document. There may be none: that withdraws all.
///
/// # Errors
/// [`DocumentError`], when it is not a key document.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<Arc<TokenKey>>, DocumentError> {
    if bytes.len() > MAX_DOCUMENT_BYTES {
        return Err(DocumentError::TooLong);
    }
    let document: Document = serde_json::from_slice(bytes).map_err(|_| DocumentError::NotKeys)?;
    if document.keys.len() > MAX_KEYS {
        return Err(DocumentError::TooMany);
    }
    Ok(document.keys.into_iter().filter_map(TokenKey::read).map(Arc::new).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{DocumentError, MAX_DOCUMENT_BYTES, MAX_KEYS, read};
    use crate::identity::testing::{EcSigner, RsaSigner};

    fn ids(keys: &[Value]) -> Vec<String> {
        let document = json!({ "keys": keys }).to_string();
        read(document.as_bytes()).unwrap().iter().map(|key| key.id().to_owned()).collect()
    }

    fn with(mut jwk: Value, member: &str, value: Value) -> Value {
        jwk[member] = value;
        jwk
    }

    #[test]
    fn keys_of_unknown_kinds_are_skipped_and_the_others_kept() {
        let (rsa, ec) = (RsaSigner::new("rsa").jwk(), EcSigner::new("ec").jwk());
        let skipped = [
            json!({ "kty": "AKP", "kid": "ml-dsa", "alg": "ML-DSA-65", "pub": "AAAA" }),
            json!({ "kty": "oct", "kid": "hmac", "k": "AAAA", "alg": "HS256" }),
            json!({ "kty": "EC", "kid": "p521", "crv": "P-521", "x": "AA", "y": "AA" }),
            json!("not even an object"),
            with(rsa.clone(), "alg", json!("HS256")),
            with(rsa.clone(), "alg", json!("PS256")),
            with(rsa.clone(), "alg", json!("ES256")),
            with(rsa.clone(), "use", json!("enc")),
            with(rsa.clone(), "kid", json!("")),
            with(rsa.clone(), "kid", json!("k".repeat(257))),
            with(rsa.clone(), "n", json!("+")),
            with(ec.clone(), "alg", json!("ES384")),
            with(ec.clone(), "x", ec["y"].clone()),
        ];
        let all: Vec<_> = skipped.into_iter().chain([rsa, ec]).collect();
        assert_eq!(ids(&all), ["rsa", "ec"]);
    }

    #[test]
    fn an_rsa_key_has_2048_to_8192_bits_whatever_zeros_it_begins_with() {
        let of_bits = |bits: usize, zeros: usize| {
            let mut modulus = vec![0; zeros];
            let first = 1_u8 << ((bits - 1) % 8);
            modulus.push(first);
            modulus.resize(zeros + bits.div_ceil(8), 0xff);
            json!({ "kty": "RSA", "kid": "k", "e": "AQAB", "n": crate::identity::testing::encode(&modulus) })
        };
        for (bits, zeros, is_taken) in [
            (1024, 0, false),
            (2047, 0, false),
            (2047, 16, false),
            (2048, 0, true),
            (4096, 1, true),
            (8193, 0, false),
        ] {
            assert_eq!(
                ids(&[of_bits(bits, zeros)]).len(),
                usize::from(is_taken),
                "{bits} bits, {zeros} zeros"
            );
        }
    }

    #[test]
    fn documents_are_bounded_and_half_of_one_is_none() {
        let long = format!(r#"{{"keys":[]{}}}"#, " ".repeat(MAX_DOCUMENT_BYTES));
        assert_eq!(read(long.as_bytes()).unwrap_err(), DocumentError::TooLong);
        let many = json!({ "keys": vec![json!({}); MAX_KEYS + 1] }).to_string();
        assert_eq!(read(many.as_bytes()).unwrap_err(), DocumentError::TooMany);
        let whole = json!({ "keys": [RsaSigner::new("a").jwk()] }).to_string();
        for half in ["", "{", "{}", "[]", &whole[..whole.len() / 2]] {
            assert_eq!(read(half.as_bytes()).unwrap_err(), DocumentError::NotKeys, "{half}");
        }
        assert!(read(br#"{"keys":[]}"#).unwrap().is_empty(), "an issuer may withdraw its last key");
    }
}
