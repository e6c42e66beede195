//! What operators and the kubelet ask: liveness, readiness, metrics. Never on the credential listeners.
//!
//! Owns: these three pages. Must not know: what the conditions or the numbers mean. Liveness is the event
//! loop alone (design 4.7): a restart heals nothing else, and would cost the held credentials.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde::Serialize;

use crate::lifecycle::readiness::{Readiness, Report};
use crate::server::door::connection::{Peer, Respond};

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const OPENMETRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// Renders all metrics as OpenMetrics text.
pub type Render = Arc<dyn Fn() -> String + Send + Sync>;

/// An admin listener's responder: the pages it has, and 404 for everything else.
pub enum Admin {
    /// `/healthz` and `/readyz`.
    Probes(Readiness),
    /// `/metrics`.
    Metrics(Render),
}

impl Respond for Admin {
    async fn respond(&self, _peer: Peer, request: Request<Incoming>) -> Response<Full<Bytes>> {
        self.page(request.method(), request.uri().path())
    }
}

impl Admin {
    fn page(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let render: &dyn Fn() -> Response<Full<Bytes>> = match (self, path) {
            (Self::Probes(_), "/healthz") => &|| reply(StatusCode::OK, TEXT, "ok\n"),
            (Self::Probes(readiness), "/readyz") => &|| ready_page(readiness),
            (Self::Metrics(render), "/metrics") => &|| reply(StatusCode::OK, OPENMETRICS, render()),
            (Self::Probes(_) | Self::Metrics(_), _) => {
                return reply(StatusCode::NOT_FOUND, TEXT, "not found\n");
            }
        };
        // hyper leaves the body of an answer to HEAD away.
        if method == Method::GET || method == Method::HEAD {
            return render();
        }
        let mut refusal = reply(StatusCode::METHOD_NOT_ALLOWED, TEXT, "method not allowed\n");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        refusal
    }
}

#[derive(Serialize)]
struct ReadyPage {
    ready: bool,
    conditions: Vec<Report>,
}

fn ready_page(readiness: &Readiness) -> Response<Full<Bytes>> {
    let page = ReadyPage { ready: readiness.is_ready(), conditions: readiness.report() };
    let status = if page.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    // Names, booleans and strings always serialize.
    reply(status, JSON, serde_json::to_vec(&page).unwrap_or_default())
}

fn reply(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::header::CONTENT_TYPE;
    use http::{Method, StatusCode};
    use http_body_util::BodyExt;

    use super::Admin;
    use crate::lifecycle::readiness::Readiness;

    async fn page(admin: &Admin, method: Method, path: &str) -> (StatusCode, String, String) {
        let response = admin.page(&method, path);
        let content_type = response.headers()[CONTENT_TYPE].to_str().unwrap().to_owned();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, content_type, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn liveness_does_not_ask_readiness() {
        let admin = Admin::Probes(Readiness::new());
        let (status, _, body) = page(&admin, Method::GET, "/healthz").await;
        assert_eq!((status, body.as_str()), (StatusCode::OK, "ok\n"));
    }

    #[tokio::test]
    async fn readiness_names_each_condition_and_its_reason() {
        let readiness = Readiness::new();
        let listener = readiness.condition("listener");
        readiness.advisory("ipv6 listener").unmet("no \"IPv6\"");
        let admin = Admin::Probes(readiness);
        let (status, content_type, body) = page(&admin, Method::GET, "/readyz").await;
        assert_eq!((status, content_type.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "application/json"));
        assert_eq!(
            body,
            r#"{"ready":false,"conditions":[{"name":"listener","met":false,"required":true,"reason":"starting"},{"name":"ipv6 listener","met":false,"required":false,"reason":"no \"IPv6\""}]}"#
        );
        listener.met();
        assert_eq!(page(&admin, Method::GET, "/readyz").await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn metrics_are_openmetrics_and_not_on_the_probe_port() {
        let admin = Admin::Metrics(Arc::new(|| "# EOF\n".to_owned()));
        let (status, content_type, body) = page(&admin, Method::GET, "/metrics").await;
        assert_eq!((status, body.as_str()), (StatusCode::OK, "# EOF\n"));
        assert_eq!(content_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
        assert_eq!(page(&admin, Method::POST, "/metrics").await.0, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(page(&admin, Method::GET, "/readyz").await.0, StatusCode::NOT_FOUND);
        let probes = Admin::Probes(Readiness::new());
        assert_eq!(page(&probes, Method::GET, "/metrics").await.0, StatusCode::NOT_FOUND);
    }
}
