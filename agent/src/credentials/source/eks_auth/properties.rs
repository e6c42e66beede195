//! What is true of every answer of EKS Auth, through the SDK's own deserialiser.

#![expect(clippy::indexing_slicing, reason = "of JSON, in which nothing is null")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_credential_types::Credentials;
use serde_json::Value;

use super::{EksAuth, Parts};
use crate::aws::canned::{self, Canned, quoted};
use crate::aws::node_details::SentDetails;
use crate::aws::own_identity::OwnIdentity;
use crate::aws::region::AwsRegion;
use crate::clock::Clock;
use crate::config::Upstream;
use crate::credentials::issued::Issued;
use crate::credentials::source::{SourceError, TimeLimits};
use crate::workload::{BearerToken, PresentedToken};

/// What a call has that nobody may see: the pod's token, and the agent's secret key and session token. In a
/// body they stand for `$t`, `$k` and `$s`.
const TOKEN: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImExIn0.eyJpc3MiOiJodHRwczovL29pZGMuZXhhbXBsZSJ9.c2l\
    nbmF0dXJlIG9mIGEgdG9rZW4";
const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYplantedKEY";
const SESSION_TOKEN: &str =
    "IQoJb3JpZ2luX2VjEPlantedSessionTokenOfTheAgentItself0123456789+/abcdefghijklmnopqrstuvwxyz==";
/// What may be shown of them in one piece is shorter.
const PIECE: usize = 16;
/// The longest sentence of AWS that is passed on, in characters.
const LONGEST_MESSAGE: usize = 400;

/// The first second that RFC 3339 cannot write.
const YEAR_10000: f64 = 253_402_300_800.0;

/// One answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The header in which AWS has the code of an error.
    pub(crate) code: Option<String>,
    pub(crate) request_id: Option<String>,
    pub(crate) body: String,
}

/// Credentials are those of the body and can be read by SDKs; whatever else comes is an error of a known
/// kind, in bounded words that quote no secret.
pub(crate) fn of_answer(answer: &Answer) {
    let put_in =
        |text: &str| text.replace("$t", TOKEN).replace("$k", SECRET_KEY).replace("$s", SESSION_TOKEN);
    let body = put_in(&answer.body);
    let mut headers = vec![("content-type", "application/x-amz-json-1.1".to_owned())];
    headers.extend(answer.code.as_deref().map(|code| ("x-amzn-errortype", put_in(code))));
    headers.extend(answer.request_id.as_deref().map(|id| ("x-amzn-requestid", put_in(id))));
    let canned = Canned { status: answer.status, headers, body: body.clone().into_bytes() };
    let Some((eks_auth, presented)) = caller(canned) else { return };
    let limits = TimeLimits { in_all: Duration::from_secs(5), on_used_connection: Duration::from_secs(5) };
    match canned::without_waiting(eks_auth.fetch(&presented, limits)) {
        Some(Ok(issued)) => {
            assert!((200..300).contains(&answer.status), "credentials with status {}", answer.status);
            is_in_the_body(&issued, &body);
            shows_no_secret(&format!("{issued:?}"));
        }
        Some(Err(error)) => {
            let told = format!("{error} {error:?} {}", error.label());
            shows_no_secret(&told);
            shows_no_secret(&format!("{:?}", eks_auth.own.sign().map(|signing| signing.signer())));
            if let SourceError::Refused(refusal) = &error {
                assert!((400..500).contains(&answer.status), "refused by {}", answer.status);
                assert!(refusal.message.chars().count() <= LONGEST_MESSAGE);
                assert!(!refusal.message.contains(char::is_control));
            }
        }
        None => {}
    }
}

fn caller(answer: Canned) -> Option<(EksAuth, PresentedToken)> {
    let clock = Clock::system();
    let session = Some(SESSION_TOKEN.to_owned());
    let signs = Credentials::new("ASIANODE", SECRET_KEY, session, None, "planted");
    let eks_auth = EksAuth::new(Parts {
        cluster: "c",
        region: AwsRegion::given("us-west-2"),
        upstream: &Upstream { endpoint: None, use_fips: false, ca_bundle: None, proxy: None },
        own: OwnIdentity::fixed(signs, clock.clone()),
        details: SentDetails::default(),
        http_client: canned::client(move |_| answer.clone()),
        clock: &clock,
    });
    let token = BearerToken::from_header(TOKEN.as_bytes()).ok()?;
    let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    Some((eks_auth, PresentedToken { token, expires, issued: None }))
}

fn is_in_the_body(issued: &Issued, body: &str) {
    // The SDK's reader does not look at the escapes of what it does not need, and reads 07 as 7; so it takes
    // what is no JSON.
    let Ok(json) = serde_json::from_str::<Value>(body) else {
        return assert!(body.contains('\\') || has_leading_zero(body), "{body:?}");
    };
    let given = &json["credentials"];
    assert_eq!(given["accessKeyId"].as_str(), Some(&*issued.access_key_id), "{body:?}");
    assert_eq!(given["secretAccessKey"].as_str(), Some(issued.secret_access_key.reveal()), "{body:?}");
    assert_eq!(given["sessionToken"].as_str(), Some(issued.session_token.reveal()), "{body:?}");
    let (expires, stands_there) =
        (issued.expiration.duration_since(UNIX_EPOCH), given["expiration"].as_f64());
    let Ok(expires) = expires else { unreachable!("expires before 1970: {body:?}") };
    let late = expires.as_secs_f64() - stands_there.unwrap_or_default();
    let Ok(written) = issued.to_body() else {
        return assert!(stands_there >= Some(YEAR_10000), "{body:?} cannot be written");
    };
    assert!((-1.0..0.001).contains(&late), "ends late by {late} s: {body:?}");
    let Ok(wire) = serde_json::from_slice::<Value>(&written) else { unreachable!("a body that is no JSON") };
    let are_equal =
        [("AccessKeyId", "accessKeyId"), ("SecretAccessKey", "secretAccessKey"), ("Token", "sessionToken")];
    assert!(are_equal.iter().all(|(written, read)| wire[*written] == given[*read]), "{body:?}");
}

fn has_leading_zero(body: &str) -> bool {
    let begins_a_number = |before: &u8| !before.is_ascii_digit() && *before != b'.';
    body.as_bytes()
        .windows(3)
        .any(|three| matches!(three, [before, b'0', b'0'..=b'9'] if begins_a_number(before)))
}

fn shows_no_secret(text: &str) {
    for secret in [TOKEN, SECRET_KEY, SESSION_TOKEN] {
        assert_eq!(quoted(text, secret, PIECE), None, "a secret is quoted by {text}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::{Answer, of_answer};

    const WHOLE: &str = concat!(
        r#"{"subject":{"namespace":"n","serviceAccount":"s"},"audience":"pods.eks.amazonaws.com""#,
        r#","podIdentityAssociation":{"associationArn":"arn:aws:eks:us-west-2:111122223333:podid"#,
        r#"entityassociation/c/a-1","associationId":"a-1"},"assumedRoleUser":{"arn":"arn:aws:sts"#,
        r#"::111122223333:assumed-role/r/s","assumeRoleId":"x"},"credentials":{"sessionToken":"p"#,
        r#"od-session-token","secretAccessKey":"pod-secret-key","accessKeyId":"ASIAPOD","expirat"#,
        r#"ion":1900000000.5}}"#,
    );
    const CODES: [&str; 12] = [
        "AccessDeniedException",
        "ExpiredTokenException",
        "InvalidTokenException",
        "InvalidParameterException",
        "InvalidRequestException",
        "ResourceNotFoundException",
        "ThrottlingException",
        "InternalServerException",
        "ServiceUnavailableException",
        "InvalidSignatureException",
        "SomethingNew",
        "$t",
    ];

    fn a_status() -> impl Strategy<Value = u16> {
        prop_oneof![prop::sample::select(vec![200_u16, 400, 403, 404, 429, 500, 503]), 100_u16..600,]
    }

    fn a_code() -> impl Strategy<Value = String> {
        prop::sample::select(CODES.to_vec()).prop_map(str::to_owned)
    }

    /// A sentence that may quote what it was sent, whole, cut, on lines, or in a URL.
    fn a_message() -> impl Strategy<Value = String> {
        let quoted = prop::sample::select(vec![
            "$t",
            "$k",
            "$s",
            "'$t'",
            "token=$t&x",
            "$t$s",
            "The Canonical String $s",
        ]);
        ("\\PC{0,30}", quoted, "\\PC{0,300}")
            .prop_map(|(before, quoted, after)| format!("{before} {quoted}\n{after}"))
    }

    fn an_error() -> impl Strategy<Value = Answer> {
        let id = prop::option::of("[a-z0-9-]{0,40}|\\$s|\\$t");
        (a_status(), a_code(), prop::option::of(a_code()), a_message(), id).prop_map(
            |(status, in_body, code, message, request_id)| {
                let body = json!({ "__type": in_body, "message": message }).to_string();
                Answer { status, code, request_id, body }
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn errors_that_quote_what_was_sent(answer in an_error()) {
            of_answer(&answer);
        }

        #[test]
        fn credentials_that_are_cut_or_changed(
            status in a_status(),
            at in any::<prop::sample::Index>(),
            inserted in "[\"{}\\\\:,a0-9.e-]{0,3}",
            left_out in 0_usize..6,
            request_id in prop::sample::select(vec!["r-1", "$t", "$k", "$s"])
        ) {
            let at = at.index(WHOLE.len());
            let rest = WHOLE.get(at + left_out..).unwrap_or_default();
            let body = format!("{}{inserted}{rest}", &WHOLE[..at]);
            of_answer(&Answer { status, code: None, request_id: Some(request_id.to_owned()), body });
        }

        /// Found by the fuzzer: the SDK's reader takes them.
        #[test]
        fn numbers_with_leading_zeros(zeros in "0{1,3}") {
            let body = WHOLE.replace("1900000000.5", &format!("{zeros}1900000000.5"));
            of_answer(&Answer { status: 200, code: None, request_id: None, body });
        }

        #[test]
        fn expirations(
            expiration in prop_oneof![any::<f64>(), any::<i64>().prop_map(|n| n as f64), -1.0..1.0],
            as_text in any::<bool>()
        ) {
            let expiration = if as_text { json!(expiration.to_string()) } else { json!(expiration) };
            let body = WHOLE.replace("1900000000.5", &expiration.to_string());
            of_answer(&Answer { status: 200, code: None, request_id: None, body });
        }

        #[test]
        fn any_body(status in a_status(), body in "\\PC{0,60}") {
            of_answer(&Answer { status, code: None, request_id: None, body });
        }
    }
}
