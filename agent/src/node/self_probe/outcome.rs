//! What an answer means.
//!
//! Owns: the verdicts, and their sentences. Pure. Must not know: how the answer was had.
//!
//! What others said is shown to operators, so it is cut short and cleaned of whatever is not plain text.

use std::net::SocketAddr;

use super::probe_key::{Nonce, ProbeKey};
use super::request::{AskError, ProbeResponse};

/// Characters that are shown of one line that somebody else has sent.
const MOST_SHOWN: usize = 120;

/// Who answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The agent, directly.
    Ours,
    /// The agent, but it was asked by somebody else in our name.
    Forwarded {
        /// Whom the agent saw.
        seen: SocketAddr,
    },
    /// Not this agent.
    SomeoneElse {
        /// Its status line, and its `Server` header where it has one.
        said: String,
    },
    /// Nobody.
    Nobody {
        /// What happened instead.
        why: String,
    },
    /// The address is not on this node; that is told elsewhere.
    Absent,
}

/// Judges what was heard.
pub(super) fn judge(seal: &ProbeKey, nonce: &Nonce, heard: &Result<ProbeResponse, AskError>) -> Verdict {
    let heard = match heard {
        Ok(heard) => heard,
        Err(AskError::Absent) => return Verdict::Absent,
        Err(error @ (AskError::Connect(_) | AskError::Broken(_) | AskError::Silent)) => {
            return Verdict::Nobody { why: error.to_string() };
        }
    };
    let text = String::from_utf8_lossy(&heard.said);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    match seal.open(nonce, body) {
        Some(sealed) if sealed.peer == heard.local => Verdict::Ours,
        Some(sealed) => Verdict::Forwarded { seen: sealed.peer },
        None => Verdict::SomeoneElse { said: introduction(head) },
    }
}

impl Verdict {
    /// The sentence about the address `on`.
    pub(super) fn about(&self, on: SocketAddr) -> String {
        match self {
            Self::Ours => format!("the agent answers on {on}"),
            Self::Forwarded { seen } => {
                format!(
                    "something between forwards {on} to the agent, which saw {seen} ask: tokens pass through it"
                )
            }
            Self::SomeoneElse { said } => format!("someone else answers on {on}: {said}"),
            Self::Nobody { why } => format!("nobody answers on {on}: {why}"),
            Self::Absent => format!("{} is not on this node", on.ip()),
        }
    }
}

fn introduction(head: &str) -> String {
    let mut lines = head.lines();
    let status = lines.next().map_or_else(String::new, shown);
    let server = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("server"))
        .map(|(_, value)| shown(value.trim()));
    match (status.is_empty(), server) {
        (true, None) => "it closed without a word".to_owned(),
        (_, None) => status,
        (_, Some(server)) => format!("{status}, Server: {server}"),
    }
}

/// Control characters would let a stranger write lines of its own into a terminal.
fn shown(line: &str) -> String {
    line.chars().take(MOST_SHOWN).map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect()
}
