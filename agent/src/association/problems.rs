//! All that is wrong in a file, in one line for people.
//!
//! Owns: how many problems are named. Must not know: which there are.

use std::fmt;

/// More are only counted: someone who has mended so many reads the next ones then.
const MOST_NAMED: usize = 10;
/// What is quoted of a file, in characters.
const MOST_QUOTED: usize = 100;

/// What is wrong in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Problems {
    named: Vec<String>,
    more: usize,
}

impl Problems {
    /// This one alone.
    pub(super) fn one(problem: impl Into<String>) -> Self {
        let mut problems = Self::default();
        problems.add(problem);
        problems
    }

    /// One more.
    pub(super) fn add(&mut self, problem: impl Into<String>) {
        match self.named.len() < MOST_NAMED {
            true => self.named.push(problem.into()),
            false => self.more += 1,
        }
    }

    /// This value, if nothing is wrong.
    pub(super) fn or<T>(self, value: T) -> Result<T, Self> {
        if self.named.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.named.join("; "))?;
        match self.more {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl std::error::Error for Problems {}

/// A text of the file in quotes, without control characters.
pub(super) fn quoted(text: &str) -> String {
    format!("{:?}", text.chars().take(MOST_QUOTED).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::Problems;

    #[test]
    fn ten_problems_are_named_and_the_rest_counted() {
        assert_eq!(Problems::default().or(1), Ok(1));
        let mut problems = Problems::one("a");
        assert_eq!(problems.to_string(), "a");
        ["b"; 14].into_iter().for_each(|problem| problems.add(problem));
        assert_eq!(problems.to_string(), format!("a{}; and 5 more", "; b".repeat(9)));
        assert!(problems.or(1).is_err());
    }
}
