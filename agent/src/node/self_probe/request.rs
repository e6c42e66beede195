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
const MAX_RESPONSE: usize = 4 * 1024;

/// What came back, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProbeResponse {
    /// Our own end of the connection.
    pub(super) local: SocketAddr,
    /// What was said, at most [`MOST_READ`] bytes.
    pub(super) bytes: Vec<u8>,
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    /// The address is on no link of this node.
    #[error("the address is not on this node")]
    AddressMissing,
    /// Nobody takes the connection.
    #[error("no connection: {0}")]
    Connect(#[source] io::Error),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[source] io::Error),
    /// Nothing came in time.
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Timeout,
}

/// Asks whoever answers on `target`, from `source`.
pub(super) async fn send(
    source: IpAddr,
    target: SocketAddr,
    nonce: &Nonce,
) -> Result<ProbeResponse, RequestError> {
    let mut bytes = Vec::with_capacity(512);
    match timeout(DEADLINE, exchange(source, target, nonce, &mut bytes)).await {
        Ok(Ok(local)) => Ok(ProbeResponse { local, bytes }),
        Ok(Err(error)) => Err(error),
        Err(_elapsed) => Err(RequestError::Timeout),
    }
}

async fn exchange(
    source: IpAddr,
    target: SocketAddr,
    nonce: &Nonce,
    bytes: &mut Vec<u8>,
) -> Result<SocketAddr, RequestError> {
    let mut stream = connect(source, target).await?;
    let local = stream.local_addr().map_err(RequestError::Broken)?;
    let head = format!(
        "GET {PATH_PREFIX}{} HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n",
        nonce.as_str()
    );
    stream.write_all(head.as_bytes()).await.map_err(RequestError::Broken)?;
    let read = stream.take(MAX_RESPONSE as u64).read_to_end(bytes).await;
    match read {
        // Who says something and resets the connection then has still said it.
        Err(_) if !bytes.is_empty() => Ok(local),
        Err(error) => Err(RequestError::Broken(error)),
        Ok(_) => Ok(local),
    }
}

/// From a source that is bound first: where the address itself is the source, as it is for the node's own processes, a
/// node without the address is told at once, and no question leaves it by the default route.
async fn connect(source: IpAddr, target: SocketAddr) -> Result<TcpStream, RequestError> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = match socket {
        Ok(socket) => socket,
        // A kernel without IPv6.
        Err(_) if target.is_ipv6() => return Err(RequestError::AddressMissing),
        Err(error) => return Err(RequestError::Connect(error)),
    };
    socket.bind(SocketAddr::new(source, 0)).map_err(|error| {
        if error.kind() == io::ErrorKind::AddrNotAvailable {
            RequestError::AddressMissing
        } else {
            RequestError::Connect(error)
        }
    })?;
    socket.connect(target).await.map_err(RequestError::Connect)
}
