//! What operators and the kubelet read: liveness, readiness, metrics. Never on the credential listeners.
//!
//! Owns: these three pages. Must not know: what the conditions or the numbers mean. Liveness is the event
//! loop alone (docs/design/decisions.md#readiness): a restart heals nothing else, and would lose the cached
//! credentials. The metrics listener, which the network can reach, has all three pages, as that of Amazon's
//! agent, but gives no reasons: they are for this node.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde::Serialize;

use super::negotiation::metrics_format;
use super::response::{allow_get, json, metrics, text};
use crate::lifecycle::readiness::{Readiness, Report};
use crate::server::door::connection::{Peer, Respond};
use crate::telemetry::metrics::MetricsPage;

/// An admin listener's responder: the pages it has, and 404 for everything else.
pub enum Admin {
    /// `/healthz` and `/readyz`.
    Probes(Readiness),
    /// `/metrics`, `/healthz`, and `/readyz` without reasons.
    Metrics(Arc<MetricsPage>, Readiness),
}

impl Respond for Admin {
    type Memory = ();

    async fn respond(&self, _peer: Peer, (): &(), request: Request<Incoming>) -> Response<Full<Bytes>> {
        self.page(request.method(), request.uri().path(), request.headers())
    }

    fn refuse(&self, _peer: Peer, _request: Request<Incoming>) -> Response<Full<Bytes>> {
        text(StatusCode::SERVICE_UNAVAILABLE, "too many connections\n")
    }
}

impl Admin {
    fn page(&self, method: &Method, path: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let render: &dyn Fn() -> Response<Full<Bytes>> = match (self, path) {
            (Self::Probes(_) | Self::Metrics(..), "/healthz") => &|| text(StatusCode::OK, "ok\n"),
            (Self::Probes(readiness), "/readyz") => &|| ready_page(readiness, readiness.report()),
            (Self::Metrics(_, readiness), "/readyz") => &|| ready_page(readiness, without_reasons(readiness)),
            (Self::Metrics(page, _), "/metrics") => &|| metrics_page(page, headers),
            (Self::Probes(_) | Self::Metrics(..), _) => return text(StatusCode::NOT_FOUND, "not found\n"),
        };
        // hyper omits the body of an answer to HEAD.
        if method == Method::GET || method == Method::HEAD {
            return render();
        }
        allow_get(text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n"))
    }
}

fn metrics_page(page: &MetricsPage, headers: &HeaderMap) -> Response<Full<Bytes>> {
    let format = metrics_format(headers);
    metrics(format, page.render(format))
}

#[derive(Serialize)]
struct ReadyPage {
    ready: bool,
    conditions: Vec<Report>,
}

fn without_reasons(readiness: &Readiness) -> Vec<Report> {
    let mut conditions = readiness.report();
    conditions.iter_mut().for_each(|condition| condition.reason = String::new());
    conditions
}

fn ready_page(readiness: &Readiness, conditions: Vec<Report>) -> Response<Full<Bytes>> {
    let page = ReadyPage { ready: readiness.is_ready(), conditions };
    let status = if page.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    // Names, booleans and strings always serialize.
    json(status, serde_json::to_vec(&page).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE};
    use http::{HeaderMap, HeaderValue, Method, StatusCode};
    use http_body_util::BodyExt;

    use super::Admin;
    use crate::lifecycle::condition_name::ConditionName;
    use crate::lifecycle::readiness::Readiness;
    use crate::telemetry::metrics::page_with_everything;

    async fn page(admin: &Admin, method: Method, path: &str) -> (StatusCode, String, String) {
        page_as(admin, method, path, &HeaderMap::new()).await
    }

    async fn page_as(
        admin: &Admin,
        method: Method,
        path: &str,
        headers: &HeaderMap,
    ) -> (StatusCode, String, String) {
        let response = admin.page(&method, path, headers);
        let (status, headers) = (response.status(), response.headers().clone());
        assert_eq!(headers[CACHE_CONTROL], "no-store");
        assert_eq!(headers.contains_key(ALLOW), status == StatusCode::METHOD_NOT_ALLOWED);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (
            status,
            headers[CONTENT_TYPE].to_str().unwrap().to_owned(),
            String::from_utf8(body.to_vec()).unwrap(),
        )
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
        let listener = readiness.condition(ConditionName::ListenerIpv4);
        readiness.advisory(ConditionName::ListenerIpv6).unmet("no \"IPv6\"");
        let admin = Admin::Probes(readiness);
        let (status, content_type, body) = page(&admin, Method::GET, "/readyz").await;
        assert_eq!((status, content_type.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "application/json"));
        assert_eq!(
            body,
            [
                r#"{"ready":false,"conditions":["#,
                r#"{"name":"listener-ipv4","met":false,"required":true,"reason":"starting"},"#,
                r#"{"name":"listener-ipv6","met":false,"required":false,"reason":"no \"IPv6\""}]}"#,
            ]
            .concat()
        );
        listener.met();
        assert_eq!(page(&admin, Method::GET, "/readyz").await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn the_metrics_port_has_the_probes_too_and_tells_the_network_no_reason() {
        let readiness = Readiness::new();
        let listener = readiness.condition(ConditionName::ListenerIpv4);
        listener.unmet("arn:aws:iam::111122223333:role/node");
        let admin = Admin::Metrics(Arc::new(page_with_everything()), readiness);
        let (status, _, body) = page(&admin, Method::GET, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains(r#""name":"listener-ipv4","met":false"#) && !body.contains("arn:"), "{body}");
        assert_eq!(page(&admin, Method::GET, "/healthz").await.0, StatusCode::OK);
        listener.met();
        assert_eq!(page(&admin, Method::GET, "/readyz").await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn metrics_are_in_the_format_that_is_accepted_and_not_on_the_probe_port() {
        let admin = Admin::Metrics(Arc::new(page_with_everything()), Readiness::new());
        let (status, content_type, body) = page(&admin, Method::GET, "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(content_type, "text/plain; version=0.0.4; charset=utf-8");
        assert!(body.contains("# TYPE pod_identity_agent_requests_total counter\n"), "{body}");
        let accept = HeaderValue::from_static("application/openmetrics-text;version=1.0.0");
        let headers: HeaderMap = [(ACCEPT, accept)].into_iter().collect();
        let (status, content_type, body) = page_as(&admin, Method::GET, "/metrics", &headers).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(content_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
        assert!(body.contains("# TYPE pod_identity_agent_requests counter\n"), "{body}");
        assert_eq!(page(&admin, Method::HEAD, "/metrics").await.0, StatusCode::OK);
        assert_eq!(page(&admin, Method::POST, "/metrics").await.0, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(page(&admin, Method::GET, "/other").await.0, StatusCode::NOT_FOUND);
        let probes = Admin::Probes(Readiness::new());
        assert_eq!(page(&probes, Method::GET, "/metrics").await.0, StatusCode::NOT_FOUND);
    }
}
