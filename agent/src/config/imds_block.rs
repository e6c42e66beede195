//! What is done with pods that connect to the instance metadata service.
//!
//! Owns: the words of `--block-imds`. Must not know: how it is done.

use super::boolean::go_bool;
use super::problem::Problem;

/// The value of `--block-imds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImdsBlock {
    /// Nothing.
    Off,
    /// Connections are counted, and let through.
    Observe,
    /// They are counted and rejected.
    On,
}

impl ImdsBlock {
    /// Reads the flag: one of the three words, or a boolean, which the flag was at first.
    ///
    /// # Errors
    /// [`Problem`], when it is neither.
    pub(super) fn read(text: &str) -> Result<Self, Problem> {
        match text {
            "off" => Ok(Self::Off),
            "observe" => Ok(Self::Observe),
            "on" => Ok(Self::On),
            _ => match go_bool("--block-imds", text) {
                Ok(true) => Ok(Self::On),
                Ok(false) => Ok(Self::Off),
                Err(_) => Err(Problem::with_value("--block-imds", "must be off, observe or on", text)),
            },
        }
    }

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Observe => "observe",
            Self::On => "on",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ImdsBlock;

    #[test]
    fn the_flag_is_one_of_three_words_or_a_boolean() {
        for (texts, expected) in [
            (&["off", "false", "0", "F"][..], Some(ImdsBlock::Off)),
            (&["observe"], Some(ImdsBlock::Observe)),
            (&["on", "true", "1", "True"], Some(ImdsBlock::On)),
            (&["", "ON", "Observe", "yes", "audit", " on"], None),
        ] {
            for text in texts {
                assert_eq!(ImdsBlock::read(text).ok(), expected, "{text:?}");
            }
        }
        let problem = ImdsBlock::read("audit").unwrap_err().to_string();
        assert!(problem.contains("must be off, observe or on"), "{problem}");
        for mode in [ImdsBlock::Off, ImdsBlock::Observe, ImdsBlock::On] {
            assert_eq!(ImdsBlock::read(mode.as_str()), Ok(mode));
        }
    }
}
