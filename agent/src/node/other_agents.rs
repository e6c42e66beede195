//! The other agents of this node: an old one that a new one takes over from, and the new one.
//!
//! Owns: the proof that an answer to a probe is another agent's. Must not know: what follows from it.
//!
//! An answer to a probe is a hash that only its process can compute, and its key never leaves that process.
//! So who got the answer shows it to every other agent of the node, and the one that made it says so. They
//! find each other by a few names of abstract unix sockets: those belong to the node's network, which all
//! agents share, in whatever container they are; and the kernel tells each side who the other is. Only root,
//! or a process of the agent's own user, is believed. A process that is root in the node's network can
//! receive every token without this.

use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};

use super::self_probe::{Nonce, ProbeKey};

/// Two agents are there during an update, three where a node is moved to another release meanwhile.
const NAMES: [&str; 4] =
    ["pod-identity-agent-0", "pod-identity-agent-1", "pod-identity-agent-2", "pod-identity-agent-3"];
/// For one question. The other agent only computes a hash.
const DEADLINE: Duration = Duration::from_millis(500);
/// Nonce, space, hash, space, address: some 150 bytes.
const MAX_QUESTION: usize = 256;
/// While all names are taken, or after a failure.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// The answer to a question.
const YES: u8 = b'y';
const NO: u8 = b'n';

/// Answers other agents, until it is dropped.
pub async fn answer_them(key: ProbeKey) {
    loop {
        if let Some(listener) = NAMES.iter().find_map(|name| listen(name).ok()) {
            serve(&listener, &key).await;
        }
        sleep(RETRY_INTERVAL).await;
    }
}

/// Whether another agent of this node says that it made this answer to a probe with this nonce. To a probe of
/// this process's own answer it says no: nobody else has the key.
pub async fn one_of_them_answered(nonce: &Nonce, answer: &str) -> bool {
    let question = format!("{} {}", nonce.as_str(), answer.trim());
    if question.len() > MAX_QUESTION {
        return false;
    }
    for name in NAMES {
        if let Ok(Ok(true)) = timeout(DEADLINE, ask(name, &question)).await {
            return true;
        }
    }
    false
}

/// Whether there is another agent on this node. One of the names is this agent's own.
pub fn is_there_one() -> bool {
    count() > 1
}

/// The same for a process that does not answer others itself.
pub fn is_there_any() -> bool {
    count() > 0
}

fn count() -> usize {
    NAMES.into_iter().filter(|name| connect(name).is_ok_and(|stream| is_believed(&stream))).count()
}

async fn ask(name: &str, question: &str) -> io::Result<bool> {
    let mut stream = connect(name)?;
    if !is_believed(&stream) {
        return Ok(false);
    }
    stream.write_all(question.as_bytes()).await?;
    stream.shutdown().await?;
    Ok(stream.read_u8().await? == YES)
}

/// At once, or not at all: connecting waits where the other side accepts nobody, and a process that has the
/// name could hold this process up with that.
fn connect(name: &str) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.connect(&SockAddr::unix(format!("\0{name}"))?)?;
    UnixStream::from_std(OwnedFd::from(socket).into())
}

/// One at a time: there are at most three that ask, each seldom.
async fn serve(listener: &UnixListener, key: &ProbeKey) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let answered = timeout(DEADLINE, async {
            let mut question = String::new();
            if is_believed(&stream) {
                (&mut stream).take(MAX_QUESTION as u64).read_to_string(&mut question).await?;
                let is_ours = is_ours(key, &question);
                stream.write_u8(if is_ours { YES } else { NO }).await?;
            }
            io::Result::Ok(())
        });
        if !matches!(answered.await, Ok(Ok(()))) {
            tracing::debug!("another process of this node asked, and did not wait for the answer");
        }
    }
}

fn is_ours(key: &ProbeKey, question: &str) -> bool {
    let Some((nonce, answer)) = question.split_once(' ') else { return false };
    Nonce::from_digits(nonce).is_some_and(|nonce| key.made(&nonce, answer))
}

fn listen(name: &str) -> io::Result<UnixListener> {
    let listener = StdListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

fn is_believed(stream: &UnixStream) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == own)
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use socket2::{Domain, SockAddr, Socket, Type};
    use tokio::net::UnixStream;
    use tokio::time::timeout;

    use super::{answer_them, connect, one_of_them_answered};
    use crate::lifecycle::tasks::Tasks;
    use crate::node::self_probe::{Nonce, ProbeKey};

    /// The names belong to the whole machine, and other tests run on it: what is not said of one is not
    /// asked.
    #[tokio::test]
    async fn whoever_made_an_answer_says_so_and_of_no_other() {
        let (key, nonce) = (ProbeKey::new().unwrap(), Nonce::random().unwrap());
        let answering = Tasks::new().spawn("answer", answer_them(key.clone()));
        let answer = key.answer(&nonce, "127.0.0.1:4711".parse().unwrap());
        for _ in 0..100 {
            if one_of_them_answered(&nonce, &answer).await {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(one_of_them_answered(&nonce, &answer).await);
        let others = ProbeKey::new().unwrap().answer(&nonce, "127.0.0.1:4711".parse().unwrap());
        assert!(!one_of_them_answered(&nonce, &others).await);
        assert!(!one_of_them_answered(&Nonce::random().unwrap(), &answer).await);
        assert!(!one_of_them_answered(&nonce, &"x".repeat(1_000)).await);
        answering.abort();
    }

    #[tokio::test]
    async fn a_listener_that_accepts_nobody_holds_nobody_up() {
        let name = format!("pod-identity-agent-test-{}", std::process::id());
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        listener.bind(&SockAddr::unix(format!("\0{name}")).unwrap()).unwrap();
        listener.listen(0).unwrap();
        let _kept: OwnedFd = listener.into();
        let connecting = async {
            let all: Vec<std::io::Result<UnixStream>> = (0..10).map(|_| connect(&name)).collect();
            all.iter().filter(|one| one.is_err()).count()
        };
        assert!(timeout(Duration::from_secs(1), connecting).await.unwrap() >= 8);
    }
}
