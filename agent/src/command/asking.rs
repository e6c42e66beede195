//! Asking the running agent of this container, over the socket in its `--state-dir`.
//!
//! Owns: one question and its answer, and the words for an agent that cannot be asked. Must not know: what an
//! answer means. No runtime is started: the kubelet asks every few seconds on every node.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::AskedAgent;
use crate::server::local_socket::{FILE, Question};
use crate::status::snapshot::Snapshot;

/// For each step of a probe. The kubelet waits 5 s for the command.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);
/// For each step of a status: the agent may be busy, and looks at all that it has.
const STATUS_DEADLINE: Duration = Duration::from_secs(10);
/// More than the longest answer: 4 MiB of identities, and every condition with its reason.
const MAX_ANSWER: u64 = 16 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// Nobody listens there, or may not be asked by this user.
    #[error(
        "no answer of the agent on {socket}: {cause}{hint}",
        socket = .socket.display(),
        hint = hint(.cause)
    )]
    NoAnswer { socket: PathBuf, cause: io::Error },
    /// It has closed the connection without a word.
    #[error(
        "no answer of the agent on {socket}: it closed the connection; only root and the user that the agent \
         runs as may ask it, and it may be ending",
        socket = .0.display()
    )]
    Closed(PathBuf),
    /// It has said something else.
    #[error("the agent on {socket} says: {said}", socket = .socket.display())]
    Other { socket: PathBuf, said: String },
}

/// Asks one question; returns the whole answer.
pub(super) fn ask(agent: &AskedAgent, question: Question) -> Result<String, AskError> {
    let socket = Path::new(&agent.state_dir).join(FILE);
    match exchange(&socket, question) {
        Ok(answer) if answer.is_empty() => Err(AskError::Closed(socket)),
        Ok(answer) => Ok(answer),
        // The agent has closed it before or while the question was written.
        Err(cause) if matches!(cause.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
            Err(AskError::Closed(socket))
        }
        Err(cause) => Err(AskError::NoAnswer { socket, cause }),
    }
}

/// Asks for the status, with so many identities at most.
pub(super) fn ask_status(agent: &AskedAgent, most: usize) -> Result<Snapshot, AskError> {
    let answer = ask(agent, Question::Status { most })?;
    serde_json::from_str(&answer).map_err(|_| AskError::Other {
        socket: Path::new(&agent.state_dir).join(FILE),
        said: answer.lines().next().unwrap_or_default().chars().take(200).collect(),
    })
}

fn exchange(socket: &Path, question: Question) -> io::Result<String> {
    let deadline = match question {
        Question::Live | Question::Ready => PROBE_DEADLINE,
        Question::Status { .. } => STATUS_DEADLINE,
    };
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(deadline))?;
    stream.set_write_timeout(Some(deadline))?;
    stream.write_all(question.to_string().as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer)?;
    Ok(answer)
}

/// What to look at.
fn hint(cause: &io::Error) -> &'static str {
    let hints = [
        (
            io::ErrorKind::NotFound,
            "\nIs this the container of the agent, does it run, and has its server this --state-dir? See \
             `kubectl logs` and `kubectl describe pod`.",
        ),
        (
            io::ErrorKind::ConnectionRefused,
            "\nThe agent has ended, and has left its socket: see `kubectl logs --previous`.",
        ),
        (io::ErrorKind::PermissionDenied, "\nOnly root and the user that the agent runs as may ask it."),
        // What a read gives after its time.
        (
            io::ErrorKind::WouldBlock,
            "\nThe agent is there and does not answer: see whether it gets processor time.",
        ),
    ];
    hints.into_iter().find(|(kind, _)| *kind == cause.kind()).map_or("", |(_, hint)| hint)
}
