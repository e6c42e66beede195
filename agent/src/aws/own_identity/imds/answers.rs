//! Answers of the metadata service, before the SDK sees them.
//!
//! Owns: what of an answer the SDK cannot take. Must not know: what is requested next. The SDK puts the name
//! of the role into a URL, and the life of a session token onto the clock, and panics where that does not
//! go: a panic would end the keeper of the agent's own credentials. What answers may be no metadata service:
//! kube2iam and its like, or a proxy with a page of HTML.

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;

use super::{LONGEST_NAME, ROLES};

/// Of a request for a session token.
const SESSION: &str = "/api/token";
/// How long a session token lives, in seconds; 6 h is the longest that can be requested.
const TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const LONGEST_TTL: u64 = 6 * 60 * 60;

/// Why an answer is not passed on.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    /// It should name the role.
    #[error("the answer to a request for the role's name is no name of a role")]
    Role,
    /// It should give a session token with its life.
    #[error("a session token has an impossible life")]
    SessionLife,
}

/// The answer to a request for this path, fit for the SDK.
pub(super) fn checked(path: &str, response: HttpResponse) -> Result<HttpResponse, ConnectorError> {
    let unfit = |unfit: Unfit| ConnectorError::other(unfit.into(), None);
    if !response.status().is_success() {
        // The SDK's error quotes the whole answer, which may quote credentials; it needs only the status.
        return Ok(HttpResponse::new(response.status(), SdkBody::empty()));
    }
    if path.ends_with(ROLES) {
        return with_role(response).ok_or_else(|| unfit(Unfit::Role));
    }
    let has_life = response.headers().get(TTL).is_none_or(is_life);
    if path.ends_with(SESSION) && !has_life {
        return Err(unfit(Unfit::SessionLife));
    }
    Ok(response)
}

/// The name on the first line: an instance profile has one role.
fn with_role(mut response: HttpResponse) -> Option<HttpResponse> {
    let body = str::from_utf8(response.body().bytes()?).ok()?;
    let name = body.lines().next().map(str::trim).filter(|name| is_role(name))?.to_owned();
    *response.body_mut() = SdkBody::from(name);
    Some(response)
}

/// IAM's own pattern for the name of a role.
fn is_role(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
    (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(is_allowed)
}

/// Whether the SDK can add it to any time. What is no number is an error that it handles itself.
fn is_life(ttl: &str) -> bool {
    ttl.parse::<u64>().is_ok_and(|ttl| ttl <= LONGEST_TTL) || ttl.parse::<u64>().is_err()
}

#[cfg(test)]
mod tests {
    use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
    use aws_smithy_types::body::SdkBody;

    use super::checked;

    fn answered(path: &str, status: u16, body: &str, ttl: &'static str) -> Option<String> {
        let mut response = HttpResponse::new(status.try_into().unwrap(), SdkBody::from(body));
        response.headers_mut().insert("x-aws-ec2-metadata-token-ttl-seconds", ttl);
        let checked = checked(path, response).ok()?;
        Some(str::from_utf8(checked.body().bytes().unwrap()).unwrap().to_owned())
    }

    #[test]
    fn the_role_is_one_name_and_the_life_of_a_session_is_possible() {
        let roles = "/latest/meta-data/iam/security-credentials/";
        for (body, name) in [
            ("node-role", Some("node-role")),
            ("node+role=,.@-_9\n", Some("node+role=,.@-_9")),
            ("one\r\ntwo\n", Some("one")),
            ("", None),
            ("\nnode", None),
            ("<html>", None),
            ("no such role", None),
            ("a/b", None),
            ("ä", None),
        ] {
            assert_eq!(answered(roles, 200, body, "1").as_deref(), name, "{body:?}");
        }
        assert_eq!(answered(roles, 404, "<html>", "1").as_deref(), Some(""), "of an error only the status");
        for (ttl, is_taken) in
            [("21600", true), ("21601", false), ("18446744073709551615", false), ("x", true)]
        {
            assert_eq!(answered("/latest/api/token", 200, "t", ttl).is_some(), is_taken, "{ttl}");
        }
        assert_eq!(answered("/latest/meta-data/instance-id", 200, "i-1 <", "1").as_deref(), Some("i-1 <"));
    }
}
