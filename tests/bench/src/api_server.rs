//! An API server that is played: discovery, keys, and a streaming list of pods that then is quiet.
//!
//! Owns: what is asked for by which path, and that a field selector chooses among all pods of the cluster.
//! Must not know: what the agent makes of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use sandbox::Sandbox;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::node_pods::{self, Named};
use crate::{Outcome, load};

/// The longest head of a request, in bytes; its token is 1.2 KB of it.
const LONGEST_HEAD: usize = 16 * 1024;

/// A pod of the cluster.
pub(crate) struct ClusterPod {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) node: String,
}

/// Where the agent finds it, and what it shows.
pub(crate) struct ApiServer {
    pub(crate) address: SocketAddr,
    /// The folder for `--kubernetes-credentials`.
    pub(crate) credentials: PathBuf,
}

/// What it answers with.
struct Answers {
    discovery: String,
    keys: String,
    pods: Vec<ClusterPod>,
}

impl ApiServer {
    /// Serves these pods, and the keys of the sandbox, until the process ends.
    pub(crate) async fn start(sandbox: &Sandbox, pods: Vec<ClusterPod>) -> Outcome<Self> {
        let credentials = sandbox.dir().join("api-server");
        std::fs::create_dir_all(&credentials)?;
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec![Ipv4Addr::LOCALHOST.to_string()])?.self_signed(&key)?;
        std::fs::write(credentials.join("ca.crt"), certificate.pem())?;
        std::fs::write(credentials.join("token"), "the-agents-own")?;
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.into()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))?;
        let (tls, listener) =
            (TlsAcceptor::from(Arc::new(config)), TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?);
        let address = listener.local_addr()?;
        let keys = load::get(&sandbox.jwks_url()).await?;
        let discovery = json!({ "issuer": sandbox.issuer_url() }).to_string();
        let answers = Arc::new(Answers { discovery, keys, pods });
        #[expect(clippy::disallowed_methods, reason = "one accept loop; it ends with its process")]
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, answers) = (tls.clone(), Arc::clone(&answers));
                tokio::spawn(async move {
                    let _client_is_gone = serve(&tls, stream, &answers).await;
                });
            }
        });
        Ok(Self { address, credentials })
    }
}

/// One request after the other, until the client ends the connection.
async fn serve(tls: &TlsAcceptor, stream: TcpStream, answers: &Answers) -> Outcome<()> {
    let mut stream = tls.accept(stream).await?;
    while let Some(path) = next_path(&mut stream).await? {
        match path.as_str() {
            "/.well-known/openid-configuration" => whole(&mut stream, "200 OK", &answers.discovery).await?,
            "/openid/v1/jwks" => whole(&mut stream, "200 OK", &answers.keys).await?,
            list if list.starts_with("/api/v1/pods?") && list.contains("watch=true") => {
                watch(&mut stream, list, answers).await?;
            }
            _ => whole(&mut stream, "404 Not Found", "{}").await?,
        }
    }
    Ok(())
}

async fn next_path(stream: &mut TlsStream<TcpStream>) -> Outcome<Option<String>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > LONGEST_HEAD || stream.read_buf(&mut head).await? == 0 {
            return Ok(None);
        }
    }
    // No body comes behind it: all that is asked for here is a GET.
    let text = String::from_utf8(head)?;
    Ok(text.split(' ').nth(1).map(str::to_owned))
}

async fn whole(stream: &mut TlsStream<TcpStream>, status: &str, body: &str) -> Outcome<()> {
    let kind = "Content-Type: application/json";
    let answer = format!("HTTP/1.1 {status}\r\n{kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(answer.as_bytes()).await?;
    Ok(stream.flush().await?)
}

/// The pods of the node that is asked for, the end of the list, and then nothing.
async fn watch(stream: &mut TlsStream<TcpStream>, path: &str, answers: &Answers) -> Outcome<()> {
    let node = path.split("spec.nodeName%3D").nth(1).and_then(|rest| rest.split('&').next());
    let node = node.ok_or("every agent asks for the pods of its node")?;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    for (number, ClusterPod { name, uid, node: its }) in answers.pods.iter().enumerate() {
        if its == node {
            let pod = node_pods::object(&Named { name, uid, node, number });
            event(stream, "ADDED", &pod).await?;
        }
    }
    let end = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {
        "resourceVersion": "20000", "annotations": {"k8s.io/initial-events-end": "true"}}});
    event(stream, "BOOKMARK", &end).await?;
    stream.flush().await?;
    let _ended_by_the_client = stream.read(&mut [0; 1]).await?;
    Ok(())
}

async fn event(stream: &mut TlsStream<TcpStream>, kind: &str, object: &serde_json::Value) -> Outcome<()> {
    let line = json!({"type": kind, "object": object}).to_string() + "\n";
    Ok(stream.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes()).await?)
}
