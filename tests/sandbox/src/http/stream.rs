//! A TCP stream that can write in pieces, fall silent, or end in a reset.
//!
//! Owns: how bytes are written, and SO_LINGER at the moment of closing. Must not know: why.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use crate::faults::Pieces;

/// Tells a [`Stream`] how to go on. Clones speak to the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wire(Arc<Mutex<Manner>>);

#[derive(Debug, Default)]
struct Manner {
    /// Closing means a reset.
    resets: bool,
    writing: Writing,
}

/// How bytes are written.
#[derive(Clone, Copy, Debug, Default)]
enum Writing {
    #[default]
    AtOnce,
    InPieces(Pieces),
    /// So many more, and then none.
    Until(usize),
}

impl Wire {
    /// From now on closing means a reset.
    pub(crate) fn reset(&self) {
        self.0.lock().resets = true;
    }

    /// From now on bytes go out in such pieces; `None` is as they come.
    pub(crate) fn write_in(&self, pieces: Option<Pieces>) {
        self.0.lock().writing = pieces.map_or(Writing::AtOnce, Writing::InPieces);
    }

    /// After so many more bytes nothing is ever written again.
    pub(crate) fn silence_after(&self, bytes: usize) {
        self.0.lock().writing = Writing::Until(bytes);
    }

    fn is_to_reset(&self) -> bool {
        self.0.lock().resets
    }
}

/// The stream.
#[derive(Debug)]
pub(crate) struct Stream {
    tcp: TcpStream,
    wire: Wire,
    /// Before the next piece.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    pub(crate) fn new(tcp: TcpStream, wire: Wire) -> Self {
        Self { tcp, wire, pause: None }
    }

    /// When a piece may be written.
    fn poll_pause(&mut self, pause: Duration, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.pause.get_or_insert_with(|| Box::pin(sleep(pause))).as_mut().poll(cx));
        self.pause = None;
        Poll::Ready(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.wire.is_to_reset() {
            // Without it the close is an orderly one: a fault less, and the caller's test says so.
            let _ = self.tcp.set_zero_linger();
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let writing = self.wire.0.lock().writing;
        let most = match writing {
            Writing::AtOnce => buf.len(),
            Writing::InPieces(pieces) => {
                ready!(self.poll_pause(pieces.pause, cx));
                pieces.bytes
            }
            // Nobody wakes it: whoever waits, waits until the caller is gone.
            Writing::Until(0) => return Poll::Pending,
            Writing::Until(left) => left,
        };
        let piece = buf.get(..most.min(buf.len())).unwrap_or_default();
        let written = ready!(Pin::new(&mut self.tcp).poll_write(cx, piece))?;
        if let Writing::Until(left) = &mut self.wire.0.lock().writing {
            *left = left.saturating_sub(written);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.wire.is_to_reset() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
