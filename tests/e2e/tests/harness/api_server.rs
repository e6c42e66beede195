//! An API server as far as an agent needs one: the pods of a node, service accounts with their annotations,
//! and the Events that are posted.
//!
//! Owns: TLS by a CA of its own, and the answers. Must not know: what is right; the real one, which does, is
//! in `tests/e2e/tests/cluster`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How a request to review a token begins.
const REVIEWS: &str = "POST /apis/authentication.k8s.io/v1/tokenreviews ";

/// It answers until it is dropped.
pub(crate) struct ApiServer {
    pub(crate) port: u16,
    /// What a kubelet mounts: a token, and the CA.
    pub(crate) folder: PathBuf,
    posted: mpsc::UnboundedReceiver<Value>,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

/// What its answers are taken from.
struct Shared {
    list: String,
    /// By path.
    service_accounts: Mutex<BTreeMap<String, Value>>,
    is_away: AtomicBool,
    /// How long it takes over a review of a token. It finds each genuine, for the pod that the token names.
    review_takes: Mutex<Duration>,
    /// What watches are told after the list.
    changes: broadcast::Sender<String>,
    tell: mpsc::UnboundedSender<Value>,
}

impl ApiServer {
    /// With these pods, by (namespace, name, UID), on the node that asks.
    pub(crate) async fn start(dir: &Path, pods: &[(&str, &str, &str)]) -> Self {
        let (acceptor, ca) = acceptor();
        let folder = dir.join("service-account");
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("token"), "own-token").expect("a file");
        std::fs::write(folder.join("ca.crt"), ca).expect("a file");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (tell, posted) = mpsc::unbounded_channel();
        let (list, service_accounts) = (streaming_list(pods), Mutex::default());
        let (changes, _nobody_yet) = broadcast::channel(16);
        let is_away = AtomicBool::new(false);
        let review_takes = Mutex::default();
        let shared = Arc::new(Shared { list, service_accounts, is_away, review_takes, changes, tell });
        let served = Arc::clone(&shared);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, shared) = (acceptor.clone(), Arc::clone(&served));
                connections.spawn(async move { serve(stream, &acceptor, &shared).await.ok() });
            }
        });
        Self { port, folder, posted, shared, _tasks: tasks }
    }

    /// Makes a service account, or changes its annotations.
    pub(crate) fn set_service_account(&self, name: &str, uid: &str, annotations: &[(&str, &str)]) {
        let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
        let metadata = json!({"namespace": "default", "name": name, "uid": uid, "annotations": annotations});
        let account = json!({"kind": "ServiceAccount", "apiVersion": "v1", "metadata": metadata});
        let path = format!("/api/v1/namespaces/default/serviceaccounts/{name}");
        self.shared.service_accounts.lock().insert(path, account);
    }

    /// Deletes a pod that it has; all watches are told.
    pub(crate) fn delete_pod(&self, namespace: &str, name: &str, uid: &str) {
        let gone = event("DELETED", namespace, name, uid, "8").to_string() + "\n";
        self.shared.changes.send(gone).expect("somebody watches");
    }

    /// Gives a pod that it has an address; all watches are told.
    pub(crate) fn give_address(&self, (namespace, name, uid): (&str, &str, &str), address: &str) {
        let mut changed = event("MODIFIED", namespace, name, uid, "8");
        let object = &mut changed["object"];
        object["status"] = json!({"podIPs": [{"ip": address}]});
        object["spec"]["serviceAccountName"] = "app".into();
        self.shared.changes.send(changed.to_string() + "\n").expect("somebody watches");
    }

    /// From now on it answers nothing but 503, or answers again.
    pub(crate) fn set_away(&self, is_away: bool) {
        self.shared.is_away.store(is_away, Ordering::Relaxed);
    }

    /// From now on it takes so long over a review of a token.
    pub(crate) fn review_takes(&self, time: Duration) {
        *self.shared.review_takes.lock() = time;
    }

    /// The next Event.
    pub(crate) async fn next(&mut self) -> Value {
        self.posted.recv().await.expect("the server runs")
    }
}

fn acceptor() -> (TlsAcceptor, String) {
    let mut ca = CertificateParams::new(Vec::new()).expect("parameters");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().expect("a key");
    let ca_pem = ca.self_signed(&ca_key).expect("a certificate").pem();
    let key = KeyPair::generate().expect("a key");
    let server = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
    let certificate = server.signed_by(&key, &Issuer::new(ca, ca_key)).expect("a certificate");
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.into()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .expect("a usable certificate");
    (TlsAcceptor::from(Arc::new(config)), ca_pem)
}

/// The events of a watch that begins with a list.
fn streaming_list(pods: &[(&str, &str, &str)]) -> String {
    let added = pods.iter().map(|(namespace, name, uid)| event("ADDED", namespace, name, uid, "7"));
    let metadata = json!({"resourceVersion": "7", "annotations": {"k8s.io/initial-events-end": "true"}});
    let mark = json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata});
    let end = json!({"type": "BOOKMARK", "object": mark});
    added.chain([end]).map(|event| event.to_string() + "\n").collect()
}

fn event(kind: &str, namespace: &str, name: &str, uid: &str, version: &str) -> Value {
    let metadata = json!({"namespace": namespace, "name": name, "uid": uid, "resourceVersion": version});
    json!({"type": kind, "object": {"metadata": metadata, "spec": {"nodeName": "node"}}})
}

async fn serve(stream: TcpStream, acceptor: &TlsAcceptor, shared: &Shared) -> std::io::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    while let Some((line, body)) = read(&mut stream).await? {
        if line.starts_with("GET /api/v1/pods?") {
            return watch(&mut stream, shared).await;
        }
        if line.starts_with(REVIEWS) {
            let takes = *shared.review_takes.lock();
            tokio::time::sleep(takes).await;
        }
        let (status, body) = answer_to(&line, body, shared);
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(answer.as_bytes()).await?;
        stream.flush().await?;
    }
    Ok(())
}

/// The list, and then what changes. It goes on for ever.
async fn watch(stream: &mut TlsStream<TcpStream>, shared: &Shared) -> std::io::Result<()> {
    let mut changes = shared.changes.subscribe();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    let mut next = shared.list.clone();
    loop {
        stream.write_all(format!("{:x}\r\n{next}\r\n", next.len()).as_bytes()).await?;
        stream.flush().await?;
        next = changes.recv().await.map_err(std::io::Error::other)?;
    }
}

fn answer_to(line: &str, body: Value, shared: &Shared) -> (&'static str, String) {
    let path = line.split(' ').nth(1).and_then(|path| path.split('?').next()).unwrap_or_default();
    if shared.is_away.load(Ordering::Relaxed) {
        return ("503 Service Unavailable", "{}".to_owned());
    }
    if line.starts_with(REVIEWS) {
        return ("201 Created", review(&body).to_string());
    }
    if line.starts_with("POST /apis/events.k8s.io/v1/") {
        shared.tell.send(body).expect("the test goes on");
        return ("201 Created", "{}".to_owned());
    }
    match (shared.service_accounts.lock().get(path), path.rsplit_once("/serviceaccounts/")) {
        (Some(account), _) => ("200 OK", account.to_string()),
        (None, Some((_, name))) => {
            let details = json!({"name": name, "kind": "serviceaccounts"});
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404,
                "message": format!("serviceaccounts \"{name}\" not found"), "details": details,
            });
            ("404 Not Found", status.to_string())
        }
        (None, None) => ("404 Not Found", "{}".to_owned()),
    }
}

/// Whom a token names, as the API server says it of one that it has issued.
fn review(asked: &Value) -> Value {
    let token = asked["spec"]["token"].as_str().expect("a token");
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).expect("claims")).expect("base64");
    let claims: Value = serde_json::from_slice(&claims).expect("JSON");
    let of_pod = &claims["kubernetes.io"];
    let extra = json!({
        "authentication.kubernetes.io/pod-name": [of_pod["pod"]["name"]],
        "authentication.kubernetes.io/pod-uid": [of_pod["pod"]["uid"]],
    });
    let user = json!({"username": claims["sub"], "uid": of_pod["serviceaccount"]["uid"], "extra": extra});
    let status = json!({"authenticated": true, "audiences": asked["spec"]["audiences"], "user": user});
    json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "status": status})
}

/// The line of a request, and its body; `None` at the end.
async fn read(stream: &mut TlsStream<TcpStream>) -> std::io::Result<Option<(String, Value)>> {
    let mut text = String::new();
    let mut buffer = vec![0; 8192];
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Ok(None);
        }
        text += &String::from_utf8_lossy(&buffer[..length]);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let line = head.lines().next().unwrap_or_default().to_owned();
        if line.starts_with("GET ") {
            return Ok(Some((line, Value::Null)));
        }
        if let Ok(body) = serde_json::from_str(body) {
            return Ok(Some((line, body)));
        }
    }
}
