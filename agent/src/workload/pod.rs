//! A pod: as a proven token or the API server names it, and as an unproven token claims it.
//!
//! Owns: these two types, so that no reader can take one for the other. Must not know: how a token is proven.

use super::name::LONGEST_NAME;

/// A service account, as a token or the API server names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// Its UID; a service account deleted and made again has another.
    pub uid: Box<str>,
}

/// A service account by its name alone: what an association is made for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceAccountName {
    /// Its namespace.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
}

/// A pod, as a proven token or the API server names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pod {
    /// The service account it runs under; namespace included.
    pub service_account: ServiceAccount,
    /// Its name.
    pub name: Box<str>,
    /// Its UID; a pod made again under the same name has another.
    pub uid: Box<str>,
    /// The node it was bound to, where the token says so.
    pub node: Option<Box<str>>,
}

/// What an unproven token says of its pod: good for a log line, never for finding credentials.
///
/// Every field is cut to 253 bytes, because these are kept in memory and anybody can write them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedPod {
    /// Namespace of pod and service account.
    pub namespace: Box<str>,
    /// Name of the service account.
    pub service_account: Box<str>,
    /// Name of the pod, where it says so.
    pub name: Option<Box<str>>,
    /// UID of the pod, where it says so.
    pub uid: Option<Box<str>>,
}

impl ClaimedPod {
    /// From these claims, each cut to the longest name that Kubernetes allows.
    pub fn new(namespace: &str, service_account: &str, name: Option<&str>, uid: Option<&str>) -> Self {
        Self {
            namespace: cut(namespace),
            service_account: cut(service_account),
            name: name.map(cut),
            uid: uid.map(cut),
        }
    }
}

fn cut(text: &str) -> Box<str> {
    let end = (0..=LONGEST_NAME.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or_default()).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::ClaimedPod;

    #[test]
    fn claims_are_cut_to_the_longest_name_between_characters() {
        let long = "é".repeat(10_000);
        let claimed = ClaimedPod::new(&long, "sa", Some(&long), None);
        assert_eq!(claimed.namespace.len(), 252, "two bytes a character");
        assert_eq!(claimed.name.as_deref().map(str::len), Some(252));
        assert_eq!((&*claimed.service_account, claimed.uid), ("sa", None));
    }
}
