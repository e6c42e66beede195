//! An error with its causes, on one line.
//!
//! Owns: the form `error: cause: cause`. Must not know: which error it is. Each error type shows only its own
//! level; the chain is written here, where the error is logged.

use std::error::Error;
use std::fmt;

/// Shows an error and its sources.
pub struct ErrorChain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        std::iter::successors(self.0.source(), |&error| error.source())
            .try_for_each(|error| write!(f, ": {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::ErrorChain;
    use crate::server::door::bind::BindError;

    #[test]
    fn every_level_is_shown_once() {
        let source = std::io::Error::other("in use");
        let error = BindError { address: ([127, 0, 0, 1], 80).into(), source };
        assert_eq!(ErrorChain(&error).to_string(), "cannot listen on 127.0.0.1:80: in use");
    }
}
