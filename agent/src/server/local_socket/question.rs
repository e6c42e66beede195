//! What can be asked over the socket.
//!
//! Owns: how a question is written. Must not know: its answer.

use std::fmt;

/// A question; the list is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Whether the event loop runs.
    Live,
    /// Whether the agent serves pods; if not, why.
    Ready,
    /// All that is known, with so many identities at most.
    Status {
        /// Identities in the answer.
        most: usize,
    },
}

/// The longest question, in bytes: `status ` and a number.
pub(super) const LONGEST: u64 = 32;
/// The most identities that one answer may have. There is a limit in bytes, too.
pub const MOST_IDENTITIES: usize = 20_000;

impl Question {
    /// Reads a question. `None`: it is none.
    pub fn read(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let question = match (words.next()?, words.next()) {
            ("live", None) => Self::Live,
            ("ready", None) => Self::Ready,
            ("status", Some(most)) => Self::Status { most: most.parse::<usize>().ok()?.min(MOST_IDENTITIES) },
            (_, _) => return None,
        };
        words.next().is_none().then_some(question)
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Live => f.write_str("live"),
            Self::Ready => f.write_str("ready"),
            Self::Status { most } => write!(f, "status {most}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LONGEST, MOST_IDENTITIES, Question};

    #[test]
    fn a_question_is_read_as_it_is_written_and_all_else_is_none() {
        for question in [Question::Live, Question::Ready, Question::Status { most: 0 }] {
            assert_eq!(Question::read(&question.to_string()), Some(question));
        }
        for text in ["", "alive", "live now", "status", "status many", "status 1 2", "status -1"] {
            assert_eq!(Question::read(text), None, "{text}");
        }
    }

    #[test]
    fn nobody_is_told_more_than_the_most_and_the_longest_question_fits() {
        let most = Question::read("status 999999999").unwrap();
        assert_eq!(most, Question::Status { most: MOST_IDENTITIES });
        let longest = Question::Status { most: usize::MAX }.to_string();
        assert!(u64::try_from(longest.len()).unwrap() <= LONGEST, "{longest}");
    }
}
