//! What was between a call and AWS's answer to it. Pure.
//!
//! Owns: which outcomes are AWS's own, and the words for the others. Must not know: what is done about it.
//! The words hold no header and no body: one may be a secret, the other anybody's.

use std::error::Error;

use aws_sdk_eksauth::operation::RequestId;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::answer::ErrorAnswer;
use super::call::{Classify, Failure};
use super::{JudgedToken, SourceError, Unavailable};
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

/// The service that was called.
pub(super) struct Service {
    /// Its name, for people.
    pub(super) name: &'static str,
    /// What its answers mean.
    pub(super) classify: Classify,
}

/// What kept the answer to a call away. `None`: its time is over; in a success: whether it brought whole
/// credentials.
pub(super) fn obstacle<E: ProvideErrorMetadata>(
    brought: Option<Result<bool, &Failure<E>>>,
    carrier: &Carrier,
    service: &Service,
    judged: JudgedToken,
) -> Obstacle {
    match brought {
        None if carrier.is_under_way() => {
            Obstacle::OnTheWay("there is a connection, and no answer in time".to_owned())
        }
        None => {
            let lacks = carrier.lacks().map(|lacks| ErrorChain(&lacks).to_string());
            Obstacle::OnTheWay(lacks.unwrap_or_else(|| "no connection was asked for in time".to_owned()))
        }
        Some(Ok(true)) => Obstacle::None,
        Some(Ok(false)) => {
            Obstacle::OnTheWay(format!("an answer without credentials is not one of {}", service.name))
        }
        Some(Err(failure)) => in_failure(failure, service, judged),
    }
}

fn in_failure<E: ProvideErrorMetadata>(
    failure: &Failure<E>,
    service: &Service,
    judged: JudgedToken,
) -> Obstacle {
    let in_answer = |status, code| {
        let request_id = failure.request_id();
        in_answer(&ErrorAnswer { status, code, message: "", request_id }, service, judged)
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
        SdkError::ServiceError(said) => in_answer(said.raw().status().as_u16(), said.err().code()),
        _ => Obstacle::OnTheWay("the SDK gives an error that the agent does not know".to_owned()),
    }
}

/// A 5xx may be a proxy's as well: without a sign of AWS it is one.
fn in_answer(answer: &ErrorAnswer<'_>, service: &Service, judged: JudgedToken) -> Obstacle {
    let is_of_service = match (service.classify)(answer, judged) {
        SourceError::Refused(_)
        | SourceError::Throttled
        | SourceError::OwnIdentity(_)
        | SourceError::Unavailable(Unavailable::IssuerUnreadable) => true,
        SourceError::Unavailable(Unavailable::ServerError) => answer.is_of_aws(),
        SourceError::Unavailable(
            Unavailable::Timeout | Unavailable::Connection | Unavailable::Unreadable | Unavailable::Lost,
        ) => false,
    };
    if is_of_service {
        return Obstacle::None;
    }
    let status = answer.status;
    let code = words::code(answer.code).map(|code| format!(" and code {code}")).unwrap_or_default();
    Obstacle::OnTheWay(format!(
        "an answer with status {status}{code} is not one of {}; a proxy or a wrong endpoint may give it",
        service.name
    ))
}

#[cfg(test)]
mod tests {
    use super::{ErrorAnswer, Obstacle, Service, in_answer};
    use crate::credentials::source::RefusalClass;
    use crate::credentials::source::eks_auth::classify::classify;
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
            let eks_auth = Service { name: "EKS Auth", classify };
            let is_none = in_answer(&answer, &eks_auth, judged) == Obstacle::None;
            assert_eq!(is_none, is_of_aws, "{status} {code:?} {request_id:?}");
        }
    }
}
