//! One question over a connection of its own.
//!
//! Owns: the bytes that are sent, and how much of an answer is read for how long. Must not know: what a good answer is.
//! Plain sockets on purpose: an HTTP client would heed `HTTP_PROXY`, which SDKs do not for this address, and would keep
//! connections that were made before a rule diverted new ones.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::probe_key::{Nonce, PATH_PREFIX};

/// For connecting, asking and reading. SDKs give up after one to two seconds.
const DEADLINE: Duration = Duration::from_secs(2);
/// Our own answers have less than 300 bytes; of others, this much tells who they are.
const MOST_READ: usize = 4 * 1024;

/// What came back, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProbeResponse {
    /// Our own end of the connection.
    pub(super) local: SocketAddr,
    /// What was said, at most [`MOST_READ`] bytes.
    pub(super) said: Vec<u8>,
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// The address is on no link of this node.
    #[error("the address is not on this node")]
    Absent,
    /// Nobody takes the connection.
    #[error("no connection: {0}")]
    Connect(#[source] io::Error),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[source] io::Error),
    /// Nothing came in time.
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Silent,
}

/// Asks whoever answers on `target`, from `source`.
pub(super) async fn ask(
    source: IpAddr,
    target: SocketAddr,
    nonce: &Nonce,
) -> Result<ProbeResponse, AskError> {
    let mut said = Vec::with_capacity(512);
    match timeout(DEADLINE, converse(source, target, nonce, &mut said)).await {
        Ok(Ok(local)) => Ok(ProbeResponse { local, said }),
        Ok(Err(error)) => Err(error),
        Err(_elapsed) => Err(AskError::Silent),
    }
}

async fn converse(
    source: IpAddr,
    target: SocketAddr,
    nonce: &Nonce,
    said: &mut Vec<u8>,
) -> Result<SocketAddr, AskError> {
    let mut stream = connect(source, target).await?;
    let local = stream.local_addr().map_err(AskError::Broken)?;
    let question = format!(
        "GET {PATH_PREFIX}{} HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n",
        nonce.as_str()
    );
    stream.write_all(question.as_bytes()).await.map_err(AskError::Broken)?;
    let read = stream.take(MOST_READ as u64).read_to_end(said).await;
    match read {
        // Who says something and resets the connection then has still said it.
        Err(_) if !said.is_empty() => Ok(local),
        Err(error) => Err(AskError::Broken(error)),
        Ok(_) => Ok(local),
    }
}

/// From a source that is bound first: where the address itself is the source, as it is for the node's own processes, a
/// node without the address is told at once, and no question leaves it by the default route.
async fn connect(source: IpAddr, target: SocketAddr) -> Result<TcpStream, AskError> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = match socket {
        Ok(socket) => socket,
        // A kernel without IPv6.
        Err(_) if target.is_ipv6() => return Err(AskError::Absent),
        Err(error) => return Err(AskError::Connect(error)),
    };
    socket.bind(SocketAddr::new(source, 0)).map_err(|error| {
        if error.kind() == io::ErrorKind::AddrNotAvailable {
            AskError::Absent
        } else {
            AskError::Connect(error)
        }
    })?;
    socket.connect(target).await.map_err(AskError::Connect)
}
