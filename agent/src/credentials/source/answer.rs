//! An answer of AWS that is not a success, as every source reads it. Pure.
//!
//! Owns: its parts, the codes that mean the same at each source, and what shows that an answer is AWS's and
//! not one of something on the way. Must not know: what the codes of one source mean (`classify`).

/// Codes that mean "slower", whatever the status (aws-runtime, `THROTTLING_ERRORS`).
const THROTTLING_CODES: [&str; 9] = [
    "BandwidthLimitExceeded",
    "LimitExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
];

/// An answer that is not a success.
#[derive(Clone, Copy, Debug)]
pub struct ErrorAnswer<'a> {
    /// Its status.
    pub status: u16,
    /// AWS's code, where there is one.
    pub code: Option<&'a str>,
    /// AWS's sentence, or nothing.
    pub message: &'a str,
    /// AWS's request id, where there is one.
    pub request_id: Option<&'a str>,
}

impl ErrorAnswer<'_> {
    /// Whether anything shows that AWS answered. Its front ends put a request id on each answer and a code on
    /// each error. What stands on the way has neither, and its 403 says nothing of the credentials that
    /// signed.
    pub fn is_of_aws(&self) -> bool {
        [self.code, self.request_id].into_iter().flatten().any(|word| !word.is_empty())
    }

    /// Whether AWS wants less.
    pub fn is_throttling(&self) -> bool {
        self.status == 429 || THROTTLING_CODES.contains(&self.code.unwrap_or_default())
    }
}
