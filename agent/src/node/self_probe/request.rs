//! One probe request over its own connection.
//!
//! Owns: the bytes that are sent, how much of the response is read, and for how long. Must not know: what a
//! good response is. Plain sockets on purpose: an HTTP client would use `HTTP_PROXY`, which SDKs do not for
//! this address, and would reuse connections that were opened before a rule redirected new ones.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::probe_key::{Nonce, PATH_PREFIX};
use crate::node::ipv6;

/// For connecting, sending and reading together. SDKs give up after one to two seconds.
const DEADLINE: Duration = Duration::from_secs(2);
/// The agent's own response is under 300 bytes. From another process, this is enough to identify it.
const MAX_RESPONSE: usize = 4 * 1024;

/// The response, and the local address that it was sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProbeResponse {
    /// The local address of the connection.
    pub(super) local: SocketAddr,
    /// What was received, at most [`MAX_RESPONSE`] bytes.
    pub(super) bytes: Vec<u8>,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    /// The address is none of this node's own.
    #[error("the address is not an address of this node")]
    AddressMissing,
    /// There is no IPv6 here.
    #[error("IPv6 is switched off")]
    FamilyOff,
    /// No connection can be opened.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Broken(#[source] io::Error),
    /// There was no response in time.
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Timeout,
}

/// Sends a probe from `source` to `target`, and returns the response of the process that answers there.
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
        // A connection that is reset after some bytes has still delivered them.
        Err(_) if !bytes.is_empty() => Ok(local),
        Err(error) => Err(RequestError::Broken(error)),
        Ok(_) => Ok(local),
    }
}

/// Binds the source first. If the source is the target address itself, as for the node's own processes, a
/// node without the address is detected at once, and no probe leaves the node over its default route.
async fn connect(source: IpAddr, target: SocketAddr) -> Result<TcpStream, RequestError> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = match socket {
        Ok(socket) => socket,
        // A kernel without IPv6.
        Err(_) if target.is_ipv6() => return Err(RequestError::FamilyOff),
        Err(error) => return Err(RequestError::Connect(error)),
    };
    socket.bind(SocketAddr::new(source, 0)).map_err(|error| {
        if error.kind() != io::ErrorKind::AddrNotAvailable {
            RequestError::Connect(error)
        } else if target.is_ipv6() && ipv6::is_switched_off() {
            RequestError::FamilyOff
        } else {
            RequestError::AddressMissing
        }
    })?;
    socket.connect(target).await.map_err(RequestError::Connect)
}
