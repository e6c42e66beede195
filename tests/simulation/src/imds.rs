//! The instance metadata service on simulated time: the HTTP client of the agent's own identity.
//!
//! Owns: the wire format. Must not know: what is given when (`own`).

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::DateTime;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::date_time::Format;

use crate::journal::What;
use crate::life::Life;
use crate::story::World;

/// It answers within this.
const DELAY: Duration = Duration::from_millis(2);

/// The service, as the SDK's HTTP client sees it.
#[derive(Clone)]
pub struct Imds {
    world: Arc<World>,
    life: Life,
}

impl std::fmt::Debug for Imds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Imds")
    }
}

impl Imds {
    /// An HTTP client for the SDK behind which this world's metadata service is.
    pub fn http_client(world: &Arc<World>, life: Life) -> SharedHttpClient {
        let connector = SharedHttpConnector::new(Self { world: Arc::clone(world), life });
        http_client_fn(move |_, _| connector.clone())
    }

    async fn answer(self, path: String) -> Result<HttpResponse, ConnectorError> {
        tokio::time::sleep(DELAY).await;
        let given = self.world.weather.own.given(self.world.now());
        let Some((number, expires)) = given else {
            return Err(ConnectorError::io("connection refused".into()));
        };
        if path.ends_with("/api/token") {
            let mut answer = Self::says("token".to_owned())?;
            answer.headers_mut().insert("x-aws-ec2-metadata-token-ttl-seconds", "21600");
            return Ok(answer);
        }
        if path.ends_with("/security-credentials/") {
            return Self::says("node".to_owned());
        }
        self.world.journal.note(self.world.now(), None, What::OwnSet(number));
        let time = |since: Duration| {
            let at = UNIX_EPOCH + World::BEGINNING + since;
            DateTime::from(at).fmt(Format::DateTime).unwrap_or_default()
        };
        let body = serde_json::json!({
            "Code": "Success",
            "LastUpdated": time(Duration::ZERO),
            "Type": "AWS-HMAC",
            "AccessKeyId": access_key_id(number),
            "SecretAccessKey": format!("node-secret-{number}"),
            "Token": format!("node-session-{number}"),
            "Expiration": time(expires),
        });
        Self::says(body.to_string())
    }

    /// Without a `Date`: who teaches the time in a story is EKS Auth.
    fn says(body: String) -> Result<HttpResponse, ConnectorError> {
        let status = 200.try_into().map_err(|_| ConnectorError::other("no such status".into(), None))?;
        Ok(HttpResponse::new(status, SdkBody::from(body)))
    }
}

impl HttpConnector for Imds {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (imds, life) = (self.clone(), self.life.clone());
        let path = request.uri().to_owned();
        HttpConnectorFuture::new(async move {
            match life.unless_over(imds.answer(path)).await {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        })
    }
}

fn access_key_id(number: usize) -> String {
    format!("ASIANODE{number}")
}

/// The number of the set that signed this request.
pub fn signer_of(request: &HttpRequest) -> Option<usize> {
    let header = request.headers().get("authorization")?;
    let (_, key) = header.split_once("Credential=ASIANODE")?;
    key.split('/').next()?.parse().ok()
}
