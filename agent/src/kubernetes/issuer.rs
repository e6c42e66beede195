//! The cluster's issuer of service account tokens: its name and its keys.
//!
//! Owns: the two documents that every service account may read (the built-in role
//! system:service-account-issuer-discovery). Must not know: how a key document is read, or what keys verify.
//!
//! `jwks_uri` is never followed: it may lead anywhere, and the agent's token goes with the request. The API
//! server has the same keys itself (docs/design/facts.md#issuer-and-keys).

use bytes::Bytes;
use serde::Deserialize;

use super::api::Api;
use super::error::ApiError;

const DISCOVERY: &str = "/.well-known/openid-configuration";
const KEYS: &str = "/openid/v1/jwks";
/// Some hundred bytes each; keys have a limit of their own (`identity::keys::document`).
const MAX_DISCOVERY_BYTES: usize = 16 * 1024;
const MAX_KEYS_BYTES: usize = 256 * 1024;

/// What the API server says of its issuer.
#[derive(Debug)]
pub struct Issuer {
    /// `iss` of the tokens that it issues now.
    pub name: String,
    /// Its keys, a JWKS document.
    pub keys: Bytes,
}

/// OpenID Connect Discovery 1.0, section 3: the one member that matters here.
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
}

/// Reads both documents. Clones share the connection.
#[derive(Clone)]
pub struct IssuerReader {
    api: Api,
}

impl IssuerReader {
    /// Of this API server.
    pub fn new(api: Api) -> Self {
        Self { api }
    }

    /// Reads name and keys.
    ///
    /// # Errors
    /// [`ApiError`], when one of them cannot be had.
    pub async fn read(&self) -> Result<Issuer, ApiError> {
        let (Discovery { issuer }, keys) = tokio::try_join!(
            self.api.get(DISCOVERY, MAX_DISCOVERY_BYTES),
            self.api.get_bytes(KEYS, MAX_KEYS_BYTES)
        )?;
        Ok(Issuer { name: issuer, keys })
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::{Issuer, IssuerReader};
    use crate::config::ApiServer;
    use crate::kubernetes::api::Api;
    use crate::kubernetes::error::ApiError;
    use crate::lifecycle::tasks::spawn_detached;

    const NAMED: &str = r#"{"issuer":"https://issuer.example","jwks_uri":"https://evil.example/keys"}"#;

    /// Answers by the path, and notes the heads of all requests.
    async fn serving(discovery: &'static str, keys: &'static str) -> (ApiServer, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let server = ApiServer {
            url: format!("http://{}", listener.local_addr().unwrap()),
            token_file: folder().join("token"),
            ca_file: PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/testdata/ca.pem")),
        };
        let noted = Arc::clone(&heads);
        spawn_detached("test-server", async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let noted = Arc::clone(&noted);
                spawn_detached("test-server", async move {
                    let mut head = vec![0; 4096];
                    while let Ok(length @ 1..) = stream.read(&mut head).await {
                        let text = String::from_utf8_lossy(&head[..length]).into_owned();
                        let answer = if text.starts_with("GET /openid/v1/jwks ") { keys } else { discovery };
                        noted.lock().push(text);
                        let _sent = stream.write_all(answer.as_bytes()).await;
                    }
                });
            }
        });
        (server, heads)
    }

    fn reader(server: ApiServer) -> IssuerReader {
        IssuerReader::new(Api::new(server))
    }

    fn folder() -> PathBuf {
        let folder = std::env::temp_dir().join(format!("pod-identity-agent-issuer-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("token"), "own-token").unwrap();
        folder
    }

    fn ok(body: &str) -> &'static str {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).leak()
    }

    #[tokio::test]
    async fn the_api_server_is_asked_for_both_documents_with_our_token_and_nobody_else_is() {
        let (server, heads) = serving(ok(NAMED), ok(r#"{"keys":[]}"#)).await;
        let reader = reader(server);
        for _ in 0..2 {
            let Issuer { name, keys } = reader.read().await.unwrap();
            assert_eq!((&name[..], &keys[..]), ("https://issuer.example", &br#"{"keys":[]}"#[..]));
        }
        let heads = heads.lock();
        assert_eq!(heads.len(), 4);
        for head in heads.iter().map(|head| head.to_lowercase()) {
            assert!(head.contains("authorization: bearer own-token"), "{head}");
            assert!(head.contains("accept: application/json, application/jwk-set+json\r\n"), "{head}");
            assert!(
                head.starts_with("get /openid/v1/jwks ")
                    || head.starts_with("get /.well-known/openid-configuration "),
                "{head}"
            );
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_no_good_is_an_error_that_says_which() {
        let long = ok(&" ".repeat(300 * 1024));
        let forbidden = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
        let redirect = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
        for (discovery, keys, says) in [
            (forbidden, ok("{}"), "answered /.well-known/openid-configuration with status 403"),
            (ok(NAMED), forbidden, "answered /openid/v1/jwks with status 403"),
            (ok(NAMED), redirect, "with status 302"),
            (ok(NAMED), long, "longer than 262144 bytes"),
            (ok("<html>"), ok("{}"), "/.well-known/openid-configuration cannot be read"),
            (ok(r#"{"jwks_uri":"x"}"#), ok("{}"), "/.well-known/openid-configuration cannot be read"),
        ] {
            let error = reader(serving(discovery, keys).await.0).read().await.unwrap_err();
            assert!(error.to_string().contains(says), "{error}: {says}");
        }
    }

    #[tokio::test]
    async fn no_answer_gets_our_token_into_an_error() {
        let refusal = concat!(
            r#"{"kind":"Status","status":"Failure","code":403,"reason":"Forbidden","#,
            r#""message":"no own-token-of-the-agent"}"#
        );
        let refusal = format!("HTTP/1.1 403 F\r\nContent-Length: {}\r\n\r\n{refusal}", refusal.len()).leak();
        for (discovery, says) in
            [(&*refusal, "no [redacted] (403"), (ok(r#""own-token-of-the-agent""#), "string \"[redacted]\"")]
        {
            let (mut server, _) = serving(discovery, ok("{}")).await;
            server.token_file = folder().join("token-that-is-quoted");
            std::fs::write(&server.token_file, "own-token-of-the-agent").unwrap();
            let error = reader(server).read().await.unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[tokio::test]
    async fn without_certificates_it_says_so_and_asks_once_they_are_there() {
        let (server, _) = serving(ok(NAMED), ok("{}")).await;
        let path = folder().join("ca-comes-later.crt");
        let _gone = std::fs::remove_file(&path);
        let good = server.ca_file.clone();
        let reader = reader(ApiServer { ca_file: path.clone(), ..server });
        let error = reader.read().await.unwrap_err();
        assert!(matches!(error, ApiError::SetUp(_)), "{error:?}");
        std::fs::copy(good, &path).unwrap();
        reader.read().await.unwrap();
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn a_token_that_is_refused_is_read_again() {
        let refused = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";
        let (mut server, heads) = serving(refused, refused).await;
        server.token_file = folder().join("token-of-its-own");
        std::fs::write(&server.token_file, "old").unwrap();
        let reader = reader(server.clone());
        reader.read().await.unwrap_err();
        std::fs::write(&server.token_file, "new").unwrap();
        heads.lock().clear();
        reader.read().await.unwrap_err();
        assert!(heads.lock().iter().all(|head| head.contains("Bearer new")), "{heads:?}");
        std::fs::remove_file(server.token_file).unwrap();
    }
}
