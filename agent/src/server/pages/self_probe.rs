//! `GET /v1/probe/NONCE`: the agent answers its own question.
//!
//! Owns: that one page. Must not know: who asks and why. It says nothing that the asker does not know, needs
//! no token and counts as no request for credentials.

use std::net::SocketAddr;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response};
use http_body_util::Full;

use crate::node::self_probe::{Nonce, ProbeKey};
use crate::server::door::connection::Peer;

/// The answer to a question of ours; `None` if it is none.
pub(super) fn answer<B>(seal: &ProbeKey, peer: &Peer, request: &Request<B>) -> Option<Response<Full<Bytes>>> {
    let nonce = Nonce::from_path(request.uri().path())?;
    if request.method() != Method::GET {
        return None;
    }
    let mut response =
        Response::new(Full::new(seal.answer(&nonce, SocketAddr::new(peer.address, peer.port)).into()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Some(response)
}
