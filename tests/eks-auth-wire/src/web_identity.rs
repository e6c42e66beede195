//! `AssumeRoleWithWebIdentity` of STS, as the SDK's HTTP client meets it.
//!
//! Owns: the form of a call (query protocol) and of each answer (XML). Must not know: what is answered to
//! whom.

use std::time::SystemTime;

use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;

/// What a call asks for; what it does not say is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// The pod's token.
    pub token: String,
    /// The ARN of the role.
    pub role: String,
    /// The name of the session.
    pub session: String,
}

/// A set of credentials as STS issues it.
#[derive(Clone, Copy, Debug)]
pub struct Issued<'a> {
    /// The call that it answers.
    pub call: &'a Call,
    /// The access key's id.
    pub access_key_id: &'a str,
    /// Its secret.
    pub secret: &'a str,
    /// The session token.
    pub session_token: &'a str,
    /// When it ends.
    pub expiration: SystemTime,
}

impl Call {
    /// What this one asks for.
    pub fn of(call: &HttpRequest) -> Self {
        let body = call.body().bytes().map(String::from_utf8_lossy).unwrap_or_default();
        let mut read = Self::default();
        for (name, value) in body.split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "WebIdentityToken" => read.token = decoded(value),
                "RoleArn" => read.role = decoded(value),
                "RoleSessionName" => read.session = decoded(value),
                _ => {}
            }
        }
        read
    }
}

impl Issued<'_> {
    /// The body of the answer.
    pub fn body(&self) -> String {
        let Self { call, access_key_id, secret, session_token, expiration } = self;
        let expiration = DateTime::from(*expiration).fmt(Format::DateTime).unwrap_or_default();
        let assumed = call.role.replacen(":iam:", ":sts:", 1).replacen(":role/", ":assumed-role/", 1);
        let session = &call.session;
        format!(
            "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
             <AssumeRoleWithWebIdentityResult>\
             <SubjectFromWebIdentityToken>system:serviceaccount:namespace:app</SubjectFromWebIdentityToken>\
             <AssumedRoleUser><AssumedRoleId>AROA:{session}</AssumedRoleId><Arn>{assumed}/{session}</Arn>\
             </AssumedRoleUser><Credentials><AccessKeyId>{access_key_id}</AccessKeyId>\
             <SecretAccessKey>{secret}</SecretAccessKey><SessionToken>{session_token}</SessionToken>\
             <Expiration>{expiration}</Expiration></Credentials>\
             </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        )
    }
}

/// The body of a refusal.
pub fn refusal(code: &str) -> String {
    format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
         <Code>{code}</Code><Message>of a test</Message></Error></ErrorResponse>"
    )
}

/// A value of a form as it was before it was encoded.
fn decoded(value: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = value;
    while let Some((plain, encoded)) = rest.split_once('%') {
        bytes.extend_from_slice(plain.as_bytes());
        let (digits, after) = encoded.split_at_checked(2).unwrap_or((encoded, ""));
        bytes.extend(u8::from_str_radix(digits, 16));
        rest = after;
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
    use aws_smithy_types::body::SdkBody;

    use super::{Call, Issued, refusal};

    #[test]
    fn a_call_is_read_as_the_sdk_writes_it() {
        let body = "Action=AssumeRoleWithWebIdentity&Version=2011-06-15\
                    &RoleArn=arn%3Aaws%3Aiam%3A%3A111122223333%3Arole%2Fteam%2Fr&RoleSessionName=ns.p\
                    &WebIdentityToken=a.b-_.c%3D";
        let call = Call::of(&HttpRequest::new(SdkBody::from(body)));
        assert_eq!((&*call.token, &*call.session), ("a.b-_.c=", "ns.p"));
        assert_eq!(call.role, "arn:aws:iam::111122223333:role/team/r");
        assert_eq!(Call::of(&HttpRequest::new(SdkBody::empty())), Call::default());
    }

    #[test]
    fn an_answer_has_all_that_the_service_sends() {
        let (token, role, session) = ("a.b.c", "arn:aws:iam::111122223333:role/r", "s");
        let call = Call { token: token.to_owned(), role: role.to_owned(), session: session.to_owned() };
        let issued = Issued {
            call: &call,
            access_key_id: "ASIA1",
            secret: "secret",
            session_token: "token",
            expiration: UNIX_EPOCH + Duration::from_secs(1_800_000_000),
        };
        for part in [
            "<Arn>arn:aws:sts::111122223333:assumed-role/r/s</Arn>",
            "<AccessKeyId>ASIA1</AccessKeyId>",
            "<SecretAccessKey>secret</SecretAccessKey>",
            "<SessionToken>token</SessionToken>",
            "<Expiration>2027-01-15T08:00:00Z</Expiration>",
        ] {
            assert!(issued.body().contains(part), "{part}: {}", issued.body());
        }
        assert!(refusal("AccessDenied").contains("<Code>AccessDenied</Code>"));
    }
}
