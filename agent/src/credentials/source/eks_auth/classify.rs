//! What an answer of EKS Auth means. Pure.
//!
//! Owns: the table of (status, code). Must not know: the SDK's types or what is done about it. The same code means
//! opposite things under different statuses (design 4.5): `AccessDeniedException` as 400 is EKS refusing the pod, as 403
//! it is IAM refusing the agent.

use crate::credentials::source::{OwnIdentityFault, Refused, RefusedCode, SourceError, Unavailable};
use crate::planted::{self, Bug};

/// Codes of the SigV4 layer, whatever the status they come with: they are about who signed, so about the agent.
const SIGNATURE_CODES: [&str; 10] = [
    "IncompleteSignature",
    "IncompleteSignatureException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "NotAuthorized",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
];

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

/// Classifies an answer that is not a success.
pub fn classify(status: u16, code: Option<&str>, message: &str, request_id: Option<&str>) -> SourceError {
    let code = code.unwrap_or_default();
    if SIGNATURE_CODES.contains(&code) {
        return SourceError::OwnIdentity(OwnIdentityFault::Rejected);
    }
    if status == 429 || THROTTLING_CODES.contains(&code) {
        return SourceError::Throttled;
    }
    let refused = |code| SourceError::Refused(Refused::new(code, message, request_id));
    match (status, code) {
        (403, _) if planted::is_on(Bug::BlamesThePod) => refused(RefusedCode::AccessDenied),
        (401 | 403, _) => SourceError::OwnIdentity(OwnIdentityFault::Rejected),
        (400, "AccessDeniedException") => refused(RefusedCode::AccessDenied),
        (400, "ExpiredTokenException") => refused(RefusedCode::ExpiredToken),
        (400, "InvalidTokenException") => refused(RefusedCode::InvalidToken),
        (400, "InvalidParameterException") => refused(RefusedCode::InvalidParameter),
        (400, _) => refused(RefusedCode::InvalidRequest),
        (404, "ResourceNotFoundException") => refused(RefusedCode::ResourceNotFound),
        (500.., _) => SourceError::Unavailable(Unavailable::ServerError),
        // A 404 without the code is a wrong endpoint or a proxy; 3xx, 407 and the rest are not EKS Auth's either.
        (_, _) => SourceError::Unavailable(Unavailable::Unreadable),
    }
}

#[cfg(test)]
mod tests {
    use super::classify;

    #[test]
    fn the_table_of_status_and_code() {
        let cases = [
            (400, Some("AccessDeniedException"), "AccessDeniedException"),
            (403, Some("AccessDeniedException"), "own_credentials_rejected"),
            (400, Some("ExpiredTokenException"), "ExpiredTokenException"),
            (403, Some("ExpiredTokenException"), "own_credentials_rejected"),
            (400, Some("InvalidTokenException"), "InvalidTokenException"),
            (403, Some("InvalidTokenException"), "own_credentials_rejected"),
            (400, Some("InvalidParameterException"), "InvalidParameterException"),
            (400, Some("InvalidRequestException"), "InvalidRequestException"),
            (400, Some("SerializationException"), "InvalidRequestException"),
            (400, None, "InvalidRequestException"),
            (400, Some("UnrecognizedClientException"), "own_credentials_rejected"),
            (403, Some("InvalidSignatureException"), "own_credentials_rejected"),
            (404, Some("ResourceNotFoundException"), "ResourceNotFoundException"),
            (404, None, "unreadable"),
            (404, Some("UnknownOperationException"), "unreadable"),
            (429, Some("ThrottlingException"), "throttled"),
            (429, None, "throttled"),
            (400, Some("ThrottlingException"), "throttled"),
            (500, Some("InternalServerException"), "server_error"),
            (503, Some("ServiceUnavailableException"), "server_error"),
            (503, Some("SlowDown"), "throttled"),
            (502, None, "server_error"),
            (407, None, "unreadable"),
            (302, None, "unreadable"),
        ];
        for (status, code, expected) in cases {
            assert_eq!(classify(status, code, "", None).label(), expected, "{status} {code:?}");
        }
    }
}
