//! Flags that this agent does not have, taken out of the command line before it is parsed.
//!
//! Owns: which of them do not keep the agent from starting, and what operators read about each. Must not
//! know: the flags of this agent; it asks clap.
//!
//! A DaemonSet that is made for the next release of Amazon's agent may pass a flag that did not exist when
//! this agent was built. Refusing it would stop every node of a cluster, so it is left out with a warning.
//! But a misspelt flag of this agent must not be left out, because its setting would silently be missing: a
//! name that is nearly the name of a flag, or that no release of Amazon's agent would have, stays for clap
//! to refuse with its suggestion. Only `server` and `initialize` are started by DaemonSets made for Amazon's
//! agent.

#[cfg(any(test, fuzzing))]
pub(crate) mod properties;

use std::ffi::OsString;

use clap::{Arg, Command};

/// Flags of newer releases of Amazon's agent, and what this agent does instead of what they ask for.
const AMAZONS: [(&str, &str); 1] = [(
    "enable-imds-credentials",
    "pods' credentials come from EKS Auth only; cached ones are served while it fails, until they expire",
)];
/// Words of at most so many letters may differ in one letter from ours to be called misspelt, longer ones in
/// two: every word of four letters is near to another.
const SHORT_WORD: usize = 5;

/// A command line without flags that are unknown here.
#[derive(Debug)]
pub struct CommandLine {
    /// What clap parses.
    pub arguments: Vec<OsString>,
    /// One sentence for each flag that was left out, without its value.
    pub notices: Vec<String>,
}

/// What an argument is, to those who need not know its meaning.
enum Kind<'a> {
    /// A flag that clap knows, and whether the next argument is its value.
    Known { has_value_next: bool },
    /// A flag that clap does not know, and the value after its equals sign.
    Unknown { name: &'a str, value: Option<&'a str> },
    /// A word, `--`, or what only clap can explain.
    Other,
}

/// The flags of a command, each with whether the next argument is its value.
struct Flags {
    long: Vec<(String, bool)>,
    short: Vec<(char, bool)>,
}

impl CommandLine {
    /// The arguments of the process, beginning with the name of the program.
    pub fn of(arguments: Vec<OsString>, mut cli: Command) -> Self {
        cli.build();
        let mut flags = Flags::of(&cli);
        let mut is_tolerant = false;
        let mut line = Self { arguments: Vec::new(), notices: Vec::new() };
        let mut rest = arguments.into_iter().peekable();
        line.arguments.extend(rest.next());
        while let Some(argument) = rest.next() {
            let text = argument.to_str().unwrap_or_default();
            if text == "--" {
                line.arguments.push(argument);
                break;
            }
            match flags.kind(text) {
                Kind::Known { has_value_next } => {
                    line.arguments.push(argument);
                    line.arguments.extend(rest.next_if(|_| has_value_next));
                }
                Kind::Unknown { name, value } if is_tolerant && flags.nearest(name).is_none() => {
                    let next = rest.next_if(|next| value.is_none() && is_value(next));
                    let value = value.or_else(|| next.as_deref().and_then(|value| value.to_str()));
                    line.notices.extend(notice(name, value));
                }
                Kind::Unknown { .. } => line.arguments.push(argument),
                Kind::Other => {
                    if let Some(command) = cli.find_subcommand(text) {
                        flags = Flags::of(command);
                        is_tolerant = matches!(text, "server" | "initialize");
                    }
                    line.arguments.push(argument);
                }
            }
        }
        line.arguments.extend(rest);
        line
    }
}

impl Flags {
    fn of(command: &Command) -> Self {
        let has_value_next = |flag: &Arg| flag.get_action().takes_values() && !flag.is_require_equals_set();
        let long = command
            .get_arguments()
            .filter_map(|flag| Some((flag.get_long()?.to_owned(), has_value_next(flag))));
        let short =
            command.get_arguments().filter_map(|flag| Some((flag.get_short()?, has_value_next(flag))));
        Self { long: long.collect(), short: short.collect() }
    }

    fn kind<'a>(&self, argument: &'a str) -> Kind<'a> {
        if let Some(long) = argument.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (long, None),
            };
            return match self.long.iter().find(|(known, _)| known == name) {
                Some((_, may_follow)) => Kind::Known { has_value_next: *may_follow && value.is_none() },
                None if is_name(name) => Kind::Unknown { name, value },
                None => Kind::Other,
            };
        }
        let mut letters = argument.strip_prefix('-').unwrap_or_default().chars();
        let known = letters.next().and_then(|letter| self.short.iter().find(|(known, _)| *known == letter));
        match known {
            // What follows the letter is its value.
            Some((_, may_follow)) => {
                Kind::Known { has_value_next: *may_follow && letters.as_str().is_empty() }
            }
            None => Kind::Other,
        }
    }

    /// The flag that was probably meant.
    fn nearest(&self, name: &str) -> Option<&str> {
        self.long.iter().map(|(known, _)| known.as_str()).find(|known| is_nearly(known, name))
    }
}

/// Whether it is spelt as all flags of Amazon's agent are: words in lower case with hyphens.
fn is_name(name: &str) -> bool {
    let is_word = |word: &str| {
        word.starts_with(|letter: char| letter.is_ascii_lowercase())
            && word.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit())
    };
    name.split('-').all(is_word)
}

/// Whether an argument after an unknown flag is its value rather than another flag.
fn is_value(argument: &OsString) -> bool {
    let text = argument.to_str().unwrap_or_default();
    let is_number = |text: &str| text.starts_with(|digit: char| digit.is_ascii_digit());
    text.strip_prefix('-').is_none_or(is_number)
}

fn notice(name: &str, value: Option<&str>) -> Option<String> {
    let is_off = matches!(value, Some("0" | "f" | "F" | "false" | "FALSE" | "False"));
    match AMAZONS.iter().find(|(known, _)| *known == name) {
        Some(_) if is_off => None,
        Some((_, instead)) => Some(format!("--{name} has no effect in this agent: {instead}")),
        None => Some(format!(
            "--{name} is ignored: this agent does not have it. If it is a flag of a newer Amazon agent, \
             check what it is needed for; if it is misspelt, correct it (see pod-identity-agent server \
             --help)"
        )),
    }
}

/// Whether one name is the other with a slip of the fingers. Word by word: `metrics-host` is not
/// `metrics-port`, though only two letters of twelve are others.
fn is_nearly(known: &str, name: &str) -> bool {
    let [known_words, words] = [known, name].map(|text| text.split('-').collect::<Vec<_>>());
    let is_word_by_word = known_words.len() == words.len()
        && known_words.iter().zip(&words).all(|(known, word)| is_nearly_word(known, word));
    // Or a hyphen is missing, or too much.
    let [known, name] = [known, name].map(|text| text.replace('-', ""));
    is_word_by_word || (known_words.len() != words.len() && distance(&known, &name) <= 1)
}

fn is_nearly_word(known: &str, word: &str) -> bool {
    let allowed = if known.len().min(word.len()) <= SHORT_WORD { 1 } else { 2 };
    are_swapped(known, word) || distance(known, word) <= allowed
}

/// Whether two letters that stand side by side have changed places.
fn are_swapped(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let Some(at) = one.iter().zip(other).position(|(one, other)| one != other) else { return false };
    match (one.get(at..), other.get(at..)) {
        (Some([a, b, one_rest @ ..]), Some([c, d, other_rest @ ..])) => {
            (a, b) == (d, c) && one_rest == other_rest
        }
        _ => false,
    }
}

/// How many letters must be added, removed or changed (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let mut above: Vec<usize> = (0..=other.len()).collect();
    for (row, letter) in one.bytes().enumerate() {
        let mut corner = row;
        let mut left = row + 1;
        let mut current = vec![left];
        for (letter_above, up) in other.bytes().zip(above.iter().skip(1)) {
            left = (corner + usize::from(letter != letter_above)).min(up + 1).min(left + 1);
            corner = *up;
            current.push(left);
        }
        above = current;
    }
    above.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::{CommandLine, distance, is_nearly};
    use crate::cli::Cli;

    /// What is left of a command line, and how many notices there are.
    fn line(arguments: &str) -> (String, Vec<String>) {
        let arguments = std::iter::once("agent").chain(arguments.split_whitespace()).map(Into::into);
        let line = CommandLine::of(arguments.collect(), Cli::command());
        let left: Vec<_> = line.arguments.iter().skip(1).map(|text| text.to_str().unwrap()).collect();
        (left.join(" "), line.notices)
    }

    #[test]
    fn flags_that_only_a_newer_amazon_agent_knows_do_not_stop_a_node() {
        for (given, left, notices) in [
            ("server -c a --enable-imds-credentials", "server -c a", 1),
            ("server --enable-imds-credentials=true -c a", "server -c a", 1),
            ("server --enable-imds-credentials true -c a", "server -c a", 1),
            ("server --enable-imds-credentials=false -c a", "server -c a", 0),
            ("server --enable-imds-credentials false -c a", "server -c a", 0),
            ("server --some-new-limit 10 --pod-watch --offset -1 -c a", "server -c a", 3),
            ("server --some-new-limit=10 -c a", "server -c a", 1),
            ("server --probe-host 1 --metrics-host=2 --metrics-cert 3 -c a", "server -c a", 3),
            ("-v trace server --new -c a", "-v trace server -c a", 1),
            ("initialize --new-mode x -v=trace", "initialize -v=trace", 1),
        ] {
            let (left_over, told) = line(given);
            assert_eq!((left_over.as_str(), told.len()), (left, notices), "{given}: {told:?}");
        }
        let (_, told) = line("server --enable-imds-credentials --api-secret=planted");
        assert!(told[0].contains("EKS Auth only") && told[1].contains("--api-secret is ignored"), "{told:?}");
        assert!(!told.concat().contains("planted"), "{told:?}");
    }

    #[test]
    fn misspelt_flags_and_other_commands_are_left_to_be_refused() {
        for given in [
            "server --cluster-nam a",
            "server --guardaddress",
            "server --guard-adress=true",
            "server --block-imsd",
            "server --prot 81",
            "server --issuers x",
            "server --jwk x",
            "server --Unknown",
            "server --guard_address",
            "server --new-flag- x",
            "server -z",
            "cleanup --new-flag",
            "version --new-flag",
            "--new-flag server",
            "server -- --new-flag",
        ] {
            assert_eq!(line(given), (given.to_owned(), vec![]), "{given}");
        }
    }

    #[test]
    fn values_of_known_flags_are_never_taken_for_flags() {
        for given in [
            "server -c --new -p 80 --max-cache-size -1 --rotate-credentials true",
            "server -c=a -p80 --endpoint --new",
        ] {
            assert_eq!(line(given), (given.to_owned(), vec![]), "{given}");
        }
    }

    #[test]
    fn a_slip_of_the_fingers_is_told_from_another_name() {
        for (one, other, letters) in
            [("", "abc", 3), ("port", "port", 0), ("port", "prot", 2), ("jwks", "jwk", 1)]
        {
            assert_eq!(distance(one, other), letters, "{one} {other}");
        }
        for (known, slip) in [
            ("port", "prot"),
            ("guard-address", "guardadress"),
            ("guard-address", "gaurd-adress"),
            ("cluster-name", "clustername"),
            ("metrics-port", "metrics-prot"),
            ("block-imds", "block-imsd"),
            ("jwks", "jwk"),
        ] {
            assert!(is_nearly(known, slip), "{known} {slip}");
        }
        for (known, other) in [
            ("link", "limit"),
            ("own-credentials", "enable-imds-credentials"),
            ("probe-port", "probe-host"),
            ("metrics-port", "metrics-host"),
            ("metrics-port", "metrics-cert"),
            ("probe-port", "probe-path"),
            ("port", "host"),
        ] {
            assert!(!is_nearly(known, other), "{known} {other}");
        }
    }
}
