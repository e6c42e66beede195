//! The floor: a bare hyper server that sends the agent's bytes and does nothing else.
//!
//! Owns: that server, as a process of its own. Must not know: what it is compared with. Same runtime, same
//! worker threads, same socket options as the agent; no limits, no timers, no logs, no metrics.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::Outcome;

/// Serves what comes on stdin (headers as `name: value` lines, an empty line, the body), says its port on
/// stdout.
pub(crate) fn serve() -> Outcome<()> {
    let mut input = String::new();
    std::io::stdin().read_to_string(&mut input)?;
    let (head, body) = input.split_once("\n\n").ok_or("headers, an empty line and a body are expected")?;
    let headers: Vec<(String, String)> = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(n, v)| (n.to_owned(), v.to_owned()))
        .collect();
    let body = Bytes::from(body.to_owned());
    let workers = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(4));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    runtime.block_on(accept(headers, body))
}

async fn accept(headers: Vec<(String, String)>, body: Bytes) -> Outcome<()> {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?.port())?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (headers, body) = (headers.clone(), body.clone());
        let answer = service_fn(move |_request: Request<hyper::body::Incoming>| {
            let (headers, body) = (headers.clone(), body.clone());
            async move { Ok::<_, Infallible>(response(&headers, body)) }
        });
        #[expect(
            clippy::disallowed_methods,
            reason = "the floor is one accept loop; it ends with its process"
        )]
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    }
}

fn response(headers: &[(String, String)], body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::builder();
    for (name, value) in headers {
        response = response.header(name, value);
    }
    response.body(Full::new(body)).unwrap_or_default()
}
