//! The outcome of a probe.
//!
//! Owns: the possible outcomes, and their messages. Pure. Must not know: how the response was received.
//!
//! Messages show operators what another process has sent, so that is shortened and reduced to plain text.

use std::net::SocketAddr;

use super::probe_key::{Nonce, ProbeKey, client_in};
use super::request::{ProbeResponse, RequestError};
use crate::node::ipv6;

/// Characters that are shown of one line from another process.
const MAX_SHOWN: usize = 120;

/// Which process answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::node) enum ProbeOutcome {
    /// This agent, directly.
    ThisAgent,
    /// This agent, but another process forwarded the request.
    Forwarded {
        /// The client address that the agent saw.
        seen: SocketAddr,
    },
    /// Another agent of this node, which has taken over or is about to be taken over from.
    AnotherAgent,
    /// Another process.
    OtherProcess {
        /// Its status line, and its `Server` header where it has one.
        description: String,
    },
    /// None.
    NoAnswer {
        /// What happened instead.
        reason: String,
    },
    /// The address is none of this node's own.
    AddressMissing,
    /// There is nothing to probe: no IPv6 where the probe comes from.
    FamilyOff,
}

/// The outcome of a probe with this response.
pub(super) fn evaluate(
    probe_key: &ProbeKey,
    nonce: &Nonce,
    response: &Result<ProbeResponse, RequestError>,
) -> ProbeOutcome {
    let response = match response {
        Ok(response) => response,
        Err(RequestError::AddressMissing) => return ProbeOutcome::AddressMissing,
        Err(RequestError::FamilyOff) => return ProbeOutcome::FamilyOff,
        Err(error @ (RequestError::Connect(_) | RequestError::Broken(_) | RequestError::Timeout)) => {
            return ProbeOutcome::NoAnswer { reason: error.to_string() };
        }
    };
    let text = String::from_utf8_lossy(&response.bytes);
    let (head, body) = parts(&text);
    match probe_key.verify(nonce, body) {
        Some(answer) if answer.peer == response.local => ProbeOutcome::ThisAgent,
        Some(answer) => ProbeOutcome::Forwarded { seen: answer.peer },
        None => ProbeOutcome::OtherProcess { description: describe(head) },
    }
}

/// What another agent of this node would have to confirm: an answer to this very connection, which nobody
/// forwarded.
pub(super) fn to_be_confirmed(response: &ProbeResponse) -> Option<String> {
    let text = String::from_utf8_lossy(&response.bytes);
    let (_, answer) = parts(&text);
    (client_in(answer)? == response.local).then(|| answer.to_owned())
}

fn parts(response: &str) -> (&str, &str) {
    response.split_once("\r\n\r\n").unwrap_or((response, ""))
}

impl ProbeOutcome {
    /// The message about the address `on`.
    pub(in crate::node) fn message(&self, on: SocketAddr) -> String {
        match self {
            Self::ThisAgent => format!("the agent answers on {on}"),
            Self::Forwarded { seen } => {
                format!("{on} is forwarded to the agent by a proxy ({seen}), which can read pod tokens")
            }
            Self::AnotherAgent => format!("another agent of this node answers on {on}"),
            Self::OtherProcess { description } => {
                format!(
                    "another process answers on {on} and may receive pod tokens: {description}; \
                     look for a pod with hostPort {}, and see docs/guard.md",
                    on.port()
                )
            }
            Self::NoAnswer { reason } => format!("no process answers on {on}: {reason}"),
            Self::AddressMissing => format!("{} is not an address of this node", on.ip()),
            Self::FamilyOff => format!("{} is not probed: {}", on.ip(), ipv6::SWITCHED_OFF),
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
        (true, None) => "it closed the connection without an answer".to_owned(),
        (_, None) => status,
        (_, Some(server)) => format!("{status}, Server: {server}"),
    }
}

/// Control characters would let the other process write to an operator's terminal.
fn sanitize(line: &str) -> String {
    line.chars().take(MAX_SHOWN).map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect()
}
