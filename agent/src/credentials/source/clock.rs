//! The agent's clock as the AWS SDK wants it.
//!
//! Owns: handing the corrected wall time to the SDK, so that its signatures are right although the node's clock is off;
//! and learning the correction from the `Date` of AWS's answers. Must not know: what the answers say otherwise.

use std::time::SystemTime;

use aws_smithy_async::time::TimeSource;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::DateTime;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::date_time::Format;

use crate::clock::Clock;

/// A clock that is off by less is left alone: `Date` has whole seconds, and an answer may take one to come. SigV4 allows
/// five minutes, and 15 s are the least life of a set.
const TOLERATED_MS: i64 = 5_000;

impl TimeSource for Clock {
    fn now(&self) -> SystemTime {
        Self::now(self).wall
    }
}

/// Reads the `Date` of each answer and corrects the clock by it.
#[derive(Debug)]
pub(super) struct DateObserver {
    clock: Clock,
}

impl DateObserver {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock }
    }

    fn observe(&self, date: &str) {
        let Ok(aws) = DateTime::from_str(date, Format::HttpDate) else { return };
        let correction = correction_ms(self.clock.uncorrected_wall(), aws.secs());
        let before = self.clock.correction_ms();
        self.clock.correct_by(correction);
        if (correction == 0) != (before == 0) {
            tracing::warn!(clock.off_ms = correction, "the node's clock and AWS's differ: going by AWS's");
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
        if let Some(date) = context.response().headers().get("date") {
            self.observe(date);
        }
        Ok(())
    }
}

fn correction_ms(node: SystemTime, aws_seconds: i64) -> i64 {
    let node_ms = DateTime::from(node).to_millis().unwrap_or_default();
    // Half a second: the middle of the second that `Date` names.
    let off = aws_seconds.saturating_mul(1000).saturating_add(500).saturating_sub(node_ms);
    if off.abs() <= TOLERATED_MS { 0 } else { off }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::{DateObserver, correction_ms};
    use crate::clock::Clock;

    #[test]
    fn small_differences_are_left_alone_and_large_ones_corrected() {
        let node = UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert_eq!(correction_ms(node, 1_000_000), 0);
        assert_eq!(correction_ms(node, 1_000_004), 0);
        assert_eq!(correction_ms(node, 1_000_600), 600_500);
        assert_eq!(correction_ms(node, 999_400), -599_500);
    }

    #[test]
    fn the_date_of_an_answer_corrects_the_shared_clock() {
        let clock = Clock::system();
        let observer = DateObserver::new(clock.clone());
        observer.observe("nonsense");
        assert_eq!(clock.correction_ms(), 0);
        observer.observe("Thu, 01 Jan 2043 00:00:00 GMT");
        assert!(clock.correction_ms() > 0);
        let corrected = clock.now().wall.duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!((2_303_683_199..2_303_683_260).contains(&corrected), "{corrected}");
    }
}
