//! What can go wrong on the way to a server, and with its answer.
//!
//! Owns: the words. Must not know: who reads them. None of them repeats a URL: a proxy's may hold a password.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use http::StatusCode;

/// Why a client cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// The CA bundle cannot be read.
    #[error("the CA bundle {path} cannot be read")]
    CaBundle {
        /// Which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The proxy's URL is not one. The URL may hold a password, so it is not repeated.
    #[error("the proxy URL in HTTP_PROXY or HTTPS_PROXY cannot be used")]
    Proxy,
    /// The CA bundle holds no usable certificate.
    #[error("the CA bundle holds no usable certificate")]
    Tls,
}

/// The steps of making a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The name's addresses.
    Lookup,
    /// TCP.
    Connect,
    /// The proxy's answer to CONNECT.
    Proxy,
    /// TLS with the proxy itself.
    ProxyTls,
    /// TLS with the server.
    Tls,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lookup => "the name lookup",
            Self::Connect => "the TCP connection",
            Self::Proxy => "the connection through the proxy",
            Self::ProxyTls => "TLS with the proxy",
            Self::Tls => "TLS",
        })
    }
}

/// Why there is no connection. Shared by all who waited for it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    /// A step failed.
    #[error("{step} failed")]
    Failed {
        /// Which.
        step: Step,
        /// Why.
        source: Arc<io::Error>,
    },
    /// A step took too long.
    #[error("{0} took too long")]
    TimedOut(Step),
    /// The proxy would not connect.
    #[error("the proxy answered with status {0}")]
    Refused(StatusCode),
}

/// A connection that was not made.
#[derive(Debug, thiserror::Error)]
#[error("there is no connection to {to}")]
pub struct Unconnected {
    /// The server and its port, and the proxy on the way; never what the proxy's URL holds besides.
    pub(super) to: String,
    /// Why.
    pub(super) source: ConnectError,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The request has no URL with a host.
    #[error("the URL has no host")]
    Url,
    /// No connection.
    #[error(transparent)]
    Connect(#[from] Unconnected),
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
    /// The answer broke off.
    #[error("the answer is incomplete")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The answer is longer than it may be.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

impl ConnectError {
    /// A step failed because of this.
    pub(super) fn failed(step: Step, source: io::Error) -> Self {
        Self::Failed { step, source: Arc::new(source) }
    }
}
