//! The bearer token: bounded, well formed, secret.
//!
//! Owns: which byte strings may be a token at all. Must not know: what is inside it (`identity::claims`) or
//! whether it is genuine (`identity::authenticator`).

#[cfg(any(test, fuzzing))]
pub(crate) mod properties;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::{constant_time, digest};

use crate::secret::Secret;

/// The longest token taken, in bytes. EKS tokens are 1.2 to 2 KB; the contract asks for 16 KiB of headers to
/// pass.
const MAX_LENGTH: usize = 16 * 1024;

/// A token as the client sent it: three base64url parts, not verified.
///
/// Clones share one copy, which is wiped when the last is gone.
#[derive(Clone)]
pub struct BearerToken {
    text: Arc<Secret>,
    digest: TokenDigest,
}

/// A token as somebody presented it, with what matters for using it on: since when and until when.
#[derive(Clone, Debug)]
pub struct PresentedToken {
    /// The token.
    pub token: BearerToken,
    /// Its `exp`.
    pub expires: SystemTime,
    /// Its `iat`, where it says so.
    pub issued: Option<SystemTime>,
}

impl PresentedToken {
    /// From its issue to its end, where it says when it was issued.
    pub fn life(&self) -> Option<Duration> {
        self.expires.duration_since(self.issued?).ok()
    }
}

/// SHA-256 of a whole token. It names a token that nobody has verified, without being a secret itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// Of this token and what it is exchanged for: another role is another key.
    #[must_use]
    pub fn with(&self, parts: &[&str]) -> Self {
        let mut text = self.0.to_vec();
        for part in parts {
            // A length before each, so that no two lists of parts are alike.
            text.extend(part.len().to_be_bytes());
            text.extend(part.as_bytes());
        }
        sha256(&text)
    }

    #[cfg(test)]
    pub(crate) const fn of_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Two bytes of it, which are as good as any hash.
    pub(crate) const fn first_two_bytes(self) -> [u8; 2] {
        let [first, second, ..] = self.0;
        [first, second]
    }
}

impl fmt::Display for TokenDigest {
    /// The first 8 bytes in hex: enough to follow one token through the logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenDigest({self})")
    }
}

/// Why something is not a token. None of these repeats a byte of what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedToken {
    /// The header is missing or blank.
    #[error("the Authorization header is missing or empty")]
    Missing,
    /// More than one `Authorization` header: which of them is meant?
    #[error("more than one Authorization header")]
    Repeated,
    /// Longer than [`MAX_LENGTH`].
    #[error("the token is longer than 16 KiB")]
    TooLong,
    /// Not three base64url parts joined by dots.
    #[error("the Authorization header is not a service account token (three base64url parts joined by dots)")]
    NotAToken,
}

impl BearerToken {
    /// Takes the value of an `Authorization` header.
    ///
    /// SDKs send the bare token. Blanks around it and a `Bearer ` before it are tolerated, because people's
    /// own clients send those (n8n did), and AWS's answer to them is a base64 error that helps nobody.
    ///
    /// # Errors
    /// [`MalformedToken`], when this cannot be a token.
    pub fn from_header(value: &[u8]) -> Result<Self, MalformedToken> {
        if value.len() > MAX_LENGTH + "Bearer ".len() {
            return Err(MalformedToken::TooLong);
        }
        let text = without_scheme(value.trim_ascii());
        if text.is_empty() {
            return Err(MalformedToken::Missing);
        }
        if text.len() > MAX_LENGTH {
            return Err(MalformedToken::TooLong);
        }
        if !is_three_base64url_parts(text) {
            return Err(MalformedToken::NotAToken);
        }
        let text = str::from_utf8(text).map_err(|_| MalformedToken::NotAToken)?;
        let digest = sha256(text.as_bytes());
        Ok(Self { text: Arc::new(Secret::new(text.to_owned())), digest })
    }

    /// The token itself, for the one who must send it on.
    pub fn reveal(&self) -> &str {
        self.text.reveal()
    }

    /// Whether a header has this token and nothing else. That takes as long wherever they differ.
    pub fn is(&self, header: &[u8]) -> bool {
        constant_time::verify_slices_are_equal(self.reveal().as_bytes(), header).is_ok()
    }

    /// SHA-256 of the whole token.
    pub fn digest(&self) -> TokenDigest {
        self.digest
    }

    /// The first part, which says how it is signed.
    pub(crate) fn header(&self) -> &str {
        self.reveal().split('.').next().unwrap_or_default()
    }

    /// What is signed, and the signature: all before the last dot, and all behind it.
    pub(crate) fn signed_and_signature(&self) -> (&str, &str) {
        self.reveal().rsplit_once('.').unwrap_or_default()
    }

    /// The middle part, where the claims are.
    pub(crate) fn payload(&self) -> &str {
        self.reveal().split('.').nth(1).unwrap_or_default()
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BearerToken({} bytes, {})", self.reveal().len(), self.digest)
    }
}

fn without_scheme(value: &[u8]) -> &[u8] {
    match value.split_at_checked(b"Bearer ".len()) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(b"Bearer ") => rest.trim_ascii_start(),
        Some(_) | None => value,
    }
}

/// EKS Auth's own pattern for the token: `[A-Za-z0-9-_=]+\.[A-Za-z0-9-_=]+\.[A-Za-z0-9-_=]+` (botocore
/// model).
///
/// Two plain passes without an early exit, which the compiler turns into vector code: this runs for every
/// request, and byte by byte it was the most expensive thing we did to a cached hit (measured: 1 µs of 14).
fn is_three_base64url_parts(text: &[u8]) -> bool {
    let is_base64url_or_dot = |byte: u8| {
        byte.is_ascii_lowercase()
            | byte.is_ascii_uppercase()
            | byte.is_ascii_digit()
            | (byte == b'-')
            | (byte == b'_')
            | (byte == b'=')
            | (byte == b'.')
    };
    let are_allowed = text.iter().fold(true, |so_far, byte| so_far & is_base64url_or_dot(*byte));
    let dots: usize = text.iter().map(|byte| usize::from(*byte == b'.')).sum();
    if !are_allowed || dots != 2 {
        return false;
    }
    // The header is short, so the first dot is found at once. No part may be empty.
    let after_first = text.iter().position(|byte| *byte == b'.').and_then(|at| text.get(at + 1));
    text.first() != Some(&b'.') && after_first != Some(&b'.') && text.last() != Some(&b'.')
}

fn sha256(bytes: &[u8]) -> TokenDigest {
    let digest = digest::digest(&digest::SHA256, bytes);
    let mut array = [0; 32];
    // Both are 32 bytes; zip cannot panic where copy_from_slice could.
    array.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
    TokenDigest(array)
}

#[cfg(test)]
mod tests {
    use super::{BearerToken, MAX_LENGTH, MalformedToken};

    #[test]
    fn headers_that_are_tokens_and_headers_that_are_not() {
        let long = format!("a.{}.c", "b".repeat(MAX_LENGTH));
        let cases: [(&[u8], Result<&str, MalformedToken>); 13] = [
            (b"a.b.c", Ok("a.b.c")),
            (b"  a.b.c\t", Ok("a.b.c")),
            (b"Bearer a.b.c", Ok("a.b.c")),
            (b"bearer   a.b.c", Ok("a.b.c")),
            (b"a-_=.b.c", Ok("a-_=.b.c")),
            (b"", Err(MalformedToken::Missing)),
            (b"   ", Err(MalformedToken::Missing)),
            (b"Bearer ", Err(MalformedToken::NotAToken)),
            (b"a.b", Err(MalformedToken::NotAToken)),
            (b"a.b.c.d", Err(MalformedToken::NotAToken)),
            (b"a..c", Err(MalformedToken::NotAToken)),
            (b"a.b+.c", Err(MalformedToken::NotAToken)),
            (long.as_bytes(), Err(MalformedToken::TooLong)),
        ];
        for (header, expected) in cases {
            let token = BearerToken::from_header(header);
            assert_eq!(token.as_ref().map(BearerToken::reveal).map_err(|e| *e), expected, "{header:?}");
        }
    }

    #[test]
    fn tokens_that_differ_in_one_byte_have_different_digests() {
        let one = BearerToken::from_header(b"a.b.c").unwrap();
        let other = BearerToken::from_header(b"a.b.d").unwrap();
        assert_ne!(one.digest(), other.digest());
        assert_eq!(one.digest(), BearerToken::from_header(b"Bearer a.b.c").unwrap().digest());
    }

    #[test]
    fn a_token_never_prints_itself() {
        let token = BearerToken::from_header(b"planted.secret.token").unwrap();
        assert!(!format!("{token:?}").contains("planted"));
    }
}
