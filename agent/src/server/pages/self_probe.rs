//! `GET /v1/probe/NONCE`: the agent answers its own probe.
//!
//! Owns: that one page. Must not know: who sends the probe, and why. It says nothing that the sender does not
//! know, needs no token and does not count as a request for credentials.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;

use super::response::text;
use crate::node::self_probe::{Nonce, ProbeKey};
use crate::server::door::connection::Peer;

/// The answer to a probe of the agent; `None` if the request is none.
pub(super) fn answer<B>(
    probe_key: &ProbeKey,
    peer: &Peer,
    request: &Request<B>,
) -> Option<Response<Full<Bytes>>> {
    let nonce = Nonce::from_path(request.uri().path())?;
    if request.method() != Method::GET {
        return None;
    }
    Some(text(StatusCode::OK, probe_key.answer(&nonce, SocketAddr::new(peer.address, peer.port))))
}
