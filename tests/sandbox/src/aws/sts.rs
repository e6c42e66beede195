//! STS: `GetCallerIdentity`, by which a pod finds out who it is.
//!
//! Owns: the query protocol (GET and POST) and its XML. Must not know: who issued the credentials it is asked
//! with.

use std::sync::Arc;

use http::{Method, StatusCode};

use super::issued::Holder;
use super::sigv4::{Scope, SignatureError};
use crate::cluster::pod::PodSpec;
use crate::faults::Service;
use crate::http::message::{REQUEST_ID, Received, Reply};
use crate::http::server::Answer;
use crate::random;
use crate::world::World;

const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";
const VERSION: &str = "2011-06-15";

/// The service.
pub(crate) struct Sts(pub(crate) Arc<World>);

impl Answer for Sts {
    fn service(&self) -> Option<Service> {
        Some(Service::Sts)
    }

    fn operation(&self, request: &Received) -> String {
        parameter(request, "Action").unwrap_or_else(|| format!("{} {}", request.method, request.path()))
    }

    fn pod(&self, request: &Received) -> Option<PodSpec> {
        let credential = request.header("authorization")?.split_once("Credential=")?.1;
        self.0.issued.holder(credential.split('/').next()?)?.pod
    }

    fn answer(&self, request: &Received) -> Reply {
        let scope = Scope { region: &self.0.options.region, service: "sts", now: self.0.clock.now() };
        let holder = match self.0.issued.signer(request, scope) {
            Ok(holder) => holder,
            Err(error) => return self.error(StatusCode::FORBIDDEN, code_of(&error), &error.to_string()),
        };
        let is_form =
            (request.method == Method::GET || request.method == Method::POST) && request.path() == "/";
        let action = parameter(request, "Action").unwrap_or_default();
        let version = parameter(request, "Version").unwrap_or_default();
        if is_form && action == "GetCallerIdentity" && version == VERSION {
            return identity(&holder);
        }
        let text = format!("Could not find operation {action} for version {version}");
        self.error(StatusCode::BAD_REQUEST, "InvalidAction", &text)
    }

    fn error(&self, status: StatusCode, code: &str, message: &str) -> Reply {
        let request_id = random::uuid();
        let fault = if status.is_server_error() { "Receiver" } else { "Sender" };
        let (code_text, message) = (escape(code), escape(message));
        let body = format!(
            "<ErrorResponse xmlns=\"{NAMESPACE}\"><Error><Type>{fault}</Type><Code>{code_text}</Code>\
             <Message>{message}</Message></Error><RequestId>{request_id}</RequestId></ErrorResponse>"
        );
        Reply::xml(body).status(status).code(code).header(REQUEST_ID, &request_id)
    }
}

fn code_of(error: &SignatureError) -> &'static str {
    match error {
        SignatureError::Missing => "MissingAuthenticationToken",
        SignatureError::Incomplete(_) => "IncompleteSignature",
        SignatureError::Scope(_) | SignatureError::Skew(_) | SignatureError::Mismatch => {
            "SignatureDoesNotMatch"
        }
        SignatureError::UnknownKey => "InvalidClientTokenId",
        SignatureError::Expired => "ExpiredToken",
    }
}

fn identity(holder: &Holder) -> Reply {
    let request_id = random::uuid();
    let (arn, user_id, account) = (escape(&holder.arn), escape(&holder.user_id), escape(&holder.account));
    let body = format!(
        "<GetCallerIdentityResponse xmlns=\"{NAMESPACE}\"><GetCallerIdentityResult><Arn>{arn}</Arn>\
         <UserId>{user_id}</UserId><Account>{account}</Account></GetCallerIdentityResult>\
         <ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></GetCallerIdentityResponse>"
    );
    Reply::xml(body).header(REQUEST_ID, &request_id)
}

/// A parameter of the query, or of the form in the body.
fn parameter(request: &Received, name: &str) -> Option<String> {
    let form = if request.method == Method::POST { &request.body[..] } else { request.query().as_bytes() };
    form_urlencoded::parse(form).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
