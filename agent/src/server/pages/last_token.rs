//! The token that a connection brought last.
//!
//! Owns: that the same header costs a comparison, and not a copy, a check of its form and a digest of 1.2 KB.
//! Must not know: whether the token is any good.
//!
//! Nothing that a token has proven is remembered here. Whatever ends a verdict (other keys, a deleted pod,
//! `exp`, a clock that is not confirmed) is asked anew for each request.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use parking_lot::Mutex;

use crate::server::door::limits::MEMORY_OF_REQUESTS;
use crate::workload::{BearerToken, MalformedToken};

/// The last token of one connection; wiped with it.
#[derive(Debug, Default)]
pub struct LastToken(Mutex<Option<BearerToken>>);

impl LastToken {
    /// The token of a request on this connection.
    ///
    /// # Errors
    /// [`MalformedToken`], when there is none, or more than one.
    pub fn of(&self, headers: &HeaderMap) -> Result<BearerToken, MalformedToken> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let value = values.next().ok_or(MalformedToken::Missing)?.as_bytes();
        if values.next().is_some() {
            return Err(MalformedToken::Repeated);
        }
        let mut last = self.0.lock();
        if let Some(same) = last.as_ref().filter(|last| last.is(value)) {
            return Ok(same.clone());
        }
        let token = BearerToken::from_header(value)?;
        // Those of clusters have 1.2 to 2 KB.
        *last = (value.len() <= MEMORY_OF_REQUESTS).then(|| token.clone());
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use http::header::AUTHORIZATION;
    use http::{HeaderMap, HeaderValue};

    use super::{LastToken, MEMORY_OF_REQUESTS};
    use crate::workload::MalformedToken;

    fn with(values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (AUTHORIZATION, HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn the_same_header_is_the_same_token_and_any_other_is_another() {
        let last = LastToken::default();
        let first = last.of(&with(&["a.b.c"])).unwrap();
        let cases = ["a.b.c", "a.b.d", "a.b.c", "a.b", "a.b.cc", "Bearer a.b.c", " a.b.c", "a.b.c"];
        for header in cases {
            let (read, fresh) = (last.of(&with(&[header])), LastToken::default().of(&with(&[header])));
            let digest = |token: Result<crate::workload::BearerToken, MalformedToken>| {
                token.map(|token| (token.reveal().to_owned(), token.digest()))
            };
            assert_eq!(digest(read), digest(fresh), "{header}");
        }
        assert!(first.is(b"a.b.c") && !first.is(b"a.b.d") && !first.is(b"a.b.c ") && !first.is(b""));
    }

    #[test]
    fn a_token_that_is_longer_than_what_a_place_counts_is_read_and_not_kept() {
        let last = LastToken::default();
        for (length, is_kept) in [(MEMORY_OF_REQUESTS, true), (MEMORY_OF_REQUESTS + 1, false)] {
            let token = format!("a.b.{}", "c".repeat(length - 4));
            let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(&token).unwrap())]);
            let (one, two) = (last.of(&headers).unwrap(), last.of(&headers).unwrap());
            assert_eq!(one.reveal(), token);
            assert_eq!(std::ptr::eq(one.reveal(), two.reveal()), is_kept, "{length}");
        }
    }

    #[test]
    fn a_copy_is_shared_and_not_made() {
        let last = LastToken::default();
        let (one, two) = (last.of(&with(&["a.b.c"])).unwrap(), last.of(&with(&["a.b.c"])).unwrap());
        assert!(std::ptr::eq(one.reveal(), two.reveal()));
    }

    #[test]
    fn no_header_and_two_are_refused_whatever_was_there_before() {
        let last = LastToken::default();
        last.of(&with(&["a.b.c"])).unwrap();
        assert_eq!(last.of(&with(&[])).unwrap_err(), MalformedToken::Missing);
        assert_eq!(last.of(&with(&["a.b.c", "a.b.c"])).unwrap_err(), MalformedToken::Repeated);
    }
}
