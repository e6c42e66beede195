//! EKS Auth and STS (`web_identity`) as the AWS SDK's HTTP client meets them, for tests on simulated time:
//! the agent's unit tests and the simulation.
//!
//! Owns: the form of a call and of each answer, request ids, and which connections have carried a call. Must
//! not know: what is answered to whom, or the agent. The sandbox's EKS Auth is a server, and judges
//! signatures and tokens; how certain each of its answers is stands in tests/sandbox/ASSUMPTIONS.md.

pub mod web_identity;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::SystemTime;

use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::DateTime;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::date_time::Format;
use serde_json::{Value, json};

/// The token of a call; empty if it has none.
pub fn token_of(call: &HttpRequest) -> String {
    let body: Value =
        call.body().bytes().and_then(|body| serde_json::from_slice(body).ok()).unwrap_or_default();
    body.get("token").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A set of credentials as it is issued.
#[derive(Clone, Copy, Debug)]
pub struct Issued<'a> {
    /// The id of the association.
    pub association: &'a str,
    /// The name of the role.
    pub role: &'a str,
    /// The access key's id.
    pub access_key_id: &'a str,
    /// Its secret.
    pub secret: &'a str,
    /// The session token.
    pub session: &'a str,
    /// When it ends, in seconds of the epoch.
    pub expiration: i64,
}

impl Issued<'_> {
    /// The body of the answer.
    pub fn body(&self) -> String {
        let arn = format!("arn:aws:sts::111122223333:assumed-role/{}/s", self.role);
        json!({
            "subject": {"namespace": "namespace", "serviceAccount": "app"},
            "audience": "pods.eks.amazonaws.com",
            "podIdentityAssociation": {"associationArn": "arn", "associationId": self.association},
            "assumedRoleUser": {"arn": arn, "assumeRoleId": "x"},
            "credentials": {
                "sessionToken": self.session,
                "secretAccessKey": self.secret,
                "accessKeyId": self.access_key_id,
                "expiration": self.expiration,
            },
        })
        .to_string()
    }
}

/// The body of a refusal.
pub fn refusal(code: &str) -> String {
    json!({"code": code, "message": "of a test"}).to_string()
}

/// What makes answers; clones share the count of request ids.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    count: Arc<AtomicU64>,
}

impl Answers {
    /// An answer of this moment, with a request id of its own, as each of AWS's has.
    ///
    /// # Errors
    /// A status or a moment that HTTP does not have.
    pub fn answer(
        &self,
        status: u16,
        body: String,
        date: SystemTime,
    ) -> Result<HttpResponse, ConnectorError> {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        answer_with_id(status, body, date, format!("00000000-0000-4000-8000-{number:012}"))
    }
}

/// An answer with this request id: one that somebody in between gives again has the old one.
///
/// # Errors
/// A status or a moment that HTTP does not have.
pub fn answer_with_id(
    status: u16,
    body: String,
    date: SystemTime,
    id: impl Into<String>,
) -> Result<HttpResponse, ConnectorError> {
    let none = |what: &'static str| ConnectorError::other(what.into(), None);
    let status = status.try_into().map_err(|_| none("no such status"))?;
    let date = DateTime::from(date).fmt(Format::HttpDate).map_err(|_| none("no such date"))?;
    let content = if body.starts_with("<ErrorResponse") || body.starts_with("<AssumeRole") {
        "text/xml"
    } else {
        "application/json"
    };
    let mut answer = HttpResponse::new(status, SdkBody::from(body));
    answer.headers_mut().insert("content-type", content);
    answer.headers_mut().insert("x-amzn-requestid", id.into());
    answer.headers_mut().insert("date", date);
    Ok(answer)
}

/// Connections that have carried a call and wait for the next; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Idle {
    connections: Arc<AtomicUsize>,
}

impl Idle {
    /// A call takes a connection. Whether it is one that has carried another call.
    pub fn take(&self) -> bool {
        let take = |idle: usize| idle.checked_sub(1);
        self.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// A call was answered. One that is given up, or is not answered, is closed.
    pub fn give_back(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::{Answers, Idle, Issued, refusal};

    #[test]
    fn every_answer_has_an_id_of_its_own_and_the_date_of_its_moment() {
        let answers = Answers::default();
        let id = |answers: &Answers| {
            let answer = answers.answer(400, refusal("InvalidTokenException"), UNIX_EPOCH).unwrap();
            assert_eq!(answer.headers().get("date"), Some("Thu, 01 Jan 1970 00:00:00 GMT"));
            answer.headers().get("x-amzn-requestid").unwrap().to_owned()
        };
        assert_ne!(id(&answers), id(&answers.clone()));
        assert!(answers.answer(99, String::new(), UNIX_EPOCH).is_err());
    }

    #[test]
    fn a_set_has_all_that_the_service_sends() {
        let issued = Issued {
            association: "a-1",
            role: "r",
            access_key_id: "ASIA1",
            secret: "secret",
            session: "session",
            expiration: 1_800_000_000,
        };
        let body: serde_json::Value = serde_json::from_str(&issued.body()).unwrap();
        assert_eq!(body["credentials"]["expiration"], 1_800_000_000);
        assert_eq!(body["assumedRoleUser"]["arn"], "arn:aws:sts::111122223333:assumed-role/r/s");
        assert_eq!(body["podIdentityAssociation"]["associationId"], "a-1");
    }

    #[test]
    fn a_connection_is_used_again_once_it_has_carried_a_call() {
        let idle = Idle::default();
        assert!(!idle.take());
        idle.give_back();
        assert!(idle.take());
        assert!(!idle.take());
    }
}
