//! How a moment is written.
//!
//! Owns: the one form. Must not know: what happens at that moment.

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// UTC, whole seconds, `Z`: the only form that all eleven SDKs take
/// (docs/design/client-contract.md#success-body). `None`: it is before 1970, or beyond the year 9999.
///
/// Not `OffsetDateTime::from(SystemTime)`, which panics beyond the year 9999.
pub fn rfc3339(time: SystemTime) -> Option<String> {
    let seconds = i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()?;
    OffsetDateTime::from_unix_timestamp(seconds).ok()?.format(&Rfc3339).ok()
}
