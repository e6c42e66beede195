//! The socket of this pod alone: the probes of the kubelet, and what `status`, `doctor` and `wait` ask.
//!
//! Owns: the socket, who may ask, how many at once, and how long each may take. Must not know: what the
//! conditions mean, or what a status says.
//!
//! A probe over 127.0.0.1 reaches whichever agent of the node has the port, and during an update there are
//! two: the new one would be called ready because the old one is. The socket is in the pod's own directory.
//! Liveness is the event loop alone, as on the pages.
//!
//! One question per connection. Probes come first: a status is gathered beside the event loop, a few at a
//! time, and one that is not read holds up nobody but who asks for more of them.

mod question;

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until, timeout};

pub use self::question::{MOST_IDENTITIES, Question};
use crate::lifecycle::readiness::Readiness;
use crate::lifecycle::tasks::beside_the_event_loop;

/// Its name in `--state-dir`.
pub const FILE: &str = "agent.sock";
/// The first line of a good answer to a probe.
pub const GOOD: &str = "ok";
/// The answer while as many others ask for a status as may at once.
pub const BUSY: &str = "busy: others are being told the status of this agent, try again in a moment\n";

/// For the question, and for the answer to a probe: the kubelet's command asks at once.
const DEADLINE: Duration = Duration::from_secs(2);
/// For a status to be taken: its reader may be a slow terminal.
const STATUS_DEADLINE: Duration = Duration::from_secs(10);
/// So many status answers at once, each of some megabytes at most.
const STATUS_AT_ONCE: usize = 4;
/// So many connections at once. Those with a status are a quarter of them and the others have [`DEADLINE`],
/// so whatever others do a probe has its turn before the kubelet gives it up after 5 s.
const CONNECTIONS_AT_ONCE: usize = 16;
/// After a failed accept; the kubelet asks every 5 s.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// Somebody may tidy up `--state-dir`, and the kubelet restarts an agent that no probe reaches.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// While the socket cannot be made.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// Gathers a status with so many identities at most. It may look at all of them, and blocks meanwhile.
pub type GatherStatus = Arc<dyn Fn(usize) -> Vec<u8> + Send + Sync>;

/// What is asked for.
#[derive(Clone)]
pub struct Answers {
    /// For the probes.
    pub readiness: Readiness,
    /// For the status.
    pub status: GatherStatus,
}

struct Desk {
    answers: Answers,
    statuses: Semaphore,
}

/// Answers, until it is dropped.
pub async fn serve(state_dir: PathBuf, answers: Answers) {
    let path = state_dir.join(FILE);
    let desk = Desk { answers, statuses: Semaphore::new(STATUS_AT_ONCE) };
    let (mut is_logged, mut was_removed) = (false, false);
    loop {
        match listen(&path) {
            Ok(listener) => {
                if was_removed {
                    tracing::warn!(path = %path.display(), "made the removed local socket again");
                }
                is_logged = false;
                tokio::select! {
                    never = answer_all(&listener, &desk) => match never {},
                    () = until_removed(&path) => was_removed = true,
                }
                continue;
            }
            Err(error) if !is_logged => {
                tracing::warn!(err = %error, path = %path.display(), "no socket for probes and status");
                is_logged = true;
            }
            Err(_) => {}
        }
        sleep(RETRY_INTERVAL).await;
    }
}

/// What an earlier process of this pod has left there is removed.
fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Until no file has this name. One of another process is left alone: that has taken it over.
async fn until_removed(path: &Path) {
    let is_removed = || path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    loop {
        sleep(LOOK_INTERVAL).await;
        if is_removed() {
            return;
        }
    }
}

async fn answer_all(listener: &UnixListener, desk: &Desk) -> Infallible {
    let mut asking = FuturesUnordered::new();
    let mut next_accept = Instant::now();
    loop {
        tokio::select! {
            // An asker that has left is not told.
            Some(_answered) = asking.next() => {}
            accepted = accept(listener, next_accept), if asking.len() < CONNECTIONS_AT_ONCE => {
                let stream = match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        // Descriptors or memory are short for a moment: those who are being answered go on.
                        tracing::warn!(err = %error, "cannot accept a connection for probes and status");
                        next_accept = Instant::now() + ACCEPT_PAUSE;
                        continue;
                    }
                };
                // Before a place is taken: nobody else may keep the kubelet from one.
                if may_ask(&stream) {
                    asking.push(desk.answer(stream));
                }
            }
        }
    }
}

/// The next connection, not before that time.
async fn accept(listener: &UnixListener, not_before: Instant) -> io::Result<(UnixStream, SocketAddr)> {
    sleep_until(not_before).await;
    listener.accept().await
}

/// Root, and the user that the agent runs as.
fn may_ask(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == nix::unistd::geteuid().as_raw())
}

impl Desk {
    async fn answer(&self, mut stream: UnixStream) -> io::Result<()> {
        let mut text = String::new();
        let mut limited = (&mut stream).take(question::LONGEST);
        timeout(DEADLINE, limited.read_to_string(&mut text)).await??;
        let page = match Question::read(&text) {
            Some(Question::Live) => format!("{GOOD}\n"),
            Some(Question::Ready) => readiness_page(&self.answers.readiness),
            Some(Question::Status { most }) => return self.tell_status(stream, most).await,
            None => "a question must be live, ready, or status with a number\n".to_owned(),
        };
        timeout(DEADLINE, stream.write_all(page.as_bytes())).await?
    }

    async fn tell_status(&self, mut stream: UnixStream, most: usize) -> io::Result<()> {
        let Ok(_permit) = self.statuses.try_acquire() else {
            return timeout(DEADLINE, stream.write_all(BUSY.as_bytes())).await?;
        };
        let gather = Arc::clone(&self.answers.status);
        // Ten thousand identities take longer to sort and to write than a pod should wait for its answer.
        let status = beside_the_event_loop(move || gather(most)).await;
        timeout(STATUS_DEADLINE, stream.write_all(&status.unwrap_or_default())).await?
    }
}

/// Why the agent is not ready, a line for each condition: the kubelet shows it in the pod's events.
fn readiness_page(readiness: &Readiness) -> String {
    if readiness.is_ready() {
        return format!("{GOOD}\n");
    }
    let mut page = String::new();
    for report in readiness.report().into_iter().filter(|report| report.required && !report.met) {
        // Writing to a string cannot fail.
        let _written = writeln!(page, "{}: {}", report.name, report.reason);
    }
    page
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;
    use tokio::task::JoinSet;

    use super::{Answers, BUSY, CONNECTIONS_AT_ONCE, FILE, Question, STATUS_AT_ONCE, serve};
    use crate::lifecycle::readiness::Readiness;

    /// More than the socket's buffers take: somebody has to read it.
    const LARGE: usize = 4 << 20;

    struct Served {
        dir: PathBuf,
        _serving: JoinSet<()>,
    }

    impl Drop for Served {
        fn drop(&mut self) {
            let _removed = std::fs::remove_dir_all(&self.dir);
        }
    }

    async fn served(name: &str) -> Served {
        let dir = std::env::temp_dir().join(format!("local-socket-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let answers =
            Answers { readiness: Readiness::new(), status: Arc::new(|most| vec![b'x'; most * LARGE]) };
        let mut serving = JoinSet::new();
        serving.spawn(serve(dir.clone(), answers));
        while !dir.join(FILE).exists() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Served { dir, _serving: serving }
    }

    impl Served {
        async fn connect(&self) -> UnixStream {
            UnixStream::connect(self.dir.join(FILE)).await.unwrap()
        }

        /// Asks, and reads nothing.
        async fn ask(&self, question: Question) -> UnixStream {
            let mut stream = self.connect().await;
            stream.write_all(question.to_string().as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            stream
        }

        async fn answer(&self, question: Question) -> String {
            let mut answer = String::new();
            self.ask(question).await.read_to_string(&mut answer).await.unwrap();
            answer
        }
    }

    #[tokio::test]
    async fn probes_are_answered_while_as_many_as_may_ask_for_a_status_do_not_read_it() {
        let served = served("stuck").await;
        let mut stuck = Vec::new();
        for _ in 0..STATUS_AT_ONCE {
            let mut stream = served.ask(Question::Status { most: 1 }).await;
            // It has begun, so it has its place.
            assert_eq!(stream.read_u8().await.unwrap(), b'x');
            stuck.push(stream);
        }
        assert_eq!(served.answer(Question::Live).await, "ok\n");
        assert_eq!(served.answer(Question::Status { most: 1 }).await, BUSY, "a fifth shall come again");
        // All of them are there still: nobody was cut off for the probe.
        for mut stream in stuck {
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest.len(), LARGE - 1);
        }
        assert_eq!(served.answer(Question::Status { most: 0 }).await, "", "their places are free again");
    }

    #[tokio::test]
    async fn a_probe_waits_no_longer_than_those_have_who_ask_nothing() {
        let served = served("silent").await;
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS_AT_ONCE {
            silent.push(served.connect().await);
        }
        // Not at once: all places are taken. But before the kubelet gives up.
        let answer = tokio::time::timeout(Duration::from_secs(4), served.answer(Question::Live)).await;
        assert_eq!(answer.unwrap(), "ok\n");
    }

    #[tokio::test]
    async fn what_is_no_question_is_told_what_is() {
        let served = served("questions").await;
        let mut stream = served.connect().await;
        stream.write_all(b"who are you").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "a question must be live, ready, or status with a number\n");
    }
}
