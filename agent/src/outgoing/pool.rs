//! The connections to one server: idle ones, those in the making, and who waits for one.
//!
//! Owns: which request gets which connection, and when one more is made. Must not know: how it is made.
//!
//! Nobody owns a connection in the making. When it is ready it goes to the request that has waited longest;
//! if all have left, it is kept for the next.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::connect::Way;
use super::error::{ConnectError, Step};
use super::tls::Tls;
use crate::lifecycle::tasks::spawn_detached;

/// An idle connection is used no longer than this: a busy node's next call is warm.
const IDLE: Duration = Duration::from_secs(90);
/// More idle connections than calls can be under way (docs/design/decisions.md#upstream) are of no use.
const MOST_IDLE: usize = 50;
/// A connection that has been in the making for longer has another one begun beside it while somebody waits:
/// it may be stuck, and another backend or a new SYN may be quicker.
const YOUNG: Duration = Duration::from_secs(1);
/// Connections in the making at most, stuck ones included.
const MOST_IN_THE_MAKING: usize = 100;
/// After a call on a used connection got no answer, those that have been idle for longer are not trusted:
/// what broke one (a lapsed NAT entry, a new address of the node) has broken all.
const TRUSTED: Duration = Duration::from_secs(5);
/// The head of an answer, and what is read ahead of the body.
const READ_BUFFER: usize = 64 * 1024;

type Sender = SendRequest<Full<Bytes>>;

/// The pool.
#[derive(Clone)]
pub(super) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    way: Way,
    tls: Arc<Tls>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    idle: Vec<Idle>,
    waiting: VecDeque<oneshot::Sender<Result<Free, ConnectError>>>,
    /// When each was begun.
    making: Vec<Instant>,
}

/// A connection that nobody has.
struct Free {
    sender: Sender,
    /// Whether another request was on it before.
    is_used: bool,
}

struct Idle {
    sender: Sender,
    since: Instant,
}

/// A connection, for one request. Dropped before its answer is complete, it is closed.
pub(super) struct Lease {
    pub(super) sender: Sender,
    answer: Answer,
}

/// Whether the request on a connection is answered.
struct Answer {
    pool: Pool,
    is_used: bool,
    is_complete: bool,
}

impl Pool {
    pub(super) fn new(way: Way, tls: Arc<Tls>) -> Self {
        Self { shared: Arc::new(Shared { way, tls, state: Mutex::default() }) }
    }

    pub(super) fn way(&self) -> &Way {
        &self.shared.way
    }

    /// A connection: an idle one, or the first that is free or made.
    pub(super) async fn connection(&self) -> Result<Lease, ConnectError> {
        let mut made = {
            let mut state = self.shared.state.lock();
            if let Some(sender) = state.idle_connection() {
                return Ok(Lease::new(sender, self, true));
            }
            let (sender, made) = oneshot::channel();
            state.waiting.retain(|waiting| !waiting.is_closed());
            state.waiting.push_back(sender);
            self.make_enough(&mut state);
            made
        };

        loop {
            match tokio::time::timeout(YOUNG, &mut made).await {
                Ok(Ok(made)) => return made.map(|free| Lease::new(free.sender, self, free.is_used)),
                // Only a process that ends drops the other end without an answer.
                Ok(Err(_)) => return Err(ConnectError::TimedOut(Step::Connect)),
                Err(_elapsed) => self.make_enough(&mut self.shared.state.lock()),
            }
        }
    }

    /// Begins one more if there are more requests that wait than connections that may soon be there.
    fn make_enough(&self, state: &mut State) {
        let young = state.making.iter().filter(|begun| begun.elapsed() < YOUNG).count();
        if young < state.waiting.len() && state.making.len() < MOST_IN_THE_MAKING {
            self.make(state);
        }
    }

    fn make(&self, state: &mut State) {
        let begun = Instant::now();
        state.making.push(begun);
        let mut making = Making { pool: self.clone(), begun, made: None };
        spawn_detached("upstream-connect", async move {
            let made = making.pool.shared.connect().await;
            if let Err(error) = &made {
                tracing::debug!(host = making.pool.way().origin().host, err = %error, "no connection");
            }
            making.made = Some(made);
            drop(making);
        });
    }

    /// Gives a connection to the request that has waited longest, or keeps it.
    fn hand_on(&self, sender: Sender, is_used: bool) {
        let mut free = Free { sender, is_used };
        let mut state = self.shared.state.lock();
        while let Some(waiting) = state.waiting.pop_front() {
            match waiting.send(Ok(free)) {
                Err(Ok(back)) => free = back,
                Ok(()) | Err(Err(_)) => return,
            }
        }
        state.idle.retain(|idle| idle.since.elapsed() < IDLE && !idle.sender.is_closed());
        if state.idle.len() < MOST_IDLE {
            state.idle.push(Idle { sender: free.sender, since: Instant::now() });
        }
    }

    /// One that was in the making has failed. Those who cannot be served by the others get the error.
    fn failed(&self, error: &ConnectError) {
        let mut state = self.shared.state.lock();
        state.waiting.retain(|waiting| !waiting.is_closed());
        while state.waiting.len() > state.making.len() {
            if let Some(waiting) = state.waiting.pop_front() {
                let _left_in_this_moment = waiting.send(Err(error.clone()));
            }
        }
    }
}

impl State {
    /// The one that was used last: it is the likeliest to live.
    fn idle_connection(&mut self) -> Option<Sender> {
        while let Some(idle) = self.idle.pop() {
            if idle.since.elapsed() < IDLE && idle.sender.is_ready() {
                return Some(idle.sender);
            }
        }
        None
    }
}

impl Shared {
    async fn connect(&self) -> Result<Sender, ConnectError> {
        let stream = TokioIo::new(self.way.connect(&self.tls).await?);
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(READ_BUFFER)
            .handshake(stream)
            .await
            .map_err(|error| ConnectError::failed(Step::Connect, std::io::Error::other(error)))?;
        spawn_detached("upstream-connection", async move {
            // How it ended is the business of the request that was on it.
            let _ended = connection.await;
        });
        Ok(sender)
    }
}

/// A connection in the making. However its task ends, it is no longer counted, and those who wait get an
/// answer.
struct Making {
    pool: Pool,
    begun: Instant,
    made: Option<Result<Sender, ConnectError>>,
}

impl Drop for Making {
    fn drop(&mut self) {
        {
            let mut state = self.pool.shared.state.lock();
            if let Some(place) = state.making.iter().position(|begun| *begun == self.begun) {
                state.making.swap_remove(place);
            }
        }
        match self.made.take() {
            Some(Ok(sender)) => self.pool.hand_on(sender, false),
            Some(Err(error)) => self.pool.failed(&error),
            None => self.pool.failed(&ConnectError::TimedOut(Step::Connect)),
        }
    }
}

impl Lease {
    fn new(sender: Sender, pool: &Pool, is_used: bool) -> Self {
        Self { sender, answer: Answer { pool: pool.clone(), is_used, is_complete: false } }
    }

    /// Whether another request was on it before.
    pub(super) fn is_used(&self) -> bool {
        self.answer.is_used
    }

    /// The answer has been read to its end: the connection can be used again, if the server keeps it.
    pub(super) fn give_back(self) {
        let Self { mut sender, mut answer } = self;
        answer.is_complete = true;
        if sender.is_ready() {
            answer.pool.hand_on(sender, true);
            return;
        }
        // It takes the connection's task a moment to see that the answer is over.
        spawn_detached("upstream-return", async move {
            if sender.ready().await.is_ok() {
                answer.pool.hand_on(sender, true);
            }
        });
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if self.is_used && !self.is_complete {
            let mut state = self.pool.shared.state.lock();
            state.idle.retain(|idle| idle.since.elapsed() < TRUSTED);
        }
    }
}
