//! The name of a session at AWS: what readers of CloudTrail see of a pod.
//!
//! Owns: which name that is, and its form. Must not know: keys of credentials. A session name is a name and
//! no more: two pods that share one never share credentials.

use std::sync::Arc;

use aws_lc_rs::digest;

use crate::workload::Pod;

/// `RoleSessionName` has 2 to 64 characters of `[\w+=,.@-]` (botocore model, sts 2011-06-15).
const SHORTEST: usize = 2;
const LONGEST: usize = 64;
/// At the end of a name that was cut, behind a dash.
const HASH_DIGITS: usize = 8;

/// How sessions are named.
///
/// The name of a pod is `<namespace>.<pod>`: the order of kubectl and of `sub`, with the one separator that
/// STS allows and a namespace never contains, so that a reader can take the two apart again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SessionNames {
    /// `<namespace>.<pod>`: who it was, as precisely as CloudTrail can say.
    #[default]
    Pod,
    /// `<namespace>.<service account>`: the same for all pods of an account, for services that take the
    /// session for the user, such as MSK.
    ServiceAccount,
    /// The same for all pods of this agent.
    Fixed(FixedName),
}

/// A name that STS takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedName(Arc<str>);

/// A text that says of no way how sessions are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSessionNames {
    /// None of the three ways.
    #[error("must be pod, service-account or fixed:NAME")]
    Unknown,
    /// STS would refuse each call.
    #[error("the NAME of fixed:NAME must have 2 to 64 characters: ASCII letters, digits and _+=,.@-")]
    ImpossibleName,
}

impl SessionNames {
    /// Reads the value of a flag.
    ///
    /// # Errors
    /// [`NotSessionNames`].
    pub fn parse(text: &str) -> Result<Self, NotSessionNames> {
        match (text, text.strip_prefix("fixed:")) {
            ("pod", _) => Ok(Self::Pod),
            ("service-account", _) => Ok(Self::ServiceAccount),
            (_, Some(name)) => {
                let is_possible = (SHORTEST..=LONGEST).contains(&name.len()) && name.chars().all(is_allowed);
                let name = is_possible.then(|| FixedName(name.into()));
                name.map(Self::Fixed).ok_or(NotSessionNames::ImpossibleName)
            }
            (_, None) => Err(NotSessionNames::Unknown),
        }
    }

    /// The name of this pod's session.
    pub fn of(&self, pod: &Pod) -> Arc<str> {
        let account = &pod.service_account;
        match self {
            Self::Pod => fitted(&format!("{}.{}", account.namespace, pod.name)),
            Self::ServiceAccount => fitted(&format!("{}.{}", account.namespace, account.name)),
            Self::Fixed(FixedName(name)) => Arc::clone(name),
        }
    }
}

/// What STS takes of a name. One that is cut ends in a hash of the whole, so that two long names with the
/// same beginning (`<deployment>-<hash>-<id>`) differ.
fn fitted(name: &str) -> Arc<str> {
    let mut fitted: String = name.chars().map(|c| if is_allowed(c) { c } else { '-' }).collect();
    if fitted.len() > LONGEST {
        // One byte a character by now.
        fitted.truncate(LONGEST - 1 - HASH_DIGITS);
        fitted.push('-');
        let hash = digest::digest(&digest::SHA256, name.as_bytes());
        hash.as_ref().iter().take(HASH_DIGITS / 2).for_each(|byte| fitted.push_str(&format!("{byte:02x}")));
    }
    fitted.into()
}

const fn is_allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '=' | ',' | '.' | '@' | '-')
}

#[cfg(test)]
mod tests {
    use super::{NotSessionNames, SessionNames};
    use crate::workload::{Pod, ServiceAccount};

    fn pod(namespace: &str, account: &str, name: &str) -> Pod {
        let service_account =
            ServiceAccount { namespace: namespace.into(), name: account.into(), uid: "sa-uid".into() };
        Pod { service_account, name: name.into(), uid: "uid".into(), node: None }
    }

    #[test]
    fn a_pod_is_named_so_that_namespace_and_pod_can_be_told_apart() {
        let web = pod("shop", "web", "web-7d9f-x2x");
        assert_eq!(&*SessionNames::Pod.of(&web), "shop.web-7d9f-x2x");
        assert_eq!(&*SessionNames::ServiceAccount.of(&web), "shop.web");
        assert_eq!(&*SessionNames::parse("fixed:team-a").unwrap().of(&web), "team-a");
        assert_eq!(&*SessionNames::Pod.of(&pod("n", "a", "")), "n.", "two characters at least");
        assert_eq!(&*SessionNames::Pod.of(&pod("n:ö/", "a", "p p")), "n---.p-p");
    }

    #[test]
    fn a_long_name_is_cut_and_two_long_names_differ() {
        let named = |name: &str| SessionNames::Pod.of(&pod("shop", "web", name));
        let (fits, long) = ("p".repeat(59), "p".repeat(60));
        assert_eq!(*named(&fits), format!("shop.{fits}"));
        // SHA-256 of `shop.` and sixty times `p`.
        assert_eq!(*named(&long), format!("shop.{}-{}", "p".repeat(50), "6c5a9a82"));
        assert_eq!(named(&long).len(), 64);
        assert_ne!(named(&format!("{long}-a")), named(&format!("{long}-b")));
        assert_eq!(named(&"é".repeat(300)).len(), 64);
    }

    #[test]
    fn an_impossible_value_is_refused() {
        for (text, expected) in [
            ("pod", Ok(SessionNames::Pod)),
            ("service-account", Ok(SessionNames::ServiceAccount)),
            ("", Err(NotSessionNames::Unknown)),
            ("Pod", Err(NotSessionNames::Unknown)),
            ("fixed", Err(NotSessionNames::Unknown)),
            ("team-a", Err(NotSessionNames::Unknown)),
            ("fixed:", Err(NotSessionNames::ImpossibleName)),
            ("fixed:a", Err(NotSessionNames::ImpossibleName)),
            ("fixed:a b", Err(NotSessionNames::ImpossibleName)),
            ("fixed:ab/c", Err(NotSessionNames::ImpossibleName)),
            ("fixed:müsli", Err(NotSessionNames::ImpossibleName)),
        ] {
            assert_eq!(SessionNames::parse(text), expected, "{text}");
        }
        for name in ["ab", "A_+=,.@-9", &"n".repeat(64)] {
            assert!(SessionNames::parse(&format!("fixed:{name}")).is_ok(), "{name}");
        }
        let longer = format!("fixed:{}", "n".repeat(65));
        assert_eq!(SessionNames::parse(&longer), Err(NotSessionNames::ImpossibleName));
    }
}
