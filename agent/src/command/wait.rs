//! `wait`: returns when the agent of this container serves pods.
//!
//! Owns: the time-out, how often it is asked, and the exit code. Must not know: what makes an agent ready.

use std::process::ExitCode;
use std::time::Duration;

use tokio::time::Instant;

use super::asking::ask;
use super::{USAGE, complain, say};
use crate::cli::{AskedAgent, WaitArgs};
use crate::config::duration_of;
use crate::server::local_socket::{GOOD, Question};

/// Between two questions.
const POLL: Duration = Duration::from_millis(200);

pub(super) fn run(args: &WaitArgs) -> ExitCode {
    let timeout = match duration_of("--timeout", &args.timeout) {
        Ok(timeout) => timeout,
        Err(problem) => {
            complain(format_args!("pod-identity-agent: {problem}"));
            return ExitCode::from(USAGE);
        }
    };
    let started = Instant::now();
    loop {
        let Err(why) = is_ready(&args.agent) else { return say(format_args!("{GOOD}")) };
        let left = timeout.saturating_sub(started.elapsed());
        if left.is_zero() {
            complain(format_args!("not ready after {}:\n{}", args.timeout, why.trim()));
            return ExitCode::FAILURE;
        }
        std::thread::sleep(POLL.min(left));
    }
}

/// Why not: the conditions that are not met, or why nobody answers.
fn is_ready(agent: &AskedAgent) -> Result<(), String> {
    match ask(agent, Question::Ready) {
        Ok(answer) if answer.trim() == GOOD => Ok(()),
        Ok(answer) => Err(answer),
        Err(error) => Err(error.to_string()),
    }
}
