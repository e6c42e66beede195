//! What an answer of EKS Auth means. Pure.
//!
//! Owns: the table of (status, code). Must not know: the SDK's types or what is done about it. The same code
//! means opposite things under different statuses (docs/design/decisions.md#entitlement):
//! `AccessDeniedException` as 400 is EKS refusing the pod, as 403 it is IAM refusing the agent.

use std::sync::Arc;

use crate::aws::own_identity::rejection::Rejection;
use crate::credentials::source::answer::ErrorAnswer;
use crate::credentials::source::{
    JudgedToken, OwnIdentityFault, Refusal, RefusalClass, SourceError, Unavailable,
};

/// Codes of the SigV4 layer, whatever the status they come with: they are about who signed, so about the
/// agent.
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

/// Classifies an answer that is not a success; `judged` is the token that it is about. The refusals are those
/// of EKS Auth (botocore model, eks-auth 2023-11-26), all of them 400 but the one 404.
pub fn classify(answer: &ErrorAnswer<'_>, judged: JudgedToken) -> SourceError {
    use RefusalClass::{BadRequest, NoAssociation, RoleNotAssumable, TokenExpired, TokenInvalid};
    let (status, code) = (answer.status, answer.code.unwrap_or_default());
    if SIGNATURE_CODES.contains(&code) {
        return rejected(answer);
    }
    if answer.is_throttling() {
        return SourceError::Throttled;
    }
    let refused = |class, code| {
        SourceError::Refused(Refusal::new(class, code, answer.message, answer.request_id, judged))
    };
    match (status, code) {
        (401 | 403, _) if answer.is_of_aws() => rejected(answer),
        (400, "AccessDeniedException") => refused(RoleNotAssumable, "AccessDeniedException"),
        (400, "ExpiredTokenException") => refused(TokenExpired, "ExpiredTokenException"),
        (400, "InvalidTokenException") => refused(TokenInvalid, "InvalidTokenException"),
        (400, "InvalidParameterException") => refused(BadRequest, "InvalidParameterException"),
        (400, "InvalidRequestException") => refused(BadRequest, "InvalidRequestException"),
        (404, "ResourceNotFoundException") => refused(NoAssociation, "ResourceNotFoundException"),
        (500.., _) => SourceError::Unavailable(Unavailable::ServerError),
        // A 400 or 404 without one of its codes is a wrong endpoint, or a proxy, an inspection or a load
        // balancer on the way, and so is a 401 or 403 that nothing shows to be AWS's; 3xx, 407 and the rest
        // are not EKS Auth's either.
        (_, _) => SourceError::Unavailable(Unavailable::Unreadable),
    }
}

/// The agent's own credentials were rejected, in AWS's words.
fn rejected(answer: &ErrorAnswer<'_>) -> SourceError {
    let rejection = Rejection::new(answer.status, answer.code, answer.message, answer.request_id);
    SourceError::OwnIdentity(OwnIdentityFault::Rejected(Arc::new(rejection)))
}

#[cfg(test)]
mod tests {
    use super::{ErrorAnswer, classify};
    use crate::credentials::source::RefusalClass;
    use crate::credentials::source::refusal::tests::refusal;

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
            (400, Some("SerializationException"), "unreadable"),
            (400, Some("ResourceNotFoundException"), "unreadable"),
            (400, None, "unreadable"),
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
            (401, None, "unreadable"),
            (403, None, "unreadable"),
            (403, Some(""), "unreadable"),
            (403, Some("SomethingNew"), "own_credentials_rejected"),
        ];
        for (status, code, expected) in cases {
            let answer = ErrorAnswer { status, code, message: "", request_id: None };
            let judged = *refusal(RefusalClass::BadRequest).judged;
            assert_eq!(classify(&answer, judged).label(), expected, "{status} {code:?}");
        }
    }

    #[test]
    fn a_403_without_a_code_is_of_aws_if_it_has_a_request_id() {
        for (request_id, expected) in [(Some("r-1"), "own_credentials_rejected"), (Some(""), "unreadable")] {
            let answer = ErrorAnswer { status: 403, code: None, message: "", request_id };
            let judged = *refusal(RefusalClass::BadRequest).judged;
            assert_eq!(classify(&answer, judged).label(), expected, "{request_id:?}");
        }
    }

    #[test]
    fn a_rejection_of_the_agent_keeps_the_words_of_aws() {
        let answer = ErrorAnswer {
            status: 403,
            code: Some("AccessDeniedException"),
            message: "not authorized to perform: eks-auth:AssumeRoleForPodIdentity",
            request_id: Some("r-1"),
        };
        let said = classify(&answer, *refusal(RefusalClass::BadRequest).judged).to_string();
        for word in ["403 AccessDeniedException", "not authorized to perform", "(request id r-1)"] {
            assert!(said.contains(word), "{said}");
        }
    }
}
