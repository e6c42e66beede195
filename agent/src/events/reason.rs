//! What an Event says in one word: a closed list.
//!
//! Owns: the words, as `kubectl get events` shows them. Must not know: when one is written. Admins filter by
//! them, and the chart's admission policy lets no other one in, so a word is an interface: a test compares
//! both lists.

/// Declares the enum, its list and its words from one table, so that none can lack an entry.
macro_rules! reasons {
    ($($(#[$meaning:meta])+ $variant:ident;)+) => {
        /// Why a pod gets no credentials, in one word.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$meaning])+ $variant,)+
        }

        impl Reason {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($variant),)+
                }
            }
        }
    };
}

reasons! {
    /// Its service account has no pod identity association.
    NoPodIdentityAssociation;
    /// The role of its association cannot be assumed.
    RoleNotAssumable;
    /// Its token is for STS, and the cluster gives its service account no role.
    NoRoleForServiceAccount;
    /// Its token is for somebody else.
    WrongTokenAudience;
    /// Its token was presented on a node where it does not run.
    TokenOfAnotherNode;
    /// It was made without the variables that point SDKs to the agent.
    PodIdentityNotInjected;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::Reason;

    #[test]
    fn the_admission_policy_of_the_chart_lets_in_these_reasons_and_no_others() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/chart/templates/admission.yaml");
        let template = std::fs::read_to_string(path).unwrap();
        let (_, list) = template.split_once("object.reason in [").unwrap();
        let (list, _) = list.split_once(']').unwrap();
        let listed: BTreeSet<_> = list.split(',').map(|word| word.trim().trim_matches('\'')).collect();
        let ours: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(listed, ours);
    }

    #[test]
    fn a_reason_is_one_word_in_camel_case_of_at_most_128_bytes() {
        for reason in Reason::ALL {
            let word = reason.as_str();
            assert!(word.starts_with(|first: char| first.is_ascii_uppercase()), "{word}");
            assert!(word.bytes().all(|byte| byte.is_ascii_alphanumeric()) && word.len() <= 128, "{word}");
        }
    }
}
