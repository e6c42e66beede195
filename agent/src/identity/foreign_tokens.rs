//! Tokens of an issuer or a key that the agent does not have: a mistake in its flags, if none others come.
//!
//! Owns: the warnings, once a minute, and whether a key ever proves a token. Must not know: what happens to
//! such a token.
//!
//! Anybody can make a token of any issuer, so one among many says nothing.

use std::sync::Arc;

use tokio::sync::watch;

use super::last_told::LastTold;
use crate::clock::{BootTime, Clock};
use crate::lifecycle::streak::{CHECK, OnlyFailures, Streak};

/// More than the longest name of an issuer that a cluster has; a token may have one of 16 KiB.
const LONGEST_ISSUER: usize = 256;

/// What was seen of such tokens. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct ForeignTokens(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// A token that a key proves is a success, a foreign one a failure, with a sentence.
    seen: watch::Sender<Streak<String>>,
    /// When it was logged last that tokens are of an issuer that is none of `--issuer`.
    issuer_logged: LastTold,
    /// When it was logged last that tokens name unknown keys.
    key_logged: LastTold,
}

impl ForeignTokens {
    /// A key has proven a token, so keys and issuer are this cluster's.
    pub(super) fn proven(&self) {
        // Each hit comes here: reading is for many at once.
        let is_known = { self.0.seen.borrow().has_only_succeeded() };
        if !is_known {
            self.0.seen.send_if_modified(Streak::succeeded);
        }
    }

    /// A token is of `issuer` and not of one of those that are `expected`; `follows` says what happens to it.
    pub(super) fn of_issuer(&self, issuer: &str, expected: &str, follows: &str, now: BootTime) {
        let issuer: String = issuer.chars().take(LONGEST_ISSUER).flat_map(char::escape_debug).collect();
        if self.0.issuer_logged.is_due(now) {
            tracing::warn!(
                issuer,
                expected,
                "a token is of an issuer that is none of --issuer, nor the one that the API server names; \
                 {follows}"
            );
        }
        // Names do not change while the agent runs: once one was right, this is the token's affair, such as
        // that of a pod of a cluster in this cluster.
        if !self.0.seen.borrow().has_succeeded() {
            self.failed(format!("tokens are of the issuer {issuer}, expected is {expected}; {follows}"), now);
        }
    }

    /// A token of one of the issuers that are `expected` names a key that is none of the `keys` known ones.
    pub(super) fn of_key(&self, keys: usize, expected: &str, follows: &str, now: BootTime) {
        // Once a token was proven, an unknown key is the token's affair, unless no other comes any more.
        if !self.0.seen.borrow().has_succeeded() && self.0.key_logged.is_due(now) {
            tracing::warn!(
                issuer = expected,
                keys,
                "tokens name keys that none of --jwks has, and none was verified yet: are these the keys of \
                 this cluster? {follows}"
            );
        }
        self.failed(format!("tokens name keys that are none of the {keys} known ones; {follows}"), now);
    }

    fn failed(&self, why: String, now: BootTime) {
        self.0.seen.send_modify(|seen| seen.failed(why, now));
    }

    /// Reports why no token is proven, now and at each change, without end; cancel by dropping. `None`: some
    /// is, or none came.
    pub async fn report(self, clock: Clock, mut report: impl FnMut(Option<String>) + Send) {
        let mut seen = self.0.seen.subscribe();
        loop {
            let current = seen.borrow_and_update().clone();
            report(current.says(clock.now().boot).map(|OnlyFailures { since, last_one }| {
                format!("no key has proven any token {since}: {last_one}")
            }));
            tokio::select! {
                // It fails only without a sender, and `self` holds one.
                _changed = seen.changed() => {}
                () = tokio::time::sleep(CHECK), if current.has_failures() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    use parking_lot::Mutex;

    use super::ForeignTokens;
    use crate::clock::{Clock, Simulated};
    use crate::lifecycle::streak::{CHECK, LONG};

    /// What is reported while something happens.
    async fn reported(happens: impl AsyncFnOnce(&ForeignTokens, &Clock)) -> Vec<Option<String>> {
        let clock = Clock::simulated(Simulated::starting_at(UNIX_EPOCH + Duration::from_secs(1_800_000_000)));
        let tokens = ForeignTokens::default();
        let reports = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&reports);
        tokio::select! {
            () = tokens.clone().report(clock.clone(), move |said| seen.lock().push(said)) => {}
            () = happens(&tokens, &clock) => {}
        }
        let mut reports = std::mem::take(&mut *reports.lock());
        reports.dedup();
        reports
    }

    async fn a_moment() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_but_foreign_tokens_is_reported_until_a_key_proves_one() {
        let reports = reported(async |tokens, clock| {
            a_moment().await;
            tokens.of_issuer("https://a/", "https://a", "EKS Auth judges it", clock.now().boot);
            a_moment().await;
            tokens.proven();
            a_moment().await;
            tokens.of_key(1, "https://a", "EKS Auth judges it", clock.now().boot);
            a_moment().await;
        })
        .await;
        let said = "no key has proven any token since the start: tokens are of the issuer https://a/, \
                    expected is https://a; EKS Auth judges it";
        assert_eq!(reports, [None, Some(said.to_owned()), None], "one among others says nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn keys_that_prove_nothing_any_more_are_reported_after_ten_minutes() {
        let reports = reported(async |tokens, clock| {
            tokens.proven();
            for _ in 0..6 {
                tokens.of_key(2, "https://a", "the pod gets 503", clock.now().boot);
                tokio::time::sleep(LONG / 5).await;
            }
            tokio::time::sleep(CHECK).await;
        })
        .await;
        let said = "no key has proven any token for ten minutes: tokens name keys that are none of the 2 \
                    known ones; the pod gets 503";
        assert_eq!(reports, [None, Some(said.to_owned())]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_token_says_of_its_issuer_is_cut_and_cannot_play_tricks_with_a_terminal() {
        let long = format!("https://\u{1b}[2J{}", "x".repeat(16_000));
        let reports = reported(async |tokens, clock| {
            tokens.of_issuer(&long, "https://a", "EKS Auth judges it", clock.now().boot);
            a_moment().await;
        })
        .await;
        let said = reports.last().cloned().flatten().expect("it is reported");
        assert!(said.len() < 500 && said.contains("https://\\u{1b}[2Jxxx"), "{said}");
    }
}
