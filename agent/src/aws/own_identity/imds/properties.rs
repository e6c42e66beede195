//! What is true of every answer of the metadata service.

use std::time::UNIX_EPOCH;

use aws_credential_types::Credentials;
use serde_json::Value;

use super::{InstanceRole, LONGEST_NAME};
use crate::aws::canned::{self, Canned};
use crate::aws::own_identity::load_error::LoadError;
use crate::clock::Clock;
use crate::telemetry::error_chain::ErrorChain;

/// What stands in a body for a `$` at the beginning of a key or token.
const PLANTED: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYplantedKEY";

/// What is said of an answer.
#[derive(Clone, Debug)]
pub(crate) struct Answers {
    /// The status of each answer.
    pub(crate) status: u16,
    /// The session token, and how many seconds it lives.
    pub(crate) session: (String, String),
    /// The body of the list of roles.
    pub(crate) roles: String,
    /// The body of the credentials.
    pub(crate) credentials: String,
}

/// Credentials are those of the body, whole and unchanged; a failure quotes no secret of it.
pub(crate) fn of_answers(answers: &Answers) {
    let clock = Clock::system();
    let mut body = answers.credentials.clone();
    for member in ["Key", "Token"] {
        body = body.replace(&format!("{member}\":\"$"), &format!("{member}\":\"{PLANTED}"));
    }
    let (given, bodies) = (answers.clone(), body.clone());
    let client = canned::client(move |uri| given.to(uri, &bodies));
    let mut role = InstanceRole::through(client, None, false, &clock);
    match canned::without_waiting(role.load()) {
        Some(Ok(credentials)) => are_those_of(&credentials, &body),
        Some(Err(error)) => says_nothing_of_the_body(&error),
        None => {}
    }
    assert!(role.role_name().len() <= "instance role ".len() + 4 * LONGEST_NAME);
    assert!(!role.role_name().contains(char::is_control), "{}", role.role_name());
}

impl Answers {
    fn to(&self, uri: &str, credentials: &str) -> Canned {
        let (session, ttl) = &self.session;
        let (headers, body) = if uri.ends_with("/api/token") {
            (vec![("x-aws-ec2-metadata-token-ttl-seconds", ttl.clone())], session.as_str())
        } else if uri.ends_with("/security-credentials/") {
            (vec![], self.roles.as_str())
        } else {
            (vec![], credentials)
        };
        // An error may quote what was given before.
        let body = if (200..300).contains(&self.status) { body } else { PLANTED };
        Canned { status: self.status, headers, body: body.as_bytes().to_vec() }
    }
}

fn are_those_of(credentials: &Credentials, body: &str) {
    // The SDK's reader does not look at the escapes of what it does not need, and so takes what is no JSON.
    let Ok(json) = serde_json::from_str::<Value>(body) else {
        return assert!(body.contains('\\'), "{body:?}");
    };
    let Some(json) = json.as_object() else { unreachable!("credentials from {body:?}") };
    // Names count in any case, as in the SDK.
    let has = |name: &str, text: &str| {
        json.iter().any(|(member, value)| member.eq_ignore_ascii_case(name) && value.as_str() == Some(text))
    };
    assert!(has("AccessKeyId", credentials.access_key_id()), "{body:?}");
    assert!(has("SecretAccessKey", credentials.secret_access_key()), "{body:?}");
    assert!(has("Token", credentials.session_token().unwrap_or("none")), "{body:?}");
    let expires = credentials.expiry().and_then(|expiry| expiry.duration_since(UNIX_EPOCH).ok());
    assert!(expires.is_some() || body.contains('-'), "{body:?}");
    let parts = [Some(credentials.access_key_id()), Some(credentials.secret_access_key())];
    let mut parts = parts.into_iter().chain([credentials.session_token()]);
    assert!(parts.all(|part| part.is_some_and(|part| !part.is_empty())), "{body:?}");
}

fn says_nothing_of_the_body(error: &LoadError) {
    let told = format!("{} {error:?}", ErrorChain(error));
    let quoted = canned::quoted(&told, PLANTED, 12);
    assert_eq!(quoted, None, "the body is quoted by {told}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Answers, of_answers};

    const WHOLE: &str = concat!(
        r#"{"Code":"Success","LastUpdated":"2026-11-26T00:00:00Z","Type":"AWS-HMAC","AccessKeyId"#,
        r#"":"ASIAX","SecretAccessKey":"$","Token":"$=","Expiration":"2036-11-26T06:00:00Z"}"#,
    );

    fn answers(status: u16, credentials: String) -> Answers {
        let session = ("session".to_owned(), "21600".to_owned());
        Answers { status, session, roles: "node-role".to_owned(), credentials }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn credentials_that_are_cut_or_changed(
            at in any::<prop::sample::Index>(), inserted in "[\"{}$\\\\:,a]{0,3}", left_out in 0_usize..6
        ) {
            let at = at.index(WHOLE.len());
            let rest = WHOLE.get(at + left_out..).unwrap_or_default();
            of_answers(&answers(200, format!("{}{inserted}{rest}", &WHOLE[..at])));
            of_answers(&answers(200, format!("{}{inserted}", &WHOLE[..at])));
        }

        #[test]
        fn any_answers(
            status in prop::sample::select(vec![200_u16, 204, 301, 400, 401, 403, 404, 429, 500, 503]),
            session in "\\PC{0,10}",
            ttl in "[0-9]{0,20}|[0-9a]{0,4}",
            roles in "\\PC{0,10}|[a-z<\n]{0,140}",
            credentials in "[{}$\":,a-z0-9]{0,60}"
        ) {
            of_answers(&Answers { status, session: (session, ttl), roles, credentials });
        }
    }
}
