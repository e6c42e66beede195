//! What is true of every `Authorization` header, whatever its bytes.

use super::{BearerToken, MalformedToken};

/// The longest token in bytes, as the contract with SDKs has it.
const LONGEST: usize = 16 * 1024;
/// What may be shown of a token: not so much of it in one piece.
const NO_PIECE_OF: usize = 16;

/// A header is a token exactly if it is three parts of base64url joined by dots, with nothing but blanks and
/// a scheme around them; and a token is never printed.
pub(crate) fn of_header(header: &[u8]) {
    let expected = expected(header);
    match BearerToken::from_header(header) {
        Ok(token) => {
            assert_eq!(Some(token.reveal()), expected, "taken for a token");
            assert_eq!(token.signed_and_signature(), text_before_and_after_last_dot(token.reveal()));
            assert_eq!(
                format!("{}.{}.{}", token.header(), token.payload(), token.signed_and_signature().1),
                token.reveal()
            );
            is_not_printed(&token);
            let again = BearerToken::from_header(token.reveal().as_bytes());
            assert_eq!(again.map(|again| again.digest()), Ok(token.digest()), "a token names itself");
        }
        // A long header may have a token in it; it is not looked for.
        Err(MalformedToken::TooLong) => assert!(header.len() > LONGEST),
        Err(MalformedToken::Missing) => assert!(header.trim_ascii().is_empty()),
        Err(MalformedToken::NotAToken) => assert_eq!(expected, None, "not taken for a token"),
        Err(MalformedToken::Repeated) => unreachable!("there is one header"),
    }
}

/// The token in a header, by the words of the rule.
fn expected(header: &[u8]) -> Option<&str> {
    let text = str::from_utf8(header).ok()?.trim_matches([' ', '\t', '\n', '\r', '\u{c}']);
    let bare = match text.split_once(' ') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => {
            rest.trim_start_matches([' ', '\t', '\n', '\r', '\u{c}'])
        }
        Some(_) | None => text,
    };
    let is_base64url = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '=');
    let parts: Vec<&str> = bare.split('.').collect();
    let are_good = parts.len() == 3 && parts.iter().all(|part| !part.is_empty());
    (are_good && parts.iter().all(|part| part.chars().all(is_base64url))).then_some(bare)
}

fn text_before_and_after_last_dot(text: &str) -> (&str, &str) {
    text.rsplit_once('.').unwrap_or_default()
}

fn is_not_printed(token: &BearerToken) {
    let shown = format!("{token:?} {:?} {}", token.digest(), token.digest());
    let pieces = token.reveal().as_bytes().windows(NO_PIECE_OF);
    // The digest has sixteen digits, and a token may happen to be its own digest's neighbour, but not equal.
    let quoted = pieces.filter_map(|piece| str::from_utf8(piece).ok()).find(|piece| shown.contains(piece));
    assert_eq!(quoted, None, "a part of the token is in {shown}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::of_header;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn any_bytes(header in prop::collection::vec(any::<u8>(), 0..200)) {
            of_header(&header);
        }

        #[test]
        fn nearly_tokens(
            header in "[ \t]{0,2}([Bb]earer[ \t]{0,3}){0,2}[A-Za-z0-9_=.+/-]{0,40}(\\.[A-Za-z0-9_=-]{\
                0,60}){0,3}[ \t!]{0,2}"
        ) {
            of_header(header.as_bytes());
        }

        #[test]
        fn tokens_about_as_long_as_the_longest(
            before in 0_usize..12, payload in 16_300_usize..16_500, scheme in any::<bool>()
        ) {
            let scheme = if scheme { "Bearer " } else { "" };
            of_header(format!("{}{scheme}h.{}.s", " ".repeat(before), "p".repeat(payload)).as_bytes());
        }
    }
}
