//! What is true of every answer of a proxy to CONNECT.

use tokio::io::AsyncReadExt;

use super::{MAX_HEAD, read_head, status};

/// The head ends with the first empty line, within its bound; not one byte behind it is taken. A tunnel is
/// open only if the first line says so.
pub(crate) fn of_answer(answer: &[u8]) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return };
    runtime.block_on(of_stream(answer));
}

async fn of_stream(answer: &[u8]) {
    let mut stream = answer;
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").map(|at| at + 4);
    let Ok(head) = read_head(&mut stream).await else {
        return assert!(end.is_none_or(|end| end > MAX_HEAD), "a head that ends is read");
    };
    assert_eq!(Some(head.len()), end);
    assert!(head.len() <= MAX_HEAD);
    let mut rest = Vec::new();
    let is_read = stream.read_to_end(&mut rest).await.is_ok();
    assert!(is_read && answer.get(head.len()..) == Some(&*rest), "what follows is left");
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let says_so = matches!(
        words.as_slice(),
        [[b'H', b'T', b'T', b'P', b'/', b'1', b'.', ..], [b'2', b'0'..=b'9', b'0'..=b'9'], ..]
    );
    let is_open = status(&head).is_some_and(|status| status.is_success());
    assert_eq!(is_open, says_so, "{:?}", String::from_utf8_lossy(line));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::of_answer;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn nearly_answers(
            answer in "(HTTP/1\\.[01]|HTTP/2|ICY|) ?(200|299|2000|20|407|502|2xx|)( [A-Za-z ]{0,12})?\
                (\r?\n[A-Z]: [a-z]{0,3}){0,3}(\r\n|\n|\r){0,3}[a-z]{0,5}"
        ) {
            of_answer(answer.as_bytes());
        }

        #[test]
        fn any_bytes(answer in prop::collection::vec(any::<u8>(), 0..100)) {
            of_answer(&answer);
        }

        #[test]
        fn heads_about_as_long_as_the_longest(length in 16_340_usize..16_400) {
            of_answer(format!("HTTP/1.1 200 {}\r\n\r\nTLS", "x".repeat(length)).as_bytes());
        }
    }
}
