//! The agent's clock as the AWS SDK wants it.
//!
//! Owns: handing the corrected wall time to the SDK, so that its signatures are right although the node's
//! clock is off; and learning the correction from the `Date` of AWS's answers. Must not know: what the
//! answers say otherwise.

use std::sync::Arc;
use std::time::SystemTime;

use aws_smithy_async::time::TimeSource;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::DateTime;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::date_time::Format;
use parking_lot::Mutex;

use crate::clock::Clock;

/// A clock that is off by less is left alone: `Date` has whole seconds, and an answer may take one to come.
/// SigV4 allows five minutes, and 15 s are the least life of a set.
const TOLERATED_MS: i64 = 5_000;

impl TimeSource for Clock {
    fn now(&self) -> SystemTime {
        Self::now(self).wall
    }
}

/// What AWS's answers say of the time; one for a client, told by an observer per call.
#[derive(Clone, Debug)]
pub struct AwsTime {
    clock: Clock,
    last: Arc<Mutex<Option<i64>>>,
}

/// Reads the `Date` of one call's answer.
#[derive(Clone, Debug)]
pub struct DateObserver {
    time: AwsTime,
    answered_at: Arc<Mutex<Option<SystemTime>>>,
}

impl AwsTime {
    /// Corrects this clock.
    pub fn new(clock: Clock) -> Self {
        Self { clock, last: Arc::default() }
    }

    /// For one call.
    pub fn observer(&self) -> DateObserver {
        DateObserver { time: self.clone(), answered_at: Arc::default() }
    }

    /// The clock is corrected only when two answers in a row agree: one wrong `Date` must not make everything
    /// that is held look expired at once.
    fn observe(&self, aws: SystemTime) {
        let correction = correction_ms(self.clock.uncorrected_wall(), aws);
        let before = self.last.lock().replace(correction);
        let is_confirmed =
            before.is_some_and(|before| before.abs_diff(correction) <= TOLERATED_MS.unsigned_abs());
        if !is_confirmed {
            return;
        }
        if (correction == 0) != (self.clock.correction_ms() == 0) {
            tracing::warn!(clock.off_ms = correction, "node clock differs from AWS time; using AWS time");
        }
        self.clock.correct_by(correction);
    }
}

impl DateObserver {
    /// AWS's time when it answered.
    pub fn answered_at(&self) -> Option<SystemTime> {
        *self.answered_at.lock()
    }

    fn read(&self, date: &str) {
        let aws =
            DateTime::from_str(date, Format::HttpDate).ok().and_then(|date| SystemTime::try_from(date).ok());
        let Some(aws) = aws else { return };
        *self.answered_at.lock() = Some(aws);
        self.time.observe(aws);
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
            self.read(date);
        }
        Ok(())
    }
}

/// Milliseconds to add to the node's clock to get AWS's; zero when they are close.
fn correction_ms(node: SystemTime, aws: SystemTime) -> i64 {
    let ms = |time| DateTime::from(time).to_millis().unwrap_or_default();
    // Half a second: the middle of the second that `Date` names.
    let off = ms(aws).saturating_add(500).saturating_sub(ms(node));
    if off.abs() <= TOLERATED_MS { 0 } else { off }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use super::{AwsTime, correction_ms};
    use crate::clock::{Clock, Simulated};

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn small_differences_are_left_alone_and_large_ones_corrected() {
        let node = at(1_000_000);
        assert_eq!(correction_ms(node, at(1_000_000)), 0);
        assert_eq!(correction_ms(node, at(1_000_004)), 0);
        assert_eq!(correction_ms(node, at(1_000_600)), 600_500);
        assert_eq!(correction_ms(node, at(999_400)), -599_500);
    }

    #[tokio::test(start_paused = true)]
    async fn two_answers_that_agree_correct_the_clock_and_one_alone_does_not() {
        let clock = Clock::simulated(Simulated::starting_at(at(1_000_000)));
        let time = AwsTime::new(clock.clone());
        let observer = time.observer();
        observer.read("nonsense");
        assert_eq!(observer.answered_at(), None);
        time.observe(at(2_000_000));
        assert_eq!(clock.correction_ms(), 0, "one answer is not believed");
        time.observe(at(1_000_600));
        assert_eq!(clock.correction_ms(), 0, "nor two that disagree");
        time.observe(at(1_000_601));
        assert_eq!(clock.correction_ms(), 601_500);
        time.observe(at(1_000_000));
        time.observe(at(1_000_000));
        assert_eq!(clock.correction_ms(), 0, "and it is taken back the same way");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_tells_when_it_was_given() {
        let time = AwsTime::new(Clock::simulated(Simulated::starting_at(at(0))));
        let observer = time.observer();
        observer.read("Thu, 01 Jan 1970 00:16:40 GMT");
        assert_eq!(observer.answered_at(), Some(at(1000)));
        assert_eq!(time.observer().answered_at(), None, "each call has its own");
    }
}
