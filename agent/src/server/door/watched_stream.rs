//! The socket under hyper: it notes progress, and can end an idle connection without losing a request.
//!
//! Owns: noting in the connection's [`Activity`] when the first byte of a request arrives and when a response
//! is written; reporting the end of input when an idle connection is to close, and when the client has closed
//! its sending side; the lingering close. Must not know: HTTP.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use super::activity::{Activity, CloseRequest, Phase};
use super::head_end::HeadEnd;

/// An accepted socket.
pub struct WatchedStream {
    stream: TcpStream,
    activity: Arc<Activity>,
    /// Whether the bytes so far end in the middle of a head. hyper may have read it together with the request
    /// before it, so that nothing arrives any more when that one has been answered.
    head: HeadEnd,
    /// The client has closed, or the end was reported to hyper.
    ended: bool,
    /// The client has closed, and hyper has had its turn with all that came before.
    end_is_due: bool,
}

impl WatchedStream {
    /// Wraps an accepted socket.
    pub fn new(stream: TcpStream, activity: Arc<Activity>) -> Self {
        Self { stream, activity, head: HeadEnd::default(), ended: false, end_is_due: false }
    }

    /// Ends the connection so that the client can read its last response: what it still sends is read and
    /// discarded until it closes too, because closing a socket with unread input resets the connection, and a
    /// reset destroys what the client has not read yet (a 431 in answer to a large head, for instance).
    pub async fn linger(mut self, limit: Duration) {
        if self.ended {
            return;
        }
        // From here on it counts as closing.
        self.activity.request_close(CloseRequest::WhenIdle);
        let discard = async {
            self.stream.shutdown().await?;
            // 256 KiB: what is in flight of a body that is not read, not a way to keep the agent busy.
            for _ in 0..256 {
                self.stream.readable().await?;
                match discard_some(&self.stream) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            Ok::<(), io::Error>(())
        };
        // The connection is over, however this ends.
        let _over = tokio::time::timeout(limit, discard).await;
    }

    fn note_input(&mut self) {
        match self.activity.phase() {
            Phase::Idle => self.activity.enter(Phase::Head),
            Phase::Head | Phase::Answering | Phase::Writing => {}
        }
    }

    fn note_output(&mut self, result: &Poll<io::Result<usize>>) {
        let progress = match result {
            Poll::Ready(Ok(written)) => *written > 0,
            Poll::Ready(Err(_)) | Poll::Pending => false,
        };
        // While nothing can be written, the time of the last progress stays.
        if progress || self.activity.phase() != Phase::Writing {
            self.activity.enter(Phase::Writing);
        }
    }

    /// Whether to report to hyper that the client has closed. It reads from the kernel directly, because
    /// tokio sees new input only at its next turn, and a request that has arrived must be answered.
    fn ends_here(&mut self) -> bool {
        if self.activity.close_request() != CloseRequest::WhenIdle || self.activity.phase() != Phase::Idle {
            return false;
        }
        if has_input(&self.stream) {
            self.note_input();
            return false;
        }
        true
    }
}

/// Whether bytes have arrived that were not read.
pub(super) fn has_input(stream: &TcpStream) -> bool {
    SockRef::from(stream).peek(&mut [MaybeUninit::uninit()]).is_ok_and(|waiting| waiting > 0)
}

/// Not async, so that the buffer is on the stack and not in every connection's task.
fn discard_some(stream: &TcpStream) -> io::Result<usize> {
    stream.try_read(&mut [0; 1024])
}

impl AsyncRead for WatchedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        match Pin::new(&mut this.stream).poll_read(context, buf) {
            Poll::Pending if this.ends_here() => {
                this.ended = true;
                Poll::Ready(Ok(()))
            }
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => {
                this.ended = true;
                Poll::Ready(Err(error))
            }
            Poll::Ready(Ok(())) => {
                let new = buf.filled().get(before..).unwrap_or_default();
                if !new.is_empty() {
                    this.head.follow(new);
                    this.note_input();
                } else if this.end_is_due {
                    this.ended = true;
                } else {
                    // hyper drops a request for which it sees the end before it has asked for the answer, and
                    // a client may close its sending side together with its last request. So hyper learns it
                    // a turn later: what can be answered at once is answered.
                    this.end_is_due = true;
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.note_output(&result);
        result
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write_vectored(context, pieces);
        this.note_output(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes only when it has written all that it has; after a response that means that it is
    /// complete.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.stream).poll_flush(context))?;
        if this.activity.phase() == Phase::Writing {
            this.activity.enter(if this.head.is_in_head() { Phase::Head } else { Phase::Idle });
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
