//! IAM's wildcards: `*` is any text, also none, and `?` is any one character.
//!
//! Must not know: what is matched.

/// Whether `text` is what `pattern` says.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut read) = (0, 0);
    // Where the last star stands, and how much of the text it has taken so far.
    let mut star: Option<(usize, usize)> = None;
    while let Some(&character) = text.get(read) {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(&wanted) if wanted == '?' || wanted == character => {
                at += 1;
                read += 1;
            }
            Some(_) | None => {
                let Some((star_at, taken)) = star else { return false };
                // The star takes one more.
                star = Some((star_at, taken + 1));
                at = star_at + 1;
                read = taken + 1;
            }
        }
    }
    pattern.iter().skip(at).all(|&rest| rest == '*')
}

/// Whether `arn` is what `pattern` says, part by part: a star does not reach over a colon, but in the last
/// part.
pub(crate) fn arn_matches(pattern: &str, arn: &str) -> bool {
    const PARTS: usize = 6;
    let parts = |text: &str| text.splitn(PARTS, ':').map(str::to_owned).collect::<Vec<_>>();
    let (pattern, arn) = (parts(pattern), parts(arn));
    pattern.len() == arn.len() && pattern.iter().zip(&arn).all(|(pattern, part)| matches(pattern, part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks_match_as_iam_documents_them() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c*e", "abcde", true),
            ("a*c*f", "abcde", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("system:serviceaccount:shop:*", "system:serviceaccount:shop:cart", true),
            ("system:serviceaccount:shop:*", "system:serviceaccount:shopping:cart", false),
            ("*ab", "aab", true),
            ("**", "x", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_star_in_an_arn_stays_in_its_part() {
        let role = "arn:aws:iam::111122223333:role/a:b";
        assert!(arn_matches("arn:aws:iam::*:role/*", role));
        assert!(arn_matches(role, role));
        assert!(!arn_matches("arn:*:role/a:b", role));
        assert!(!arn_matches("*", role));
    }
}
