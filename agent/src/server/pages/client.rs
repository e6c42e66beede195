//! Which SDK asks, as far as its request shows it, and for how long it is held.
//!
//! Owns: the table below, which docs/sdk-matrix.md measures. Must not know: what a held request waits for.
//!
//! Each SDK waits so long for an answer and tries so often, and then its program fails. So each try is held
//! almost as long as that SDK waits for it, and answered then: the tries together cover the longest outage
//! that it can survive, and the last one carries the reason to the people who read the error. An SDK that
//! waits for ever is held for 34 s to 40 s in all, over all its tries.

use std::time::Duration;

use http::HeaderMap;
use http::header::{ACCEPT, CONNECTION, USER_AGENT};

use crate::credentials::policy::hold::{Hold, LONGEST_HOLD, LONGEST_HOLD_OF_ALL};

/// An SDK, or a family of them that behaves alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// botocore (boto3, the AWS CLI): 2 s, 3 tries, 1 s apart.
    Botocore,
    /// The SDK for Java v2: 1 s, 6 tries at once after each other. Its default chain shows no reason; its
    /// container provider alone does.
    Java,
    /// The SDK for Rust: 5 s, 3 tries, some seconds apart.
    Rust,
    /// The SDK for Go v2: waits for ever, 3 tries; since credentials 1.21 they are over within 0.1 s. A call
    /// of a service begins them anew twice.
    Go,
    /// The SDK for Go v1: waits for ever, 4 tries.
    GoV1,
    /// minio-go and other programs with Go's own client: waits for ever, and tries once.
    GoHttp,
    /// The AWS Common Runtime: waits for ever, 4 tries.
    Crt,
    /// The SDK for JavaScript v3: waits for ever, 4 tries, 1 s apart. Older releases give up after 1 s, and
    /// lose the reason whatever is answered.
    JavaScript,
    /// Any other. Among them those that give up after 1 s, and try again only when they were not answered
    /// (PHP) or show no reason anyway (Ruby, C++, JavaScript v2): the longer they are held, the better.
    Other,
}

impl Client {
    /// Who has sent these headers.
    pub fn of(headers: &HeaderMap) -> Self {
        if headers.contains_key("amz-sdk-request") {
            return Self::Go;
        }
        let Some(agent) = headers.get(USER_AGENT) else { return Self::without_a_name(headers) };
        let agent = agent.to_str().unwrap_or_default();
        let of_prefix = [
            ("python-urllib3/", Self::Botocore),
            ("aws-sdk-java/2", Self::Java),
            ("aws-sdk-go/1", Self::GoV1),
            ("aws-sdk-crt/", Self::Crt),
            ("Go-http-client/", Self::GoHttp),
        ];
        of_prefix.into_iter().find(|(prefix, _)| agent.starts_with(prefix)).map_or(Self::Other, |(_, is)| is)
    }

    fn without_a_name(headers: &HeaderMap) -> Self {
        let is = |name, value: &str| headers.get(name).is_some_and(|has| has == value);
        match (headers.contains_key(ACCEPT), headers.contains_key(CONNECTION)) {
            (true, false) if is(ACCEPT, "application/json") => Self::Rust,
            (false, true) if is(CONNECTION, "keep-alive") => Self::JavaScript,
            _ => Self::Other,
        }
    }

    /// For how long it is held.
    pub const fn hold(self) -> Hold {
        match self {
            Self::Botocore => Hold::Known(Duration::from_millis(1_800)),
            Self::Java => Hold::Known(Duration::from_millis(900)),
            Self::Rust | Self::Go => Hold::Known(LONGEST_HOLD),
            Self::GoV1 | Self::Crt | Self::JavaScript => Hold::Known(Duration::from_millis(8_500)),
            Self::GoHttp => Hold::Known(LONGEST_HOLD_OF_ALL),
            Self::Other => Hold::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::Client;
    use crate::credentials::policy::hold::{Hold, LONGEST_HOLD_OF_ALL};

    fn client(headers: &[(&'static str, &'static str)]) -> Client {
        let header = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        Client::of(&headers.iter().map(header).collect::<HeaderMap>())
    }

    /// As they were seen on the wire (docs/design/client-contract.md).
    #[test]
    fn sdks_are_known_by_what_they_send() {
        let json = ("accept", "application/json");
        let cases: [(&[(&str, &str)], Client); 12] = [
            (
                &[json, ("accept-encoding", "identity"), ("user-agent", "python-urllib3/2.8.0")],
                Client::Botocore,
            ),
            (&[("user-agent", "aws-sdk-java/2.57.8 md/io#sync"), ("connection", "keep-alive")], Client::Java),
            (&[json], Client::Rust),
            (
                &[json, ("amz-sdk-request", "attempt=1; max=3"), ("user-agent", "Go-http-client/1.1")],
                Client::Go,
            ),
            (&[json, ("user-agent", "aws-sdk-go/1.55.6 (go1.26; linux; amd64)")], Client::GoV1),
            (&[("user-agent", "Go-http-client/1.1"), ("accept-encoding", "gzip")], Client::GoHttp),
            (&[json, ("user-agent", "aws-sdk-crt/ecs-credentials-provider")], Client::Crt),
            (&[("connection", "keep-alive")], Client::JavaScript),
            (&[("user-agent", "GuzzleHttp/7")], Client::Other),
            (&[("user-agent", "Ruby"), ("accept", "*/*")], Client::Other),
            (&[json, ("connection", "close")], Client::Other),
            (&[], Client::Other),
        ];
        for (headers, expected) in cases {
            assert_eq!(client(headers), expected, "{headers:?}");
        }
    }

    /// Those that give up by themselves get their answer before, with what it takes on a busy node.
    #[test]
    fn each_try_ends_before_its_client_gives_up_and_within_what_flights_allow_for() {
        let gives_up_after = [
            (Client::Botocore, 2_000),
            (Client::Java, 1_000),
            (Client::Rust, 5_000),
            (Client::Go, u64::MAX),
            (Client::GoV1, u64::MAX),
            (Client::GoHttp, u64::MAX),
            (Client::Crt, u64::MAX),
            (Client::JavaScript, u64::MAX),
        ];
        for (client, ms) in gives_up_after {
            let longest = client.hold().longest();
            assert!(longest * 10 / 9 <= Duration::from_millis(ms), "{client:?}: {longest:?}");
            assert!(matches!(client.hold(), Hold::Known(_)) && longest <= LONGEST_HOLD_OF_ALL, "{client:?}");
        }
        assert_eq!(Client::Other.hold(), Hold::Unknown);
    }
}
