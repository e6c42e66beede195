//! The role limits: which namespaces may be given which roles, by a file of the admin. Pure.
//!
//! Owns: the form of the file, and what it allows. Must not know: who asks, or where a role comes from.

use super::json::{self, Value};
use super::problems::{Problems, quoted};

/// The longest file, in bytes: that of a ConfigMap.
pub(super) const MOST_BYTES: usize = 1024 * 1024;
/// Roles of all namespaces together.
const MOST_PATTERNS: usize = 10_000;
/// The longest pattern, in bytes: that of an ARN (see `workload::RoleArn`).
const LONGEST_PATTERN: usize = 2_048;

/// Role limits. What matches nothing in them is not allowed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RoleLimits {
    /// A pattern of namespaces, and patterns of roles that they may be given.
    allowed: Vec<(Box<str>, Vec<Box<str>>)>,
}

impl RoleLimits {
    /// Reads the content of a file. As with the role map, one problem refuses all of it.
    ///
    /// # Errors
    /// All that is wrong in it.
    pub(super) fn read(content: &[u8]) -> Result<Self, Problems> {
        let members = json::object(content).map_err(Problems::one)?;
        let (mut allowed, mut problems) = (Vec::<(Box<str>, _)>::new(), Problems::default());
        let mut seen = std::collections::HashSet::new();
        let mut count = 0;
        for (namespace, roles) in &members {
            let mut report = |fault: &str| problems.add(format!("entry {}: {fault}", quoted(namespace)));
            if !is_pattern_of_namespaces(namespace) {
                report("it must be a namespace, or a part of one with *");
            }
            if !seen.insert(namespace) {
                report("it is there twice");
            }
            let Value::Array(roles) = roles else {
                report("it must be a list of role ARNs, which may have *");
                continue;
            };
            count += roles.len();
            let mut patterns = Vec::new();
            for role in roles {
                match role {
                    Value::Text(role) if is_pattern_of_roles(role) => patterns.push(role.as_str().into()),
                    Value::Text(role) => {
                        report(&format!("{} must be a role ARN, which may have *", quoted(role)));
                    }
                    Value::Object(_) | Value::Array(_) | Value::Number(_) | Value::Bool(_) | Value::Other => {
                        report("it must be a list of role ARNs, which may have *");
                    }
                }
            }
            allowed.push((namespace.as_str().into(), patterns));
        }
        if count.max(members.len()) > MOST_PATTERNS {
            problems.add(format!("the file has more than {MOST_PATTERNS} patterns"));
        }
        problems.or(Self { allowed })
    }

    /// Whether pods of this namespace may be given this role.
    pub(super) fn allow(&self, namespace: &str, role: &str) -> bool {
        let of_namespace = self.allowed.iter().filter(|(pattern, _)| matches(pattern, namespace));
        of_namespace.flat_map(|(_, roles)| roles).any(|pattern| matches(pattern, role))
    }
}

fn is_pattern_of_namespaces(text: &str) -> bool {
    let may_be_in_it = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-*".contains(&byte);
    (1..=63).contains(&text.len()) && text.bytes().all(may_be_in_it)
}

/// One that could be that of a role; other texts would allow nothing, and nobody would notice. A `?`, which
/// IAM's own patterns have, would be such a text.
fn is_pattern_of_roles(text: &str) -> bool {
    let may_be_in_it = |byte: u8| byte.is_ascii_graphic() && byte != b'?';
    (text.starts_with("arn:") || text.starts_with('*'))
        && text.len() <= LONGEST_PATTERN
        && text.bytes().all(may_be_in_it)
}

/// Whether a text is what a pattern says, in which `*` stands for any run of characters, also none, and also
/// across `/` and `:`. Takes as many steps as both are long together, or their product at worst.
fn matches(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.as_bytes(), text.as_bytes());
    // Where to go on after the last `*`, if what follows it here does not fit.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        match (pattern, text) {
            ([b'*', rest @ ..], _) => {
                retry = Some((rest, text));
                pattern = rest;
            }
            ([], []) => return true,
            ([p, rest @ ..], [t, text_rest @ ..]) if p == t => (pattern, text) = (rest, text_rest),
            _ => {
                let Some((after_star, [_, later @ ..])) = retry else { return false };
                retry = Some((after_star, later));
                (pattern, text) = (after_star, later);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{RoleLimits, matches};

    #[test]
    fn a_star_is_any_run_of_characters() {
        for (pattern, text, fits) in [
            ("a", "a", true),
            ("a", "b", false),
            ("a", "ab", false),
            ("ab", "a", false),
            ("*", "", true),
            ("*", "a/b:c", true),
            ("a*", "a", true),
            ("a*c", "abbc", true),
            ("a*c", "abcb", false),
            ("*ab*", "aab", true),
            ("a*b*c", "axbxbxc", true),
            ("a*b*c", "axcxb", false),
            ("**a", "ba", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }

    const TEAMS: &str = r#"{
        "team-a": ["arn:aws:iam::111122223333:role/team-a/*", "arn:aws:iam::111122223333:role/shared"],
        "team-*": ["arn:aws:iam::111122223333:role/any-team"],
        "none": []
    }"#;

    #[test]
    fn what_matches_nothing_is_not_allowed() {
        let limits = RoleLimits::read(TEAMS.as_bytes()).unwrap();
        for (namespace, role, is_allowed) in [
            ("team-a", "team-a/x/y", true),
            ("team-a", "shared", true),
            ("team-a", "any-team", true),
            ("team-a", "shared2", false),
            ("team-b", "any-team", true),
            ("team-b", "team-a/x", false),
            ("none", "any-team", false),
            ("kube-system", "any-team", false),
        ] {
            let arn = format!("arn:aws:iam::111122223333:role/{role}");
            assert_eq!(limits.allow(namespace, &arn), is_allowed, "{namespace} {role}");
        }
        let odd = RoleLimits::read(br#"{"a":["arn:aws:iam::111122223333:role/team!a/*"]}"#).unwrap();
        assert!(odd.allow("a", "arn:aws:iam::111122223333:role/team!a/r"), "IAM has such paths");
        assert!(!RoleLimits::read(b"{}").unwrap().allow("a", "arn:aws:iam::111122223333:role/r"));
        let all = RoleLimits::read(br#"{"*":["*"]}"#).unwrap();
        assert!(all.allow("a", "arn:aws:iam::111122223333:role/r"));
    }

    #[test]
    fn a_file_with_anything_wrong_is_refused_with_all_that_is() {
        for (content, says) in [
            (r#"{"a":["arn:a"],"a":["arn:b"]}"#, vec![r#"entry "a": it is there twice"#]),
            (
                r#"{"A":"arn:a"}"#,
                vec![r#"entry "A": it must be a namespace"#, r#"entry "A": it must be a list"#],
            ),
            (r#"{"a":["role"]}"#, vec![r#"entry "a": "role" must be a role ARN"#]),
            (r#"{"a":["arn:aws:iam::1:role/a?"]}"#, vec!["must be a role ARN"]),
            (r#"{"a":["arn:aws:iam::1:role/a b"]}"#, vec!["must be a role ARN"]),
            (r#"{"a":[1]}"#, vec!["must be a list of role ARNs"]),
            (r#"{"":[]}"#, vec![r#"entry "": it must be a namespace"#]),
            ("[]", vec!["one JSON object"]),
            ("", vec!["not JSON"]),
        ] {
            let said = RoleLimits::read(content.as_bytes()).unwrap_err().to_string();
            assert!(says.iter().all(|part| said.contains(part)), "{content}: {said}");
        }
        let pattern = |count: usize| format!(r#"{{"a":[{}]}}"#, vec![r#""*""#; count].join(","));
        assert!(RoleLimits::read(pattern(10_000).as_bytes()).is_ok());
        assert!(RoleLimits::read(pattern(10_001).as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _read = RoleLimits::read(&bytes);
        }

        #[test]
        fn texts_like_limits_are_read_without_a_panic(
            text in r#"\{("[a*]{0,3}":\["[a*:]{0,4}"(,[0-9]\])?\],?){0,3}\}?"#,
        ) {
            let _read = RoleLimits::read(text.as_bytes());
        }

        /// By a second way, which tries all cuts.
        #[test]
        fn a_pattern_matches_what_its_parts_do(pattern in "[ab*]{0,7}", text in "[ab]{0,9}") {
            fn slowly(pattern: &[u8], text: &[u8]) -> bool {
                match pattern.split_first() {
                    None => text.is_empty(),
                    Some((b'*', rest)) => (0..=text.len()).any(|at| slowly(rest, &text[at..])),
                    Some((first, rest)) => text.first() == Some(first) && slowly(rest, &text[1..]),
                }
            }
            prop_assert_eq!(matches(&pattern, &text), slowly(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
