//! What STS may say, and what may be said in its place: a pod without credentials gets the sentence that
//! helps, after as many calls as that is worth, and a pod with credentials notices nothing.

use std::ops::RangeInclusive;
use std::time::Duration;

use sandbox::{Effect, Fault, Sandbox, Service};
use tokio::time::{Instant, sleep};

use crate::harness::{
    Agent, Builder, Tamper, Tampering, eventually, expiration, failing, in_future, left, sandbox,
    side_by_side,
};
use crate::web_identity::{READER, file, map_of, pod, trust_app};

/// What an answer from memory may take, a wait for the renewal included.
const FROM_MEMORY: Duration = Duration::from_millis(310);
/// How long a set is asked for after its renewal began to fail.
const ASKED_ON: Duration = Duration::from_secs(2);
/// Longest wait for the first renewal: it is due after 2 s.
const RENEWAL: Duration = Duration::from_secs(10);

/// Status, code and the beginning of a sentence.
type Told = (u16, &'static str, &'static str);

/// What passes by itself is told after the longest hold.
const NO_KEYS: Told =
    (503, "ServiceUnavailableException", "STS cannot read the keys of the token's issuer; try again");
const AGAIN: Told = (503, "ServiceUnavailableException", "AWS is unreachable or failing; try again");
const THROTTLED: Told = (503, "ThrottlingException", "AWS is throttling credential requests; try again");
/// What STS would not say.
const NOT_STS: Told =
    (503, "ServiceUnavailableException", "Something on the way to AWS may have answered; try again");

/// Calls of one pod in 4.5 s, with the pauses between them.
const WHILE_HELD: RangeInclusive<usize> = 4..=10;
/// The same where each call waits for its answer: the first 1.2 s, the next longer.
const SLOW: RangeInclusive<usize> = 2..=3;

/// One thing that may be said.
struct Row {
    what: &'static str,
    /// What STS itself says, if not what it should.
    says: Option<Effect>,
    /// What becomes of it on the way.
    tamper: Tamper,
    /// What a pod without credentials is told.
    told: Told,
    /// Calls that this costs.
    calls: RangeInclusive<usize>,
}

/// Another body than the right one, which is no answer of STS.
fn body(what: &'static str, make: fn(&str) -> String) -> Row {
    Row { what, says: None, tamper: Tamper::Body(make), told: NOT_STS, calls: WHILE_HELD }
}

/// An error of STS, by its code.
fn says(what: &'static str, status: u16, told: Told, calls: RangeInclusive<usize>) -> Row {
    Row { what, says: Some(failing(status, what)), tamper: Tamper::Nothing, told, calls }
}

fn rows() -> Vec<Row> {
    let expired = (400, "ExpiredTokenException", "The token has expired: read the token file again: ");
    let region_off =
        (400, "RegionDisabledException", "STS is not active in this region for the account of the role: ");
    let silence = body("a head and silence", str::to_owned);
    vec![
        body("a page in its place", |_| "<html>Welcome to Hotel Wifi</html>".to_owned()),
        body("JSON", |_| r#"{"AccessKeyId": "ASIA"}"#.to_owned()),
        body("nothing", |_| String::new()),
        body("half of it", |body| body[..body.len() / 2].to_owned()),
        body("no secret", |body| with(body, "SecretAccessKey", "")),
        body("no expiration", |body| with(body, "Expiration", "")),
        body("an expiration that is none", |body| with(body, "Expiration", "tomorrow")),
        body("expired", |body| with(body, "Expiration", "2020-01-01T00:00:00Z")),
        body("10 s of life", |body| with(body, "Expiration", &in_future(Duration::from_secs(10)))),
        Row { tamper: Tamper::HeadOnly, told: AGAIN, calls: SLOW, ..silence },
        Row { tamper: Tamper::Close, told: AGAIN, ..body("a closed connection", str::to_owned) },
        // A time that nobody could wait for.
        Row {
            tamper: Tamper::Header("Retry-After: 3600"),
            ..says("ServiceUnavailable", 503, AGAIN, WHILE_HELD)
        },
        says("InternalFailure", 500, AGAIN, WHILE_HELD),
        says("IDPCommunicationError", 400, NO_KEYS, WHILE_HELD),
        says("Throttling", 400, THROTTLED, WHILE_HELD),
        says("ThrottlingException", 400, THROTTLED, WHILE_HELD),
        says("RequestLimitExceeded", 503, THROTTLED, WHILE_HELD),
        // About a token that is fresh: the clock of AWS, or the cluster's, is off.
        says("ExpiredTokenException", 400, expired, 1..=1),
        // As with a role that IAM does not know yet, a young pod waits for it.
        says("RegionDisabledException", 403, region_off, 3..=8),
        // About a signature, where there is none.
        says("SignatureDoesNotMatch", 403, NOT_STS, WHILE_HELD),
    ]
}

/// The answer with another text in that element.
fn with(body: &str, element: &str, text: &str) -> String {
    let (open, close) = (format!("<{element}>"), format!("</{element}>"));
    let (before, rest) = body.split_once(&open).expect("it has the element");
    let (_, after) = rest.split_once(&close).expect("it ends");
    format!("{before}{open}{text}{close}{after}")
}

/// An agent that asks STS through what tampers with it.
async fn asking(sandbox: &Sandbox, sts: &Tampering) -> Builder {
    trust_app(sandbox);
    Builder::verifying(sandbox)
        .flag("--sts-endpoint", &sts.url())
        .flag("--role-map", &file(sandbox, "role-map.json", &map_of(READER)))
}

/// Sets are renewed as soon as they come, so that STS is called while it fails.
const SOON: [&str; 2] = ["--max-credential-retention-before-renewal", "2s"];

#[test]
fn whatever_sts_says_new_pods_get_its_sentence_and_those_that_hold_credentials_notice_nothing() {
    side_by_side(7, rows(), async |row| meet(&row).await);
}

async fn meet(row: &Row) {
    let sandbox = sandbox();
    // Two agents, so that the calls of one pod are not counted with those of the other.
    let (of_new, of_held) =
        (Tampering::before(sandbox.sts_url()).await, Tampering::before(sandbox.sts_url()).await);
    let new = asking(&sandbox, &of_new).await.start().await;
    let held = asking(&sandbox, &of_held).await.flag(SOON[0], SOON[1]).start().await;
    let token = pod(&sandbox, "app-0").token;
    let key = held.ask(&token).await.access_key_id();
    for sts in [&of_new, &of_held] {
        sts.set(row.tamper);
    }
    sandbox.faults().set(row.says.clone().map(|effect| Fault::new(Service::Sts, effect)));
    tokio::join!(is_told(row, &new, &of_new, &sandbox), goes_on(row, &held, &of_held, &token, &key));
    of_new.set(Tamper::Nothing);
    sandbox.faults().clear();
    let served = async || new.ask(&pod(&sandbox, "app-2").token).await.status == 200;
    eventually(row.what, served).await;
}

async fn is_told(row: &Row, agent: &Agent, sts: &Tampering, sandbox: &Sandbox) {
    let (status, code, sentence) = row.told;
    let answer = agent.ask(&pod(sandbox, "app-1").token).await;
    let (calls, said) = (sts.calls(), answer.json());
    assert_eq!((answer.status, said["code"].as_str()), (status, Some(code)), "{}: {said}", row.what);
    assert!(said["message"].as_str().expect("a text").starts_with(sentence), "{}: {said}", row.what);
    assert!(row.calls.contains(&calls), "{}: {calls} calls", row.what);
}

async fn goes_on(row: &Row, agent: &Agent, sts: &Tampering, token: &str, key: &str) {
    let (before, began) = (sts.calls(), Instant::now());
    let mut until = None;
    while until.is_none_or(|until| Instant::now() < until) {
        assert!(began.elapsed() < RENEWAL + ASKED_ON, "{}: nothing was renewed", row.what);
        let asked = Instant::now();
        assert_eq!(agent.ask(token).await.access_key_id(), key, "{}", row.what);
        assert!(asked.elapsed() < FROM_MEMORY, "{}: {:?}", row.what, asked.elapsed());
        if until.is_none() && sts.calls() > before {
            until = Some(Instant::now() + ASKED_ON);
        }
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_set_with_five_minutes_is_served_as_it_is_and_takes_the_place_of_none_that_lives_longer() {
    let five_minutes = |body: &str| with(body, "Expiration", &in_future(Duration::from_mins(5)));
    let sandbox = sandbox();
    let sts = Tampering::before(sandbox.sts_url()).await;
    sts.set(Tamper::Body(five_minutes));
    let agent = asking(&sandbox, &sts).await.start().await;
    let token = pod(&sandbox, "app-0").token;
    let first = agent.ask(&token).await;
    assert!((280..=300).contains(&left(&first).as_secs()), "{:?}", left(&first));
    // An SDK comes back for each of its calls: it wants more life than there is.
    for _ in 0..200 {
        let again = agent.ask(&token).await;
        assert_eq!((again.access_key_id(), expiration(&again)), (first.access_key_id(), expiration(&first)));
    }
    assert_eq!(sts.calls(), 1, "none of that reached STS");

    sts.set(Tamper::Nothing);
    let agent = asking(&sandbox, &sts).await.flag(SOON[0], SOON[1]).start().await;
    let key = agent.ask(&token).await.access_key_id();
    sts.set(Tamper::Body(five_minutes));
    let row = body("five minutes", five_minutes);
    goes_on(&row, &agent, &sts, &token, &key).await;
}
