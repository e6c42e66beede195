//! What is true of every credentials file, whatever its bytes.

use std::path::PathBuf;

use aws_credential_types::Credentials;

use super::{CredentialsFile, LoadError, ProfileFile, odd_line, text_of};
use crate::aws::canned::{self, quoted};
use crate::telemetry::error_chain::ErrorChain;

/// What stands in a file for a `$`: a part of a secret.
const PLANTED: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYplantedKEY";

/// Credentials are words of the file, and never empty; what a failure says, or a line that is left out, has
/// no word of it.
pub(crate) fn of_content(content: &[u8]) {
    let content = String::from_utf8(content.to_vec())
        .map_or_else(|error| error.into_bytes(), |text| text.replace('$', PLANTED).into_bytes());
    let lines = content.split(|byte| *byte == b'\n').count();
    match read(&content) {
        Some(Ok(credentials)) => {
            let text = String::from_utf8_lossy(&content);
            let parts = [Some(credentials.access_key_id()), Some(credentials.secret_access_key())];
            for part in parts.into_iter().chain([credentials.session_token()]).flatten() {
                assert!(!part.is_empty() && part == part.trim(), "{part:?} of {text:?}");
                assert!(text.contains(part), "{part:?} is not in {text:?}");
            }
            assert!(odd_line(&text).is_none_or(|line| (1..=lines).contains(&line.0)));
        }
        Some(Err(error)) => {
            let told = format!("{} {error:?}", ErrorChain(&error));
            assert_eq!(quoted(&told, PLANTED, 12), None, "the file is quoted by {told}");
        }
        None => {}
    }
}

/// A file as any program writes it has these credentials, whatever else is in it.
#[cfg(test)]
pub(crate) fn of_whole_file(text: &str, key: &str, secret: &str, token: Option<&str>) {
    let read = read(text.as_bytes());
    let Some(Ok(credentials)) = read else { unreachable!("{text:?} has credentials: {read:?}") };
    let expected = (key, secret, token);
    let found = (credentials.access_key_id(), credentials.secret_access_key(), credentials.session_token());
    assert_eq!(found, expected, "{text:?}");
    assert_eq!(odd_line(text), None, "{text:?} has no odd line");
}

fn read(content: &[u8]) -> Option<Result<Credentials, LoadError>> {
    let file = CredentialsFile::new(PathBuf::from("/f"), ProfileFile::Credentials, "default".to_owned());
    let text = match text_of(content.to_vec()) {
        Ok(text) => text,
        Err(fault) => return Some(Err(file.unfit(fault))),
    };
    canned::without_waiting(file.parse(text.reveal(), odd_line(text.reveal())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{of_content, of_whole_file};

    const LINES: &str = "(\\[(default|profile default|other|\\$)\\]?|( {0,2})(aws_access_key_id|aws_s\
        ecret_access_key|aws_session_token|\\$|#|;|AWS_SESSION_TOKEN|\\{\"Token\") ?[=:]? ?[A-Z$=\\\\\"\
        #; ]{0,6})";

    fn a_line() -> impl Strategy<Value = String> {
        prop_oneof![
            8 => LINES,
            1 => "\\PC{0,10}",
            1 => Just("\u{b}\u{c}\r".to_owned()),
        ]
    }

    /// A name and its value, with what may stand around them.
    fn a_setting(name: &'static str, value: &str) -> impl Strategy<Value = String> + use<> {
        let value = value.to_owned();
        let name = prop_oneof![Just(name.to_owned()), Just(name.to_ascii_uppercase())];
        (name, "[ \t]{0,2}=[ \t]{0,2}", "[ \t]{0,2}")
            .prop_map(move |(name, equals, after)| format!("{name}{equals}{value}{after}"))
    }

    fn a_whole_file() -> impl Strategy<Value = (String, String, String, Option<String>)> {
        let key = "A[A-Z0-9]{15,19}";
        let secret = "[A-Za-z0-9/+]{40}";
        let token = prop::option::of("[A-Za-z0-9/+]{100,200}={0,2}");
        (key, secret, token).prop_flat_map(|(key, secret, token)| {
            let token_lines: Vec<_> =
                token.iter().map(|token| a_setting("aws_session_token", token).boxed()).collect();
            let mut settings = vec![
                a_setting("aws_access_key_id", &key).boxed(),
                a_setting("aws_secret_access_key", &secret).boxed(),
                prop::sample::select(vec!["", "# comment", "; comment = x", "region = us-west-2", "\t"])
                    .prop_map(str::to_owned)
                    .boxed(),
            ];
            settings.extend(token_lines);
            let other = prop::sample::select(vec![
                "",
                "[other]\naws_access_key_id = AKIAOTHER\naws_secret_access_key = o\naws_session_token = o\n",
                "# first\n\n[a.b-c]\nregion = x\n",
            ]);
            let newline = prop::sample::select(vec!["\n", "\r\n"]);
            let end = any::<bool>();
            (Just(settings).prop_shuffle(), other, newline, end, Just((key, secret, token))).prop_flat_map(
                |(settings, other, newline, end, (key, secret, token))| {
                    settings.prop_map(move |lines| {
                        let mut text = format!("{other}[default]\n{}", lines.join("\n"));
                        if end {
                            text.push('\n');
                        }
                        (text.replace('\n', newline), key.clone(), secret.clone(), token.clone())
                    })
                },
            )
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn lines_of_all_kinds(
            lines in prop::collection::vec(a_line(), 0..8),
            newline in prop::sample::select(vec!["\n", "\r\n", "\r"])
        ) {
            of_content(lines.join(newline).as_bytes());
        }

        #[test]
        fn any_bytes(content in prop::collection::vec(any::<u8>(), 0..100)) {
            of_content(&content);
        }

        #[test]
        fn whole_files((text, key, secret, token) in a_whole_file()) {
            of_whole_file(&text, &key, &secret, token.as_deref());
        }

        #[test]
        fn whole_files_that_are_cut(
            (text, key, secret, token) in a_whole_file(),
            at in any::<prop::sample::Index>()
        ) {
            let _ = (key, secret, token);
            of_content(&text.as_bytes()[..at.index(text.len())]);
        }
    }
}
