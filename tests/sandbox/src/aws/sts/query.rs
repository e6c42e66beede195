//! The query protocol: parameters in a query or a form, answers in XML.
//!
//! Owns: both spellings, and the error document. Must not know: operations.

use http::{Method, StatusCode};

use crate::aws::sigv4::SignatureError;
use crate::http::message::{REQUEST_ID, Received, Reply};
use crate::random;

const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";
const VERSION: &str = "2011-06-15";

/// Whether the request is for this operation.
pub(super) fn asks_for(request: &Received, operation: &str) -> bool {
    (request.method == Method::GET || request.method == Method::POST)
        && request.path() == "/"
        && parameter(request, "Action").as_deref() == Some(operation)
        && parameter(request, "Version").as_deref() == Some(VERSION)
}

/// All parameters of the query, or of the form in the body.
pub(super) fn parameters(request: &Received) -> impl Iterator<Item = (String, String)> {
    let form = if request.method == Method::POST { &request.body[..] } else { request.query().as_bytes() };
    form_urlencoded::parse(form).into_owned()
}

/// One of them.
pub(super) fn parameter(request: &Received, name: &str) -> Option<String> {
    parameters(request).find(|(key, _)| key == name).map(|(_, value)| value)
}

/// An element with text.
pub(crate) fn element(name: &str, text: &str) -> String {
    format!("<{name}>{}</{name}>", escape(text))
}

/// A good answer, with the members of its result.
pub(super) fn result(operation: &str, members: &str) -> Reply {
    let request_id = random::uuid();
    let body = format!(
        "<{operation}Response xmlns=\"{NAMESPACE}\"><{operation}Result>{members}</{operation}Result>\
         <ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{operation}Response>"
    );
    Reply::xml(body).header(REQUEST_ID, &request_id)
}

/// An error.
pub(super) fn error(status: StatusCode, code: &str, message: &str) -> Reply {
    let request_id = random::uuid();
    let fault = if status.is_server_error() { "Receiver" } else { "Sender" };
    let (code_element, message) = (element("Code", code), element("Message", message));
    let body = format!(
        "<ErrorResponse xmlns=\"{NAMESPACE}\"><Error><Type>{fault}</Type>{code_element}{message}</Error>\
         <RequestId>{request_id}</RequestId></ErrorResponse>"
    );
    Reply::xml(body).status(status).code(code).header(REQUEST_ID, &request_id)
}

/// How STS names what is wrong with a signature.
pub(super) fn code_of(error: &SignatureError) -> &'static str {
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

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
