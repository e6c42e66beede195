//! AWS's own words, made fit for a log line, a condition and a client.
//!
//! Owns: what of a message is passed on. Must not know: whom it is about.

use std::sync::Arc;

/// The longest message of AWS that is passed on, in characters.
const LONGEST_MESSAGE: usize = 400;
/// The longest request id that is passed on, in bytes; AWS's have 36.
const LONGEST_REQUEST_ID: usize = 128;
/// The longest code that is passed on, in bytes; AWS's longest have under 50.
const LONGEST_CODE: usize = 64;

/// The sentence as one short line without control characters.
pub fn one_line(message: &str) -> Arc<str> {
    let one_line = message.chars().map(|c| if c.is_control() { ' ' } else { c });
    one_line.take(LONGEST_MESSAGE).collect::<String>().into()
}

/// The request id, if it can be one.
pub fn request_id(id: Option<&str>) -> Option<Arc<str>> {
    id.filter(|id| is_word(id, LONGEST_REQUEST_ID)).map(Arc::from)
}

/// The code, if it can be one.
pub fn code(code: Option<&str>) -> Option<Arc<str>> {
    code.filter(|code| is_word(code, LONGEST_CODE)).map(Arc::from)
}

fn is_word(text: &str, longest: usize) -> bool {
    text.len() <= longest && text.bytes().all(|byte| byte.is_ascii_graphic())
}
