//! A service account, as far as its annotations give its pods a role.
//!
//! Owns: the wire format. Must not know: which accounts are read, how often, or what an annotation means.

use std::collections::HashMap;

use serde::Deserialize;

use super::api::Api;
use super::error::ApiError;
use crate::workload::is_name;

/// etcd takes 1.5 MB, most of it the list of secrets that old clusters keep with an account.
const MOST_BYTES: usize = 2 * 1024 * 1024;
/// Of the annotations that are kept.
const PREFIX: &str = "eks.amazonaws.com/";

/// Why a service account could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadAccountError {
    /// The agent may not get it, in the API server's words.
    #[error("{0}")]
    Forbidden(String),
    /// The API server gives no answer that can be used.
    #[error(transparent)]
    Api(ApiError),
}

/// A service account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadAccount {
    /// Its UID.
    pub uid: Box<str>,
    /// Its annotations of `eks.amazonaws.com/`, by their whole names.
    pub annotations: HashMap<Box<str>, Box<str>>,
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    uid: Box<str>,
    #[serde(default)]
    annotations: HashMap<Box<str>, Box<str>>,
}

/// Reads service accounts. Clones share the connection.
#[derive(Clone)]
pub struct ServiceAccountReader {
    api: Api,
}

impl ServiceAccountReader {
    /// From this API server.
    pub fn new(api: Api) -> Self {
        Self { api }
    }

    /// The account as it is now: without a resource version, the cluster answers by what it has stored.
    /// `None` only where Kubernetes itself says that there is no such account: a 404 of a proxy, or of a path
    /// that is not served, must take no role away.
    ///
    /// # Errors
    /// [`ReadAccountError`], when there is no answer within 5 s.
    pub async fn read(&self, namespace: &str, name: &str) -> Result<Option<ReadAccount>, ReadAccountError> {
        if !(is_name(namespace) && is_name(name)) {
            return Err(ReadAccountError::Api(ApiError::Url));
        }
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}");
        match self.api.get::<Object>(&path, MOST_BYTES).await {
            Ok(object) => Ok(Some(object.trimmed())),
            Err(ApiError::Refused { missing: Some(missing), .. })
                if missing.kind == "serviceaccounts" && missing.name == name =>
            {
                Ok(None)
            }
            Err(error) if error.is_forbidden() => Err(ReadAccountError::Forbidden(error.to_string())),
            Err(error) => Err(ReadAccountError::Api(error)),
        }
    }
}

impl Object {
    fn trimmed(self) -> ReadAccount {
        let Metadata { uid, mut annotations } = self.metadata;
        annotations.retain(|name, _| name.starts_with(PREFIX));
        annotations.shrink_to_fit();
        ReadAccount { uid, annotations }
    }
}

#[cfg(test)]
mod tests {
    //! Reads from an API server that each test plays over a real connection.

    use std::sync::Arc;

    use parking_lot::Mutex;
    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::{ReadAccount, ReadAccountError, ServiceAccountReader};
    use crate::config::ApiServer;
    use crate::kubernetes::api::Api;
    use crate::lifecycle::tasks::spawn_detached;

    const ROLE: &str = "eks.amazonaws.com/role-arn";

    /// An API server with one answer, and the lines of the requests that it had.
    async fn answering(status: &str, body: &str) -> (ServiceAccountReader, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let name = format!("pod-identity-agent-accounts-{}", std::process::id());
        let token_file = std::env::temp_dir().join(name);
        std::fs::write(&token_file, "own-token").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let ca_file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/testdata/ca.pem").into();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let noted = Arc::clone(&requests);
        spawn_detached("test-server", async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut text = String::new();
                while !text.ends_with("\r\n\r\n") {
                    let mut piece = vec![0; 4096];
                    let Ok(length @ 1..) = stream.read(&mut piece).await else { break };
                    text.push_str(&String::from_utf8_lossy(&piece[..length]));
                }
                noted.lock().push(text.lines().next().unwrap_or_default().to_owned());
                let _sent = stream.write_all(answer.as_bytes()).await;
            }
        });
        let server = ApiServer { url, token_file, ca_file };
        (ServiceAccountReader::new(Api::new(server)), requests)
    }

    async fn read(status: &str, body: &Value) -> Result<Option<ReadAccount>, ReadAccountError> {
        answering(status, &body.to_string()).await.0.read("ns", "sa").await
    }

    fn missing(kind: &str, name: &str) -> Value {
        json!({
            "kind": "Status",
            "status": "Failure",
            "code": 404,
            "reason": "NotFound",
            "message": format!("{kind} \"{name}\" not found"),
            "details": { "kind": kind, "name": name },
        })
    }

    #[tokio::test]
    async fn of_an_account_its_uid_and_the_annotations_of_eks_are_kept() {
        let account = json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {
                "name": "sa",
                "namespace": "ns",
                "uid": "sa-uid",
                "annotations": {
                    ROLE: "arn:aws:iam::111122223333:role/reader",
                    "kubectl.kubernetes.io/last-applied-configuration": "{}",
                },
            },
            "secrets": [{ "name": "sa-token-x" }],
        });
        let (reader, requests) = answering("200 OK", &account.to_string()).await;
        let read = reader.read("ns", "sa").await.unwrap().unwrap();
        assert_eq!(&*read.uid, "sa-uid");
        let annotations: Vec<_> = read.annotations.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(annotations, [(ROLE, "arn:aws:iam::111122223333:role/reader")]);
        assert_eq!(*requests.lock(), ["GET /api/v1/namespaces/ns/serviceaccounts/sa HTTP/1.1"]);
    }

    #[tokio::test]
    async fn an_account_without_annotations_has_none() {
        let account = json!({ "metadata": { "name": "sa", "uid": "u" } });
        assert_eq!(read("200 OK", &account).await.unwrap().unwrap().annotations.len(), 0);
    }

    #[tokio::test]
    async fn only_kubernetes_itself_says_that_there_is_none() {
        let gone = read("404 Not Found", &missing("serviceaccounts", "sa")).await;
        assert!(matches!(gone, Ok(None)), "{gone:?}");
        for body in [
            missing("serviceaccounts", "other"),
            missing("namespaces", "ns"),
            json!({ "kind": "Status", "code": 404, "message": "the server could not find it" }),
            json!("404 page not found"),
        ] {
            let read = read("404 Not Found", &body).await;
            assert!(matches!(read, Err(ReadAccountError::Api(_))), "{body}: {read:?}");
        }
    }

    #[tokio::test]
    async fn a_missing_right_is_an_error_of_its_own() {
        let body = json!({ "kind": "Status", "code": 403, "message": "serviceaccounts is forbidden" });
        let read403 = read("403 Forbidden", &body).await;
        let Err(ReadAccountError::Forbidden(said)) = read403 else { panic!("{read403:?}") };
        assert!(said.contains("serviceaccounts is forbidden"), "{said}");
        for (status, body) in [("403 Forbidden", json!("a proxy")), ("503 Unavailable", json!({}))] {
            let read = read(status, &body).await;
            assert!(matches!(read, Err(ReadAccountError::Api(_))), "{status}: {read:?}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_elsewhere_is_not_asked_for() {
        let (reader, requests) = answering("200 OK", "{}").await;
        for (namespace, name) in
            [("..", "sa"), ("ns", "a/b"), ("ns", ""), ("ns?x", "sa"), ("ns", "../secrets/s")]
        {
            assert!(reader.read(namespace, name).await.is_err(), "{namespace} {name}");
        }
        assert!(requests.lock().is_empty());
    }
}
