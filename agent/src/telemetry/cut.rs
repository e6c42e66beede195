//! What is written of one value: so much that it helps, never so much that it fills the log.
//!
//! Owns: how long a field may be. Must not know: formats. Values come from tokens, from other programs'
//! answers and from errors that quote them, so the limit is here, where all of them pass, and not with each.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// Of a field, in characters: the longest name in Kubernetes (RFC 1123 subdomain).
const LONGEST: usize = 253;
/// Fields that are longer by their nature, and why that is bounded.
const LONGER: [(&str, usize); 5] = [
    // The configuration of this process: at most its arguments and environment.
    ("config", 8_192),
    // A sentence about a value of the configuration.
    ("notice", 1_000),
    // The sentence itself. Ours are constant; other crates may format theirs.
    ("message", 1_000),
    // A chain of errors: the cause is at its end.
    ("err", 1_000),
    // Of a condition: one sentence for each address or source.
    ("reason", 1_000),
];
/// The message of a refusal, as AWS sent it. It reaches the pod with as many.
const AWS_MESSAGES: (&str, usize) = ("aws.message", 400);

/// How many characters of a field with this name are written.
fn longest(field: &str) -> usize {
    let longer = LONGER.iter().chain([&AWS_MESSAGES]).find(|(name, _)| *name == field);
    longer.map_or(LONGEST, |(_, longest)| *longest)
}

/// A text, cut to what a field with this name may have. `…` stands for the rest.
pub(super) fn text<'a>(field: &str, text: &'a str) -> Cow<'a, str> {
    match text.char_indices().nth(longest(field)) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}…", text.get(..end).unwrap_or_default())),
    }
}

/// The same of a value as it formats itself. The rest is not even kept: it may be megabytes.
pub(super) fn debug(field: &str, value: &dyn fmt::Debug) -> String {
    let mut cut = Cut { text: String::new(), left: longest(field) };
    // It ends with an error where it is cut; writing to a String does not fail.
    match write!(cut, "{value:?}") {
        Ok(()) => {}
        Err(fmt::Error) => cut.text.push('…'),
    }
    cut.text
}

struct Cut {
    text: String,
    left: usize,
}

impl Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            self.left = self.left.checked_sub(1).ok_or(fmt::Error)?;
            self.text.push(character);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{debug, text};

    #[test]
    fn a_field_has_at_most_253_characters_and_few_have_more() {
        let long = "ä".repeat(5_000);
        for (field, kept) in [("claimed.name", 253), ("aws.message", 400), ("err", 1_000)] {
            let cut = format!("{}…", "ä".repeat(kept));
            assert_eq!(text(field, &long), cut, "{field}");
            assert_eq!(debug(field, &format_args!("{long}")), cut, "{field}");
            let exact = "ä".repeat(kept);
            assert_eq!(text(field, &exact), exact, "{field}");
            assert_eq!(debug(field, &format_args!("{exact}")), exact, "{field}");
        }
    }
}
