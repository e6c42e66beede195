//! What is true of the claims of every token, whatever its payload.

#![expect(clippy::indexing_slicing, reason = "of JSON, in which nothing is null")]

use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::{UnreadableClaims, Untimely, UnverifiedClaims};
use crate::workload::{BearerToken, Caller};

/// The longest name in Kubernetes.
const LONGEST_NAME: usize = 253;

/// What is read of a payload is what a plain JSON reader finds there, and its times are judged in order.
pub(crate) fn of_payload(payload: &[u8]) {
    let Ok(token) = BearerToken::from_header(format!("e30.{}.s", URL_SAFE_NO_PAD.encode(payload)).as_bytes())
    else {
        return assert!(payload.is_empty() || payload.len() > 12_000, "only such a payload makes no token");
    };
    let json: Result<Value, _> = serde_json::from_slice(payload);
    match UnverifiedClaims::of(&token) {
        Ok(claims) => {
            let json = match json {
                Ok(json) => json,
                // What is not read may be a number that is too large for the reference, or too deep for it.
                Err(error) => return is_only_too_large(&error),
            };
            says_what_the_json_says(&claims, &json);
            is_valid_for_one_stretch_of_time(&claims);
            names_are_bounded(&claims);
        }
        Err(UnreadableClaims::NotBase64) => unreachable!("it is base64"),
        Err(UnreadableClaims::NotClaims) => {}
        Err(UnreadableClaims::TimesOutOfRange) => match json {
            Ok(json) => assert!(json["exp"].is_number()),
            Err(error) => is_only_too_large(&error),
        },
    }
}

fn is_only_too_large(error: &serde_json::Error) {
    let told = error.to_string();
    assert!(
        ["number out of range", "recursion limit exceeded"].iter().any(|why| told.contains(why)),
        "{told}"
    );
}

/// The middle part of a token is read as base64url, whether padded or not, and otherwise not at all.
pub(crate) fn of_middle_part(part: &str) {
    let Ok(token) = BearerToken::from_header(format!("e30.{part}.s").as_bytes()) else { return };
    let is_base64 = URL_SAFE_NO_PAD.decode(token.payload().trim_end_matches('=')).is_ok();
    assert_eq!(UnverifiedClaims::of(&token) != Err(UnreadableClaims::NotBase64), is_base64);
}

fn says_what_the_json_says(claims: &UnverifiedClaims, json: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    assert_eq!(*claims.issuer, text(&json["iss"]));
    assert_eq!(*claims.subject, text(&json["sub"]));
    let audiences = match &json["aud"] {
        Value::Array(all) => all.iter().map(text).collect(),
        Value::String(one) => vec![one.clone()],
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => vec![],
    };
    assert!(claims.audiences.iter().map(|audience| audience.to_string()).eq(audiences));
    for (time, member) in [
        (Some(claims.validity.expires), "exp"),
        (claims.validity.not_before, "nbf"),
        (claims.validity.issued, "iat"),
    ] {
        let read = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let stands_there = json[member].as_f64();
        let are_equal = match (read, stands_there) {
            (Some(read), Some(stands_there)) => (read.as_secs_f64() - stands_there).abs() < 0.001,
            (read, stands_there) => read.is_none() && stands_there.is_none(),
        };
        assert!(are_equal, "{member}: {read:?} and {stands_there:?}");
    }
    let of_kubernetes = &json["kubernetes.io"];
    match &claims.workload {
        None => assert!(of_kubernetes.is_null()),
        Some(workload) => {
            assert_eq!(*workload.namespace, text(&of_kubernetes["namespace"]));
            assert_eq!(*workload.service_account, text(&of_kubernetes["serviceaccount"]["name"]));
            let members = [
                (&workload.service_account_uid, &of_kubernetes["serviceaccount"]["uid"]),
                (&workload.pod, &of_kubernetes["pod"]["name"]),
                (&workload.pod_uid, &of_kubernetes["pod"]["uid"]),
                (&workload.node, &of_kubernetes["node"]["name"]),
            ];
            for (read, stands_there) in members {
                assert_eq!(read.as_deref(), stands_there.as_str());
            }
        }
    }
}

/// Not yet valid, then valid, then expired; never back, and `exp` has a minute of leeway and no more.
fn is_valid_for_one_stretch_of_time(claims: &UnverifiedClaims) {
    let validity = claims.validity;
    let times = [validity.expires, validity.not_before.unwrap_or(UNIX_EPOCH), UNIX_EPOCH];
    let mut around: Vec<_> = times
        .iter()
        .flat_map(|time| [0, 59, 60, 61, 3_600].map(|seconds| (*time, Duration::from_secs(seconds))))
        .flat_map(|(time, by)| [time.checked_add(by), time.checked_sub(by)])
        .flatten()
        .collect();
    around.sort();
    let phase = |verdict| match verdict {
        Err(Untimely::NotYetValid) => 0,
        Ok(()) => 1,
        Err(Untimely::Expired) => 2,
    };
    let phases: Vec<_> = around.iter().map(|now| phase(validity.check(*now))).collect();
    assert!(phases.is_sorted(), "{validity:?}: {phases:?}");
    let minute = Duration::from_secs(60);
    assert_eq!(validity.check(validity.expires + minute), Err(Untimely::Expired));
}

fn names_are_bounded(claims: &UnverifiedClaims) {
    let Caller::Claimed(pod) = claims.caller() else { return assert!(claims.workload.is_none()) };
    let names = [Some(&pod.namespace), Some(&pod.service_account), pod.name.as_ref(), pod.uid.as_ref()];
    assert!(names.into_iter().flatten().all(|name| name.len() <= LONGEST_NAME));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::{of_middle_part, of_payload};

    /// Values of all kinds, the right ones more often.
    fn a_value(usual: impl Strategy<Value = Value> + 'static) -> impl Strategy<Value = Value> {
        let odd = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            prop::collection::vec(any::<i64>(), 0..3).prop_map(Value::from),
            Just(Value::Object(Map::new())),
        ];
        prop_oneof![9 => usual, 1 => odd]
    }

    fn a_text() -> impl Strategy<Value = Value> {
        prop_oneof![
            "\\PC{0,20}".prop_map(Value::from),
            (0_usize..300).prop_map(|length| Value::from("é".repeat(length)))
        ]
    }

    fn a_time() -> impl Strategy<Value = Value> {
        prop_oneof![
            (0_u64..4_000_000_000).prop_map(Value::from),
            (0.0..4e9).prop_map(Value::from),
            (253_402_300_700_u64..253_402_300_900).prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from)
        ]
    }

    /// An object with some of these members.
    fn an_object(members: Vec<(&'static str, BoxedStrategy<Value>)>) -> BoxedStrategy<Value> {
        let members: Vec<_> = members
            .into_iter()
            .map(|(name, value)| {
                prop::option::weighted(0.9, value.prop_map(move |value| (name.to_owned(), value)))
            })
            .collect();
        members.prop_map(|members| Value::Object(members.into_iter().flatten().collect())).boxed()
    }

    fn a_payload() -> impl Strategy<Value = Value> {
        let named =
            || an_object(vec![("name", a_value(a_text()).boxed()), ("uid", a_value(a_text()).boxed())]);
        let of_kubernetes = an_object(vec![
            ("namespace", a_value(a_text()).boxed()),
            ("serviceaccount", a_value(named()).boxed()),
            ("pod", a_value(named()).boxed()),
            ("node", a_value(named()).boxed()),
        ]);
        let audiences = prop_oneof![a_text(), prop::collection::vec(a_text(), 0..3).prop_map(Value::from)];
        an_object(vec![
            ("iss", a_value(a_text()).boxed()),
            ("sub", a_value(a_text()).boxed()),
            ("aud", a_value(audiences).boxed()),
            ("exp", a_time().boxed()),
            ("nbf", a_value(a_time()).boxed()),
            ("iat", a_value(a_time()).boxed()),
            ("kubernetes.io", a_value(of_kubernetes).boxed()),
        ])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn nearly_claims(payload in a_payload()) {
            of_payload(payload.to_string().as_bytes());
        }

        #[test]
        fn claims_with_a_byte_changed(
            payload in a_payload(),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>()
        ) {
            let mut payload = payload.to_string().into_bytes();
            let at = at.index(payload.len());
            payload[at] = byte;
            of_payload(&payload);
        }

        #[test]
        fn any_middle_part(part in "[A-Za-z0-9_=-]{1,40}") {
            of_middle_part(&part);
        }
    }
}
