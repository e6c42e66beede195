//! Which rejections of the agent's own credentials have been logged.
//!
//! Owns: one warning per minute and cause. Must not know: what a rejection changes.

use std::time::Duration;

use parking_lot::Mutex;

use super::rejection::RejectedCall;
use crate::clock::BootTime;

/// How often one cause is logged.
const INTERVAL: Duration = Duration::from_secs(60);
/// Causes that are remembered; AWS has about ten codes for this.
const MAX_CAUSES: usize = 16;

/// When each cause was logged last, oldest first.
#[derive(Default)]
pub(super) struct LoggedCauses {
    logged: Mutex<Vec<(String, BootTime)>>,
}

impl LoggedCauses {
    /// Logs the rejection, unless its cause was logged within the last minute.
    pub(super) fn log(&self, call: &RejectedCall, now: BootTime) {
        if self.is_due(call.rejection.cause(), now) {
            tracing::warn!(
                access_key_id = %call.access_key_id,
                asked = %call.asked,
                aws.status = call.rejection.status,
                aws.code = call.rejection.code.as_deref(),
                aws.message = %call.rejection.message,
                aws.request_id = call.rejection.request_id.as_deref(),
                "AWS rejects the agent's own credentials"
            );
        }
    }

    fn is_due(&self, cause: &str, now: BootTime) -> bool {
        let mut logged = self.logged.lock();
        if logged.iter().any(|(known, at)| known == cause && now.since(*at) < INTERVAL) {
            return false;
        }
        logged.retain(|(known, _)| known != cause);
        if logged.len() >= MAX_CAUSES {
            logged.remove(0);
        }
        logged.push((cause.to_owned(), now));
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{LoggedCauses, MAX_CAUSES};
    use crate::clock::BootTime;

    #[test]
    fn each_cause_is_logged_once_a_minute() {
        let logged = LoggedCauses::default();
        let at = |seconds| BootTime::from_boot(Duration::from_secs(seconds));
        assert!(logged.is_due("a", at(0)));
        assert!(!logged.is_due("a", at(59)) && logged.is_due("b", at(59)));
        assert!(logged.is_due("a", at(60)));
        for cause in 0..100 {
            logged.is_due(&cause.to_string(), at(61));
        }
        assert_eq!(logged.logged.lock().len(), MAX_CAUSES);
    }
}
