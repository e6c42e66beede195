//! Where calls go when no endpoint is configured: by the SDK's rules, for each partition and variant.
//!
//! The hosts are what botocore's rules and partitions say (sts/2011-06-15/endpoint-rule-set-1.json). FIPS of
//! us-gov-west-1 has no name of its own.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use parking_lot::Mutex;

use super::{Parts, StsWebIdentity, classify};
use crate::aws::answer_log::AnswerLog;
use crate::aws::canned::{self, Canned};
use crate::aws::region::AwsRegion;
use crate::clock::Clock;
use crate::config::{Sts, Upstream};
use crate::credentials::source::answer::ErrorAnswer;
use crate::credentials::source::tests::refusal;
use crate::credentials::source::{RefusalClass, SourceError, TimeLimits};
use crate::workload::StsEndpoint::{Global, Regional};
use crate::workload::{BearerToken, PresentedToken, RoleArn, StsEndpoint, WebIdentity};

const LIMITS: TimeLimits =
    TimeLimits { in_all: Duration::from_secs(5), on_used_connection: Duration::from_secs(5) };

/// What an answer of STS means, without words.
pub(crate) fn meaning(status: u16, code: &str) -> SourceError {
    let answer = ErrorAnswer { status, code: Some(code), message: "", request_id: None };
    classify(&answer, *refusal(RefusalClass::BadRequest).judged)
}

/// Settings that choose the endpoint.
#[derive(Clone, Copy, Debug, Default)]
struct Settings {
    use_fips: bool,
    use_dual_stack: bool,
    endpoint: Option<&'static str>,
}

const PLAIN: Settings = Settings { use_fips: false, use_dual_stack: false, endpoint: None };
const FIPS: Settings = Settings { use_fips: true, ..PLAIN };
const DUAL: Settings = Settings { use_dual_stack: true, ..PLAIN };
const BOTH: Settings = Settings { use_fips: true, ..DUAL };
const OWN: Settings = Settings { endpoint: Some("https://vpce-1.sts.us-west-2.vpce.amazonaws.com"), ..PLAIN };

/// The URL that is asked.
fn asked(region: &str, settings: Settings, wanted: StsEndpoint) -> String {
    let Settings { use_fips, use_dual_stack, endpoint } = settings;
    let (uris, clock) = (Arc::new(Mutex::new(Vec::new())), Clock::system());
    let seen = Arc::clone(&uris);
    let answer = move |uri: &str| {
        seen.lock().push(uri.to_owned());
        Canned { status: 503, headers: Vec::new(), body: Vec::new() }
    };
    let sts = StsWebIdentity::new(Parts {
        region: AwsRegion::given(region),
        sts: &Sts { endpoint: endpoint.map(str::to_owned), use_dual_stack },
        upstream: &Upstream { endpoint: None, use_fips, ca_bundle: None, proxy: None },
        answer_log: AnswerLog::default(),
        http_client: canned::client(answer),
        clock: &clock,
    });
    let wanted = WebIdentity {
        role: RoleArn::read("arn:aws:iam::111122223333:role/reader").unwrap(),
        audience: "sts.amazonaws.com".into(),
        session_name: "ns.pod".into(),
        endpoint: wanted,
    };
    let token = BearerToken::from_header(b"e30.e30.c2ln").unwrap();
    let presented = PresentedToken { token, expires: UNIX_EPOCH, issued: None };
    canned::without_waiting(sts.fetch(&wanted, &presented, LIMITS)).unwrap().unwrap_err();
    let uris = uris.lock();
    assert_eq!(uris.len(), 1, "{uris:?}");
    uris[0].clone()
}

#[test]
fn each_partition_and_variant_has_its_endpoint() {
    let mut wrong = Vec::new();
    for (region, settings, wanted, host) in [
        ("us-west-2", PLAIN, Regional, "sts.us-west-2.amazonaws.com"),
        ("us-west-2", FIPS, Regional, "sts-fips.us-west-2.amazonaws.com"),
        ("us-west-2", DUAL, Regional, "sts.us-west-2.api.aws"),
        ("us-west-2", BOTH, Regional, "sts-fips.us-west-2.api.aws"),
        ("us-west-2", PLAIN, Global, "sts.amazonaws.com"),
        ("us-west-2", FIPS, Global, "sts-fips.us-west-2.amazonaws.com"),
        ("us-west-2", DUAL, Global, "sts.us-west-2.api.aws"),
        ("us-west-2", OWN, Regional, "vpce-1.sts.us-west-2.vpce.amazonaws.com"),
        ("us-west-2", OWN, Global, "vpce-1.sts.us-west-2.vpce.amazonaws.com"),
        ("ap-south-2", PLAIN, Global, "sts.ap-south-2.amazonaws.com"),
        ("cn-north-1", PLAIN, Regional, "sts.cn-north-1.amazonaws.com.cn"),
        ("cn-north-1", FIPS, Regional, "sts-fips.cn-north-1.amazonaws.com.cn"),
        ("cn-north-1", DUAL, Regional, "sts.cn-north-1.api.amazonwebservices.com.cn"),
        ("cn-north-1", PLAIN, Global, "sts.cn-north-1.amazonaws.com.cn"),
        ("us-gov-west-1", PLAIN, Regional, "sts.us-gov-west-1.amazonaws.com"),
        ("us-gov-west-1", FIPS, Regional, "sts.us-gov-west-1.amazonaws.com"),
        ("us-gov-west-1", DUAL, Regional, "sts.us-gov-west-1.api.aws"),
        ("us-gov-west-1", BOTH, Regional, "sts-fips.us-gov-west-1.api.aws"),
        ("us-gov-west-1", PLAIN, Global, "sts.us-gov-west-1.amazonaws.com"),
        ("eusc-de-east-1", PLAIN, Regional, "sts.eusc-de-east-1.amazonaws.eu"),
        ("eusc-de-east-1", FIPS, Regional, "sts-fips.eusc-de-east-1.amazonaws.eu"),
        ("eusc-de-east-1", DUAL, Regional, "sts.eusc-de-east-1.api.amazonwebservices.eu"),
        ("eusc-de-east-1", PLAIN, Global, "sts.eusc-de-east-1.amazonaws.eu"),
    ] {
        let asked = asked(region, settings, wanted);
        if asked != format!("https://{host}/") {
            wrong.push(format!("{region} {settings:?} {wanted:?}: {asked}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
