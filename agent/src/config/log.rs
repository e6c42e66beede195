//! Log level, log format, and whether there is an audit log.
//!
//! Owns: the names of the levels, including those of Amazon's agent. Must not know: how a line is written.

use super::boolean::go_bool;
use super::problem::{Problem, Problems};
use crate::cli::ServerArgs;

/// The lowest level of our own targets that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Errors only; `panic` and `fatal` of the logger in Amazon's agent mean the same here.
    Error,
    /// Errors and warnings.
    Warn,
    /// What an operator reads every day.
    Info,
    /// Cache hits as well.
    Debug,
    /// All events of our own. Other crates never log below info.
    Trace,
}

/// The format of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line.
    Json,
    /// For people at a terminal.
    Text,
}

/// All about the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// The level of our own targets.
    pub level: Level,
    /// The format of every line but those of the audit log, which are JSON.
    pub format: Format,
    /// Whether each set of credentials that is issued has a line, at every level.
    pub audit: bool,
}

/// Reads all of it.
pub(super) fn read(args: &ServerArgs, problems: &mut Problems) -> Option<Log> {
    let level = problems.take(level(&args.verbosity));
    let format = problems.take(format(&args.log_format));
    let audit = problems.take(go_bool("--audit-log", &args.audit_log));
    Some(Log { level: level?, format: format?, audit: audit? })
}

/// Reads `-v`: the level names of logrus, the logger in Amazon's agent, in any case, as logrus accepts them.
fn level(text: &str) -> Result<Level, Problem> {
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
fn format(text: &str) -> Result<Format, Problem> {
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
