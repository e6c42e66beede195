//! The name of a session at AWS: what readers of CloudTrail see of a pod.
//!
//! Owns: which name that is, and its form. Must not know: keys of credentials. A session name is a name and
//! no more: two pods that share one never share credentials.

use std::sync::Arc;

use aws_lc_rs::digest;

use crate::config::SessionName;
use crate::workload::Pod;

/// `RoleSessionName` has 2 to 64 characters of `[\w+=,.@-]` (botocore model, sts 2011-06-15).
const LONGEST: usize = 64;
/// At the end of a name that was cut, behind a dash.
const HASH_DIGITS: usize = 8;

/// The name of this pod's session.
///
/// That of a pod is `<namespace>.<pod>`: the order of kubectl and of `sub`, with the one separator that STS
/// allows and a namespace never contains, so that a reader can take the two apart again.
pub(super) fn session_name(names: &SessionName, pod: &Pod) -> Arc<str> {
    let account = &pod.service_account;
    match names {
        SessionName::Pod => fitted(&format!("{}.{}", account.namespace, pod.name)),
        SessionName::ServiceAccount => fitted(&format!("{}.{}", account.namespace, account.name)),
        SessionName::Fixed(name) => name.as_str().into(),
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
    use super::session_name;
    use crate::config::SessionName;
    use crate::workload::{Pod, ServiceAccount};

    fn pod(namespace: &str, account: &str, name: &str) -> Pod {
        let service_account =
            ServiceAccount { namespace: namespace.into(), name: account.into(), uid: "sa-uid".into() };
        Pod { service_account, name: name.into(), uid: "uid".into(), node: None }
    }

    #[test]
    fn a_pod_is_named_so_that_namespace_and_pod_can_be_told_apart() {
        let web = pod("shop", "web", "web-7d9f-x2x");
        assert_eq!(&*session_name(&SessionName::Pod, &web), "shop.web-7d9f-x2x");
        assert_eq!(&*session_name(&SessionName::ServiceAccount, &web), "shop.web");
        assert_eq!(&*session_name(&SessionName::Fixed("team-a".to_owned()), &web), "team-a");
        assert_eq!(&*session_name(&SessionName::Pod, &pod("n", "a", "")), "n.", "two characters at least");
        assert_eq!(&*session_name(&SessionName::Pod, &pod("n:ö/", "a", "p p")), "n---.p-p");
    }

    #[test]
    fn a_long_name_is_cut_and_two_long_names_differ() {
        let named = |name: &str| session_name(&SessionName::Pod, &pod("shop", "web", name));
        let (fits, long) = ("p".repeat(59), "p".repeat(60));
        assert_eq!(*named(&fits), format!("shop.{fits}"));
        // SHA-256 of `shop.` and sixty times `p`.
        assert_eq!(*named(&long), format!("shop.{}-{}", "p".repeat(50), "6c5a9a82"));
        assert_eq!(named(&long).len(), 64);
        assert_ne!(named(&format!("{long}-a")), named(&format!("{long}-b")));
        assert_eq!(named(&"é".repeat(300)).len(), 64);
    }
}
