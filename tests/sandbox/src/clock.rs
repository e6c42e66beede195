//! The sandbox's own clock, and the spellings of time that AWS and Kubernetes use.
//!
//! Owns: the one call that reads the machine's clock, and how far AWS and the cluster's control plane are
//! ahead of it. Must not know: what is timed. All that the sandbox judges and says goes by this clock; the
//! `date-skew` fault moves one header beside it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::format_description::well_known::Rfc3339;
use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time};

/// What time it is at AWS and in the cluster's control plane. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    /// Seconds ahead of the machine's clock.
    ahead: Arc<AtomicI64>,
}

impl Clock {
    /// So many seconds ahead of the machine's clock; negative is behind it.
    pub(crate) fn ahead_by(seconds: i64) -> Self {
        Self { ahead: Arc::new(AtomicI64::new(seconds)) }
    }

    /// Now.
    #[expect(
        clippy::disallowed_methods,
        reason = "the sandbox plays servers that have a wall clock of their own"
    )]
    pub(crate) fn now(&self) -> SystemTime {
        moved(SystemTime::now(), self.ahead.load(Ordering::Relaxed))
    }

    /// From now on so many seconds ahead.
    pub(crate) fn set_ahead(&self, seconds: i64) {
        self.ahead.store(seconds, Ordering::Relaxed);
    }
}

/// Whole seconds since 1970, negative before.
pub(crate) fn unix_seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or_else(
        |before| -i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX),
        |after| i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
    )
}

/// `time` moved by `seconds`, either way; unmoved where that cannot be represented.
pub(crate) fn moved(time: SystemTime, seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let moved = if seconds < 0 { time.checked_sub(distance) } else { time.checked_add(distance) };
    moved.unwrap_or(time)
}

/// `2026-11-22T17:54:33Z`, as IMDS writes it.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    OffsetDateTime::from_unix_timestamp(unix_seconds(time))
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// `20261122T175433Z`, the basic form of ISO 8601 that SigV4 uses.
pub(crate) fn amz_date(time: SystemTime) -> String {
    let digits: String = rfc3339(time).chars().filter(|c| !matches!(c, '-' | ':')).collect();
    digits
}

/// Reads the basic form; `None` if it is anything else.
pub(crate) fn parse_amz_date(text: &str) -> Option<SystemTime> {
    let (date, rest) = text.split_once('T')?;
    let hours = rest.strip_suffix('Z')?;
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if date.len() != 8 || hours.len() != 6 || !digits(date) || !digits(hours) {
        return None;
    }
    let number = |part: &str, range: std::ops::Range<usize>| part.get(range)?.parse::<u8>().ok();
    let month = Month::try_from(number(date, 4..6)?).ok()?;
    let day = Date::from_calendar_date(date.get(0..4)?.parse().ok()?, month, number(date, 6..8)?).ok()?;
    let time = Time::from_hms(number(hours, 0..2)?, number(hours, 2..4)?, number(hours, 4..6)?).ok()?;
    Some(PrimitiveDateTime::new(day, time).assume_utc().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_basic_form_is_read_as_it_is_written() {
        let time = UNIX_EPOCH + Duration::from_secs(1_440_938_160);
        assert_eq!(amz_date(time), "20150830T123600Z");
        assert_eq!(parse_amz_date("20150830T123600Z"), Some(time));
        assert_eq!(rfc3339(time), "2015-08-30T12:36:00Z");
    }

    #[test]
    fn other_forms_of_a_date_are_refused() {
        for bad in ["", "2015-08-30T12:36:00Z", "20150830T123600", "20151330T123600Z", "20150830T1236é"] {
            assert_eq!(parse_amz_date(bad), None, "{bad}");
        }
    }
}
