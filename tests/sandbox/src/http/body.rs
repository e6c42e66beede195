//! An answer's body: whole, or breaking off in the middle.
//!
//! Owns: the break. Must not know: which fault asked for it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::stream::Reset;

/// Time for the first half to reach the caller before the reset overtakes it.
const BEFORE_THE_BREAK: Duration = Duration::from_millis(20);

/// The body.
#[derive(Debug)]
pub(crate) struct ReplyBody {
    bytes: Bytes,
    /// What the length header promises beyond `bytes`, and how the promise is broken.
    broken: Option<Break>,
}

#[derive(Debug)]
struct Break {
    missing: u64,
    wait: Option<Pin<Box<Sleep>>>,
    reset: Reset,
}

impl ReplyBody {
    /// All of it.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self { bytes, broken: None }
    }

    /// The first half, then a reset.
    pub(crate) fn broken(mut bytes: Bytes, reset: Reset) -> Self {
        let half = bytes.split_to(bytes.len() / 2);
        // At least one byte stays missing, so that an empty body breaks off as well.
        let missing = u64::try_from(bytes.len()).unwrap_or(u64::MAX).max(1);
        Self { bytes: half, broken: Some(Break { missing, wait: None, reset }) }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if !self.bytes.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.bytes)))));
        }
        let Some(broken) = &mut self.broken else { return Poll::Ready(None) };
        let wait = broken.wait.get_or_insert_with(|| Box::pin(sleep(BEFORE_THE_BREAK)));
        if wait.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        broken.reset.arm();
        Poll::Ready(Some(Err(io::Error::other("a fault of the sandbox breaks the answer off"))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty() && self.broken.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let missing = self.broken.as_ref().map_or(0, |broken| broken.missing);
        SizeHint::with_exact(u64::try_from(self.bytes.len()).unwrap_or(u64::MAX).saturating_add(missing))
    }
}
