//! The HTTP client under the AWS SDK.
//!
//! Owns: the translation between the SDK's types and `outgoing`, and how long an answer of AWS may be. Must
//! not know: what is sent, or how a connection is made. The client is one of the simulation's seams:
//! everything above it is the same code on simulated AWS.

use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http_body_util::Full;

use crate::clock::Clock;
use crate::outgoing::{Client, SendError};

/// The longest answer that is read. EKS Auth's are under 4 KiB, IMDS's under 2 KiB.
const MAX_ANSWER: usize = 64 * 1024;

/// The client for EKS Auth and STS, with the connections of this one. It has no time limit: who calls sets
/// one, and gives a call up by dropping it.
pub fn for_aws(connections: Client) -> SharedHttpClient {
    client(Connector { client: connections, time_limit: None })
}

/// The client for IMDS: plain HTTP on a link-local address, never through a proxy
/// (docs/design/pains.md#data-path-probes and docs/design/pains.md#proxies). Each request has this time.
pub fn for_imds(time_limit: Duration, clock: &Clock) -> SharedHttpClient {
    client(Connector { client: Client::direct(clock), time_limit: Some(time_limit) })
}

/// The settings that an operation asks for are not looked at: one connector and one pool serve all.
fn client(connector: Connector) -> SharedHttpClient {
    let connector = SharedHttpConnector::new(connector);
    http_client_fn(move |_settings, _components| connector.clone())
}

#[derive(Clone, Debug)]
struct Connector {
    client: Client,
    time_limit: Option<Duration>,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let connector = self.clone();
        HttpConnectorFuture::new(async move {
            let sent = connector.send(request);
            match connector.time_limit {
                None => sent.await,
                Some(limit) => tokio::time::timeout(limit, sent)
                    .await
                    .unwrap_or_else(|elapsed| Err(ConnectorError::timeout(elapsed.into()))),
            }
        })
    }
}

impl Connector {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
        let (parts, body) = request.into_parts();
        // All our requests have their body in memory.
        let body = Bytes::copy_from_slice(body.bytes().unwrap_or_default());
        let request = http::Request::from_parts(parts, Full::new(body));
        let response = self.client.send(request, MAX_ANSWER).await.map_err(translate)?;
        HttpResponse::try_from(response.map(SdkBody::from))
            .map_err(|error| ConnectorError::other(error.into(), None))
    }
}

fn translate(error: SendError) -> ConnectorError {
    match error {
        SendError::Url => ConnectorError::user(error.into()),
        SendError::Connect(_) | SendError::Broken(_) | SendError::Body(_) => ConnectorError::io(error.into()),
        // An answer there was, but not one of AWS.
        SendError::TooLong(_) => ConnectorError::other(error.into(), None),
    }
}
