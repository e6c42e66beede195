//! An answer's body: whole, breaking off in the middle, too long, or without an end.
//!
//! Owns: the break and the padding. Must not know: which fault asked for it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::stream::Wire;

/// Time for the first half to reach the caller before the reset overtakes it.
const BEFORE_THE_BREAK: Duration = Duration::from_millis(20);

/// White space, which means nothing in JSON.
static SPACES: [u8; 64 * 1024] = [b' '; 64 * 1024];

/// The body.
#[derive(Debug)]
pub(crate) struct ReplyBody {
    /// White space before it.
    padding: Padding,
    bytes: Bytes,
    /// What the length header promises beyond `bytes`, and how the promise is broken.
    broken: Option<Break>,
}

#[derive(Debug)]
enum Padding {
    /// So many bytes, then what follows.
    Bytes(u64),
    /// Nothing ever follows. A byte after each pause, or 64 KiB where there is none.
    Endless { pause: Duration, wait: Option<Pin<Box<Sleep>>> },
}

#[derive(Debug)]
struct Break {
    missing: u64,
    wait: Option<Pin<Box<Sleep>>>,
    wire: Wire,
}

impl ReplyBody {
    /// All of it.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self::padded(bytes, 0)
    }

    /// All of it, behind so many bytes of white space.
    pub(crate) fn padded(bytes: Bytes, padding: u64) -> Self {
        Self { padding: Padding::Bytes(padding), bytes, broken: None }
    }

    /// White space for ever.
    pub(crate) fn endless(pause: Duration) -> Self {
        Self { padding: Padding::Endless { pause, wait: None }, bytes: Bytes::new(), broken: None }
    }

    /// The first half, then a reset.
    pub(crate) fn broken(mut bytes: Bytes, wire: Wire) -> Self {
        let half = bytes.split_to(bytes.len() / 2);
        // At least one byte stays missing, so that an empty body breaks off as well.
        let missing = u64::try_from(bytes.len()).unwrap_or(u64::MAX).max(1);
        Self { padding: Padding::Bytes(0), bytes: half, broken: Some(Break { missing, wait: None, wire }) }
    }
}

impl Padding {
    /// The next white space; `None` when there is no more.
    fn poll_spaces(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let length = match self {
            Self::Bytes(0) => return Poll::Ready(None),
            Self::Bytes(left) => {
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(SPACES.len());
                *left = left.saturating_sub(u64::try_from(length).unwrap_or(u64::MAX));
                length
            }
            Self::Endless { pause: Duration::ZERO, .. } => SPACES.len(),
            Self::Endless { pause, wait } => {
                std::task::ready!(wait.get_or_insert_with(|| Box::pin(sleep(*pause))).as_mut().poll(cx));
                *wait = None;
                1
            }
        };
        Poll::Ready(SPACES.get(..length).map(Bytes::from_static))
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(spaces) = std::task::ready!(self.padding.poll_spaces(cx)) {
            return Poll::Ready(Some(Ok(Frame::data(spaces))));
        }
        if !self.bytes.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.bytes)))));
        }
        let Some(broken) = &mut self.broken else { return Poll::Ready(None) };
        let wait = broken.wait.get_or_insert_with(|| Box::pin(sleep(BEFORE_THE_BREAK)));
        if wait.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        broken.wire.reset();
        Poll::Ready(Some(Err(io::Error::other("a fault of the sandbox breaks the answer off"))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.padding, Padding::Bytes(0)) && self.bytes.is_empty() && self.broken.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let missing = self.broken.as_ref().map_or(0, |broken| broken.missing);
        let Padding::Bytes(padding) = self.padding else { return SizeHint::default() };
        let bytes = u64::try_from(self.bytes.len()).unwrap_or(u64::MAX);
        SizeHint::with_exact(bytes.saturating_add(missing).saturating_add(padding))
    }
}
