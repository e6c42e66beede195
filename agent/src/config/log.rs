//! What is logged, and in which form.
//!
//! Owns: the levels' names, the Amazon agent's included. Must not know: how a line is written.

use super::problem::Problem;

/// The lowest level of our own targets that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Errors only; `panic` and `fatal` of the Amazon agent's logger mean the same here.
    Error,
    /// Warnings too.
    Warn,
    /// What an operator wants to read every day.
    Info,
    /// Cache hits too.
    Debug,
    /// Everything of ours. Never more of foreign crates than at info.
    Trace,
}

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// For people at a terminal.
    Text,
}

/// Level and form together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// The level of our own targets.
    pub level: Level,
    /// The form of every line.
    pub format: Format,
}

/// Reads `-v`: the names of logrus, the Amazon agent's logger, in any case as logrus takes them.
pub(super) fn level(text: &str) -> Result<Level, Problem> {
    match text.to_ascii_lowercase().as_str() {
        "panic" | "fatal" | "error" => Ok(Level::Error),
        "warn" | "warning" => Ok(Level::Warn),
        "info" => Ok(Level::Info),
        "debug" => Ok(Level::Debug),
        "trace" => Ok(Level::Trace),
        _ => Err(Problem::with_value(
            "--verbosity",
            "must be panic, fatal, error, warn, info, debug or trace",
            text,
        )),
    }
}

/// Reads `--log-format`.
pub(super) fn format(text: &str) -> Result<Format, Problem> {
    match text {
        "json" => Ok(Format::Json),
        "text" => Ok(Format::Text),
        _ => Err(Problem::with_value("--log-format", "must be json or text", text)),
    }
}

#[cfg(test)]
mod tests {
    use super::{Format, Level, format, level};

    #[test]
    fn the_amazon_agents_levels_are_levels() {
        let levels = [
            ("panic", Level::Error),
            ("error", Level::Error),
            ("info", Level::Info),
            ("trace", Level::Trace),
        ];
        for (text, expected) in levels.into_iter().chain([("FATAL", Level::Error), ("warning", Level::Warn)])
        {
            assert_eq!(level(text).unwrap(), expected, "{text}");
        }
        assert!(level("loud").unwrap_err().to_string().starts_with("--verbosity"));
        assert_eq!(format("text").unwrap(), Format::Text);
        assert!(format("xml").is_err());
    }
}
