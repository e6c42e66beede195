//! What an answer means.
//!
//! Owns: the verdicts, and their sentences. Pure. Must not know: how the answer was had.
//!
//! What others said is shown to operators, so it is cut short and cleaned of whatever is not plain text.

use std::net::SocketAddr;

use super::probe_key::{Nonce, ProbeKey};
use super::request::{ProbeResponse, RequestError};

/// Characters that are shown of one line that somebody else has sent.
const MAX_SHOWN: usize = 120;

/// Who answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ProbeOutcome {
    /// The agent, directly.
    ThisAgent,
    /// The agent, but it was asked by somebody else in our name.
    Forwarded {
        /// Whom the agent saw.
        seen: SocketAddr,
    },
    /// Not this agent.
    OtherProcess {
        /// Its status line, and its `Server` header where it has one.
        description: String,
    },
    /// Nobody.
    NoAnswer {
        /// What happened instead.
        reason: String,
    },
    /// The address is not on this node; that is told elsewhere.
    AddressMissing,
}

/// Judges what was heard.
pub(super) fn evaluate(
    probe_key: &ProbeKey,
    nonce: &Nonce,
    response: &Result<ProbeResponse, RequestError>,
) -> ProbeOutcome {
    let response = match response {
        Ok(response) => response,
        Err(RequestError::AddressMissing) => return ProbeOutcome::AddressMissing,
        Err(error @ (RequestError::Connect(_) | RequestError::Broken(_) | RequestError::Timeout)) => {
            return ProbeOutcome::NoAnswer { reason: error.to_string() };
        }
    };
    let text = String::from_utf8_lossy(&response.bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    match probe_key.verify(nonce, body) {
        Some(answer) if answer.peer == response.local => ProbeOutcome::ThisAgent,
        Some(answer) => ProbeOutcome::Forwarded { seen: answer.peer },
        None => ProbeOutcome::OtherProcess { description: describe(head) },
    }
}

impl ProbeOutcome {
    /// The sentence about the address `on`.
    pub(super) fn message(&self, on: SocketAddr) -> String {
        match self {
            Self::ThisAgent => format!("the agent answers on {on}"),
            Self::Forwarded { seen } => {
                format!(
                    "something between forwards {on} to the agent, which saw {seen} ask: tokens pass through it"
                )
            }
            Self::OtherProcess { description } => format!("someone else answers on {on}: {description}"),
            Self::NoAnswer { reason } => format!("nobody answers on {on}: {reason}"),
            Self::AddressMissing => format!("{} is not on this node", on.ip()),
        }
    }
}

fn describe(head: &str) -> String {
    let mut lines = head.lines();
    let status = lines.next().map_or_else(String::new, sanitize);
    let server = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("server"))
        .map(|(_, value)| sanitize(value.trim()));
    match (status.is_empty(), server) {
        (true, None) => "it closed without a word".to_owned(),
        (_, None) => status,
        (_, Some(server)) => format!("{status}, Server: {server}"),
    }
}

/// Control characters would let a stranger write lines of its own into a terminal.
fn sanitize(line: &str) -> String {
    line.chars().take(MAX_SHOWN).map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect()
}
