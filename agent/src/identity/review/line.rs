//! Tokens that wait to be shown to the judge. Pure.
//!
//! Owns: who comes next, and how many of one peer may wait. Must not know: the rates.

use std::collections::VecDeque;
use std::time::Duration;

use super::Question;
use crate::clock::BootTime;
use crate::workload::PeerKey;

/// As many as a node has pods: that is less than a minute by the rates. A token has 16 KiB at most, and
/// usually two.
const MOST: usize = 256;
/// Of a pod; the host may have eight times as many (docs/design/decisions.md#fairness). A pod has one token,
/// and two while that is rotated.
const MOST_OF_PEER: usize = 2;
/// A client that waits has left after this time.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The line.
#[derive(Debug, Default)]
pub(super) struct Line {
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    question: Question,
    since: BootTime,
}

impl Line {
    /// Joins it, unless the token is in it already. `false`: there is no room.
    pub(super) fn join(&mut self, question: &Question, now: BootTime) -> bool {
        self.forget_the_late(now);
        let digest = question.token.digest();
        if self.waiting.iter().any(|waiting| waiting.question.token.digest() == digest) {
            return true;
        }
        let of_peer = self.waiting.iter().filter(|waiting| waiting.question.peer == question.peer).count();
        let has_room = self.waiting.len() < MOST && of_peer < question.peer.allowance(MOST_OF_PEER);
        if has_room {
            self.waiting.push_back(Waiting { question: question.clone(), since: now });
        }
        has_room
    }

    /// The first one of a peer that may.
    pub(super) fn next(&mut self, now: BootTime, mut may: impl FnMut(PeerKey) -> bool) -> Option<Question> {
        self.forget_the_late(now);
        let first = self.waiting.iter().position(|waiting| may(waiting.question.peer))?;
        self.waiting.remove(first).map(|waiting| waiting.question)
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Sends everybody away.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    fn forget_the_late(&mut self, now: BootTime) {
        self.waiting.retain(|waiting| now.since(waiting.since) < LONGEST_WAIT);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Line, MOST};
    use crate::clock::BootTime;
    use crate::identity::review::tests::question;

    fn at(seconds: u64) -> BootTime {
        BootTime::from_boot(Duration::from_secs(seconds))
    }

    #[test]
    fn a_pod_has_two_places_the_host_sixteen_and_a_token_one() {
        let mut line = Line::default();
        let joined = |line: &mut Line, peer, shares, tokens: std::ops::Range<u32>| {
            tokens.filter(|token| line.join(&question(*token, peer, shares), at(1))).count()
        };
        assert_eq!(joined(&mut line, 1, 1, 0..10), 2);
        assert!(line.join(&question(0, 1, 1), at(1)), "it is there already");
        assert_eq!(joined(&mut line, 2, 8, 100..200), 16);
        assert_eq!(line.waiting.len(), 18);
        for peer in 3..250 {
            let first = u32::from(peer) * 1_000;
            joined(&mut line, peer, 1, first..first + 10);
        }
        assert_eq!(line.waiting.len(), MOST);
    }

    #[test]
    fn the_first_one_that_may_comes_next_and_nobody_waits_longer_than_its_client() {
        let mut line = Line::default();
        for (token, peer, since) in [(1, 1, 1), (2, 2, 2), (3, 1, 3)] {
            assert!(line.join(&question(token, peer, 1), at(since)));
        }
        let digest = |token| question(token, 0, 1).token.digest();
        let second = line.next(at(3), |peer| peer == question(0, 2, 1).peer).unwrap();
        assert_eq!(second.token.digest(), digest(2));
        assert!(line.next(at(3), |_| false).is_none());
        assert_eq!(line.next(at(6), |_| true).unwrap().token.digest(), digest(3), "the first was late");
        assert!(line.is_empty());
    }
}
