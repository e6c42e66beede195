//! One call of a source by its SDK: its time limits, and what the SDK's errors mean.
//!
//! Owns: the translation between the SDK's types of an outcome and ours. Must not know: which operation is
//! called, or what the codes of a source mean (its `classify`).

use std::borrow::Cow;
use std::time::SystemTime;

use aws_sdk_eksauth::config::AppName;
use aws_sdk_eksauth::operation::RequestId;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::http::Response;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::answer::ErrorAnswer;
use super::{JudgedToken, OwnIdentityFault, Refusal, SourceError, TimeLimits, Unavailable};
use crate::outgoing::Carrier;
use crate::words::CallSecrets;

/// A call that did not succeed.
pub(super) type Failure<E> = SdkError<E, Response<SdkBody>>;
/// What an answer of a source means, that is not a success; the token is the one it is about.
pub(super) type Classify = fn(&ErrorAnswer<'_>, JudgedToken) -> SourceError;

/// How AWS sees the agent: part of the user agent.
pub(super) fn app_name() -> Option<AppName> {
    // The name is a literal of allowed characters; were it not, calls would go out without it.
    AppName::new(concat!("pod-identity-agent-", env!("CARGO_PKG_VERSION"))).ok()
}

/// What the call comes to, unless that takes too long.
pub(super) async fn within<T>(
    limits: TimeLimits,
    carrier: &Carrier,
    call: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        // An answer that is there is not passed over.
        biased;
        answer = call => Some(answer),
        () = carrier.used_for(limits.on_used_connection) => None,
        () = tokio::time::sleep(limits.in_all) => None,
    }
}

/// What a failure means for the caller.
pub(super) fn translate<E: ProvideErrorMetadata>(
    error: &Failure<E>,
    judged: JudgedToken,
    secrets: &CallSecrets<'_>,
    classify: Classify,
) -> SourceError {
    match error {
        SdkError::TimeoutError(_) => SourceError::Unavailable(Unavailable::Timeout),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => {
            SourceError::Unavailable(Unavailable::Timeout)
        }
        SdkError::DispatchFailure(failure) if failure.is_other() => {
            SourceError::Unavailable(Unavailable::Unreadable)
        }
        SdkError::DispatchFailure(_) => SourceError::Unavailable(Unavailable::Connection),
        // The request could not be built or signed; our own identity is the only part of it that can be
        // missing.
        SdkError::ConstructionFailure(_) => SourceError::OwnIdentity(OwnIdentityFault::Missing),
        // Credentials that the SDK could not read.
        SdkError::ResponseError(response) if response.raw().status().is_success() => {
            SourceError::Unavailable(Unavailable::Unreadable)
        }
        SdkError::ResponseError(_) | SdkError::ServiceError(_) | _ => Words::of(error, secrets)
            .map_or(SourceError::Unavailable(Unavailable::Unreadable), |words| {
                classify(&words.answer(), judged)
            }),
    }
}

/// A refusal is kept with the time it was given at.
pub(super) fn dated(error: SourceError, answered_at: Option<SystemTime>) -> SourceError {
    match error {
        SourceError::Refused(refusal) => SourceError::Refused(Refusal { answered_at, ..refusal }),
        SourceError::Throttled | SourceError::Unavailable(_) | SourceError::OwnIdentity(_) => error,
    }
}

/// What AWS says in an answer that is not a success, without the secrets of the call.
pub(super) struct Words<'a> {
    status: u16,
    code: Option<Cow<'a, str>>,
    message: Cow<'a, str>,
    request_id: Option<Cow<'a, str>>,
}

impl<'a> Words<'a> {
    /// Those in a failure, if it is an answer. Of a body that the SDK could not read only the head can be
    /// believed.
    pub(super) fn of<E: ProvideErrorMetadata>(
        failure: &'a Failure<E>,
        secrets: &CallSecrets<'_>,
    ) -> Option<Self> {
        let (status, code, message) = match failure {
            SdkError::ResponseError(response) => (response.raw().status(), None, None),
            SdkError::ServiceError(service) => {
                let said = service.err();
                (service.raw().status(), said.code(), said.message())
            }
            SdkError::ConstructionFailure(_)
            | SdkError::TimeoutError(_)
            | SdkError::DispatchFailure(_)
            | _ => return None,
        };
        Some(Self {
            status: status.as_u16(),
            code: code.map(|code| secrets.redact(code)),
            message: secrets.redact(message.unwrap_or_default()),
            // The metadata of a body that the SDK cannot read is empty; the header is there.
            request_id: failure.request_id().map(|id| secrets.redact(id)),
        })
    }

    pub(super) fn answer(&self) -> ErrorAnswer<'_> {
        ErrorAnswer {
            status: self.status,
            code: self.code.as_deref(),
            message: &self.message,
            request_id: self.request_id.as_deref(),
        }
    }
}
