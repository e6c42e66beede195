//! Asking others about a token that nothing here decides.
//!
//! Owns: who is asked first, and for how long a request waits for them. Must not know: how a source of keys
//! is read (`keys`), or at which rates the API server is asked (`review`).

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use tokio::time::Instant;

use super::{Authenticator, Found, OpenToken};
use crate::clock::{BootTime, Now};
use crate::config::VerificationMode;
use crate::identity::keys::{FIRST_READS_APART, Refetch};
use crate::identity::review::{Asked as Reviewed, Patience};
use crate::identity::verdict::{Authentication, Identity};
use crate::identity::verify::Unproven;
use crate::workload::{BearerToken, PeerKey};

/// How long a token that only an unknown key could prove waits for the sources, where there is another judge:
/// a document comes within a few hundred milliseconds, and clients of the 1 s family
/// (docs/design/client-contract.md#holding) must still get their answer.
pub(super) const KEY_WAIT: Duration = Duration::from_millis(500);
/// The same where there is no other judge than keys that have not come yet, or the API server; the request is
/// held no longer than that.
pub const FIRST_KEYS_WAIT: Duration = Duration::from_millis(4_400);

/// A token that was asked about in time has the answer of the API server by then: its deadline.
const REVIEWED_WITHIN: Duration = Duration::from_secs(5);

/// What asking others led to.
enum Asked {
    Judged(Authentication),
    /// They have been asked, and have not decided it. Until that time (without one: until keys change) no
    /// request needs to wait for them with this token.
    Undecided(Option<BootTime>),
    /// They have not been asked, because of the rates.
    NotNow,
}

impl Authenticator {
    /// Asks those who may know more of a token, where the rates allow: the sources of keys first, then the
    /// API server. Waits for them a moment, and judges the token. Dropping it cancels the waiting and nothing
    /// else.
    pub async fn ask_others(
        &self,
        open: &OpenToken,
        token: &BearerToken,
        peer: PeerKey,
        now: Now,
    ) -> Authentication {
        let is_required = open.mode == VerificationMode::Required;
        let asked = match open.unproven {
            Unproven::KeyUnknown if is_required && !self.keys.are_complete() => {
                self.until_first_keys(open, token, peer, now).await
            }
            Unproven::KeyUnknown => self.ask_sources_then_reviewer(open, token, peer, now).await,
            Unproven::ForeignIssuer(_) | Unproven::NoKeys => {
                let deadline = Instant::now() + open.longest_wait();
                self.ask_reviewer(open, token, peer, deadline, now).await
            }
        };
        let asked = match asked {
            Asked::Judged(authentication) => return authentication,
            Asked::NotNow => None,
            Asked::Undecided(until) => match self.find(token, now) {
                // Also when the time is over: a key may have come in the same moment.
                Found::Judged(authentication) | Found::Due(authentication) => return authentication,
                Found::Open(open) => Some((open, until)),
            },
        };
        self.say_open(open, open.what_follows(), now);
        let Some((open, until)) = asked else { return open.meanwhile.clone() };
        if let Authentication::Identified(identity @ Identity::Unverified(_)) = &open.meanwhile {
            // They were asked: until they say something new, no request needs to wait for them with this
            // token. Since that look they may have: then it is judged anew.
            self.cache.remember(identity.clone(), open.generation, until);
        }
        open.meanwhile
    }

    /// There is no other judge than keys that have not come yet, and the API server.
    async fn until_first_keys(
        &self,
        open: &OpenToken,
        token: &BearerToken,
        peer: PeerKey,
        now: Now,
    ) -> Asked {
        let deadline = Instant::now() + FIRST_KEYS_WAIT;
        let by_key = self.until_judged(self.keys.watch_reads(), token, now);
        let by_review = async {
            // A key costs the API server nothing, so each source is read once before.
            if let judged @ Asked::Judged(_) =
                self.until_judged(self.keys.watch_first_reads(), token, now).await
            {
                return judged;
            }
            match self.ask_reviewer(open, token, peer, deadline, now).await {
                judged @ Asked::Judged(_) => judged,
                Asked::Undecided(_) | Asked::NotNow => pending().await,
            }
        };
        tokio::select! {
            // In this order: a key that is there is not passed over, and costs the API server nothing.
            biased;
            asked = by_key => asked,
            asked = by_review => asked,
            () = tokio::time::sleep_until(deadline) => Asked::Undecided(None),
            never = self.keep_asking(now) => match never {},
        }
    }

    async fn ask_sources_then_reviewer(
        &self,
        open: &OpenToken,
        token: &BearerToken,
        peer: PeerKey,
        now: Now,
    ) -> Asked {
        let began = Instant::now();
        let of_sources = match self.keys.request_refetch(peer, now.boot) {
            Some(refetch) => {
                let asked = tokio::time::timeout(KEY_WAIT, self.until_judged(refetch, token, now)).await;
                asked.unwrap_or(Asked::Undecided(None))
            }
            None => Asked::NotNow,
        };
        match of_sources {
            Asked::Judged(_) => return of_sources,
            Asked::Undecided(_) if self.reviews.is_none() => return of_sources,
            Asked::Undecided(_) | Asked::NotNow => {}
        }
        // The waiting is one, so it may be over: then it is reviewed for the next request.
        let deadline = began + open.longest_wait();
        match (self.ask_reviewer(open, token, peer, deadline, now).await, of_sources) {
            (Asked::NotNow, Asked::Undecided(_)) => Asked::Undecided(Some(now.boot.plus(REVIEWED_WITHIN))),
            (of_reviewer, _) => of_reviewer,
        }
    }

    async fn ask_reviewer(
        &self,
        open: &OpenToken,
        token: &BearerToken,
        peer: PeerKey,
        deadline: Instant,
        now: Now,
    ) -> Asked {
        let Some((reviews, question)) = self.question(token, peer) else { return Asked::NotNow };
        let patience = match open.mode {
            VerificationMode::Auto | VerificationMode::Off => Patience::Little,
            VerificationMode::Required => Patience::Great,
        };
        match tokio::time::timeout_at(deadline, reviews.ask(&question, patience, now.boot)).await {
            Ok(Reviewed::Answered) => match self.find(token, now) {
                Found::Judged(authentication) | Found::Due(authentication) => Asked::Judged(authentication),
                Found::Open(_) => Asked::Undecided(None),
            },
            Ok(Reviewed::NotNow(None)) => Asked::NotNow,
            Ok(Reviewed::NotNow(until)) => Asked::Undecided(until),
            Err(_elapsed) => Asked::Undecided(Some(now.boot.plus(REVIEWED_WITHIN))),
        }
    }

    /// Judges a token each time that a source has been read, until something decides or all have been read.
    async fn until_judged(&self, mut reads: Refetch, token: &BearerToken, now: Now) -> Asked {
        loop {
            // First the result, then the look: a result from before this call counts as well.
            let are_more_to_come = reads.next_result().await;
            match self.find(token, now) {
                Found::Judged(authentication) | Found::Due(authentication) => {
                    return Asked::Judged(authentication);
                }
                Found::Open(_) if are_more_to_come => {}
                Found::Open(_) => return Asked::Undecided(None),
            }
        }
    }

    /// Has a source that has given nothing yet read often while somebody waits for it: after an outage its
    /// own retries are half a minute apart. Never ends.
    async fn keep_asking(&self, now: Now) -> Infallible {
        let began = Instant::now();
        loop {
            self.keys.request_first_read(now.boot.plus(began.elapsed()));
            tokio::time::sleep(FIRST_READS_APART).await;
        }
    }
}
