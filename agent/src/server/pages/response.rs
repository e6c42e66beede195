//! The shape of every answer: status, content type, and that nothing on the way may store it.
//!
//! Owns: these headers. Must not know: what a body says.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;

use crate::telemetry::metrics::Format;

/// Without a charset: Go v2 prints the raw JSON of an error otherwise (measured).
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const PROMETHEUS_TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// A JSON document.
pub(super) fn json(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    reply(status, JSON, body.into())
}

/// Plain text.
pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    reply(status, TEXT, body.into())
}

/// The page of metrics.
pub(super) fn metrics(format: Format, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let content_type = match format {
        Format::OpenMetrics => OPEN_METRICS,
        Format::Text => PROMETHEUS_TEXT,
    };
    reply(StatusCode::OK, content_type, body.into())
}

/// Makes a 405 say which methods there are, as HTTP requires.
pub(super) fn allow_get(mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

fn reply(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
