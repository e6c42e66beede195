//! Verifies AWS Signature Version 4 the way a service does: from the request as it came, not from what a
//! client meant.
//!
//! Owns: the canonical request, the derived key, the checks of scope and date. Written from AWS's published
//! description and tested against its published examples; shares nothing with any SDK. Must not know: who
//! holds a key.

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use thiserror::Error;

use crate::clock::{amz_date, parse_amz_date};
use crate::http::message::Received;
use crate::random::hex;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// How far the client's clock may be off, either way.
const SKEW: Duration = Duration::from_mins(5);
/// What SigV4 leaves as it is: unreserved characters of RFC 3986.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Why a signature is not accepted. The text is what AWS writes beside the code.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum SignatureError {
    /// No Authorization header.
    #[error("Missing Authentication Token")]
    Missing,
    /// One that is not SigV4, or lacks a part.
    #[error("{0}")]
    Incomplete(String),
    /// For another region or service.
    #[error("Credential should be scoped to a valid region and to service '{0}'.")]
    Scope(String),
    /// The date of the signature is too far from the service's clock.
    #[error("{0}")]
    Skew(String),
    /// No such access key, or not with this session token.
    #[error("The security token included in the request is invalid.")]
    UnknownKey,
    /// The credentials have lapsed.
    #[error("The security token included in the request is expired")]
    Expired,
    /// All is there, but the numbers differ.
    #[error(
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access \
         Key and signing method. Consult the service documentation for details."
    )]
    Mismatch,
}

/// What a signature must be made for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope<'a> {
    pub(crate) region: &'a str,
    pub(crate) service: &'a str,
    pub(crate) now: SystemTime,
}

/// The parts of an Authorization header.
#[derive(Debug)]
struct Authorization<'a> {
    access_key_id: &'a str,
    /// `20261122`, region, service, `aws4_request`.
    scope: [&'a str; 4],
    signed_headers: Vec<&'a str>,
    signature: &'a str,
}

/// A signed request whose form, scope and date are right. Only the holder of the secret can tell the rest.
#[derive(Debug)]
pub(crate) struct Signed<'a> {
    authorization: Authorization<'a>,
    date: &'a str,
    request: &'a Received,
}

/// Checks all that needs no secret.
pub(crate) fn check<'a>(request: &'a Received, scope: Scope<'_>) -> Result<Signed<'a>, SignatureError> {
    let header = request.header("authorization").ok_or(SignatureError::Missing)?;
    let authorization = Authorization::parse(header)?;
    for required in ["host", "x-amz-date"] {
        if !authorization.signed_headers.contains(&required) {
            let text = format!("'{required}' must be a 'SignedHeader' in the AWS Authorization.");
            return Err(SignatureError::Incomplete(text));
        }
    }
    let date = request.header("x-amz-date").unwrap_or_default();
    let signed_at = parse_amz_date(date)
        .ok_or_else(|| SignatureError::Incomplete("Date must be in ISO-8601 'basic format'.".to_owned()))?;
    let [day, region, service, terminator] = authorization.scope;
    if region != scope.region
        || service != scope.service
        || terminator != "aws4_request"
        || !date.starts_with(day)
    {
        return Err(SignatureError::Scope(scope.service.to_owned()));
    }
    check_date(signed_at, scope.now)?;
    Ok(Signed { authorization, date, request })
}

/// The region that a signature says it is for.
pub(crate) fn region(request: &Received) -> Option<&str> {
    let [_, region, _, _] = Authorization::parse(request.header("authorization")?).ok()?.scope;
    Some(region)
}

/// The Authorization header for a request of our own, which has `host` and `x-amz-date` already and is
/// sent as it is.
pub(crate) fn authorization(
    request: &Received,
    (access_key_id, secret): (&str, &str),
    [region, service]: [&str; 2],
) -> String {
    let date = request.header("x-amz-date").unwrap_or_default();
    let day = date.split('T').next().unwrap_or_default();
    let scope = [day, region, service, "aws4_request"];
    let signed_headers = vec!["host", "x-amz-date"];
    let unsigned = Authorization { access_key_id, scope, signed_headers, signature: "" };
    let signature = Signed { authorization: unsigned, date, request }.signature(secret);
    let scope = scope.join("/");
    format!(
        "{ALGORITHM} Credential={access_key_id}/{scope}, SignedHeaders=host;x-amz-date, Signature={signature}"
    )
}

fn check_date(signed_at: SystemTime, now: SystemTime) -> Result<(), SignatureError> {
    let (signed, clock) = (amz_date(signed_at), amz_date(now));
    if signed_at + SKEW < now {
        let limit = amz_date(now - SKEW);
        let text = format!("Signature expired: {signed} is now earlier than {limit} ({clock} - 5 min.)");
        return Err(SignatureError::Skew(text));
    }
    if signed_at > now + SKEW {
        let limit = amz_date(now + SKEW);
        let text =
            format!("Signature not yet current: {signed} is still later than {limit} ({clock} + 5 min.)");
        return Err(SignatureError::Skew(text));
    }
    Ok(())
}

impl Signed<'_> {
    /// Whose secret is needed.
    pub(crate) fn access_key_id(&self) -> &str {
        self.authorization.access_key_id
    }

    /// Whether the holder of `secret` signed the request as it arrived.
    pub(crate) fn verify(&self, secret: &str) -> Result<(), SignatureError> {
        if self.signature(secret) == self.authorization.signature {
            Ok(())
        } else {
            Err(SignatureError::Mismatch)
        }
    }

    fn signature(&self, secret: &str) -> String {
        let canonical = self.canonical_request();
        let scope = self.authorization.scope.join("/");
        let hashed = hex(digest(&SHA256, canonical.as_bytes()).as_ref());
        let to_sign = format!("{ALGORITHM}\n{}\n{scope}\n{hashed}", self.date);
        let mut key = format!("AWS4{secret}").into_bytes();
        for part in self.authorization.scope.into_iter().chain([to_sign.as_str()]) {
            key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), part.as_bytes()).as_ref().to_vec();
        }
        hex(&key)
    }

    fn canonical_request(&self) -> String {
        let request = self.request;
        let headers: String = self
            .authorization
            .signed_headers
            .iter()
            .map(|name| format!("{name}:{}\n", canonical_values(request, name)))
            .collect();
        let signed_headers = self.authorization.signed_headers.join(";");
        // The services here never take UNSIGNED-PAYLOAD, so what the client says of its body is not asked.
        let body = hex(digest(&SHA256, &request.body).as_ref());
        let path = canonical_path(request.path());
        let query = canonical_query(request.query());
        format!("{}\n{path}\n{query}\n{headers}\n{signed_headers}\n{body}", request.method)
    }
}

impl<'a> Authorization<'a> {
    fn parse(header: &'a str) -> Result<Self, SignatureError> {
        let incomplete =
            |what: &str| SignatureError::Incomplete(format!("Authorization header requires {what}."));
        let (algorithm, parts) = header.split_once(' ').unwrap_or((header, ""));
        if algorithm != ALGORITHM {
            return Err(SignatureError::Incomplete(format!("Unsupported AWS 'algorithm': '{algorithm}'.")));
        }
        let part = |name: &str| {
            parts
                .split(',')
                .filter_map(|part| part.trim().split_once('='))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value)
                .ok_or_else(|| incomplete(&format!("'{name}' parameter")))
        };
        let credential: Vec<_> = part("Credential")?.split('/').collect();
        let [access_key_id, scope @ ..] = credential.as_slice() else {
            return Err(incomplete("a full 'Credential'"));
        };
        let scope = <[&str; 4]>::try_from(scope).map_err(|_| incomplete("a full 'Credential'"))?;
        Ok(Self {
            access_key_id,
            scope,
            signed_headers: part("SignedHeaders")?.split(';').collect(),
            signature: part("Signature")?,
        })
    }
}

/// All values of a header, each trimmed and with inner runs of blanks made one, in the order they came.
fn canonical_values(request: &Received, name: &str) -> String {
    let values = request.headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    let clean = |value: &str| value.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    values.map(clean).collect::<Vec<_>>().join(",")
}

/// The path as sent, without dot segments and empty ones, encoded once more: every service but S3 wants it
/// so.
fn canonical_path(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/').filter(|segment| !matches!(*segment, "" | ".")) {
        if segment == ".." {
            segments.pop();
        } else {
            segments.push(segment);
        }
    }
    let joined: String =
        segments.iter().map(|segment| format!("/{}", utf8_percent_encode(segment, ENCODED))).collect();
    let trailing = if path.ends_with('/') { "/" } else { "" };
    format!("{joined}{trailing}")
}

/// Names and values decoded, encoded again in the one right way, and sorted.
fn canonical_query(query: &str) -> String {
    let again = |text: &str| {
        let decoded: Vec<u8> = percent_decode_str(text).collect();
        percent_encoding::percent_encode(&decoded, ENCODED).to_string()
    };
    let mut pairs: Vec<_> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (again(name), again(value)))
        .collect();
    pairs.sort();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use http::Request;

    use super::*;

    /// Secret of AWS's published examples.
    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    /// 2015-08-30T12:36:00Z, their date.
    const THEN: u64 = 1_440_938_160;

    fn scope(service: &str) -> Scope<'_> {
        Scope { region: "us-east-1", service, now: UNIX_EPOCH + Duration::from_secs(THEN) }
    }

    fn request(uri: &str, headers: &[(&str, &str)]) -> Received {
        let mut builder = Request::get(uri).header("x-amz-date", "20150830T123600Z");
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        Received::new(builder.body(()).unwrap().into_parts().0, "".into())
    }

    fn authorization(service: &str, signed_headers: &str, signature: &str) -> String {
        format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/{service}/aws4_request, \
             SignedHeaders={signed_headers}, Signature={signature}"
        )
    }

    /// `get-vanilla` of AWS's SigV4 test suite.
    fn get_vanilla(host: &str) -> Received {
        let signature = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
        let authorization = authorization("service", "host;x-amz-date", signature);
        request("/", &[("host", host), ("authorization", &authorization)])
    }

    /// The ListUsers example of AWS's guide to SigV4: a query and one more header.
    fn list_users(query: &str) -> Received {
        let signature = "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7";
        let authorization = authorization("iam", "content-type;host;x-amz-date", signature);
        let form = "application/x-www-form-urlencoded; charset=utf-8";
        let uri = format!("/?{query}");
        let headers =
            [("host", "iam.amazonaws.com"), ("content-type", form), ("authorization", &*authorization)];
        request(&uri, &headers)
    }

    #[test]
    fn the_published_examples_verify() {
        let vanilla = get_vanilla("example.amazonaws.com");
        let signed = check(&vanilla, scope("service")).unwrap();
        assert_eq!(signed.access_key_id(), "AKIDEXAMPLE");
        assert_eq!(signed.verify(SECRET), Ok(()));
        let users = list_users("Version=2010-05-08&Action=ListUsers");
        assert_eq!(check(&users, scope("iam")).unwrap().verify(SECRET), Ok(()));
    }

    #[test]
    fn what_we_sign_ourselves_is_what_the_published_example_has() {
        let vanilla = get_vanilla("example.amazonaws.com");
        let ours = super::authorization(&vanilla, ("AKIDEXAMPLE", SECRET), ["us-east-1", "service"]);
        assert_eq!(Some(ours.as_str()), vanilla.header("authorization"));
    }

    #[test]
    fn one_changed_byte_breaks_the_signature() {
        let mut body = get_vanilla("example.amazonaws.com");
        body.body = "x".into();
        for tampered in [get_vanilla("example.amazonaws.net"), body] {
            assert_eq!(
                check(&tampered, scope("service")).unwrap().verify(SECRET),
                Err(SignatureError::Mismatch)
            );
        }
        let users = list_users("Action=ListUserz&Version=2010-05-08");
        assert_eq!(check(&users, scope("iam")).unwrap().verify(SECRET), Err(SignatureError::Mismatch));
        let vanilla = get_vanilla("example.amazonaws.com");
        let other_secret = check(&vanilla, scope("service")).unwrap().verify("another");
        assert_eq!(other_secret, Err(SignatureError::Mismatch));
    }

    #[test]
    fn scope_and_date_must_be_the_services() {
        let request = get_vanilla("example.amazonaws.com");
        let error = |scope| check(&request, scope).unwrap_err();
        assert!(matches!(error(scope("eks-auth")), SignatureError::Scope(_)));
        assert!(matches!(error(Scope { region: "eu-west-1", ..scope("service") }), SignatureError::Scope(_)));
        let at = |seconds: u64| Scope { now: UNIX_EPOCH + Duration::from_secs(seconds), ..scope("service") };
        assert!(check(&request, at(THEN + 300)).is_ok() && check(&request, at(THEN - 300)).is_ok());
        let late = error(at(THEN + 301)).to_string();
        assert_eq!(
            late,
            "Signature expired: 20150830T123600Z is now earlier than 20150830T123601Z (20150830T124101Z - 5 min.)"
        );
        assert!(matches!(error(at(THEN - 301)), SignatureError::Skew(_)));
    }

    #[test]
    fn host_and_date_must_be_signed_and_every_part_be_there() {
        let with = |header: &str| {
            let request = request("/", &[("host", "h"), ("authorization", header)]);
            check(&request, scope("service")).unwrap_err()
        };
        assert!(with(&authorization("service", "x-amz-date", "0")).to_string().contains("'host'"));
        assert!(with(&authorization("service", "host", "0")).to_string().contains("'x-amz-date'"));
        assert!(with("Bearer x").to_string().contains("'Bearer'"));
        assert!(
            with("AWS4-HMAC-SHA256 Credential=A/B, SignedHeaders=host, Signature=0")
                .to_string()
                .contains("Cred")
        );
        assert_eq!(check(&request("/", &[]), scope("service")).unwrap_err(), SignatureError::Missing);
    }

    #[test]
    fn the_path_is_normalised_and_encoded_a_second_time() {
        for (path, canonical) in [
            ("/", "/"),
            ("/clusters/a%20b/x", "/clusters/a%2520b/x"),
            ("//a/./b/../c/", "/a/c/"),
            ("/a_b-c.d~e", "/a_b-c.d~e"),
        ] {
            assert_eq!(canonical_path(path), canonical, "{path}");
        }
        assert_eq!(canonical_query("b=2&a=%7e%20&a"), "a=&a=~%20&b=2");
    }
}
