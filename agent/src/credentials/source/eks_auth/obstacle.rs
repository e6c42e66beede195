//! What was between a call and AWS's answer to it. Pure.
//!
//! Owns: which outcomes are AWS's own, and the words for the others. Must not know: what is done about it.
//! The words hold no header and no body: one may be a secret, the other anybody's.

use std::error::Error;

use aws_sdk_eksauth::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_eksauth::operation::RequestId;
use aws_sdk_eksauth::operation::assume_role_for_pod_identity::{
    AssumeRoleForPodIdentityError, AssumeRoleForPodIdentityOutput,
};
use aws_smithy_runtime_api::http::Response;
use aws_smithy_types::body::SdkBody;

use crate::credentials::source::eks_auth::classify::{ErrorAnswer, classify, is_of_aws};
use crate::credentials::source::eks_auth::whole_credentials;
use crate::credentials::source::{JudgedToken, SourceError, Unavailable};
use crate::outgoing::Carrier;
use crate::telemetry::error_chain::ErrorChain;
use crate::words;

/// What kept the answer away.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// Nothing: this is AWS's answer, whatever it says.
    None,
    /// There was no call.
    Unsent,
    /// This.
    OnTheWay(String),
}

/// What the SDK brings from a call.
pub(super) type Sent = Result<AssumeRoleForPodIdentityOutput, Failure>;
/// And when it fails.
pub(super) type Failure = SdkError<AssumeRoleForPodIdentityError, Response<SdkBody>>;

/// What kept the answer to a call away; `None`: its time is over.
pub(super) fn obstacle(sent: Option<&Sent>, carrier: &Carrier, judged: JudgedToken) -> Obstacle {
    match sent {
        None if carrier.is_under_way() => {
            Obstacle::OnTheWay("there is a connection, and no answer in time".to_owned())
        }
        None => Obstacle::OnTheWay("no connection was made in time".to_owned()),
        Some(Ok(output)) if whole_credentials(output).is_some() => Obstacle::None,
        Some(Ok(_)) => Obstacle::OnTheWay("an answer without credentials is not one of EKS Auth".to_owned()),
        Some(Err(failure)) => in_failure(failure, judged),
    }
}

fn in_failure(failure: &Failure, judged: JudgedToken) -> Obstacle {
    let in_answer = |status, code| {
        let request_id = failure.request_id();
        in_answer(&ErrorAnswer { status, code, message: "", request_id }, judged)
    };
    match failure {
        SdkError::ConstructionFailure(_) => Obstacle::Unsent,
        SdkError::TimeoutError(_) => Obstacle::OnTheWay("no answer in time".to_owned()),
        SdkError::DispatchFailure(failure) => {
            // The SDK's own level says only that something failed.
            let cause = failure.as_connector_error().and_then(Error::source);
            let told = cause.map(|cause| ErrorChain(cause).to_string());
            Obstacle::OnTheWay(told.unwrap_or_else(|| "the request was not sent".to_owned()))
        }
        SdkError::ResponseError(response) => in_answer(response.raw().status().as_u16(), None),
        SdkError::ServiceError(service) => in_answer(service.raw().status().as_u16(), service.err().code()),
        _ => Obstacle::OnTheWay("the SDK gives an error that the agent does not know".to_owned()),
    }
}

/// A 5xx may be a proxy's as well: without a sign of AWS it is one.
fn in_answer(answer: &ErrorAnswer<'_>, judged: JudgedToken) -> Obstacle {
    let is_of_eks_auth = match classify(answer, judged) {
        SourceError::Refused(_) | SourceError::Throttled | SourceError::OwnIdentity(_) => true,
        SourceError::Unavailable(Unavailable::ServerError) => is_of_aws(answer),
        SourceError::Unavailable(
            Unavailable::Timeout | Unavailable::Connection | Unavailable::Unreadable | Unavailable::Lost,
        ) => false,
    };
    if is_of_eks_auth {
        return Obstacle::None;
    }
    let status = answer.status;
    let code = words::code(answer.code).map(|code| format!(" and code {code}")).unwrap_or_default();
    Obstacle::OnTheWay(format!(
        "an answer with status {status}{code} is not one of EKS Auth; a proxy or a wrong endpoint may give it"
    ))
}

#[cfg(test)]
mod tests {
    use super::{ErrorAnswer, Obstacle, in_answer};
    use crate::credentials::source::RefusalClass;
    use crate::credentials::source::tests::refusal;

    #[test]
    fn an_answer_is_of_aws_by_its_code_or_its_request_id_and_else_is_in_the_way() {
        for (status, code, request_id, is_of_aws) in [
            (400, Some("AccessDeniedException"), None, true),
            (403, Some("AccessDeniedException"), None, true),
            (403, None, Some("r-1"), true),
            (403, None, None, false),
            (429, None, None, true),
            (500, Some("InternalServerException"), None, true),
            (503, None, Some("r-1"), true),
            (502, None, None, false),
            (200, None, None, false),
            (404, Some("UnknownOperationException"), Some("r-1"), false),
        ] {
            let answer = ErrorAnswer { status, code, message: "", request_id };
            let judged = *refusal(RefusalClass::BadRequest).judged;
            let is_none = in_answer(&answer, judged) == Obstacle::None;
            assert_eq!(is_none, is_of_aws, "{status} {code:?} {request_id:?}");
        }
    }
}
