//! Durations in Go's syntax (`time.ParseDuration`), which the flags of Amazon's agent use.
//!
//! Owns: the complete syntax. Must not know: which flag a duration is for, or its limits.

#[cfg(any(test, fuzzing))]
pub(crate) mod properties;

use std::time::Duration;

/// Why a text is not a valid duration. Shown after "must be a duration such as 1h30m: ".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DurationError {
    /// The text is empty.
    #[error("it is empty")]
    Empty,
    /// A sign with nothing after it, or a text that does not begin with a number.
    #[error("a number is missing")]
    NumberMissing,
    /// A number without a unit; only `0` alone may have none.
    #[error("a unit is missing; use ns, us, ms, s, m or h, such as 90s")]
    UnitMissing,
    /// A unit that Go does not have, such as `d` or `w`.
    #[error("it has an unknown unit; use ns, us, ms, s, m or h")]
    UnitUnknown,
    /// More than fits in Go's 64-bit nanoseconds, about 292 years.
    #[error("it is too long")]
    TooLong,
    /// No flag has a meaning for a negative duration.
    #[error("it must not be negative")]
    Negative,
}

/// The longest duration Go can hold: `math.MaxInt64` nanoseconds.
const MAX_NANOSECONDS: u128 = i64::MAX as u128;
/// The largest fraction that Go appends one more digit to.
const MAX_BEFORE_DIGIT: u64 = i64::MAX as u64 / 10;

/// Parses a Go duration such as `1h30m`, `1.5h`, `100ms` or `0`.
pub(super) fn parse(text: &str) -> Result<Duration, DurationError> {
    if text.is_empty() {
        return Err(DurationError::Empty);
    }
    let (is_negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let nanoseconds = parse_unsigned(unsigned)?;
    if is_negative && nanoseconds > 0 {
        return Err(DurationError::Negative);
    }
    // Below i64::MAX, so the conversion cannot fail; saturating keeps the function without a panic.
    Ok(Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX)))
}

fn parse_unsigned(text: &str) -> Result<u128, DurationError> {
    // Go's special case: zero is the only number that needs no unit.
    if text == "0" {
        return Ok(0);
    }
    let mut rest = text;
    let mut total: u128 = 0;
    loop {
        let (part, after) = parse_part(rest)?;
        total = total.saturating_add(part);
        if total > MAX_NANOSECONDS {
            return Err(DurationError::TooLong);
        }
        if after.is_empty() {
            return Ok(total);
        }
        rest = after;
    }
}

/// One number with its unit, in nanoseconds, and the text after it.
fn parse_part(text: &str) -> Result<(u128, &str), DurationError> {
    let (whole, rest) = split_where(text, |c| !c.is_ascii_digit());
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => split_where(rest, |c| !c.is_ascii_digit()),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(DurationError::NumberMissing);
    }
    let (unit, rest) = split_where(rest, |c| c == '.' || c.is_ascii_digit());
    let unit = nanoseconds_of(unit)?;
    let whole: u128 = match whole {
        "" => 0,
        // All digits, so the only way to fail is to be too large.
        digits => digits.parse().map_err(|_| DurationError::TooLong)?,
    };
    let whole = whole.checked_mul(unit).ok_or(DurationError::TooLong)?;
    Ok((whole.saturating_add(fraction_of(fraction, unit)), rest))
}

fn split_where(text: &str, ends: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at_checked(text.find(ends).unwrap_or(text.len())).unwrap_or((text, ""))
}

fn nanoseconds_of(unit: &str) -> Result<u128, DurationError> {
    match unit {
        "" => Err(DurationError::UnitMissing),
        "ns" => Ok(1),
        // The micro sign and the Greek letter mu look alike; Go accepts both.
        "us" | "\u{b5}s" | "\u{3bc}s" => Ok(1_000),
        "ms" => Ok(1_000_000),
        "s" => Ok(1_000_000_000),
        "m" => Ok(60 * 1_000_000_000),
        "h" => Ok(3_600 * 1_000_000_000),
        _ => Err(DurationError::UnitUnknown),
    }
}

/// The digits after the point as nanoseconds, in the floating point of Go: a third of an hour in 19 digits is
/// 20 minutes there, and one nanosecond less by whole numbers.
#[expect(
    clippy::cast_precision_loss,
    reason = "as in Go; the unit has few digits, and a fraction is rounded"
)]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "from 0 to one unit, cut off as in Go"
)]
fn fraction_of(digits: &str, unit: u128) -> u128 {
    let (mut value, mut scale) = (0_u64, 1.0);
    for digit in digits.bytes().map(|byte| u64::from(byte - b'0')) {
        // Go's limit; further digits are left out.
        let Some(next) = (value <= MAX_BEFORE_DIGIT).then(|| value * 10 + digit) else { break };
        (value, scale) = (next, scale * 10.0);
    }
    (value as f64 * (unit as f64 / scale)) as u128
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{DurationError, parse};

    #[test]
    fn durations_are_parsed_as_in_go() {
        let cases = [
            ("0", 0),
            ("+0", 0),
            ("-0", 0),
            ("0s", 0),
            ("-0s", 0),
            ("1ns", 1),
            ("1us", 1_000),
            ("1\u{b5}s", 1_000),
            ("1\u{3bc}s", 1_000),
            ("100ms", 100_000_000),
            ("90s", 90_000_000_000),
            ("+90s", 90_000_000_000),
            ("1m", 60_000_000_000),
            ("3h", 10_800_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1h30m5.5s", 5_405_500_000_000),
            ("30m1h", 5_400_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("5.s", 5_000_000_000),
            ("0.9ns", 0),
            ("0.333333333333333333333h", 1_200_000_000_000),
            ("9223372036854775807ns", 9_223_372_036_854_775_807),
            ("2562047h47m16.854775807s", 9_223_372_036_854_775_807),
        ];
        for (text, nanoseconds) in cases {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanoseconds)), "{text}");
        }
    }

    #[test]
    fn texts_that_go_rejects_are_rejected_with_a_reason() {
        let cases = [
            ("", DurationError::Empty),
            ("-", DurationError::NumberMissing),
            ("+", DurationError::NumberMissing),
            (".s", DurationError::NumberMissing),
            ("s", DurationError::NumberMissing),
            (" 1s", DurationError::NumberMissing),
            ("+-1s", DurationError::NumberMissing),
            ("1h-5m", DurationError::UnitUnknown),
            ("1", DurationError::UnitMissing),
            ("00", DurationError::UnitMissing),
            ("1h30", DurationError::UnitMissing),
            ("1.5.5s", DurationError::UnitMissing),
            ("1d", DurationError::UnitUnknown),
            ("1 s", DurationError::UnitUnknown),
            ("1s ", DurationError::UnitUnknown),
            ("1H", DurationError::UnitUnknown),
            ("9223372036854775808ns", DurationError::TooLong),
            ("2562048h", DurationError::TooLong),
            ("99999999999999999999999999999999999999999s", DurationError::TooLong),
            ("-1h", DurationError::Negative),
            ("-1ns", DurationError::Negative),
        ];
        for (text, error) in cases {
            assert_eq!(parse(text), Err(error), "{text:?}");
        }
    }
}
