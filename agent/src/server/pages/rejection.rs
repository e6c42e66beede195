//! From what went wrong to what the client sees: the one place that knows statuses
//! (docs/design/client-contract.md#error-rules).
//!
//! Owns: status, code, sentence and shape of every error. Must not know: how anything went wrong. The cause
//! goes to the log, never to the wire. Change a status here and the table at the end says whether an SDK will
//! mind.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::ext::ReasonPhrase;
use serde::Serialize;

use super::presence::Absent;
use super::response;
use crate::association::NoRoute;
use crate::credentials::source::{OwnIdentityFault, Refusal, RefusalClass, SourceError, Unavailable};
use crate::identity::TokenFault;
use crate::telemetry::metrics::Outcome;
use crate::workload::MalformedToken;

const OF_ANOTHER_NODE: &str = "The token belongs to a pod on another node";
const NO_OWN_CREDENTIALS: &str = "The agent has no usable AWS credentials; ask your cluster admin";

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
    Token(TokenFault),
    /// A token that no source serves.
    NoRoute(NoRoute),
    /// A token that could not be verified where it must be.
    Undecided,
    /// A token of a pod that is not where it should be.
    Absent(Absent),
    /// This peer waits for too many answers already.
    TooManyHeld,
    /// What AWS answered, or why it did not; `None`: no answer yet.
    Source(Option<SourceError>),
    /// AWS has refused, and is asked again, because that may change: the client must not take it for final.
    RefusedSoFar(SourceError),
}

/// Status, code and sentence of an answer.
struct Answer {
    status: StatusCode,
    code: &'static str,
    /// At most 70 characters before details: PHP cuts the body at 120.
    message: String,
}

/// Both spellings, lower case first: Java reads one, JS the other, PHP only the beginning
/// (docs/design/client-contract.md#what-users-see).
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
    /// The answer to a client that can wait no longer, while AWS is still being asked.
    pub fn so_far(failure: Option<SourceError>) -> Self {
        match failure {
            Some(refused @ SourceError::Refused(_)) => Self::RefusedSoFar(refused),
            Some(
                no_answer @ (SourceError::Throttled
                | SourceError::Unavailable(_)
                | SourceError::OwnIdentity(_)),
            ) => Self::Source(Some(no_answer)),
            None => Self::Source(None),
        }
    }

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
            Self::NoRoute(NoRoute::Unverified | NoRoute::NotYetKnown) => Outcome::Unavailable,
            Self::Malformed(_) | Self::Token(_) | Self::NoRoute(_) => Outcome::Refused,
            Self::Absent(Absent::Gone | Absent::Elsewhere | Absent::OtherAddress) => Outcome::Refused,
            Self::Absent(Absent::NotSeen) => Outcome::Unavailable,
            Self::Source(Some(SourceError::Refused(_))) => Outcome::Refused,
            Self::Undecided | Self::TooManyHeld | Self::Source(_) | Self::RefusedSoFar(_) => {
                Outcome::Unavailable
            }
        }
    }

    /// The cause, for the log: one label of a closed set.
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Source(Some(error)) | Self::RefusedSoFar(error) => error.label(),
            Self::Source(None) => "no_answer_yet",
            Self::TooManyHeld => "too_many_held",
            Self::Token(fault) => cause_of_fault(fault),
            Self::Absent(absent) => cause_of_absence(*absent),
            Self::NoRoute(no_route) => cause_of_no_route(no_route),
            Self::NotFound | Self::Method | Self::Host | Self::Malformed(_) | Self::Undecided => {
                self.answer().code
            }
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
            Self::Token(fault) => of_fault(fault),
            Self::NoRoute(no_route) => of_no_route(no_route),
            Self::Absent(absent) => of_absence(*absent),
            Self::Undecided => unavailable("The token cannot be verified at this time; try again"),
            Self::TooManyHeld => unavailable("Too many requests are waiting on this node; try again"),
            Self::Source(Some(error)) => of_source(error),
            Self::Source(None) => unavailable("AWS has not answered yet; try again"),
            Self::RefusedSoFar(error) => {
                Answer { status: StatusCode::SERVICE_UNAVAILABLE, ..of_source(error) }
            }
        }
    }
}

fn answer(status: StatusCode, code: &'static str, message: &str) -> Answer {
    Answer { status, code, message: message.to_owned() }
}

/// 503 and never 429: for Java, Rust, PHP, Ruby and minio-go a 429 is final
/// (docs/design/client-contract.md#retries).
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
const fn cause_of_fault(fault: &TokenFault) -> &'static str {
    match fault {
        TokenFault::Unreadable(_) => "token_unreadable",
        TokenFault::Expired => "token_expired",
        TokenFault::SeveralAudiences => "token_several_audiences",
        TokenFault::ForeignAudience(_) => "token_foreign_audience",
        TokenFault::Algorithm => "token_algorithm",
        TokenFault::Forged => "token_forged",
        TokenFault::NotPodBound => "token_not_pod_bound",
        TokenFault::Contradiction => "token_contradiction",
        TokenFault::OtherNode => "token_other_node",
        TokenFault::NotAuthenticated => "token_not_authenticated",
    }
}

const fn cause_of_absence(absent: Absent) -> &'static str {
    match absent {
        Absent::Gone => "pod_gone",
        Absent::NotSeen => "pod_not_seen",
        Absent::Elsewhere => "pod_elsewhere",
        Absent::OtherAddress => "pod_other_address",
    }
}

const fn cause_of_no_route(no_route: &NoRoute) -> &'static str {
    match no_route {
        NoRoute::Unverified => "token_not_verified",
        NoRoute::NoRole => "no_role",
        NoRoute::InvalidRole(_) => "invalid_role",
        NoRoute::OtherAudience(_) => "role_for_other_audience",
        NoRoute::NotAllowed => "role_not_allowed",
        NoRoute::NotYetKnown => "role_not_known_yet",
    }
}

fn of_no_route(no_route: &NoRoute) -> Answer {
    let denied = |message: &str| answer(StatusCode::FORBIDDEN, "AccessDeniedException", message);
    match no_route {
        // The API server or a key may say a moment later that it is genuine.
        NoRoute::Unverified => unavailable("The token cannot be verified at this time; try again"),
        NoRoute::NotYetKnown => unavailable("The role of this service account is not known yet; try again"),
        NoRoute::NoRole => denied("No annotation or map entry gives this service account a role"),
        NoRoute::InvalidRole(why) => {
            denied(&format!("The role of this service account cannot be used: {why}"))
        }
        NoRoute::OtherAudience(other) => {
            let message = format!("The role is given for tokens of another audience: {other}");
            answer(StatusCode::BAD_REQUEST, "InvalidTokenException", &message)
        }
        NoRoute::NotAllowed => denied("The role limits of this cluster do not allow this role here"),
    }
}

/// The token is genuine: it is not the token's fault.
fn of_absence(absent: Absent) -> Answer {
    let message = match absent {
        Absent::Gone => "The token belongs to a pod that was deleted",
        Absent::NotSeen => {
            return unavailable("Kubernetes has not named the pod of this token yet; try again");
        }
        Absent::Elsewhere => OF_ANOTHER_NODE,
        Absent::OtherAddress => "The token belongs to a pod with another address",
    };
    answer(StatusCode::FORBIDDEN, "AccessDeniedException", message)
}

fn of_fault(fault: &TokenFault) -> Answer {
    let (code, message) = match fault {
        TokenFault::Unreadable(_) => ("InvalidTokenException", "The service account token cannot be read"),
        TokenFault::Expired => {
            ("ExpiredTokenException", "The token has expired: read the token file again, it is rewritten")
        }
        TokenFault::SeveralAudiences => {
            ("InvalidTokenException", "The token is for two audiences of AWS; request one for each")
        }
        TokenFault::ForeignAudience(foreign) => {
            let advice = foreign.advice();
            let message = format!("The token is for an audience that is not served: {foreign}; {advice}");
            return answer(StatusCode::BAD_REQUEST, "InvalidTokenException", &message);
        }
        // One sentence for all three: a forger learns nothing from it, and nobody else sees it.
        TokenFault::Algorithm | TokenFault::Forged | TokenFault::Contradiction => {
            ("InvalidTokenException", "The signature of the token is not valid")
        }
        TokenFault::NotPodBound => {
            ("InvalidTokenException", "The token is not bound to a pod: use the projected token file")
        }
        TokenFault::NotAuthenticated => {
            ("InvalidTokenException", "The cluster's API server does not accept the token")
        }
        TokenFault::OtherNode => {
            // Genuine, and not to be used here.
            return answer(StatusCode::FORBIDDEN, "AccessDeniedException", OF_ANOTHER_NODE);
        }
    };
    answer(StatusCode::BAD_REQUEST, code, message)
}

fn of_source(error: &SourceError) -> Answer {
    match error {
        SourceError::Refused(refusal) => of_refusal(refusal),
        SourceError::Throttled => {
            let message = "AWS is throttling credential requests; try again";
            answer(StatusCode::SERVICE_UNAVAILABLE, "ThrottlingException", message)
        }
        SourceError::Unavailable(Unavailable::IssuerUnreadable) => {
            unavailable("STS cannot read the keys of the token's issuer; try again")
        }
        SourceError::Unavailable(Unavailable::Unreadable) => {
            unavailable("Something on the way to AWS may have answered; try again")
        }
        SourceError::Unavailable(
            Unavailable::Timeout | Unavailable::Connection | Unavailable::ServerError | Unavailable::Lost,
        ) => unavailable("AWS is unreachable or failing; try again"),
        SourceError::OwnIdentity(OwnIdentityFault::RegionUnknown) => {
            unavailable("The agent does not know its AWS region; ask your cluster admin")
        }
        SourceError::OwnIdentity(OwnIdentityFault::Missing) => unavailable(NO_OWN_CREDENTIALS),
        SourceError::OwnIdentity(OwnIdentityFault::Rejected(rejection)) => {
            unavailable(&format!("{NO_OWN_CREDENTIALS}: {rejection}"))
        }
    }
}

fn of_refusal(refusal: &Refusal) -> Answer {
    let (status, sentence) = sentence_of(refusal);
    let details = if refusal.message.is_empty() { String::new() } else { format!(": {}", refusal.message) };
    let id = refusal.request_id.as_deref().map(|id| format!(" (request id {id})")).unwrap_or_default();
    Answer { status, code: refusal.code, message: format!("{sentence}{details}{id}") }
}

/// STS has codes of its own, each with a usual mistake behind it; those of EKS Auth are its classes.
fn sentence_of(refusal: &Refusal) -> (StatusCode, &'static str) {
    let of_sts = match refusal.code {
        "AccessDenied" => Some("STS refuses: the role's trust policy must allow this sub and aud"),
        "RegionDisabledException" => Some("STS is not active in this region for the account of the role"),
        "InvalidIdentityToken" => Some("STS rejects the token: check the OIDC provider in the account"),
        "IDPRejectedClaim" => Some("STS rejects the token: its identity provider does"),
        "PackedPolicyTooLarge" => Some("STS finds the session too large: the token carries too much"),
        "ValidationError" => Some("STS finds the request invalid: check the ARN of the role"),
        _ => None,
    };
    if let Some(sentence) = of_sts {
        return (StatusCode::BAD_REQUEST, sentence);
    }
    match refusal.class {
        // 403: Java hides any 404 behind "the requested metadata is not found"
        // (docs/design/client-contract.md#error-rules).
        RefusalClass::NoAssociation => {
            (StatusCode::FORBIDDEN, "No pod identity association for this service account")
        }
        RefusalClass::RoleNotAssumable => {
            (StatusCode::BAD_REQUEST, "EKS Auth cannot assume the role of the association")
        }
        RefusalClass::TokenExpired => {
            (StatusCode::BAD_REQUEST, "The token has expired: read the token file again")
        }
        RefusalClass::TokenInvalid => (StatusCode::BAD_REQUEST, "EKS Auth does not accept the token"),
        RefusalClass::BadRequest => (StatusCode::BAD_REQUEST, "EKS Auth does not accept the request"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use http::Response;
    use http_body_util::{BodyExt, Full};
    use hyper::ext::ReasonPhrase;

    use super::{Absent, Rejection};
    use crate::association::NoRoute;
    use crate::association::OtherAudience;
    use crate::aws::own_identity;
    use crate::credentials::source::tests::refusal;
    use crate::credentials::source::{OwnIdentityFault, Refusal, RefusalClass, SourceError, Unavailable};
    use crate::identity::TokenFault;
    use crate::telemetry::metrics::Outcome;
    use crate::workload::{MalformedToken, ServedAudiences};

    fn refused(class: RefusalClass, code: &'static str) -> Rejection {
        source(SourceError::Refused(Refusal { code, ..refusal(class) }))
    }

    fn source(error: SourceError) -> Rejection {
        Rejection::Source(Some(error))
    }

    fn foreign_audience() -> Rejection {
        let served = ServedAudiences::new(true, ["sts.amazonaws.com"]);
        let foreign = served.meant_by(&["vault".into()]).unwrap_err();
        Rejection::Token(TokenFault::ForeignAudience(foreign))
    }

    fn other_audience() -> Rejection {
        let (of_role, of_token) = ("mine".into(), "sts.amazonaws.com".into());
        let other = OtherAudience { of_role, of_token, is_served: true, has_changed: true };
        Rejection::NoRoute(NoRoute::OtherAudience(other))
    }

    #[test]
    fn wrong_audiences_are_named_with_what_to_do() {
        for (rejection, message) in [
            (
                foreign_audience(),
                "The token is for an audience that is not served: it is for vault, and this agent serves \
                 pods.eks.amazonaws.com, sts.amazonaws.com; the audience of the pod's token, that of its \
                 annotation or role map entry, and one of --web-identity-audience must be the same",
            ),
            (
                other_audience(),
                "The role is given for tokens of another audience: the audience of the service account's \
                 role is now mine, and the pod's token is for sts.amazonaws.com: restart the pod, so that it \
                 gets a token for the former",
            ),
        ] {
            assert_eq!(rejection.answer().message, message);
        }
    }

    #[test]
    fn the_table_of_callers_without_a_route() {
        for (rejection, status, code) in [
            (Rejection::NoRoute(NoRoute::Unverified), 503, "ServiceUnavailableException"),
            (Rejection::NoRoute(NoRoute::NotYetKnown), 503, "ServiceUnavailableException"),
            (Rejection::NoRoute(NoRoute::NoRole), 403, "AccessDeniedException"),
            (Rejection::NoRoute(NoRoute::InvalidRole("no ARN".into())), 403, "AccessDeniedException"),
            (other_audience(), 400, "InvalidTokenException"),
            (Rejection::NoRoute(NoRoute::NotAllowed), 403, "AccessDeniedException"),
        ] {
            let response = rejection.to_response();
            assert_eq!(response.status(), status, "{rejection:?}");
            assert_eq!(response.extensions().get::<ReasonPhrase>().unwrap().as_bytes(), code.as_bytes());
        }
    }

    #[test]
    fn the_table_of_statuses_and_codes() {
        let rejected =
            Arc::new(own_identity::rejection::Rejection::new(403, Some("AccessDeniedException"), "no", None));
        let cases = [
            (Rejection::NotFound, 404, "NotFound"),
            (Rejection::Method, 405, "MethodNotAllowed"),
            (Rejection::Host, 403, "AccessDeniedException"),
            (Rejection::Malformed(MalformedToken::Missing), 400, "InvalidTokenException"),
            (Rejection::Malformed(MalformedToken::NotAToken), 400, "InvalidTokenException"),
            (Rejection::Token(TokenFault::Expired), 400, "ExpiredTokenException"),
            (Rejection::Token(TokenFault::SeveralAudiences), 400, "InvalidTokenException"),
            (foreign_audience(), 400, "InvalidTokenException"),
            (Rejection::Token(TokenFault::Algorithm), 400, "InvalidTokenException"),
            (Rejection::Token(TokenFault::Forged), 400, "InvalidTokenException"),
            (Rejection::Token(TokenFault::NotPodBound), 400, "InvalidTokenException"),
            (Rejection::Token(TokenFault::Contradiction), 400, "InvalidTokenException"),
            (Rejection::Token(TokenFault::OtherNode), 403, "AccessDeniedException"),
            (Rejection::Token(TokenFault::NotAuthenticated), 400, "InvalidTokenException"),
            (refused(RefusalClass::RoleNotAssumable, "AccessDenied"), 400, "AccessDenied"),
            (refused(RefusalClass::TokenInvalid, "InvalidIdentityToken"), 400, "InvalidIdentityToken"),
            (Rejection::Absent(Absent::Gone), 403, "AccessDeniedException"),
            (Rejection::Absent(Absent::NotSeen), 503, "ServiceUnavailableException"),
            (Rejection::Absent(Absent::Elsewhere), 403, "AccessDeniedException"),
            (Rejection::Absent(Absent::OtherAddress), 403, "AccessDeniedException"),
            (Rejection::Undecided, 503, "ServiceUnavailableException"),
            (Rejection::TooManyHeld, 503, "ServiceUnavailableException"),
            (refused(RefusalClass::RoleNotAssumable, "AccessDeniedException"), 400, "AccessDeniedException"),
            (
                refused(RefusalClass::NoAssociation, "ResourceNotFoundException"),
                403,
                "ResourceNotFoundException",
            ),
            (refused(RefusalClass::TokenExpired, "ExpiredTokenException"), 400, "ExpiredTokenException"),
            (refused(RefusalClass::TokenInvalid, "InvalidTokenException"), 400, "InvalidTokenException"),
            (
                refused(RefusalClass::BadRequest, "InvalidParameterException"),
                400,
                "InvalidParameterException",
            ),
            (refused(RefusalClass::BadRequest, "InvalidRequestException"), 400, "InvalidRequestException"),
            (source(SourceError::Throttled), 503, "ThrottlingException"),
            (source(SourceError::Unavailable(Unavailable::Timeout)), 503, "ServiceUnavailableException"),
            (
                source(SourceError::OwnIdentity(OwnIdentityFault::Rejected(rejected))),
                503,
                "ServiceUnavailableException",
            ),
            (Rejection::Source(None), 503, "ServiceUnavailableException"),
            (Rejection::so_far(None), 503, "ServiceUnavailableException"),
            (Rejection::so_far(Some(SourceError::Throttled)), 503, "ThrottlingException"),
        ];
        for (rejection, status, code) in cases {
            let response = rejection.to_response();
            assert_eq!(response.status(), status, "{rejection:?}");
            assert_eq!(response.extensions().get::<ReasonPhrase>().unwrap().as_bytes(), code.as_bytes());
            assert!(status != 429 && (status != 404 || matches!(rejection, Rejection::NotFound)));
        }
    }

    /// 400 and 403 are final for Java, Go, Rust and CRT, and the next answer may be another one.
    #[tokio::test]
    async fn a_refusal_that_may_change_has_the_words_of_one_and_the_status_of_an_outage() {
        let refused = || refused(RefusalClass::NoAssociation, "ResourceNotFoundException");
        let Rejection::Source(failure) = refused() else { panic!("not of a source") };
        let so_far = Rejection::so_far(failure);
        assert_eq!((so_far.outcome(), so_far.cause()), (Outcome::Unavailable, refused().cause()));
        let (so_far, at_last) = (so_far.to_response(), refused().to_response());
        assert_eq!((so_far.status().as_u16(), at_last.status().as_u16()), (503, 403));
        let body = async |response: Response<Full<Bytes>>| response.collect().await.unwrap().to_bytes();
        assert_eq!(body(so_far).await, body(at_last).await);
    }

    #[tokio::test]
    async fn the_body_has_both_spellings_lower_case_first_and_the_request_id_last() {
        let response = refused(RefusalClass::NoAssociation, "ResourceNotFoundException").to_response();
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
            Rejection::Token(TokenFault::Expired),
            Rejection::Token(TokenFault::SeveralAudiences),
            Rejection::Token(TokenFault::Forged),
            Rejection::Token(TokenFault::NotPodBound),
            Rejection::Token(TokenFault::OtherNode),
            Rejection::Token(TokenFault::NotAuthenticated),
            Rejection::Absent(Absent::Gone),
            Rejection::Absent(Absent::NotSeen),
            Rejection::Absent(Absent::OtherAddress),
            Rejection::NoRoute(NoRoute::Unverified),
            Rejection::NoRoute(NoRoute::NotYetKnown),
            Rejection::NoRoute(NoRoute::NoRole),
            Rejection::NoRoute(NoRoute::NotAllowed),
            Rejection::Undecided,
            Rejection::TooManyHeld,
            Rejection::Source(None),
            source(SourceError::Throttled),
            source(SourceError::OwnIdentity(OwnIdentityFault::Missing)),
            source(SourceError::OwnIdentity(OwnIdentityFault::RegionUnknown)),
            source(SourceError::Unavailable(Unavailable::Timeout)),
            source(SourceError::Unavailable(Unavailable::Unreadable)),
            source(SourceError::Unavailable(Unavailable::IssuerUnreadable)),
        ] {
            assert!(rejection.answer().message.len() <= 70, "{}", rejection.answer().message);
        }
        for rejection in [foreign_audience(), other_audience()] {
            let message = rejection.answer().message;
            assert!(message.find(": ").is_some_and(|end| end <= 70), "{message}");
        }
    }
}
