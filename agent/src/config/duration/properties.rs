//! What is true of every duration, whatever its text.

use std::time::Duration;

use super::{DurationError, parse};

/// A text means what it means to Go, and a duration that Go prints is read as itself.
pub(crate) fn of_text(text: &str) {
    let read = parse(text);
    let expected = in_go(text);
    match (read, expected) {
        (Ok(read), Some(expected)) => {
            assert_eq!(read.as_nanos(), u128::from(expected.unsigned_abs()), "{text:?}");
            assert!(expected >= 0, "{text:?} is negative");
            of_duration(read);
        }
        (Err(DurationError::Negative), Some(expected)) => assert!(expected < 0, "{text:?}"),
        // The one negative duration that has no positive counterpart is too long as well.
        (Err(DurationError::TooLong), Some(expected)) => assert_eq!(expected, i64::MIN, "{text:?}"),
        (Err(_), None) => {}
        (read, expected) => unreachable!("{text:?} is {read:?}, and {expected:?} in Go"),
    }
}

/// A duration of at most 2^63 - 1 ns is read as itself from what Go prints of it.
pub(crate) fn of_duration(duration: Duration) {
    assert_eq!(parse(&as_go_prints_it(duration)), Ok(duration), "{}", as_go_prints_it(duration));
}

/// `time.ParseDuration` of Go 1.26 (`src/time/format.go`), line by line; nanoseconds.
fn in_go(text: &str) -> Option<i64> {
    const LIMIT: u64 = 1 << 63;
    let (is_negative, mut rest) = match text.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if rest == b"0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: u64 = 0;
    while let Some(first) = rest.first() {
        if *first != b'.' && !first.is_ascii_digit() {
            return None;
        }
        let (whole, after) = leading_integer(rest)?;
        let has_whole = after.len() != rest.len();
        rest = after;
        let (mut fraction, mut scale, mut has_fraction) = (0, 1.0, false);
        if let [b'.', after @ ..] = rest {
            let (value, tens, rest_of_it) = leading_fraction(after);
            (fraction, scale, has_fraction) = (value, tens, rest_of_it.len() != after.len());
            rest = rest_of_it;
        }
        if !has_whole && !has_fraction {
            return None;
        }
        let end = rest.iter().position(|byte| *byte == b'.' || byte.is_ascii_digit()).unwrap_or(rest.len());
        let (unit, after) = rest.split_at_checked(end)?;
        rest = after;
        let unit: u64 = match str::from_utf8(unit).ok()? {
            "ns" => 1,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        if whole > LIMIT / unit {
            return None;
        }
        let mut value = whole * unit;
        if fraction > 0 {
            value += truncated(float(fraction) * (float(unit) / scale));
            if value > LIMIT {
                return None;
            }
        }
        total = total.checked_add(value)?;
        if total > LIMIT {
            return None;
        }
    }
    if is_negative {
        return Some(0_i64.wrapping_sub_unsigned(total));
    }
    i64::try_from(total).ok()
}

fn leading_integer(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value: u64 = 0;
    let mut rest = bytes;
    while let [digit @ b'0'..=b'9', after @ ..] = rest {
        if value > (1 << 63) / 10 {
            return None;
        }
        value = value * 10 + u64::from(digit - b'0');
        if value > 1 << 63 {
            return None;
        }
        rest = after;
    }
    Some((value, rest))
}

fn leading_fraction(bytes: &[u8]) -> (u64, f64, &[u8]) {
    let (mut value, mut scale, mut is_full) = (0_u64, 1.0, false);
    let mut rest = bytes;
    while let [digit @ b'0'..=b'9', after @ ..] = rest {
        rest = after;
        let next = value.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
        is_full |= value > ((1 << 63) - 1) / 10 || next > 1 << 63;
        if !is_full {
            value = next;
            scale *= 10.0;
        }
    }
    (value, scale, rest)
}

#[expect(clippy::cast_precision_loss, reason = "as in Go")]
fn float(value: u64) -> f64 {
    value as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as in Go; it is positive")]
fn truncated(value: f64) -> u64 {
    value as u64
}

/// `Duration.String` of Go, for one second and more with all three units, below with a fraction of a second.
fn as_go_prints_it(duration: Duration) -> String {
    let (seconds, nanoseconds) = (duration.as_secs(), duration.subsec_nanos());
    let fraction = format!("{nanoseconds:09}");
    let fraction = match fraction.trim_end_matches('0') {
        "" => String::new(),
        digits => format!(".{digits}"),
    };
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}{fraction}s"),
        (0, minutes) => format!("{minutes}m{seconds}{fraction}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}{fraction}s"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::{in_go, of_duration, of_text};

    /// From the table in Go's own `src/time/time_test.go`.
    #[test]
    fn the_reference_is_as_go_tests_itself() {
        for (text, nanoseconds) in [
            ("0.3333333333333333333h", 1_200_000_000_000),
            ("0.100000000000000000000h", 360_000_000_000),
            ("0.830103483285477580700h", 2_988_372_539_827),
            ("9007199254740993ns", 9_007_199_254_740_993),
            ("9223372036854775.807us", i64::MAX),
            ("9223372036s854ms775us807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
            ("39h9m14.425s", 140_954_425_000_000),
        ] {
            assert_eq!(in_go(text), Some(nanoseconds), "{text}");
            of_text(text);
        }
        for text in
            ["9223372036854775810ns", "9223372036854775808ns", "9223372036854ms775us808ns", ".s", "1e9s"]
        {
            assert_eq!(in_go(text), None, "{text}");
            of_text(text);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn nearly_durations(
            text in "[-+]{0,2}([0-9]{0,3}[0-9]{0,20}\\.?[0-9]{0,22}(ns|us|µs|μs|ms|s|m|h|d|)){0,4}"
        ) {
            of_text(&text);
        }

        #[test]
        fn any_text(text in "\\PC{0,12}") {
            of_text(&text);
        }

        #[test]
        fn what_go_prints(nanoseconds in 0..=u64::MAX / 2, shift in 0_u32..63) {
            of_duration(Duration::from_nanos(nanoseconds >> shift));
        }
    }
}
