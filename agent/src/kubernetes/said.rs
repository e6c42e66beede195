//! What the API server says, and what a library says of its answers, without the tokens that were shown to
//! it.
//!
//! Owns: that no error of this folder quotes a token. Must not know: what was asked. A gateway before the API
//! server may quote what it refuses, and a parser quotes what it cannot read.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::secret::Secret;
use crate::telemetry::error_chain::ErrorChain;
use crate::words::{CallSecrets, one_line};

/// A sentence of somebody else: one short line that quotes no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said(Arc<str>);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The agent's own tokens that may have been shown. kube reads the file by itself and keeps what it read for
/// a minute, in which the kubelet may have written the next one: so the last two are known.
#[derive(Debug)]
pub(super) struct OwnTokens {
    file: PathBuf,
    last: Mutex<LastTwo>,
}

#[derive(Debug, Default)]
struct LastTwo {
    latest: Option<Secret>,
    before: Option<Secret>,
}

impl OwnTokens {
    pub(super) fn new(file: PathBuf) -> Self {
        Self { file, last: Mutex::default() }
    }

    /// Before a request: what it will show is known.
    pub(super) fn note(&self) {
        // Without a file nothing is shown.
        let Ok(token) = std::fs::read_to_string(&self.file).map(Secret::new) else { return };
        let mut last = self.last.lock();
        if last.latest.as_ref() != Some(&token) {
            last.before = last.latest.replace(token);
        }
    }

    /// What may be repeated of a sentence.
    pub(super) fn said(&self, text: &str) -> Said {
        self.said_without(None, text)
    }

    /// The same, where this secret was sent too.
    pub(super) fn said_without(&self, secret: Option<&str>, text: &str) -> Said {
        let last = self.last.lock();
        let tokens = [&last.latest, &last.before].into_iter().flatten();
        let secrets = CallSecrets::new(tokens.map(|token| token.reveal().trim()).chain(secret));
        Said(one_line(&secrets.redact(text)))
    }

    /// The same of an error with all its causes.
    pub(super) fn said_by(&self, error: &(dyn Error + 'static)) -> Said {
        self.said(&ErrorChain(error).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::OwnTokens;

    #[test]
    fn neither_the_token_of_now_nor_the_one_before_is_quoted() {
        let file = std::env::temp_dir().join(format!("pod-identity-agent-said-{}", std::process::id()));
        let tokens = OwnTokens::new(file.clone());
        let [first, second] = ["first.token-of-the-agent", "second.token-of-the-agent"];
        for token in [first, first, second, second] {
            std::fs::write(&file, format!("{token}\n")).unwrap();
            tokens.note();
        }
        std::fs::remove_file(&file).unwrap();
        tokens.note();
        let says = format!("no\n{first}, no {second}, no token-of-a-pod");
        assert_eq!(tokens.said(&says).to_string(), "no [redacted], no [redacted], no token-of-a-pod");
        let said = tokens.said_without(Some("token-of-a-pod"), &says);
        assert_eq!(said.to_string(), "no [redacted], no [redacted], no [redacted]");
    }
}
