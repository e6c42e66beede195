//! Names of objects in Kubernetes.
//!
//! Owns: their form (RFC 1123 subdomain). Must not know: what is named.

/// The longest name, in bytes.
pub(super) const LONGEST_NAME: usize = 253;

/// Whether it has the form of a name. A path of names leads nowhere else than it seems to, and a command that
/// quotes one is one command.
pub fn is_name(text: &str) -> bool {
    text.len() <= LONGEST_NAME
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte))
        && text.split('.').all(|label| !(label.is_empty() || label.starts_with('-') || label.ends_with('-')))
}

#[cfg(test)]
mod tests {
    use super::is_name;

    #[test]
    fn a_name_leads_nowhere_else_and_is_no_flag() {
        for name in ["a", "web-0", "ip-10-0-0-1.eu-central-1.compute.internal", &"n".repeat(253)] {
            assert!(is_name(name), "{name}");
        }
        let others =
            ["", ".", "..", "a..b", "a/b", "a b", "A", "-a", "a-", "a.-b", "a;b", "ä", &"n".repeat(254)];
        for text in others {
            assert!(!is_name(text), "{text}");
        }
    }
}
