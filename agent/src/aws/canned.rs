//! An HTTP client of the SDK that gives one answer to each request, for the properties of what parses
//! answers.

use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Canned {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

impl Canned {
    pub(crate) fn response(self) -> Result<HttpResponse, ConnectorError> {
        let status =
            self.status.try_into().map_err(|_| ConnectorError::other("no such status".into(), None))?;
        let mut response = HttpResponse::new(status, SdkBody::from(self.body));
        for (name, value) in self.headers {
            // What cannot be a header is none, as from a socket.
            let _ = response.headers_mut().try_append(name, value);
        }
        Ok(response)
    }
}

/// A client to which each request, by its URI, is answered like this.
pub(crate) fn client(answer: impl Fn(&str) -> Canned + Clone + Send + Sync + 'static) -> SharedHttpClient {
    let connector = SharedHttpConnector::new(Connector(answer));
    http_client_fn(move |_, _| connector.clone())
}

struct Connector<F>(F);

impl<F> std::fmt::Debug for Connector<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

impl<F: Fn(&str) -> Canned + Clone + Send + Sync + 'static> HttpConnector for Connector<F> {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::ready((self.0)(request.uri()).response())
    }
}

/// Runs on a clock on which no pause takes time.
pub(crate) fn without_waiting<T>(run: impl Future<Output = T>) -> Option<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.ok().map(|runtime| runtime.block_on(run))
}

/// The first piece of this length of a secret that is in a text.
pub(crate) fn quoted<'a>(text: &str, secret: &'a str, length: usize) -> Option<&'a str> {
    secret
        .as_bytes()
        .windows(length)
        .filter_map(|piece| str::from_utf8(piece).ok())
        .find(|piece| text.contains(piece))
}
