//! An API server as far as an agent's Events need one: the pods of a node, and the Events that are posted.
//!
//! Owns: TLS by a CA of its own, and the answers. Must not know: what is right; the real one, which does, is
//! in `tests/e2e/tests/cluster`.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// It answers until it is dropped.
pub(crate) struct ApiServer {
    pub(crate) port: u16,
    /// What a kubelet mounts: a token, and the CA.
    pub(crate) folder: PathBuf,
    posted: mpsc::UnboundedReceiver<Value>,
    _tasks: JoinSet<()>,
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
        let list: Arc<str> = streaming_list(pods).into();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, list, tell) = (acceptor.clone(), Arc::clone(&list), tell.clone());
                connections.spawn(async move { serve(stream, &acceptor, &list, &tell).await.ok() });
            }
        });
        Self { port, folder, posted, _tasks: tasks }
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
    let added = pods.iter().map(|(namespace, name, uid)| {
        let metadata = json!({"namespace": namespace, "name": name, "uid": uid, "resourceVersion": "7"});
        json!({"type": "ADDED", "object": {"metadata": metadata, "spec": {"nodeName": "node"}}})
    });
    let metadata = json!({"resourceVersion": "7", "annotations": {"k8s.io/initial-events-end": "true"}});
    let mark = json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata});
    let end = json!({"type": "BOOKMARK", "object": mark});
    added.chain([end]).map(|event| event.to_string() + "\n").collect()
}

async fn serve(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    list: &str,
    tell: &mpsc::UnboundedSender<Value>,
) -> std::io::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    while let Some((line, body)) = read(&mut stream).await? {
        if line.starts_with("GET /api/v1/pods?") {
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(format!("{head}{:x}\r\n{list}\r\n", list.len()).as_bytes()).await?;
            stream.flush().await?;
            // A watch goes on for ever.
            return std::future::pending().await;
        }
        let status = if line.starts_with("POST /apis/events.k8s.io/v1/") {
            tell.send(body).expect("the test goes on");
            "201 Created"
        } else {
            "404 Not Found"
        };
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}");
        stream.write_all(answer.as_bytes()).await?;
        stream.flush().await?;
    }
    Ok(())
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
