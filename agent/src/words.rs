//! The words of AWS and of the API server, made fit for a log line, a condition and a client.
//!
//! Owns: what of a message is passed on. Must not know: whom it is about.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

/// The longest message that is passed on, in characters.
const LONGEST_MESSAGE: usize = 400;
/// The longest request id that is passed on, in bytes; AWS's have 36.
const LONGEST_REQUEST_ID: usize = 128;
/// The longest code that is passed on, in bytes; AWS's longest have under 50.
const LONGEST_CODE: usize = 64;

/// The shortest piece of a secret that is not passed on, in bytes. Sentences have none of that length in
/// common with a token by chance.
const SECRET_PIECE: usize = 12;
/// What stands for the pieces of a secret.
const REDACTED: &str = "[redacted]";

/// The secrets that went into one call. An answer may quote them: AWS quotes the canonical request of a
/// signature that does not match, proxies and gateways quote what they refuse, and a parser quotes what it
/// cannot read.
pub struct CallSecrets<'a> {
    pieces: HashSet<&'a [u8]>,
}

impl<'a> CallSecrets<'a> {
    /// These secrets. A shorter one than a piece is left alone: it would be found everywhere.
    pub fn new(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            pieces: secrets.into_iter().flat_map(|secret| secret.as_bytes().windows(SECRET_PIECE)).collect(),
        }
    }

    /// The text with `[redacted]` for each piece of a secret.
    pub fn redact<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut secret_until = 0;
        let is_secret: Vec<bool> = (0..text.len())
            .map(|at| {
                let piece = text.as_bytes().get(at..at + SECRET_PIECE);
                if piece.is_some_and(|piece| self.pieces.contains(piece)) {
                    secret_until = at + SECRET_PIECE;
                }
                at < secret_until
            })
            .collect();
        if secret_until == 0 {
            return Cow::Borrowed(text);
        }
        let mut redacted = String::new();
        let mut was_secret = false;
        for (at, c) in text.char_indices() {
            // A part of a character is as good as the whole.
            let is_secret = is_secret.iter().skip(at).take(c.len_utf8()).any(|is_secret| *is_secret);
            match (is_secret, was_secret) {
                (false, _) => redacted.push(c),
                (true, false) => redacted.push_str(REDACTED),
                (true, true) => {}
            }
            was_secret = is_secret;
        }
        Cow::Owned(redacted)
    }
}

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

#[cfg(test)]
mod tests {
    use super::CallSecrets;

    const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJwb2RzIn0.c2lnbmF0dXJl";

    #[test]
    fn every_piece_of_a_secret_is_redacted_and_nothing_else() {
        let secrets = CallSecrets::new([TOKEN, "short"]);
        for (said, told) in [
            (format!("the token {TOKEN} is invalid"), "the token [redacted] is invalid"),
            (format!("é{TOKEN}é"), "é[redacted]é"),
            (format!("{}…", &TOKEN[..20]), "[redacted]…"),
            (format!("{}-{}", &TOKEN[3..15], &TOKEN[30..]), "[redacted]-[redacted]"),
            (format!("{0} {0}", &TOKEN[..11]), "eyJhbGciOiJ eyJhbGciOiJ"),
            ("short and eyJhbGciOiX".to_owned(), "short and eyJhbGciOiX"),
            (String::new(), ""),
        ] {
            assert_eq!(secrets.redact(&said), told);
        }
    }
}
