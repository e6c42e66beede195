//! What is true of every command line.

use std::ffi::OsString;

use clap::CommandFactory;

use super::CommandLine;
use crate::cli::Cli;

/// What is left out are flags that nobody has and their values; what is left stands in its order, and nothing
/// is left out of it again. A notice names its flag and no value.
pub(crate) fn of_line(words: &[String]) {
    let line = CommandLine::of(words.iter().map(OsString::from).collect(), Cli::command());
    let mut rest = words.iter();
    for argument in &line.arguments {
        assert!(rest.any(|word| OsString::from(word) == *argument), "{argument:?} is none of {words:?}");
    }
    let of_server = Cli::command().find_subcommand("server").cloned().unwrap_or_default();
    let known = |word: &&String| {
        let name = word.strip_prefix("--").map(|name| name.split('=').next().unwrap_or_default());
        of_server.get_arguments().any(|flag| flag.get_long().is_some() && flag.get_long() == name)
    };
    let is_server_alone = words.iter().skip(1).filter(|word| is_command(word)).eq(["server"]);
    if let Some(lost) = words.iter().filter(|_| is_server_alone).find(known) {
        assert!(
            line.arguments.iter().any(|argument| *argument == OsString::from(lost)),
            "{lost} is left out"
        );
    }
    for notice in &line.notices {
        let name = notice.split(' ').next().unwrap_or_default();
        assert!(
            words.iter().any(|word| word.split('=').next() == Some(name)),
            "{notice} is about none of {words:?}"
        );
    }
    let again = CommandLine::of(line.arguments.clone(), Cli::command());
    assert_eq!(again.arguments, line.arguments, "from {words:?}");
}

fn is_command(word: &str) -> bool {
    Cli::command().find_subcommand(word).is_some()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::of_line;

    fn a_word() -> impl Strategy<Value = String> {
        prop_oneof![
            prop::sample::select(vec![
                "server",
                "initialize",
                "cleanup",
                "version",
                "--",
                "-",
                "--port",
                "-p",
                "80",
                "--prot",
                "--port=1",
                "--cluster-name",
                "-c",
                "-cx",
                "--rotate-credentials",
                "--rotate-credentials=false",
                "true",
                "--stay",
                "--enable-imds-credentials",
                "--enable-imds-credentials=false",
                "--not-yet-known",
                "--not-yet-known=x",
                "-v",
                "--verbosity",
                "--help",
                "-z",
                "--jwks",
                "-1",
            ])
            .prop_map(str::to_owned),
            "-{0,3}[a-z]{0,4}(-[a-z]{1,4}){0,2}(=[a-z]{0,3})?",
            "\\PC{0,6}",
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn any_words(words in prop::collection::vec(a_word(), 0..6), begins in any::<bool>()) {
            let mut words = words;
            if begins {
                words.splice(0..0, ["agent", "server"].map(str::to_owned));
            }
            of_line(&words);
        }
    }
}
