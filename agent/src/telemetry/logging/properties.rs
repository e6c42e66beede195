//! What is true of every line of the log, whatever the fields say.

#![expect(clippy::indexing_slicing, reason = "of JSON, in which nothing is null")]

use std::io::{self, Write};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tracing_subscriber::fmt::MakeWriter;

use super::{Level, json, text};

/// The most characters of a field, and of those that are longer by their nature; one more says that it was
/// cut.
const LONGEST: usize = 253;
const LONGEST_MESSAGE: usize = 1_000;

/// Each event is one line, in both formats: in JSON it is read back with the fields as they were given, cut
/// to their bounds, in text it has no control character.
pub(crate) fn of_fields(given: &str, number: i64, ratio: f64) {
    let event = || {
        let span = tracing::info_span!("request", span.name = given, overridden = "by the event");
        span.in_scope(|| {
            tracing::warn!(
                pod.uid = given,
                err = %given,
                quoted = ?given,
                number,
                ratio,
                overridden = given,
                level = given,
                "{given}"
            );
        });
    };
    let lines = Lines::default();
    tracing::subscriber::with_default(json(Level::Info, lines.clone()), event);
    let line = lines.only();
    let Ok(Value::Object(read)) = serde_json::from_str(&line) else { unreachable!("{line:?} is no object") };
    for name in ["pod.uid", "span.name", "overridden", "field.level"] {
        is_as_given(&read, name, given, LONGEST);
    }
    for name in ["err", "msg"] {
        is_as_given(&read, name, given, LONGEST_MESSAGE);
    }
    is_as_given(&read, "quoted", &format!("{given:?}"), LONGEST);
    assert_eq!(read["number"].as_i64(), Some(number));
    match read["ratio"].as_f64() {
        // The reader rounds in its last digit.
        Some(read) => assert!(
            (read - ratio).abs() <= (ratio.abs() * 1e-15).max(f64::MIN_POSITIVE),
            "{read} and {ratio}"
        ),
        None => assert!(!ratio.is_finite(), "{ratio}"),
    }
    assert_eq!(read["level"].as_str(), Some("warn"), "no field replaces it");

    let lines = Lines::default();
    tracing::subscriber::with_default(text(Level::Info, lines.clone(), false), event);
    let line = lines.only();
    assert!(!line.trim_end_matches('\n').contains(char::is_control), "{line:?}");
    assert!(line.len() < 4 * (2 * LONGEST_MESSAGE + 6 * LONGEST), "{} bytes", line.len());
}

fn is_as_given(read: &serde_json::Map<String, Value>, name: &str, given: &str, longest: usize) {
    let written = read.get(name).and_then(Value::as_str).unwrap_or_default();
    let is_whole = given.chars().count() <= longest;
    let expected: String = given.chars().take(longest).chain((!is_whole).then_some('…')).collect();
    assert_eq!(written, expected, "{name}");
}

/// What was written, a line a call.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn only(&self) -> String {
        let lines = self.0.lock();
        let [line] = lines.as_slice() else { unreachable!("{} writes", lines.len()) };
        assert!(line.ends_with('\n') && line.matches('\n').count() == 1, "{line:?} is not one line");
        line.clone()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().push(String::from_utf8(bytes.to_vec()).map_err(io::Error::other)?);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::of_fields;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn any_text(given in "(?s).{0,60}", number in any::<i64>(), ratio in any::<f64>()) {
            of_fields(&given, number, ratio);
        }

        #[test]
        fn texts_about_as_long_as_the_longest(
            length in prop_oneof![250_usize..258, 995_usize..1_005],
            last in any::<char>()
        ) {
            of_fields(&format!("{}{last}", "ä".repeat(length)), 0, 0.0);
        }
    }
}
