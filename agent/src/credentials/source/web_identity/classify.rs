//! What an answer of STS to a call with a web identity means. Pure.
//!
//! Owns: the table of (status, code). Must not know: the SDK's types or what is done about it. The call is
//! not signed, so no answer is about the agent's own credentials: a 403 is about the role or the token
//! (docs/design/decisions.md#entitlement).

use crate::credentials::source::answer::ErrorAnswer;
use crate::credentials::source::{JudgedToken, Refusal, RefusalClass, SourceError, Unavailable};

/// In the sentence of an `InvalidIdentityToken` that says nothing of the token: "Couldn't retrieve
/// verification key from your identity provider, please reference AssumeRoleWithWebIdentity documentation for
/// requirements". AWS's SDKs repeat such calls.
const NO_KEYS: &str = "retrieve verification key";

/// In sentences of an `InvalidIdentityToken` that are about the account and not the token: "No OpenIDConnect
/// provider found in your account for https://…", and "Incorrect token audience", which the provider's list
/// lacks. A newer token fares no better, and IAM takes a moment to know of what was just made: so they are of
/// the class of a trust policy that does not fit, with its grace for young pods and its retries.
const ABOUT_PROVIDER: [&str; 2] = ["No OpenIDConnect provider found", "Incorrect token audience"];

/// Classifies an answer that is not a success; `judged` is the token that it is about. The refusals are those
/// of `AssumeRoleWithWebIdentity` (botocore model, sts 2011-06-15) and the common ones of the query protocol.
pub fn classify(answer: &ErrorAnswer<'_>, judged: JudgedToken) -> SourceError {
    use RefusalClass::{BadRequest, RoleNotAssumable, TokenExpired, TokenInvalid};
    if answer.is_throttling() {
        return SourceError::Throttled;
    }
    let refused = |class, code| {
        SourceError::Refused(Refusal::new(class, code, answer.message, answer.request_id, judged))
    };
    match (answer.status, answer.code.unwrap_or_default()) {
        (403, "AccessDenied") => refused(RoleNotAssumable, "AccessDenied"),
        (403, "RegionDisabledException") => refused(RoleNotAssumable, "RegionDisabledException"),
        (400, "PackedPolicyTooLarge") => refused(RoleNotAssumable, "PackedPolicyTooLarge"),
        (403, "IDPRejectedClaim") => refused(TokenInvalid, "IDPRejectedClaim"),
        // STS could not get the keys of the issuer: it passes by itself, as with the next code.
        (400, "InvalidIdentityToken") if answer.message.contains(NO_KEYS) => {
            SourceError::Unavailable(Unavailable::IssuerUnreadable)
        }
        (400, "InvalidIdentityToken")
            if ABOUT_PROVIDER.iter().any(|words| answer.message.contains(words)) =>
        {
            refused(RoleNotAssumable, "InvalidIdentityToken")
        }
        (400, "InvalidIdentityToken") => refused(TokenInvalid, "InvalidIdentityToken"),
        (400, "ExpiredTokenException") => refused(TokenExpired, "ExpiredTokenException"),
        (400, "ValidationError") => refused(BadRequest, "ValidationError"),
        // STS could not get the keys of the issuer. It is the one error that the model calls transient.
        (400, "IDPCommunicationError") => SourceError::Unavailable(Unavailable::IssuerUnreadable),
        (500.., _) => SourceError::Unavailable(Unavailable::ServerError),
        // A wrong endpoint, or something on the way.
        (_, _) => SourceError::Unavailable(Unavailable::Unreadable),
    }
}

#[cfg(test)]
mod tests {
    use super::classify;
    use crate::credentials::source::answer::ErrorAnswer;
    use crate::credentials::source::tests::refusal;
    use crate::credentials::source::{RefusalClass, SourceError};

    #[test]
    fn keys_that_sts_cannot_get_say_nothing_of_the_token() {
        let message = "Couldn't retrieve verification key from your identity provider, please reference …";
        let answer =
            ErrorAnswer { status: 400, code: Some("InvalidIdentityToken"), message, request_id: None };
        let error = classify(&answer, *refusal(RefusalClass::BadRequest).judged);
        assert_eq!(error.label(), "issuer_unreadable");
    }

    #[test]
    fn a_provider_that_is_missing_or_lacks_the_audience_is_a_matter_of_iam_and_not_of_the_token() {
        for (message, class) in [
            ("No OpenIDConnect provider found in your account for https://a", RefusalClass::RoleNotAssumable),
            ("Incorrect token audience", RefusalClass::RoleNotAssumable),
            ("Token signature is not valid", RefusalClass::TokenInvalid),
            ("The ID Token provided is not a valid JWT.", RefusalClass::TokenInvalid),
        ] {
            let answer =
                ErrorAnswer { status: 400, code: Some("InvalidIdentityToken"), message, request_id: None };
            let error = classify(&answer, *refusal(RefusalClass::BadRequest).judged);
            assert_eq!(
                (error.label(), error.refusal_class()),
                ("InvalidIdentityToken", Some(class)),
                "{message}"
            );
        }
    }

    #[test]
    fn the_table_of_status_and_code() {
        use RefusalClass::{BadRequest, RoleNotAssumable, TokenExpired, TokenInvalid};
        let cases = [
            (403, Some("AccessDenied"), "AccessDenied", Some(RoleNotAssumable)),
            (403, Some("RegionDisabledException"), "RegionDisabledException", Some(RoleNotAssumable)),
            (400, Some("PackedPolicyTooLarge"), "PackedPolicyTooLarge", Some(RoleNotAssumable)),
            (403, Some("IDPRejectedClaim"), "IDPRejectedClaim", Some(TokenInvalid)),
            (400, Some("InvalidIdentityToken"), "InvalidIdentityToken", Some(TokenInvalid)),
            (400, Some("ExpiredTokenException"), "ExpiredTokenException", Some(TokenExpired)),
            (400, Some("ValidationError"), "ValidationError", Some(BadRequest)),
            (400, Some("IDPCommunicationError"), "issuer_unreadable", None),
            (400, Some("Throttling"), "throttled", None),
            (429, None, "throttled", None),
            (503, Some("SlowDown"), "throttled", None),
            (500, Some("InternalFailure"), "server_error", None),
            (502, None, "server_error", None),
            // What is about a signature of the agent elsewhere: there is none here.
            (403, Some("InvalidClientTokenId"), "unreadable", None),
            (403, Some("SignatureDoesNotMatch"), "unreadable", None),
            (403, None, "unreadable", None),
            (400, Some("AccessDenied"), "unreadable", None),
            (400, None, "unreadable", None),
            (404, None, "unreadable", None),
            (302, None, "unreadable", None),
            (407, None, "unreadable", None),
        ];
        for (status, code, label, class) in cases {
            let answer = ErrorAnswer { status, code, message: "", request_id: None };
            let error = classify(&answer, *refusal(BadRequest).judged);
            assert_eq!((error.label(), error.refusal_class()), (label, class), "{status} {code:?}");
            assert!(!matches!(error, SourceError::OwnIdentity(_)), "{status} {code:?}");
        }
    }
}
