//! How boto3 asks: up to three attempts, 1 s between them, and each attempt has 2 s (botocore's
//! `ContainerMetadataFetcher`). Ours is stricter in one thing: the 2 s are for the whole attempt, not for
//! connecting and again for each read.
//!
//! Owns: boto3's numbers, for all tests. Must not know: who asks, or what is made of the answers.

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::http::{Answer, Request};

/// botocore's TIMEOUT_SECONDS.
const PATIENCE: Duration = Duration::from_secs(2);
/// botocore's RETRY_ATTEMPTS.
const ATTEMPTS: usize = 3;
/// botocore's SLEEP_TIME.
const PAUSE: Duration = Duration::from_secs(1);

/// What the agent knows it by.
const USER_AGENT: &str = "python-urllib3/2.8.0";

/// One attempt, and what it came to.
pub(crate) struct Attempt {
    pub(crate) begun: Instant,
    pub(crate) ended: Instant,
    pub(crate) answer: std::io::Result<Answer>,
}

impl Attempt {
    /// Whether it got credentials.
    pub(crate) fn is_served(&self) -> bool {
        self.answer.as_ref().is_ok_and(|answer| answer.status == 200)
    }

    /// What came instead of credentials, if they did not.
    pub(crate) fn failure(&self) -> Option<String> {
        match &self.answer {
            Ok(answer) if answer.status == 200 => None,
            Ok(answer) => Some(format!("{} {}", answer.status, answer.body)),
            Err(error) => Some(error.to_string()),
        }
    }
}

/// One attempt, given up as soon as boto3 would.
pub(crate) async fn attempt(request: &Request, to: SocketAddr) -> std::io::Result<Answer> {
    match tokio::time::timeout(PATIENCE, request.send(to)).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::new(ErrorKind::TimedOut, "no answer within 2 s")),
    }
}

/// Asks until it is served or boto3 would give up. The last attempt is the one that counts.
pub(crate) async fn attempts(request: &Request, to: SocketAddr) -> Vec<Attempt> {
    attempts_up_to(ATTEMPTS, request, to).await
}

/// The same with so many attempts: an SDK that never tries again has one.
pub(crate) async fn attempts_up_to(most: usize, request: &Request, to: SocketAddr) -> Vec<Attempt> {
    let request = request.clone().header("User-Agent", USER_AGENT);
    let mut attempts = Vec::new();
    loop {
        let begun = Instant::now();
        let answer = attempt(&request, to).await;
        let made = Attempt { begun, ended: Instant::now(), answer };
        let is_served = made.is_served();
        attempts.push(made);
        if is_served || attempts.len() == most {
            return attempts;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Asks with a token as boto3 does; what came instead, if nothing good did.
pub(crate) async fn as_boto3(token: &str, to: SocketAddr) -> Result<Answer, Vec<String>> {
    served(attempts(&Request::credentials(token), to).await)
}

/// The answer that was good, or what came instead each time.
pub(crate) fn served(attempts: Vec<Attempt>) -> Result<Answer, Vec<String>> {
    let failures: Vec<_> = attempts.iter().filter_map(Attempt::failure).collect();
    let good = attempts.into_iter().find(Attempt::is_served).and_then(|attempt| attempt.answer.ok());
    good.ok_or(failures)
}
