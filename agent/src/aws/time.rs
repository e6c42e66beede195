//! AWS's time: taken from its answers, and given to the AWS SDK.
//!
//! Owns: which answers can be believed, and handing AWS's time to the SDK, so that its signatures are right
//! although the node's clock is off. Must not know: what the answers say otherwise, or what follows from a
//! difference (`clock`).

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_smithy_async::time::TimeSource;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::DateTime;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::date_time::Format;
use parking_lot::Mutex;

use crate::clock::{Asked, Clock, Teacher};

/// What AWS's own front ends put on each answer, and a proxy or a captive portal does not.
const REQUEST_ID: &str = "x-amzn-requestid";
/// What a request to the metadata service carries once IMDSv2 has given a token: its answer comes from there.
const IMDS_TOKEN: &str = "x-aws-ec2-metadata-token";
/// A signature that is further off than this may be rejected for its time alone. SigV4 allows five minutes;
/// the call and the whole seconds of `Date` take their share.
const SIGNATURE_LEEWAY: Duration = Duration::from_secs(4 * 60);
/// From 2020 to 2200: what is outside is not the time, and beyond the year 9999 a signature is not made but
/// panics.
const PLAUSIBLE: std::ops::Range<u64> = 1_577_836_800..7_258_118_400;

impl TimeSource for Clock {
    fn now(&self) -> SystemTime {
        self.to_sign_with()
    }
}

/// What the answers of a service say of the time; one for a client, fed by an observer per call.
#[derive(Clone, Debug)]
pub struct AwsTime {
    clock: Clock,
}

/// Reads the `Date` of one call's answer.
#[derive(Clone, Debug)]
pub struct DateObserver {
    clock: Clock,
    asked: Asked,
    signed_at: SystemTime,
    answered_at: Arc<Mutex<Option<SystemTime>>>,
}

impl AwsTime {
    /// Teaches this clock.
    pub fn new(clock: Clock) -> Self {
        Self { clock }
    }

    /// For one call, which is signed now.
    pub fn observer(&self) -> DateObserver {
        let (asked, signed_at) = (self.clock.asking(), self.clock.to_sign_with());
        DateObserver { clock: self.clock.clone(), asked, signed_at, answered_at: Arc::default() }
    }
}

impl DateObserver {
    /// AWS's time when it answered.
    pub fn answered_at(&self) -> Option<SystemTime> {
        *self.answered_at.lock()
    }

    /// Whether AWS may have rejected the signature for its time: then its answer says nothing of the
    /// credentials that signed.
    pub fn was_signed_untimely(&self) -> bool {
        self.answered_at().is_some_and(|answered_at| {
            let apart = answered_at.duration_since(self.signed_at);
            apart.unwrap_or_else(|earlier| earlier.duration()) > SIGNATURE_LEEWAY
        })
    }

    fn read(&self, response: &HttpResponse) {
        let Some(date) = date_of(response) else { return };
        *self.answered_at.lock() = Some(date);
        if let Some(id) = response.headers().get(REQUEST_ID) {
            self.clock.learn(Teacher::Service, date, self.asked, Some(id.as_bytes()));
        }
    }
}

#[dyn_dispatch_hint]
impl Intercept for DateObserver {
    fn name(&self) -> &'static str {
        "DateObserver"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _runtime_components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.read(context.response());
        Ok(())
    }
}

/// The client for the metadata service. Its answers teach this clock.
pub fn taught_by_metadata(client: SharedHttpClient, clock: &Clock) -> SharedHttpClient {
    let clock = clock.clone();
    http_client_fn(move |settings, components| {
        use aws_smithy_runtime_api::client::http::HttpClient;
        let inner = client.http_connector(settings, components);
        SharedHttpConnector::new(MetadataConnector { inner, clock: clock.clone() })
    })
}

#[derive(Debug)]
struct MetadataConnector {
    inner: SharedHttpConnector,
    clock: Clock,
}

impl HttpConnector for MetadataConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let has_token = request.headers().contains_key(IMDS_TOKEN);
        let (clock, asked) = (self.clock.clone(), self.clock.asking());
        let answer = self.inner.call(request);
        HttpConnectorFuture::new(async move {
            let response = answer.await?;
            if has_token
                && response.status().is_success()
                && let Some(date) = date_of(&response)
            {
                clock.learn(Teacher::Metadata, date, asked, None);
            }
            Ok(response)
        })
    }
}

/// The `Date` of an answer, unless it is one that no clock can show in the life of this program.
fn date_of(response: &HttpResponse) -> Option<SystemTime> {
    let date = DateTime::from_str(response.headers().get("date")?, Format::HttpDate).ok()?;
    let seconds = u64::try_from(date.secs()).ok().filter(|seconds| PLAUSIBLE.contains(seconds))?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
    use aws_smithy_types::body::SdkBody;

    use super::AwsTime;
    use crate::clock::{Clock, Simulated, Trust};

    const AT_1000: &str = "Fri, 15 Jan 2027 08:16:40 GMT";

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
    }

    fn answer(headers: &[(&'static str, &'static str)]) -> HttpResponse {
        let mut response = HttpResponse::new(200.try_into().unwrap(), SdkBody::empty());
        for (name, value) in headers {
            response.headers_mut().insert(*name, *value);
        }
        response
    }

    #[tokio::test(start_paused = true)]
    async fn only_an_answer_with_a_request_id_teaches_the_time() {
        let clock = Clock::simulated(Simulated::starting_at(at(970)));
        let time = AwsTime::new(clock.clone());
        for (what, headers) in [
            ("no date", vec![("x-amzn-requestid", "1")]),
            ("nonsense", vec![("x-amzn-requestid", "1"), ("date", "nonsense")]),
            ("a proxy's", vec![("date", AT_1000)]),
            ("1970", vec![("x-amzn-requestid", "1"), ("date", "Thu, 01 Jan 1970 00:16:40 GMT")]),
            ("2019", vec![("x-amzn-requestid", "1"), ("date", "Tue, 31 Dec 2019 23:59:59 GMT")]),
            ("2200", vec![("x-amzn-requestid", "1"), ("date", "Wed, 01 Jan 2200 00:00:00 GMT")]),
            ("9999", vec![("x-amzn-requestid", "1"), ("date", "Fri, 31 Dec 9999 23:59:59 GMT")]),
        ] {
            let observer = time.observer();
            observer.read(&answer(&headers));
            assert!(observer.answered_at().is_none() || what == "a proxy's", "{what}");
            assert!(!clock.wants_answer(), "{what}");
            assert_eq!(clock.now().trust, Trust::Unknown, "{what}");
        }
        time.observer().read(&answer(&[("x-amzn-requestid", "1"), ("date", AT_1000)]));
        assert_eq!((clock.now().wall, clock.now().trust), (at(1000) + HALF_SECOND, Trust::Confirmed));
    }

    const HALF_SECOND: Duration = Duration::from_millis(500);

    #[tokio::test(start_paused = true)]
    async fn an_answer_tells_when_it_was_given_and_whether_the_signature_was_too_far_off() {
        for (signed_at, is_untimely) in [(1000, false), (760, false), (759, true), (1241, true)] {
            let time = AwsTime::new(Clock::simulated(Simulated::starting_at(at(signed_at))));
            let observer = time.observer();
            assert!(!observer.was_signed_untimely());
            observer.read(&answer(&[("date", AT_1000)]));
            assert_eq!(observer.answered_at(), Some(at(1000)));
            assert_eq!(observer.was_signed_untimely(), is_untimely, "signed at {signed_at}");
            assert_eq!(time.observer().answered_at(), None, "each call has its own");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_clocks_are_read_when_a_call_is_made_and_an_answer_counts_once() {
        let simulated = Simulated::starting_at(at(990));
        let clock = Clock::simulated(std::sync::Arc::clone(&simulated));
        let time = AwsTime::new(clock.clone());
        let given = answer(&[("x-amzn-requestid", "1"), ("date", AT_1000)]);
        time.observer().read(&given);
        assert!(clock.now().is_confirmed());
        let overtaken = time.observer();
        simulated.set_wall_error_ms(3_600_000);
        overtaken.read(&answer(&[("x-amzn-requestid", "2"), ("date", AT_1000)]));
        assert!(!clock.now().is_confirmed(), "it was given before the step");
        time.observer().read(&answer(&[("x-amzn-requestid", "2"), ("date", AT_1000)]));
        assert!(!clock.now().is_confirmed(), "the same once more");
        time.observer().read(&answer(&[("x-amzn-requestid", "3"), ("date", AT_1000)]));
        assert!(clock.now().is_confirmed());
    }
}
