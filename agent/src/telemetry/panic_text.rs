//! What is shown of a panic.
//!
//! Owns: which part of it may be shown. Must not know: where it is written. A message that was made when the
//! panic happened may quote anything: the token that could not be parsed, the error of a library with a
//! request in it. A text of the source code quotes nothing.

use std::panic::PanicHookInfo;

/// Characters of a text that are shown.
const LONGEST: usize = 120;
/// Instead of a message that was made up at that moment.
const NOT_SHOWN: &str = "(not shown: it may quote anything)";

/// The text of the panic, if the source code has it; cut, and without control characters.
pub fn message(panic: &PanicHookInfo<'_>) -> String {
    let literal = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or(NOT_SHOWN);
    literal.chars().take(LONGEST).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
