//! Configuration problems: one per setting, all reported at once.
//!
//! Owns: how a problem is worded, and collecting problems. Must not know: any rule.

use std::fmt;

/// One invalid setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    setting: String,
    rule: String,
    value: Option<String>,
}

impl Problem {
    /// A problem that shows its value. Only for settings that cannot contain a secret.
    pub(super) fn with_value(setting: &str, rule: impl Into<String>, value: &str) -> Self {
        Self { value: Some(value.to_owned()), ..Self::without_value(setting, rule) }
    }

    /// A problem of a setting that is missing, or that may contain a secret.
    pub(super) fn without_value(setting: &str, rule: impl Into<String>) -> Self {
        Self { setting: setting.to_owned(), rule: rule.into(), value: None }
    }

    /// The flag or variable, as a user writes it.
    pub fn setting(&self) -> &str {
        &self.setting
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.setting, self.rule)?;
        match &self.value {
            // Quoted, so that spaces and newlines are visible.
            Some(value) => write!(f, " (got {value:?})"),
            None => Ok(()),
        }
    }
}

/// Every problem of a configuration, in the order of the flags.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid configuration, {} problem(s)", .0.len())]
pub struct ConfigError(Vec<Problem>);

impl ConfigError {
    /// The problems, at least one.
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

/// Collects problems while the settings are read one after the other.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<Problem>);

impl Problems {
    /// Notes a problem, once: two parts may need the same setting.
    pub(super) fn note(&mut self, problem: Problem) {
        if !self.0.contains(&problem) {
            self.0.push(problem);
        }
    }

    /// The value of a setting; if there is a problem, notes it and returns nothing.
    pub(super) fn take<T>(&mut self, read: Result<T, Problem>) -> Option<T> {
        read.map_err(|problem| self.note(problem)).ok()
    }

    /// The whole, if every part is there and no problem was noted.
    pub(super) fn finish<T>(self, whole: Option<T>) -> Result<T, ConfigError> {
        match whole {
            Some(whole) if self.0.is_empty() => Ok(whole),
            Some(_) | None => Err(ConfigError(self.0)),
        }
    }
}
