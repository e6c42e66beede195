//! The API server's switch, and what a test needs to change its keys.
//!
//! Owns: that a start is over when the API server is ready. Must not know: what a test is about.

use super::{Cluster, eventually, succeeded};

/// How the API server is stopped.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stop {
    /// For five seconds it listens no more and keeps the watches that it has.
    Term,
    /// At once.
    Kill,
}

impl Cluster {
    /// Stops the API server; it stays away until [`Self::start_api_server`].
    pub(crate) fn stop_api_server(&self, how: Stop) {
        match how {
            Stop::Term => self.order(&["stop"]),
            Stop::Kill => self.order(&["stop", "--kill"]),
        }
    }

    /// From now on it takes connections, keeps those it has, and answers nothing.
    pub(crate) fn freeze_api_server(&self) {
        self.order(&["freeze"]);
    }

    /// Starts the API server with these flags instead of its own of the same names, and waits until it is
    /// ready.
    pub(crate) fn start_api_server(&self, flags: &[String]) {
        let flags = flags.iter().map(String::as_str);
        self.order(&["start", "--"].into_iter().chain(flags).collect::<Vec<_>>());
        eventually("the API server is ready", || {
            let ready = self.try_kubectl(&["get", "--raw", "/readyz", "--request-timeout", "2s"]);
            ready.status.success()
        });
    }

    /// The file of the key that signs tokens, and that of another which AWS accepts too, as the API server
    /// sees them.
    pub(crate) fn signing_keys(&self) -> [&str; 2] {
        ["signingKey", "nextSigningKey"].map(|key| self.text(key))
    }

    /// `iss` of tokens.
    pub(crate) fn issuer(&self) -> &str {
        self.text("issuer")
    }

    fn order(&self, order: &[&str]) {
        let folder = self.folder().to_string_lossy();
        let mut switch = self.program();
        let output = switch.args(["api-server", "--cluster", &folder]).args(order).output();
        succeeded("api-server", order, &output.expect("the switch runs"));
    }
}
