//! A key document (JWKS, RFC 7517 section 5) of limited size.
//!
//! Owns: what a valid document is. Must not know: where it came from. A key that the agent cannot use is
//! skipped: newer Kubernetes versions publish key types that it does not know (docs/design/facts.md#tokens:
//! ES512, ML-DSA), and one of those must not make the other keys unusable.

#[cfg(any(test, fuzzing))]
pub(crate) mod properties;

use std::sync::Arc;

use serde::Deserialize;

use super::key::TokenKey;
use crate::identity::json;

/// The longest document that is read: more than 64 of the longest keys.
pub(super) const MAX_DOCUMENT_BYTES: usize = 256 * 1024;
/// The largest number of keys in a document: an issuer has two or three.
const MAX_KEYS: usize = 64;

/// Why a document is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// It is longer than the limit.
    #[error("the key document is longer than {} KiB", MAX_DOCUMENT_BYTES / 1024)]
    TooLong,
    /// It is not JSON with a member `keys`. A file that is being written looks like this.
    #[error("the key document is not a JSON Web Key Set")]
    NotKeys,
    /// It has more keys than the limit.
    #[error("the key document has more than {MAX_KEYS} keys")]
    TooMany,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

/// Reads the usable keys of a document. A document without keys withdraws all.
///
/// # Errors
/// [`DocumentError`], when it is not a valid key document.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<Arc<TokenKey>>, DocumentError> {
    if bytes.len() > MAX_DOCUMENT_BYTES {
        return Err(DocumentError::TooLong);
    }
    let document: Document = json::object(bytes).ok_or(DocumentError::NotKeys)?;
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
    fn keys_of_unknown_types_are_skipped_and_the_others_kept() {
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
    fn an_rsa_key_has_2048_to_8192_bits_not_counting_leading_zeros() {
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
    fn documents_are_limited_in_size_and_half_of_one_is_invalid() {
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
