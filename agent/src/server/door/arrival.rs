//! A connection before its first request: without HTTP state, so that one that waits costs next to nothing.
//!
//! Owns: for how long a connection may be silent, and that its first request waits for a place. Must not
//! know: HTTP, but for where a request head ends.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::activity::{CloseRequest, Phase};
use super::head_end::HeadEnd;
use super::limits::ConnectionLimits;
use super::peers::{ConnectionPermit, Peers};
use super::stats::count;
use super::watched_stream::has_input;

/// Of a request that was refused a place so much is looked at: the head of an SDK has two kilobytes.
const LOOKED_AT: usize = 16 * 1024;
/// For what is there already.
const AT_ONCE: Duration = Duration::from_millis(10);
/// While a head is to be complete before it gets a place, it is looked at this often, and not at each packet:
/// a client that sends single bytes would keep us busy.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How a first request got to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    /// How long it waited for a place.
    pub(super) waited: Duration,
    /// Whether it has one; if not, it is to be refused.
    pub(super) has_place: bool,
}

impl Arrival {
    /// As a request on a connection that has its place already.
    pub(super) const fn placed_at_once() -> Self {
        Self { waited: Duration::ZERO, has_place: true }
    }
}

/// Waits for the beginning of a request and then for a place. `None`: the connection is to be closed.
pub(super) async fn arrive(
    limits: &ConnectionLimits,
    peers: &Peers,
    stream: &TcpStream,
    permit: &mut ConnectionPermit,
) -> Option<Arrival> {
    match timeout(limits.idle, first_byte(stream, permit)).await {
        Ok(true) => {}
        Ok(false) => return None,
        Err(_elapsed) => {
            count(&peers.stats().idle_expired);
            return None;
        }
    }
    if limits.one_whole_request {
        match timeout(limits.request_head, whole_head(stream, permit)).await {
            Ok(true) => {}
            Ok(false) => return None,
            Err(_elapsed) => {
                count(&peers.stats().slow_heads);
                return None;
            }
        }
    }
    permit.activity().enter(Phase::Head);
    let since = Instant::now();
    let placed = timeout_at(since + limits.place, async {
        if let Some(pace) = permit.pace().cloned() {
            pace.until_read().await;
        }
        permit.take_place().await;
    });
    let has_place = placed.await.is_ok();
    if !has_place {
        peers.count_refused(permit.why_not_placed());
        if !has_whole_head(stream).await {
            return None;
        }
    }
    // The time for the head begins now that it is read.
    permit.activity().enter(Phase::Head);
    Some(Arrival { waited: since.elapsed(), has_place })
}

/// Whether a request begins, before the client leaves or the connection is asked to close.
async fn first_byte(stream: &TcpStream, permit: &ConnectionPermit) -> bool {
    loop {
        let close_requested = permit.activity().close_requested();
        match permit.activity().close_request() {
            CloseRequest::NotRequested => {}
            CloseRequest::WhenIdle => return has_input(stream),
            CloseRequest::Now => return false,
        }
        let mut byte = [0];
        tokio::select! {
            biased;
            arrived = stream.peek(&mut byte) => return arrived.is_ok_and(|bytes| bytes > 0),
            () = close_requested => {}
        }
    }
}

/// Waits for a whole request head, without a word that one has begun: until then the connection counts as
/// silent, and may have to make room. `false`: it is asked to close.
async fn whole_head(stream: &TcpStream, permit: &ConnectionPermit) -> bool {
    while !has_whole_head(stream).await {
        if permit.activity().close_request() != CloseRequest::NotRequested {
            return false;
        }
        sleep(LOOK_AGAIN).await;
    }
    true
}

/// Whether a whole request head has arrived.
async fn has_whole_head(stream: &TcpStream) -> bool {
    let mut buffer = vec![0; LOOKED_AT];
    // At least a byte has arrived, so that this takes no time.
    match timeout(AT_ONCE, stream.peek(&mut buffer)).await {
        Ok(Ok(arrived)) => buffer.get(..arrived).is_some_and(HeadEnd::is_in),
        Ok(Err(_)) | Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::time::{Instant, sleep};

    use crate::server::door::limits::{ConnectionLimits, PeerLimits};
    use crate::server::door::testing::{FAST, TestServer, eventually};

    #[tokio::test]
    async fn on_an_admin_listener_one_who_opens_all_he_can_keeps_no_place_from_a_probe_of_his_own_address() {
        let server = TestServer::start(ConnectionLimits::for_admin(), PeerLimits::for_probes());
        let mut greedy = Vec::new();
        for n in 0..300 {
            let mut client = server.connect().await;
            let bytes = ["", "GET /fa", FAST][n % 3];
            // One that has had to make room is closed.
            let _gone = client.0.write_all(bytes.as_bytes()).await;
            greedy.push(client);
        }
        for _ in 0..10 {
            sleep(Duration::from_millis(5)).await;
            let began = Instant::now();
            let answer = server.connect().await.get(FAST).await;
            assert!(answer.ends_with("fast") && answer.contains("connection: close"), "{answer}");
            assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
        }
        eventually(|| server.stats().slow_heads > 0).await;
    }

    #[tokio::test]
    async fn a_head_in_pieces_is_answered_where_it_must_be_whole() {
        let server = TestServer::start(ConnectionLimits::for_admin(), PeerLimits::for_metrics());
        let mut client = server.connect().await;
        for piece in FAST.as_bytes().chunks(10) {
            client.send(piece).await;
            sleep(Duration::from_millis(15)).await;
        }
        assert!(client.rest().await.unwrap().ends_with("fast"));
    }
}
