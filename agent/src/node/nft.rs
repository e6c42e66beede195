//! Running `nft`, as kube-proxy does: the one program that knows nftables in every version of the kernel.
//!
//! Owns: the process, its deadline, and what its failures mean. Must not know: what is in a ruleset.

#[cfg(any(test, fuzzing))]
pub(crate) mod properties;

use std::io;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

/// Listing or writing a dozen rules takes milliseconds; longer while the kernel is busy with ten thousand
/// other rules.
const DEADLINE: Duration = Duration::from_secs(2);

/// The longest listing is that of the clients of the metadata service: 100 bytes for each pod of the node.
const MAX_OUTPUT: u64 = 4 << 20;

/// What `nft` says of EPERM, EOPNOTSUPP and EPROTONOSUPPORT.
const LASTING: [&str; 3] = ["Operation not permitted", "Operation not supported", "Protocol not supported"];

/// Why a call of `nft` failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NftError {
    /// The program is not installed.
    #[error("nft is not installed; install the nftables package")]
    Missing,
    /// It cannot be started, and another time it could not either.
    #[error("cannot run nft: {0}")]
    Unusable(String),
    /// It cannot be started for the moment: processes, descriptors or memory are used up.
    #[error("cannot run nft for the moment: {0}")]
    Starved(String),
    /// It did not finish in time, and was killed.
    #[error("nft did not finish within {} s", DEADLINE.as_secs())]
    Timeout,
    /// It failed; the first line of its error output.
    #[error("nft failed: {0}")]
    Failed(String),
    /// The table was written, and was gone a moment later.
    #[error("another process removes the agent's nftables table as soon as it is written")]
    RemovedAgain,
    /// It was not written, because another process had written it in the meantime.
    #[error("another process writes the agent's nftables table at the same time")]
    Overtaken,
    /// It succeeded, but its output is not a listing of the table in JSON.
    #[error("cannot parse the output of nft")]
    Unreadable,
}

impl NftError {
    /// Whether another call a moment later would fail too: the program, the permission or the kernel's
    /// nf_tables is missing.
    pub(super) fn is_lasting(&self) -> bool {
        match self {
            Self::Missing | Self::Unusable(_) => true,
            Self::Failed(why) => LASTING.iter().any(|words| why.contains(words)),
            Self::Starved(_) | Self::Timeout | Self::RemovedAgain | Self::Overtaken | Self::Unreadable => {
                false
            }
        }
    }
}

/// Applies a ruleset, all of it or nothing.
///
/// # Errors
/// [`NftError`], if it was not applied.
pub(super) async fn write(ruleset: String) -> Result<(), NftError> {
    run(&["--file", "-"], Some(ruleset)).await.map(drop)
}

/// A table of the family `inet` as the kernel has it now, or `None` if there is none.
///
/// # Errors
/// [`NftError`], if it cannot be listed.
pub(super) async fn list(table: &str) -> Result<Option<Value>, NftError> {
    match run(&["--json", "list", "table", "inet", table], None).await {
        Ok(answer) => listing_in(&answer.stdout, table).map(Some),
        Err(NftError::Failed(why)) if why.contains("No such file or directory") => Ok(None),
        Err(error) => Err(error),
    }
}

/// What `nft` lists of a table. Without the table in it, it is no such listing: taken for one, it
/// would be what later listings are compared with.
fn listing_in(stdout: &[u8], table: &str) -> Result<Value, NftError> {
    let listing: Value = serde_json::from_slice(stdout).map_err(|_| NftError::Unreadable)?;
    let is_table = |object: &Value| object.pointer("/table/name").is_some_and(|name| name == table);
    let objects = listing.get("nftables").and_then(Value::as_array);
    let has_table = objects.is_some_and(|objects| objects.iter().any(is_table));
    if has_table { Ok(listing) } else { Err(NftError::Unreadable) }
}

async fn run(arguments: &[&str], input: Option<String>) -> Result<Output, NftError> {
    run_program("nft", arguments, input).await
}

async fn run_program(program: &str, arguments: &[&str], input: Option<String>) -> Result<Output, NftError> {
    let mut command = Command::new(program);
    // nft needs nothing of the agent's environment but PATH. Its messages must be in English: `list` and
    // `is_lasting` read some of them.
    command.args(arguments).env_clear().env("LC_ALL", "C").env("PATH", PATH);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let ended = async {
        let mut child = command.spawn()?;
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
            // nft may fail before it has read everything; then its own message says more than a broken pipe.
            let _sent = stdin.write_all(input.as_bytes()).await;
        }
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (stdout, stderr, status) = tokio::try_join!(read(stdout), read(stderr), child.wait())?;
        Ok(Output { status, stdout, stderr })
    };
    let output = match tokio::time::timeout(DEADLINE, ended).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(why_not_run(&error)),
        Err(_) => return Err(NftError::Timeout),
    };
    if output.status.success() { Ok(output) } else { Err(NftError::Failed(first_line(&output.stderr))) }
}

/// What is too long is cut, and the pipe closed.
async fn read(output: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(output) = output {
        output.take(MAX_OUTPUT).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

fn why_not_run(error: &io::Error) -> NftError {
    use nix::libc::{EAGAIN, EMFILE, ENFILE, ENOMEM};
    match error.raw_os_error() {
        // A limit of processes or threads, of the pod or of the node, is the first.
        Some(EAGAIN | EMFILE | ENFILE | ENOMEM) => NftError::Starved(error.to_string()),
        Some(_) | None if error.kind() == io::ErrorKind::NotFound => NftError::Missing,
        Some(_) | None => NftError::Unusable(error.to_string()),
    }
}

/// Where distributions and images install `nft`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn first_line(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    // Enough for nft's longest message; what it quotes of a ruleset may be longer.
    text.lines().next().unwrap_or("no error message").chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::{NftError, run_program};

    async fn failure(program: &str, arguments: &[&str]) -> NftError {
        run_program(program, arguments, Some("input".repeat(100_000))).await.unwrap_err()
    }

    #[test]
    fn a_failure_lasts_when_something_is_missing() {
        let failed = |why: &str| NftError::Failed(why.to_owned()).is_lasting();
        assert!(NftError::Missing.is_lasting());
        assert!(failed("netlink: Error: cache initialization failed: Operation not permitted"));
        assert!(failed("Unable to initialize Netlink socket: Protocol not supported"));
        assert!(!failed("Error: Could not process rule: Device or resource busy"));
        assert!(!NftError::Timeout.is_lasting() && !NftError::RemovedAgain.is_lasting());
    }

    #[tokio::test]
    async fn each_kind_of_failure_has_its_own_message() {
        assert_eq!(failure("no-such-program", &[]).await, NftError::Missing);
        let denied = "Permission denied (os error 13)".to_owned();
        assert_eq!(failure("/", &[]).await, NftError::Unusable(denied));
        assert_eq!(failure("false", &[]).await, NftError::Failed("no error message".to_owned()));
        let error =
            failure("sh", &["-c", "echo 'Error: Operation not permitted' >&2; echo more >&2; exit 1"]).await;
        assert_eq!(error, NftError::Failed("Error: Operation not permitted".to_owned()));
    }

    #[tokio::test]
    async fn a_program_that_does_not_finish_is_killed() {
        let started = tokio::time::Instant::now();
        assert_eq!(failure("sleep", &["60"]).await, NftError::Timeout);
        assert!(started.elapsed() < std::time::Duration::from_secs(30));
    }

    #[tokio::test]
    async fn output_is_returned_and_the_environment_is_not_passed_on() {
        let output = run_program("env", &[], None).await.unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 2);
    }
}
