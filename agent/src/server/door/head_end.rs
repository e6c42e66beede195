//! Whether the bytes so far end in the middle of a request head.
//!
//! Owns: where a head ends, as hyper's parser sees it: at an empty line, with or without carriage returns.
//! Must not know: what a head says. A body counts as the beginning of a head: hyper closes a connection
//! with a body that nobody has read.

#[cfg(any(test, fuzzing))]
pub(crate) mod properties;

use memchr::memchr;

/// Follows the bytes of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum HeadEnd {
    /// Between heads.
    #[default]
    Between,
    /// In a line.
    InLine,
    /// At the beginning of a line that is not the first.
    LineBegins,
}

impl HeadEnd {
    /// More bytes have arrived.
    pub(super) fn follow(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            bytes = rest;
            *self = match (*self, *first) {
                (Self::Between, b'\r' | b'\n') | (Self::LineBegins, b'\n') => Self::Between,
                (Self::InLine, b'\n') | (Self::LineBegins, b'\r') => Self::LineBegins,
                (Self::Between | Self::InLine | Self::LineBegins, _) => {
                    // A token is one line of a kilobyte and more: straight to its end.
                    let end = memchr(b'\n', rest).unwrap_or(rest.len());
                    bytes = rest.get(end..).unwrap_or_default();
                    Self::InLine
                }
            };
        }
    }

    /// Whether a head has begun and is not complete.
    pub(super) fn is_in_head(self) -> bool {
        self != Self::Between
    }

    /// Whether these bytes have a whole head.
    pub(super) fn is_in(bytes: &[u8]) -> bool {
        let mut head = Self::default();
        let has_ended = |byte: &u8| {
            let before = head;
            head.follow(std::slice::from_ref(byte));
            before.is_in_head() && !head.is_in_head()
        };
        bytes.iter().any(has_ended)
    }
}

#[cfg(test)]
mod tests {
    use super::HeadEnd;

    #[test]
    fn a_head_ends_at_an_empty_line_however_the_bytes_are_cut() {
        for (bytes, is_in_head, has_whole) in [
            ("", false, false),
            ("\r\n", false, false),
            ("G", true, false),
            ("GET / HTTP/1.1\r\nA: b\r\n", true, false),
            ("GET / HTTP/1.1\r\nA: b\r\n\r\n", false, true),
            ("GET / HTTP/1.1\nA: b\n\n", false, true),
            ("GET / HTTP/1.1\r\n\r\nGET /fa", true, true),
            ("GET / HTTP/1.1\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n", false, true),
        ] {
            for cut in 0..=bytes.len() {
                let (one, two) = bytes.as_bytes().split_at(cut);
                let mut head = HeadEnd::default();
                head.follow(one);
                head.follow(two);
                assert_eq!(head.is_in_head(), is_in_head, "{bytes:?} cut at {cut}");
            }
            assert_eq!(HeadEnd::is_in(bytes.as_bytes()), has_whole, "{bytes:?}");
        }
    }
}
