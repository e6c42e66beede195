//! The worker that reads the region, on paused time, with answers as the SDK reads them.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::{AwsRegion, DEADLINE, RETRY, RegionState};
use crate::aws::canned::{self, Canned};
use crate::aws::own_identity::imds::InstanceRole;
use crate::clock::{Clock, Simulated};
use crate::rng::Rng;

const HOUR: Duration = Duration::from_secs(3600);

/// What was read and reported, with the time of each.
#[derive(Clone, Default)]
struct Seen {
    reads: Arc<Mutex<Vec<Duration>>>,
    reports: Arc<Mutex<Vec<(Duration, RegionState)>>>,
}

fn answer(status: u16, body: &str) -> Canned {
    let ttl = ("x-aws-ec2-metadata-token-ttl-seconds", "21600".to_owned());
    Canned { status, headers: vec![ttl], body: body.as_bytes().to_vec() }
}

/// The metadata service answers requests for the region by the time since the start.
fn metadata(
    says: impl Fn(Duration) -> Canned + Clone + Send + Sync + 'static,
    seen: &Seen,
) -> SharedHttpClient {
    let (reads, began) = (Arc::clone(&seen.reads), Instant::now());
    canned::client(move |uri| {
        if uri.ends_with("/api/token") {
            return answer(200, "session");
        }
        assert!(uri.ends_with("/latest/meta-data/placement/region"), "{uri}");
        reads.lock().push(began.elapsed());
        says(began.elapsed())
    })
}

/// Runs the worker for so long at most, while `beside` happens. Whether it ended.
async fn learn(client: SharedHttpClient, seen: &Seen, region: &AwsRegion, at_most: Duration) -> bool {
    let clock = Clock::simulated(Simulated::starting_at(UNIX_EPOCH + Duration::from_secs(1_800_000_000)));
    let instance = InstanceRole::through(client, None, false, &clock);
    let (reports, began) = (Arc::clone(&seen.reports), Instant::now());
    let report = move |state| reports.lock().push((began.elapsed(), state));
    timeout(at_most, region.clone().learn(instance, clock, Rng::seeded(7), report)).await.is_ok()
}

fn reasons(seen: &Seen) -> Vec<String> {
    let reports = seen.reports.lock();
    let reasons = reports.iter().filter_map(|(_, state)| match state {
        RegionState::Known => None,
        RegionState::Unknown(why) => Some(why.clone()),
    });
    reasons.collect()
}

#[tokio::test(start_paused = true)]
async fn the_region_is_read_once_and_never_again() {
    let (seen, region) = (Seen::default(), AwsRegion::unknown());
    assert_eq!(region.get(), None);
    assert!(learn(metadata(|_| answer(200, "eu-central-1"), &seen), &seen, &region, HOUR).await);
    assert_eq!(region.get().as_deref(), Some("eu-central-1"));
    assert_eq!(*seen.reports.lock(), [(Duration::ZERO, RegionState::Known)]);
    assert_eq!(seen.reads.lock().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_region_is_never_taken_and_asked_for_again() {
    let page = "<html>".repeat(100);
    for text in [&*page, "us-east-1/../x", "us-east-1\n", "us-east-1a", "", "127.0.0.1#-east-1"] {
        let (seen, region, text) = (Seen::default(), AwsRegion::unknown(), text.to_owned());
        let length = text.len();
        let says = move |at| match at < Duration::from_secs(5) {
            true => answer(200, &text),
            false => answer(200, "us-east-1"),
        };
        assert!(learn(metadata(says, &seen), &seen, &region, HOUR).await);
        assert_eq!(region.get().as_deref(), Some("us-east-1"));
        let reasons = reasons(&seen);
        assert!(reasons.len() >= 3, "{reasons:?}");
        let wanted = format!("has {length} bytes and is not a region");
        assert!(reasons.iter().all(|why| why.ends_with(&wanted)), "{reasons:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_fails_is_asked_ever_less_and_without_end() {
    let (seen, region) = (Seen::default(), AwsRegion::unknown());
    assert!(!learn(metadata(|_| answer(404, "no"), &seen), &seen, &region, HOUR).await);
    assert_eq!(region.get(), None);
    let reads = seen.reads.lock().clone();
    let pauses: Vec<_> = reads.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(pauses[0] <= Duration::from_millis(600), "{pauses:?}");
    let late = &pauses[pauses.len() / 2..];
    let (least, most) = (late.iter().min().unwrap(), late.iter().max().unwrap());
    assert!(*least >= Duration::from_secs(5) && *most <= Duration::from_secs(11), "{least:?} {most:?}");
    assert!(least != most, "jittered");
    assert!(reasons(&seen).iter().all(|why| why.contains("placement/region (it answered 404)")));
}

#[tokio::test(start_paused = true)]
async fn somebody_who_needs_it_has_it_read_at_once_but_not_in_a_tight_loop() {
    let (seen, region) = (Seen::default(), AwsRegion::unknown());
    let heals_at = Duration::from_secs(600);
    let says = move |at| if at < heals_at { answer(404, "no") } else { answer(200, "eu-west-1") };
    let needs = async {
        sleep(heals_at).await;
        for _ in 0..100 {
            assert_eq!(region.needed(), None);
        }
        let (before, began) = (seen.reads.lock().len(), Instant::now());
        while region.get().is_none() {
            sleep(Duration::from_millis(10)).await;
        }
        assert!(began.elapsed() <= RETRY.pause(1), "{:?}", began.elapsed());
        assert_eq!(seen.reads.lock().len(), before + 1);
    };
    let client = metadata(says, &seen);
    let (is_known, ()) = tokio::join!(learn(client, &seen, &region, HOUR), needs);
    assert!(is_known);
    // Those who ask without end get two reads a second.
    let (seen, region) = (Seen::default(), AwsRegion::unknown());
    let needs = async {
        loop {
            region.needed();
            sleep(Duration::from_millis(1)).await;
        }
    };
    let client = metadata(|_| answer(404, "no"), &seen);
    tokio::select! {
        _ = learn(client, &seen, &region, Duration::from_secs(60)) => {}
        () = needs => {}
    }
    let reads = seen.reads.lock().len();
    assert!((100..=130).contains(&reads), "{reads}");
}

/// Hangs until a time, then answers.
#[derive(Clone, Debug)]
struct Hanging {
    until: Instant,
}

impl HttpConnector for Hanging {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let is_over = Instant::now() >= self.until;
        let body = if request.uri().ends_with("/api/token") { "session" } else { "eu-west-1" };
        HttpConnectorFuture::new(async move {
            if !is_over {
                std::future::pending::<()>().await;
            }
            answer(200, body).response()
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_never_answers_is_given_up_and_asked_again() {
    let (seen, region) = (Seen::default(), AwsRegion::unknown());
    let connector = SharedHttpConnector::new(Hanging { until: Instant::now() + 2 * DEADLINE });
    let client = http_client_fn(move |_, _| connector.clone());
    assert!(learn(client, &seen, &region, HOUR).await);
    assert_eq!(region.get().as_deref(), Some("eu-west-1"));
    let reports = seen.reports.lock().clone();
    let (at, first) = &reports[0];
    assert!(*at == DEADLINE && matches!(first, RegionState::Unknown(why) if why.contains("within 8 s")));
    assert!(reports.len() >= 2 && reports.len() <= 4, "{reports:?}");
}
