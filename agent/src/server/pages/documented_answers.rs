//! The answers that docs/roles.md lists are those that clients get.
//!
//! Owns: how the page's tables are read. Must not know: how an answer comes about.

use http_body_util::BodyExt;
use hyper::ext::ReasonPhrase;

use super::rejection::Rejection;
use crate::association::{NoRoute, OtherAudience};
use crate::credentials::source::web_identity::tests::meaning;
use crate::credentials::source::{SourceError, Unavailable};
use crate::identity::TokenFault;
use crate::workload::ServedAudiences;

const PAGE: &str = include_str!("../../../../docs/roles.md");

/// Status, code and sentence.
type Answer = (String, String, String);

/// The rows of the table with this head, without their back quotes.
fn rows(head: &str) -> Vec<Vec<String>> {
    let table = PAGE.split_once(head).unwrap_or_else(|| panic!("no table {head}")).1;
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        row.trim_matches('|').split(" | ").map(|cell| cell.replace('`', "").trim().to_owned()).collect()
    })
    .collect()
}

async fn answer_of(rejection: &Rejection) -> Answer {
    let response = rejection.to_response();
    let (status, reason) = (response.status(), response.extensions().get::<ReasonPhrase>().unwrap());
    let code = String::from_utf8_lossy(reason.as_bytes()).into_owned();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    (status.as_str().to_owned(), code, body["message"].as_str().unwrap().to_owned())
}

/// Those about roles.
fn rejections_by_the_agent() -> Vec<Rejection> {
    let without_route = [
        NoRoute::NoRole,
        NoRoute::InvalidRole("…".into()),
        NoRoute::NotAllowed,
        NoRoute::OtherAudience(OtherAudience {
            of_role: "a".into(),
            of_token: "b".into(),
            is_served: true,
            has_changed: true,
        }),
        NoRoute::Unverified,
        NoRoute::NotYetKnown,
    ];
    let served = ServedAudiences::new(true, ["sts.amazonaws.com"]);
    let foreign = served.meant_by(&["vault".into()]).unwrap_err();
    let faults =
        [TokenFault::SeveralAudiences, TokenFault::NotAuthenticated, TokenFault::ForeignAudience(foreign)];
    without_route.into_iter().map(Rejection::NoRoute).chain(faults.map(Rejection::Token)).collect()
}

#[tokio::test]
async fn what_the_agent_says_itself() {
    let rows = rows("| Status | Code | Sentence | In the access log |");
    let mut documented: Vec<Answer> =
        rows.into_iter().map(|row| (row[0].clone(), row[1].clone(), row[2].clone())).collect();
    for rejection in rejections_by_the_agent() {
        let said = answer_of(&rejection).await;
        let row = documented.iter().position(|row| is_in(row, &said));
        documented.remove(row.unwrap_or_else(|| panic!("{said:?} is none of {documented:?}")));
    }
    assert!(documented.is_empty(), "no answer says {documented:?}");
}

/// The page has `…` for what differs from one pod to the next.
fn is_in(documented: &Answer, said: &Answer) -> bool {
    let same_sentence = match documented.2.split_once('…') {
        Some((beginning, _)) => said.2.starts_with(beginning),
        None => said.2 == documented.2,
    };
    (&documented.0, &documented.1) == (&said.0, &said.1) && same_sentence
}

#[tokio::test]
async fn what_is_said_of_an_answer_of_sts() {
    let rows = rows("| STS says | Answer | Sentence | Credentials that the pod has |");
    let mut codes = Vec::new();
    for row in rows {
        let (says, answer, sentence) = (&row[0], &row[1], &row[2]);
        // `Code (status)` at the beginning, if there is a code.
        let status_and_code =
            says.split_once(" (").map(|(code, rest)| (code, rest.split(')').next().unwrap()));
        let error = match status_and_code {
            Some((code, status)) => {
                codes.push(code.to_owned());
                meaning(status.parse().unwrap(), code)
            }
            None if says.starts_with("throttling") => SourceError::Throttled,
            None if says.starts_with("5xx") => SourceError::Unavailable(Unavailable::ServerError),
            None => SourceError::Unavailable(Unavailable::Unreadable),
        };
        let (status, _, said) = answer_of(&Rejection::Source(Some(error))).await;
        // Behind a comma: for how long it is held.
        assert_eq!(answer.split(',').next().unwrap(), status, "{says}");
        assert_eq!(*sentence, said, "{says}");
    }
    let (_, _, of_outage) =
        answer_of(&Rejection::Source(Some(SourceError::Unavailable(Unavailable::Timeout)))).await;
    assert!(PAGE.contains(&format!("| 5xx, no answer | 503, after 4.5 s | {of_outage} |")), "{of_outage}");
    assert_eq!(
        codes,
        [
            "AccessDenied",
            "RegionDisabledException",
            "PackedPolicyTooLarge",
            "InvalidIdentityToken",
            "IDPRejectedClaim",
            "ExpiredTokenException",
            "ValidationError",
            "IDPCommunicationError",
        ],
        "those that credentials/source/web_identity/classify.rs knows"
    );
}
