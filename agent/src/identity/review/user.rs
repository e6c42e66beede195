//! Who the judge says that a token was issued to, and what that amounts to. Pure.
//!
//! Owns: that judge and token must agree. Must not know: how the judge is asked.

use std::sync::Arc;

use crate::identity::claims::{ClaimedWorkload, UnverifiedClaims};
use crate::identity::verdict::{RefusedToken, TokenFacts, TokenFault, VerifiedIdentity};
use crate::identity::verify::Policy;
use crate::workload::{BearerToken, Caller, Pod, ServiceAccount};

/// Who a genuine token was issued to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReviewedUser {
    /// Its name: `system:serviceaccount:<namespace>:<name>` of a service account.
    pub name: Box<str>,
    /// UID of the service account.
    pub uid: Box<str>,
    /// For whom it is good, among those that were asked about.
    pub audiences: Vec<Box<str>>,
    /// Name of its pod, where it is bound to one.
    pub pod: Option<Box<str>>,
    /// UID of its pod, where it is bound to one.
    pub pod_uid: Option<Box<str>>,
    /// The node that its pod was bound to, where that is known.
    pub node: Option<Box<str>>,
}

/// The verdict on a token that is genuine by a review: all of it but its times.
pub(in crate::identity) fn judge_reviewed(
    token: &BearerToken,
    user: &ReviewedUser,
    policy: &Policy,
) -> Result<VerifiedIdentity, RefusedToken> {
    let claims = UnverifiedClaims::of(token)
        .map_err(|error| RefusedToken { fault: TokenFault::Unreadable(error), caller: Caller::Unknown })?;
    let audience = policy.audience(&claims.audiences).map_err(|foreign| RefusedToken {
        fault: TokenFault::ForeignAudience(foreign),
        caller: claims.caller(),
    })?;
    let facts = TokenFacts { digest: token.digest(), validity: claims.validity, audience };
    let pod = pod_of(&claims, user).map_err(|fault| RefusedToken { fault, caller: claims.caller() })?;
    policy.admit(facts, Arc::new(pod))
}

/// The pod that it is bound to. What the token itself says was signed by its issuer, so both must agree.
fn pod_of(claims: &UnverifiedClaims, user: &ReviewedUser) -> Result<Pod, TokenFault> {
    let account = user.name.strip_prefix("system:serviceaccount:").and_then(|name| name.split_once(':'));
    let (Some((namespace, account)), Some(pod), Some(pod_uid)) = (account, &user.pod, &user.pod_uid) else {
        return Err(TokenFault::NotPodBound);
    };
    if [namespace, account, &user.uid, pod, pod_uid].iter().any(|text| text.is_empty()) {
        return Err(TokenFault::NotPodBound);
    }
    if claims.subject != user.name {
        return Err(TokenFault::Contradiction);
    }
    let mut node = user.node.as_ref();
    if let Some(claimed) = &claims.workload {
        let ClaimedWorkload { service_account_uid, pod: name, pod_uid: uid, node: its_node, .. } = claimed;
        let is_same = |claimed: &Option<Box<str>>, said: &str| claimed.as_deref().is_none_or(|it| it == said);
        let agree = *claimed.namespace == *namespace
            && *claimed.service_account == *account
            && is_same(service_account_uid, &user.uid)
            && is_same(name, pod)
            && is_same(uid, pod_uid)
            && node.is_none_or(|node| is_same(its_node, node));
        if !agree {
            return Err(TokenFault::Contradiction);
        }
        // Kubernetes before 1.30 does not pass it on.
        node = node.or(its_node.as_ref());
    }
    Ok(Pod {
        service_account: ServiceAccount {
            namespace: namespace.into(),
            name: account.into(),
            uid: user.uid.clone(),
        },
        name: pod.clone(),
        uid: pod_uid.clone(),
        node: node.cloned(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{ReviewedUser, judge_reviewed};
    use crate::config::{TokenVerification, VerificationMode};
    use crate::identity::review::tests::user;
    use crate::identity::testing::{EcSigner, Signer, claims_with, good_claims};
    use crate::identity::verify::Policy;

    type Change = fn(&mut ReviewedUser);

    fn judged(claims: &Value, user: &ReviewedUser, node: Option<&str>) -> String {
        let (issuers, keys) = (Vec::new(), Vec::new());
        let verification =
            TokenVerification { mode: VerificationMode::Auto, issuers, api_server: None, keys };
        let policy = Policy::new(&verification, "cluster", node);
        match judge_reviewed(&EcSigner::new("k").token(claims), user, &policy) {
            Ok(identity) => format!("{} on {:?}", identity.pod().uid, identity.pod().node.as_deref()),
            Err(refused) => format!("{:?}", refused.fault),
        }
    }

    fn without(path: &str, member: &str) -> Value {
        let mut claims = good_claims();
        claims.pointer_mut(path).unwrap().as_object_mut().unwrap().remove(member);
        claims
    }

    #[test]
    fn a_user_is_a_pod_of_this_node_or_nobody() {
        let cases: [(Change, &str); 10] = [
            (|_| {}, r#"p-uid on Some("node-1")"#),
            (|user| user.node = None, r#"p-uid on Some("node-1")"#),
            (|user| user.name = "system:admin".into(), "NotPodBound"),
            (|user| user.name = "system:serviceaccount:ns".into(), "NotPodBound"),
            (|user| user.name = "system:serviceaccount::sa".into(), "NotPodBound"),
            (|user| user.uid = "".into(), "NotPodBound"),
            (|user| user.pod = None, "NotPodBound"),
            (|user| user.pod_uid = None, "NotPodBound"),
            (|user| user.pod_uid = Some("".into()), "NotPodBound"),
            (|user| user.node = Some("node-2".into()), "Contradiction"),
        ];
        for (change, expected) in cases {
            let mut user = user();
            change(&mut user);
            assert_eq!(judged(&good_claims(), &user, Some("node-1")), expected, "{user:?}");
        }
    }

    #[test]
    fn what_the_token_claims_and_what_the_judge_says_must_agree() {
        let kubernetes = "/kubernetes.io";
        let cases = [
            (claims_with("/sub", json!("system:serviceaccount:ns:admin")), "Contradiction"),
            (without("", "sub"), "Contradiction"),
            (claims_with("/kubernetes.io/namespace", json!("other")), "Contradiction"),
            (claims_with("/kubernetes.io/serviceaccount/name", json!("other")), "Contradiction"),
            (claims_with("/kubernetes.io/serviceaccount/uid", json!("other")), "Contradiction"),
            (claims_with("/kubernetes.io/pod/name", json!("other")), "Contradiction"),
            (claims_with("/kubernetes.io/pod/uid", json!("other")), "Contradiction"),
            (claims_with("/kubernetes.io/node/name", json!("other")), "Contradiction"),
            // What it does not claim, nothing contradicts.
            (without("", "kubernetes.io"), r#"p-uid on Some("node-1")"#),
            (without(kubernetes, "pod"), r#"p-uid on Some("node-1")"#),
            (without(kubernetes, "node"), r#"p-uid on Some("node-1")"#),
        ];
        for (claims, expected) in cases {
            assert_eq!(judged(&claims, &user(), Some("node-1")), expected, "{claims}");
        }
    }

    #[test]
    fn a_pod_of_another_node_is_refused_whichever_of_both_names_it() {
        let neither = ReviewedUser { node: None, ..user() };
        assert_eq!(judged(&good_claims(), &user(), Some("node-2")), "OtherNode");
        assert_eq!(judged(&without("/kubernetes.io", "node"), &user(), Some("node-2")), "OtherNode");
        assert_eq!(judged(&good_claims(), &neither, Some("node-2")), "OtherNode");
        assert_eq!(judged(&without("/kubernetes.io", "node"), &neither, Some("node-2")), "p-uid on None");
        assert_eq!(judged(&good_claims(), &user(), None), r#"p-uid on Some("node-1")"#);
    }
}
