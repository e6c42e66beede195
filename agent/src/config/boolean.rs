//! The two spellings of a boolean: Go's, in flags, and the AWS SDKs', in environment variables.
//!
//! Owns: the words that each accepts. Must not know: what a setting turns on.

use super::problem::Problem;

/// The rule that both report for other words.
const RULE: &str = "must be true or false";

/// The value of a flag, as in Go's `strconv.ParseBool`, which pflag in Amazon's agent calls.
pub(super) fn go_bool(setting: &str, text: &str) -> Result<bool, Problem> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Problem::with_value(setting, RULE, text)),
    }
}

/// The value of a variable, as the AWS SDKs read it: `true` or `false` in any case, nothing else. Unset is
/// false.
pub(super) fn aws_bool(setting: &str, value: Option<&str>) -> Result<bool, Problem> {
    match value {
        None => Ok(false),
        Some(value) if value.eq_ignore_ascii_case("true") => Ok(true),
        Some(value) if value.eq_ignore_ascii_case("false") => Ok(false),
        Some(value) => Err(Problem::with_value(setting, RULE, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::{aws_bool, go_bool};

    #[test]
    fn flags_and_variables_accept_different_words() {
        let cases = [
            ("true", Some(true), Some(true)),
            ("True", Some(true), Some(true)),
            ("TRUE", Some(true), Some(true)),
            ("tRUE", None, Some(true)),
            ("false", Some(false), Some(false)),
            ("False", Some(false), Some(false)),
            ("FALSE", Some(false), Some(false)),
            ("fALSE", None, Some(false)),
            ("1", Some(true), None),
            ("0", Some(false), None),
            ("t", Some(true), None),
            ("T", Some(true), None),
            ("f", Some(false), None),
            ("F", Some(false), None),
            ("yes", None, None),
            ("on", None, None),
            (" true", None, None),
            ("", None, None),
        ];
        for (text, of_flag, of_variable) in cases {
            assert_eq!(go_bool("--flag", text).ok(), of_flag, "flag {text:?}");
            assert_eq!(aws_bool("AWS_FLAG", Some(text)).ok(), of_variable, "variable {text:?}");
        }
        assert_eq!(aws_bool("AWS_FLAG", None), Ok(false));
    }
}
