//! What is true of the bytes of every connection, however they are cut.

use super::HeadEnd;

/// A head begins with the first line that is not empty and ends with the next that is; the state after some
/// bytes does not depend on the pieces in which they came.
pub(crate) fn of_bytes(bytes: &[u8], cuts: &[usize]) {
    let whole = followed([bytes]);
    assert_eq!(whole, followed(pieces(bytes, cuts)), "cut at {cuts:?}");
    let (is_in_head, has_whole) = by_lines(bytes);
    assert_eq!(whole.is_in_head(), is_in_head, "{:?}", String::from_utf8_lossy(bytes));
    assert_eq!(HeadEnd::is_in(bytes), has_whole, "{:?}", String::from_utf8_lossy(bytes));
}

fn followed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> HeadEnd {
    let mut head = HeadEnd::default();
    pieces.into_iter().for_each(|piece| head.follow(piece));
    head
}

fn pieces<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).filter_map(|ends| bytes.get(*ends.first()?..*ends.last()?)).collect()
}

/// Whether the bytes end in a head, and whether they have a whole one, line by line.
fn by_lines(bytes: &[u8]) -> (bool, bool) {
    let (mut is_in_head, mut has_whole) = (false, false);
    let mut lines = bytes.split(|byte| *byte == b'\n').peekable();
    while let Some(line) = lines.next() {
        let is_empty = line.iter().all(|byte| *byte == b'\r');
        let is_complete = lines.peek().is_some();
        if !is_empty {
            is_in_head = true;
        } else if is_complete && is_in_head {
            (is_in_head, has_whole) = (false, true);
        }
    }
    (is_in_head, has_whole)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{followed, of_bytes};

    const HEADS: &str = "(\r?\n){0,2}(GET / HTTP/1\\.1\r?\n([A-Za-z]{1,3}: ?[a-z]{0,3}\r?\n){0,3}(\r{\
        0,2}\n)?){0,3}[a-z\r\n]{0,4}";

    /// How many bytes the parser under hyper takes for the first head, if there is a whole one.
    fn first_head(bytes: &[u8]) -> Option<usize> {
        let mut headers = [httparse::EMPTY_HEADER; 100];
        match httparse::Request::new(&mut headers).parse(bytes) {
            Ok(httparse::Status::Complete(length)) => Some(length),
            Ok(httparse::Status::Partial) | Err(_) => None,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn heads_in_pieces(bytes in HEADS, cuts in prop::collection::vec(any::<usize>(), 0..5)) {
            of_bytes(bytes.as_bytes(), &cuts);
        }

        #[test]
        fn any_bytes(
            bytes in prop::collection::vec(any::<u8>(), 0..40),
            cuts in prop::collection::vec(any::<usize>(), 0..5)
        ) {
            of_bytes(&bytes, &cuts);
        }

        #[test]
        fn a_head_ends_where_the_parser_under_hyper_sees_its_end(bytes in HEADS) {
            let bytes = bytes.as_bytes();
            if let Some(length) = first_head(bytes) {
                prop_assert!(!followed([&bytes[..length]]).is_in_head(), "after the head");
                prop_assert!(followed([&bytes[..length - 1]]).is_in_head(), "before its last byte");
            }
        }
    }
}
