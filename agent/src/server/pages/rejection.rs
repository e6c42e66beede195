//! From what went wrong to what the client sees: the one place that knows statuses (sdk-contract 8.3).
//!
//! Owns: status, code, sentence and shape of every error. Must not know: how anything went wrong. The cause goes to the
//! log, never to the wire. Change a status here and the table at the end says whether an SDK will mind.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::ext::ReasonPhrase;
use serde::Serialize;

use super::response;
use crate::association::NoAssociation;
use crate::credentials::source::{Refused, RefusedCode, SourceError};
use crate::identity::{MalformedToken, Refusal};
use crate::telemetry::metrics::Outcome;

/// Why a request gets no credentials.
#[derive(Clone, Debug)]
pub enum Rejection {
    /// Not our path.
    NotFound,
    /// Our path, but not GET or HEAD.
    Method,
    /// A `Host` that is not ours.
    Host,
    /// No token, or something that is none.
    Malformed(MalformedToken),
    /// A token that is worth nothing.
    Refused(Refusal),
    /// A token for somebody else.
    Association(NoAssociation),
    /// A token that could not be verified where it must be.
    Undecided,
    /// This peer waits for too many answers already.
    TooManyHeld,
    /// What came of asking AWS; `None`: no answer yet.
    Source(Option<SourceError>),
}

/// Status, code and sentence of an answer.
struct Answer {
    status: StatusCode,
    code: &'static str,
    /// At most 70 characters before details: PHP cuts the body at 120.
    message: String,
}

/// Both spellings, lower case first: Java reads one, JS the other, PHP only the beginning (sdk-contract, section 5).
#[derive(Serialize)]
struct Body<'a> {
    code: &'a str,
    message: &'a str,
    #[serde(rename = "Code")]
    capital_code: &'a str,
    #[serde(rename = "Message")]
    capital_message: &'a str,
}

impl Rejection {
    /// The response.
    pub fn to_response(&self) -> Response<Full<Bytes>> {
        let answer = self.answer();
        let body = Body {
            code: answer.code,
            message: &answer.message,
            capital_code: answer.code,
            capital_message: &answer.message,
        };
        // Strings and nothing else: this cannot fail; were it to, the reason phrase would still tell.
        let json = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = response::json(answer.status, json);
        if matches!(self, Self::Method) {
            response = response::allow_get(response);
        }
        // For some clients this is the only text that gets through.
        response.extensions_mut().insert(ReasonPhrase::from_static(answer.code.as_bytes()));
        response
    }

    /// How the request counts.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::NotFound | Self::Method | Self::Host => Outcome::Invalid,
            Self::Malformed(_) | Self::Refused(_) | Self::Association(_) => Outcome::Refused,
            Self::Source(Some(SourceError::Refused(_))) => Outcome::Refused,
            Self::Undecided | Self::TooManyHeld | Self::Source(_) => Outcome::Unavailable,
        }
    }

    /// The cause, for the log: one label of a closed set.
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Source(Some(error)) => error.label(),
            Self::Source(None) => "no_answer_yet",
            Self::TooManyHeld => "too_many_held",
            Self::Refused(refusal) => cause_of_refusal(refusal),
            Self::NotFound
            | Self::Method
            | Self::Host
            | Self::Malformed(_)
            | Self::Association(_)
            | Self::Undecided => self.answer().code,
        }
    }

    fn answer(&self) -> Answer {
        match self {
            Self::NotFound => answer(StatusCode::NOT_FOUND, "NotFound", "Credentials are at /v1/credentials"),
            Self::Method => answer(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "Use GET"),
            Self::Host => {
                let message = "The Host header does not name this agent's address";
                answer(StatusCode::FORBIDDEN, "AccessDeniedException", message)
            }
            Self::Malformed(malformed) => of_malformed(*malformed),
            Self::Refused(refusal) => of_refusal(refusal),
            Self::Association(NoAssociation::ForeignAudience) => {
                let message = "The token is not for audience pods.eks.amazonaws.com";
                answer(StatusCode::BAD_REQUEST, "InvalidTokenException", message)
            }
            Self::Undecided => unavailable("The token cannot be verified at this time, please try again"),
            Self::TooManyHeld => unavailable("Too many requests from this pod are waiting, please try again"),
            Self::Source(Some(error)) => of_source(error),
            Self::Source(None) => unavailable("AWS has not answered yet, please try again"),
        }
    }
}

fn answer(status: StatusCode, code: &'static str, message: &str) -> Answer {
    Answer { status, code, message: message.to_owned() }
}

/// 503 and never 429: for Java, Rust, PHP, Ruby and minio-go a 429 is final (sdk-contract 7.1).
fn unavailable(message: &str) -> Answer {
    answer(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableException", message)
}

fn of_malformed(malformed: MalformedToken) -> Answer {
    let message = match malformed {
        MalformedToken::Missing => "No service account token in the Authorization header",
        MalformedToken::Repeated => "More than one Authorization header",
        MalformedToken::TooLong => "The service account token is longer than 16 KiB",
        MalformedToken::NotAToken => "The Authorization header is not a service account token",
    };
    answer(StatusCode::BAD_REQUEST, "InvalidTokenException", message)
}

/// The wire says little of why a token is refused; the log says it all.
const fn cause_of_refusal(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Unreadable(_) => "token_unreadable",
        Refusal::Expired => "token_expired",
        Refusal::NotYetValid => "token_not_yet_valid",
        Refusal::SeveralAudiences => "token_several_audiences",
        Refusal::ForeignIssuer => "token_foreign_issuer",
        Refusal::ForeignAudience => "token_foreign_audience",
        Refusal::Algorithm => "token_algorithm",
        Refusal::Forged => "token_forged",
        Refusal::NotPodBound => "token_not_pod_bound",
        Refusal::Contradiction => "token_contradiction",
        Refusal::OtherNode => "token_other_node",
    }
}

fn of_refusal(refusal: &Refusal) -> Answer {
    let (code, message) = match refusal {
        Refusal::Unreadable(_) => ("InvalidTokenException", "The service account token cannot be read"),
        Refusal::Expired => {
            ("ExpiredTokenException", "The token has expired: read the token file again, it is rewritten")
        }
        Refusal::NotYetValid => ("InvalidTokenException", "The token is not valid yet: is a clock wrong?"),
        Refusal::SeveralAudiences => {
            ("InvalidTokenException", "The token is for two audiences of AWS; request one for each")
        }
        Refusal::ForeignIssuer => ("InvalidTokenException", "The token was not issued by this cluster"),
        Refusal::ForeignAudience => {
            ("InvalidTokenException", "The token is not for audience pods.eks.amazonaws.com")
        }
        // One sentence for all three: a forger learns nothing from it, and nobody else sees it.
        Refusal::Algorithm | Refusal::Forged | Refusal::Contradiction => {
            ("InvalidTokenException", "The token's signature does not prove what it says")
        }
        Refusal::NotPodBound => {
            ("InvalidTokenException", "The token is not bound to a pod: use the projected token file")
        }
        Refusal::OtherNode => {
            // Genuine, and not to be used here: the one refusal that is not the token's fault.
            let message = "The token is of a pod on another node; is it copied?";
            return answer(StatusCode::FORBIDDEN, "AccessDeniedException", message);
        }
    };
    answer(StatusCode::BAD_REQUEST, code, message)
}

fn of_source(error: &SourceError) -> Answer {
    match error {
        SourceError::Refused(refused) => of_refused(refused),
        SourceError::Throttled => {
            let message = "AWS is throttling credential requests, please try again";
            answer(StatusCode::SERVICE_UNAVAILABLE, "ThrottlingException", message)
        }
        SourceError::Unavailable(_) => {
            unavailable("EKS Auth cannot be reached or is unwell, please try again")
        }
        SourceError::OwnIdentity(_) => {
            unavailable("The node's own AWS credentials do not serve, ask its admin")
        }
    }
}

fn of_refused(refused: &Refused) -> Answer {
    let (status, sentence) = match refused.code {
        // 403: Java hides any 404 behind "the requested metadata is not found" (sdk-contract 8.3).
        RefusedCode::ResourceNotFound => {
            (StatusCode::FORBIDDEN, "No pod identity association for this service account")
        }
        RefusedCode::AccessDenied => {
            (StatusCode::BAD_REQUEST, "EKS may not assume the role of the association")
        }
        RefusedCode::ExpiredToken => {
            (StatusCode::BAD_REQUEST, "The token has expired: read the token file again")
        }
        RefusedCode::InvalidToken => (StatusCode::BAD_REQUEST, "EKS does not accept the token"),
        RefusedCode::InvalidParameter | RefusedCode::InvalidRequest => {
            (StatusCode::BAD_REQUEST, "EKS does not accept the request")
        }
    };
    let details = if refused.message.is_empty() { String::new() } else { format!(": {}", refused.message) };
    let id = refused.request_id.as_deref().map(|id| format!(" (request id {id})")).unwrap_or_default();
    Answer { status, code: refused.code.as_str(), message: format!("{sentence}{details}{id}") }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use hyper::ext::ReasonPhrase;

    use super::Rejection;
    use crate::association::NoAssociation;
    use crate::credentials::source::{OwnIdentityFault, Refused, RefusedCode, SourceError, Unavailable};
    use crate::identity::{MalformedToken, Refusal};

    fn refused(code: RefusedCode) -> Rejection {
        Rejection::Source(Some(SourceError::Refused(Refused::new(code, "no", Some("r-1")))))
    }

    fn source(error: SourceError) -> Rejection {
        Rejection::Source(Some(error))
    }

    #[test]
    fn the_table_of_statuses_and_codes() {
        let cases = [
            (Rejection::NotFound, 404, "NotFound"),
            (Rejection::Method, 405, "MethodNotAllowed"),
            (Rejection::Host, 403, "AccessDeniedException"),
            (Rejection::Malformed(MalformedToken::Missing), 400, "InvalidTokenException"),
            (Rejection::Malformed(MalformedToken::NotAToken), 400, "InvalidTokenException"),
            (Rejection::Refused(Refusal::Expired), 400, "ExpiredTokenException"),
            (Rejection::Refused(Refusal::NotYetValid), 400, "InvalidTokenException"),
            (Rejection::Refused(Refusal::SeveralAudiences), 400, "InvalidTokenException"),
            (Rejection::Refused(Refusal::ForeignIssuer), 400, "InvalidTokenException"),
            (Rejection::Refused(Refusal::ForeignAudience), 400, "InvalidTokenException"),
            (Rejection::Refused(Refusal::Algorithm), 400, "InvalidTokenException"),
            (Rejection::Refused(Refusal::Forged), 400, "InvalidTokenException"),
            (Rejection::Refused(Refusal::NotPodBound), 400, "InvalidTokenException"),
            (Rejection::Refused(Refusal::Contradiction), 400, "InvalidTokenException"),
            (Rejection::Refused(Refusal::OtherNode), 403, "AccessDeniedException"),
            (Rejection::Association(NoAssociation::ForeignAudience), 400, "InvalidTokenException"),
            (Rejection::Undecided, 503, "ServiceUnavailableException"),
            (Rejection::TooManyHeld, 503, "ServiceUnavailableException"),
            (refused(RefusedCode::AccessDenied), 400, "AccessDeniedException"),
            (refused(RefusedCode::ResourceNotFound), 403, "ResourceNotFoundException"),
            (refused(RefusedCode::ExpiredToken), 400, "ExpiredTokenException"),
            (refused(RefusedCode::InvalidToken), 400, "InvalidTokenException"),
            (refused(RefusedCode::InvalidParameter), 400, "InvalidParameterException"),
            (refused(RefusedCode::InvalidRequest), 400, "InvalidRequestException"),
            (source(SourceError::Throttled), 503, "ThrottlingException"),
            (source(SourceError::Unavailable(Unavailable::Timeout)), 503, "ServiceUnavailableException"),
            (
                source(SourceError::OwnIdentity(OwnIdentityFault::Rejected)),
                503,
                "ServiceUnavailableException",
            ),
            (Rejection::Source(None), 503, "ServiceUnavailableException"),
        ];
        for (rejection, status, code) in cases {
            let response = rejection.to_response();
            assert_eq!(response.status(), status, "{rejection:?}");
            assert_eq!(response.extensions().get::<ReasonPhrase>().unwrap().as_bytes(), code.as_bytes());
            assert!(status != 429 && (status != 404 || matches!(rejection, Rejection::NotFound)));
        }
    }

    #[tokio::test]
    async fn the_body_has_both_spellings_lower_case_first_and_the_request_id_last() {
        let response = refused(RefusedCode::ResourceNotFound).to_response();
        assert_eq!(response.headers()["content-type"], "application/json");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let message = "No pod identity association for this service account: no (request id r-1)";
        assert_eq!(
            str::from_utf8(&body).unwrap(),
            format!(
                r#"{{"code":"ResourceNotFoundException","message":"{message}","Code":"ResourceNotFoundException","Message":"{message}"}}"#
            )
        );
    }

    #[test]
    fn sentences_are_short_enough_for_php() {
        for rejection in [
            Rejection::Host,
            Rejection::Malformed(MalformedToken::NotAToken),
            Rejection::Refused(Refusal::Expired),
            Rejection::Refused(Refusal::SeveralAudiences),
            Rejection::Refused(Refusal::ForeignIssuer),
            Rejection::Refused(Refusal::ForeignAudience),
            Rejection::Refused(Refusal::Forged),
            Rejection::Refused(Refusal::NotPodBound),
            Rejection::Refused(Refusal::OtherNode),
            Rejection::Undecided,
            Rejection::TooManyHeld,
            Rejection::Source(None),
            source(SourceError::Throttled),
            source(SourceError::OwnIdentity(OwnIdentityFault::Missing)),
        ] {
            assert!(rejection.answer().message.len() <= 70, "{}", rejection.answer().message);
        }
    }
}
