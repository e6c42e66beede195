//! What the API server says of a token: TokenReview.
//!
//! Owns: the wire format. Must not know: which tokens are shown, how often, or what follows.
//!
//! The token is a secret of its pod. The body of the request is wiped once it is sent, and the answer, which
//! repeats the token, once it is read; what the connection has copied of them is not.

use std::collections::HashMap;

use bytes::Bytes;
use http::Method;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::api::{Api, Sent};
use super::error::ApiError;

const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
/// The answer repeats the token, which has 16 KiB at most, and names the user with its groups.
const MOST_BYTES: usize = 64 * 1024;
/// What surrounds the token in the request.
const MOST_AROUND: usize = 256;

/// Keys of `extra` (`k8s.io/apiserver/pkg/authentication/serviceaccount`), each only where the token has it.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// Why the API server says nothing of a token.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// The agent may not create tokenreviews, in the API server's words.
    #[error("the agent may not create tokenreviews: {0}")]
    Forbidden(String),
    /// The API server gives no answer that can be used.
    #[error(transparent)]
    Api(ApiError),
    /// The answer is no TokenReview. It is not quoted: the token is in it.
    #[error("the API server's answer is no TokenReview")]
    Unreadable,
}

/// What the API server says of a token.
#[derive(Debug, PartialEq, Eq)]
pub enum Reviewed {
    /// It accepts it, for these audiences among those that were asked about.
    Authenticated {
        /// For whom. Empty where the cluster's authenticator knows no audiences.
        audiences: Vec<Box<str>>,
        /// Who it was issued to.
        user: ReviewedUser,
    },
    /// It does not, in its own words.
    Denied(String),
}

/// Who a token was issued to.
#[derive(Debug, PartialEq, Eq)]
pub struct ReviewedUser {
    /// `system:serviceaccount:<namespace>:<name>` of a service account.
    pub name: Box<str>,
    /// UID of the service account.
    pub uid: Box<str>,
    /// Name of the pod that the token is bound to.
    pub pod: Option<Box<str>>,
    /// Its UID.
    pub pod_uid: Option<Box<str>>,
    /// The node that it was bound to.
    pub node: Option<Box<str>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    api_version: &'static str,
    kind: &'static str,
    spec: Spec<'a>,
}

#[derive(Serialize)]
struct Spec<'a> {
    token: &'a str,
    audiences: [&'a str; 1],
}

#[derive(Deserialize)]
struct Answer {
    status: Status,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    authenticated: bool,
    #[serde(default)]
    audiences: Vec<Box<str>>,
    #[serde(default)]
    user: User,
    #[serde(default)]
    error: Box<str>,
}

#[derive(Default, Deserialize)]
struct User {
    #[serde(default)]
    username: Box<str>,
    #[serde(default)]
    uid: Box<str>,
    #[serde(default)]
    extra: HashMap<Box<str>, Vec<Box<str>>>,
}

/// Shows tokens to the API server. Clones share the connection.
#[derive(Clone)]
pub struct TokenReviewer {
    api: Api,
}

impl TokenReviewer {
    /// To this API server.
    pub fn new(api: Api) -> Self {
        Self { api }
    }

    /// Asks whether a token is genuine, in force, and good for that audience.
    ///
    /// # Errors
    /// [`ReviewError`], when there is no answer.
    pub async fn review(&self, token: &str, audience: &str) -> Result<Reviewed, ReviewError> {
        let body = request(token, audience).ok_or(ReviewError::Unreadable)?;
        let (method, path, media_type) = (Method::POST, PATH, "application/json");
        let request = Sent { method, path, media_type, body, secret: Some(token) };
        let answer =
            self.api.send(request, MOST_BYTES).await.map_err(|error| match error.is_forbidden() {
                true => ReviewError::Forbidden(error.to_string()),
                false => ReviewError::Api(error),
            })?;
        let read = serde_json::from_slice::<Answer>(&answer).map_err(|_| ReviewError::Unreadable);
        wipe(answer);
        Ok(read?.status.reviewed(|said| self.api.said_without(token, said).to_string()))
    }
}

/// The body, in one piece that never grows: a Vec that grows leaves copies behind that nobody wipes.
fn request(token: &str, audience: &str) -> Option<Bytes> {
    let spec = Spec { token, audiences: [audience] };
    let request = Request { api_version: "authentication.k8s.io/v1", kind: "TokenReview", spec };
    let mut body = Zeroizing::new(Vec::with_capacity(token.len() + audience.len() + MOST_AROUND));
    serde_json::to_writer(&mut *body, &request).ok()?;
    Some(Bytes::from_owner(body))
}

/// Where nobody else has a part of it.
fn wipe(answer: Bytes) {
    if let Ok(mut answer) = answer.try_into_mut() {
        answer.as_mut().zeroize();
    }
}

impl Status {
    /// `repeat`: what may be repeated of its words, which go to the log.
    fn reviewed(self, repeat: impl FnOnce(&str) -> String) -> Reviewed {
        if !self.authenticated {
            return Reviewed::Denied(repeat(&self.error));
        }
        let User { username, uid, mut extra } = self.user;
        let mut first = |key| extra.remove(key).and_then(|values: Vec<Box<str>>| values.into_iter().next());
        let user = ReviewedUser {
            name: username,
            uid,
            pod: first(POD_NAME),
            pod_uid: first(POD_UID),
            node: first(NODE_NAME),
        };
        Reviewed::Authenticated { audiences: self.audiences, user }
    }
}

#[cfg(test)]
mod tests;
