//! What is true of every key document, whatever its bytes.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::{DocumentError, read};
use crate::identity::keys::key::{Algorithm, TokenKey};

/// The longest document in bytes, and the most keys of one.
const LONGEST: usize = 256 * 1024;
const MOST_KEYS: usize = 64;
const ALGORITHMS: [(Algorithm, &str, &str); 5] = [
    (Algorithm::Rs256, "RS256", "RSA"),
    (Algorithm::Rs384, "RS384", "RSA"),
    (Algorithm::Rs512, "RS512", "RSA"),
    (Algorithm::Es256, "ES256", "EC"),
    (Algorithm::Es384, "ES384", "EC"),
];

/// A document is a JSON object with an array `keys` or nothing. Its keys are those of the array, in order,
/// and each is strong enough, meant for signatures, and good for no algorithm but its own.
pub(crate) fn of_document(bytes: &[u8]) {
    let json: Result<Value, _> = serde_json::from_slice(bytes);
    let given = json.as_ref().ok().and_then(|json| json.get("keys")?.as_array());
    match read(bytes) {
        Ok(keys) => {
            let mut rest = given.into_iter().flatten();
            assert!(bytes.len() <= LONGEST && given.is_some_and(|given| given.len() <= MOST_KEYS));
            for key in keys {
                let origin = rest.find(|member| is_from(&key, member));
                assert!(origin.is_some(), "{key:?} is none of the document's, or out of order");
                verifies_nothing_by_chance(&key);
            }
        }
        Err(DocumentError::TooLong) => assert!(bytes.len() > LONGEST),
        Err(DocumentError::TooMany) => assert!(given.is_some_and(|given| given.len() > MOST_KEYS)),
        // A member that stands twice is none of JSON's business, and an error here.
        Err(DocumentError::NotKeys) => assert!(given.is_none() || has_twice(bytes, "\"keys\"")),
    }
}

/// Whether this key may have come from this member.
fn is_from(key: &TokenKey, member: &Value) -> bool {
    let text = |name: &str| member[name].as_str();
    let is_for_signatures = member["use"].is_null() || text("use") == Some("sig");
    let is_named = text("kid").is_some_and(|kid| kid == key.id() && (1..=256).contains(&kid.len()));
    let are_its_own =
        ALGORITHMS.iter().filter(|(algorithm, _, _)| key.is_for(*algorithm)).all(|(_, name, kind)| {
            text("kty") == Some(*kind) && (member["alg"].is_null() || text("alg") == Some(*name))
        });
    let is_strong = match text("kty") {
        Some("RSA") => {
            bytes_of(member, "n").is_some_and(|n| (2_048..=8_192).contains(&bits(&n))) && {
                // With an exponent of 1 every signature is its own message.
                bytes_of(member, "e")
                    .is_some_and(|e| bits(&e) > 1 && e.last().is_some_and(|last| last % 2 == 1))
            }
        }
        Some("EC") => matches!(text("crv"), Some("P-256" | "P-384")),
        Some(_) | None => false,
    };
    is_for_signatures && is_named && are_its_own && is_strong
}

fn bytes_of(member: &Value, name: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(member[name].as_str()?.trim_end_matches('=')).ok()
}

/// How many binary digits a number has.
fn bits(number: &[u8]) -> usize {
    let digits: Vec<bool> =
        number.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1)).collect();
    digits.iter().position(|digit| *digit).map_or(0, |first| digits.len() - first)
}

fn verifies_nothing_by_chance(key: &TokenKey) {
    for (algorithm, name, _) in ALGORITHMS {
        for signature in [&[] as &[u8], &[0; 64], &[0; 96], &[0; 256], &[1; 256], b"message"] {
            assert!(!key.verifies(algorithm, b"message", signature), "{key:?} verifies {name}");
        }
    }
}

fn has_twice(bytes: &[u8], word: &str) -> bool {
    let text = String::from_utf8_lossy(bytes);
    text.matches(word).count() > 1 || text.contains("\\u")
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::of_document;
    use crate::identity::testing::{EcSigner, RsaSigner, encode};

    /// Real keys, as making one takes longer than all the rest.
    static KEYS: LazyLock<[Value; 2]> =
        LazyLock::new(|| [RsaSigner::new("rsa").jwk(), EcSigner::new("ec").jwk()]);

    /// A real key of which one member may be another.
    fn a_key() -> impl Strategy<Value = Value> {
        let names = ["kty", "kid", "use", "alg", "n", "e", "crv", "x", "y"];
        let value = prop_oneof![
            prop::sample::select(vec!["RSA", "EC", "oct", "sig", "enc", "P-256", "P-384", "P-521", ""])
                .prop_map(Value::from),
            prop::sample::select(vec!["none", "HS256", "RS256", "RS512", "ES256", "ES384"])
                .prop_map(Value::from),
            prop::sample::select(vec![1_u8, 2, 3, 4]).prop_map(|exponent| Value::from(encode(&[exponent]))),
            (250_usize..262, any::<u8>(), any::<u8>()).prop_map(|(length, first, rest)| {
                let mut number = vec![rest | 1; length];
                number[0] = first;
                Value::from(encode(&number))
            }),
            "\\PC{0,5}".prop_map(Value::from),
            Just(Value::Null),
            any::<u8>().prop_map(Value::from),
        ];
        let change = (prop::sample::select(names.to_vec()), value);
        (0_usize..2, prop::option::of(change)).prop_map(|(which, change)| {
            let mut key = KEYS[which].clone();
            if let Some((name, value)) = change {
                key[name] = value;
            }
            key
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn keys_of_which_some_are_wrong(keys in prop::collection::vec(a_key(), 0..4)) {
            of_document(json!({ "keys": keys }).to_string().as_bytes());
        }

        #[test]
        fn a_document_that_is_cut_or_has_a_byte_changed(
            keys in prop::collection::vec(a_key(), 1..3),
            at in any::<prop::sample::Index>(),
            byte in prop::option::of(any::<u8>())
        ) {
            let mut document = json!({ "keys": keys }).to_string().into_bytes();
            let at = at.index(document.len());
            match byte {
                Some(byte) => document[at] = byte,
                None => document.truncate(at),
            }
            of_document(&document);
        }

        #[test]
        fn about_as_many_keys_as_are_allowed(many in 60_usize..70) {
            of_document(json!({ "keys": vec![KEYS[1].clone(); many] }).to_string().as_bytes());
        }
    }
}
