//! The sandbox's clock: all that AWS and the control plane judge and say goes by it.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sandbox::{Options, PodSpec, Sandbox};
use serde_json::Value;

use crate::client::{Request, assume, node};

/// Seconds from `now`, by the text of an HTTP date or of RFC 3339.
fn from_now(now: SystemTime, then: SystemTime) -> i64 {
    match then.duration_since(now) {
        Ok(ahead) => i64::try_from(ahead.as_secs()).unwrap(),
        Err(behind) => -i64::try_from(behind.duration().as_secs()).unwrap(),
    }
}

fn claims(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

#[test]
fn signatures_tokens_lives_dates_and_metadata_share_one_clock() {
    for ahead in [0, -90, 600, 25 * 3600, -25 * 3600] {
        let sandbox = Sandbox::start(Options { clock_ahead: ahead, ..Options::default() }).unwrap();
        #[expect(clippy::disallowed_methods, reason = "the sandbox's clock is compared with the machine's")]
        let machine = SystemTime::now();
        let close = |seconds: i64| (ahead - 2..=ahead + 2).contains(&seconds);
        assert!(close(from_now(machine, sandbox.now())), "{ahead}");

        let pod = sandbox.pod(PodSpec::default()).unwrap();
        let issued = claims(&pod.token)["iat"].as_u64().unwrap();
        assert!(close(from_now(machine, SystemTime::UNIX_EPOCH + Duration::from_secs(issued))), "{ahead}");

        let asked =
            |skew| assume(&sandbox, &pod.token).sign(&node(&sandbox), "eks-auth", skew).send().unwrap();
        let answer = asked(ahead);
        assert_eq!(answer.status, 200, "{ahead}: {answer:?}");
        let date = httpdate::parse_http_date(answer.header("date").unwrap()).unwrap();
        assert!(close(from_now(machine, date)), "{ahead}: {date:?}");
        let expiration = answer.json()["credentials"]["expiration"].as_u64().unwrap();
        let ends = SystemTime::UNIX_EPOCH + Duration::from_secs(expiration) - Duration::from_hours(6);
        assert!(close(from_now(machine, ends)), "{ahead}: {expiration}");
        for off in [-400, 400] {
            assert_eq!(asked(ahead + off).error(), (403, "InvalidSignatureException"), "{ahead}");
        }

        let imds = sandbox.imds_url();
        let session = Request::new("PUT", format!("{imds}/latest/api/token"), "")
            .header("x-aws-ec2-metadata-token-ttl-seconds", "60");
        let get = |path: &str| {
            Request::new("GET", format!("{imds}/latest/meta-data/{path}"), "")
                .header("x-aws-ec2-metadata-token", session.send().unwrap().body)
                .send()
                .unwrap()
        };
        let role = get("iam/security-credentials/").body;
        let given = get(&format!("iam/security-credentials/{role}"));
        let date = httpdate::parse_http_date(given.header("date").unwrap()).unwrap();
        assert!(close(from_now(machine, date)), "{ahead}");
        let updated = given.json()["LastUpdated"].as_str().unwrap().to_owned();
        let updated = time::OffsetDateTime::parse(&updated, &time::format_description::well_known::Rfc3339);
        assert!(close(from_now(machine, updated.unwrap().into())), "{ahead}");
    }
}

#[test]
fn what_has_been_issued_lapses_when_the_clock_goes_on() {
    let sandbox = Sandbox::start(Options::default()).unwrap();
    let pod = sandbox.pod(PodSpec::default()).unwrap();
    let node = node(&sandbox);
    sandbox.set_clock_ahead(25 * 3600);
    let asked = |token: &str, by| assume(&sandbox, token).sign(by, "eks-auth", 25 * 3600).send().unwrap();
    assert_eq!(asked(&pod.token, &node).error(), (403, "ExpiredTokenException"), "an hour is over");
    let renewed = sandbox.node_credentials(Duration::from_hours(1));
    assert_eq!(asked(&pod.token, &renewed).error(), (400, "ExpiredTokenException"), "a day is over");
    assert_eq!(asked(&pod.another_token().unwrap(), &renewed).status, 200);
}
