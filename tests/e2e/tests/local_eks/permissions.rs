//! What a pod may do: its role's trust policy is judged when the role is assumed, its permissions policies
//! when it is used.

use sandbox::{Options, PodSpec, Sandbox, TokenSpec};

use super::up::{TRUST, Up, administer, moto};

const EC2_TRUST: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow",
    "Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}"#;
const ON_WARES: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*",
    "Resource":["arn:aws:s3:::wares","arn:aws:s3:::wares/*"]}]}"#;
const ONLY_LIST: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:ListBucket",
    "Resource":"*"}]}"#;

#[test]
fn a_pod_may_what_trust_permissions_and_session_policy_allow_together() {
    let up = Up::start();
    let role = up.create_role("cart", TRUST);
    assert!(up.aws(&["s3", "mb", "s3://wares"]).success);
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    assert!(up.aws(&["s3", "cp", readme, "s3://wares/a"]).success);
    let names = ["--cluster-name", "mycluster", "--namespace", "shop", "--service-account", "cart"];
    let create = ["eks", "create-pod-identity-association", "--role-arn", &role];
    let association = up.aws(&[&create[..], &names].concat()).json()["association"].clone();

    // What EKS has taken can be spoilt later.
    let trust = |document: &str| {
        let trust = ["--role-name", "cart", "--policy-document", document];
        assert!(up.aws(&[&["iam", "update-assume-role-policy"], &trust[..]].concat()).success);
    };
    trust(EC2_TRUST);
    let list = |pod: &str| up.in_pod(["shop", "cart", pod], &["s3", "ls", "s3://wares"]);
    let refused = list("cart-0");
    assert!(!refused.success && refused.err.contains("EKS Auth cannot assume the role"), "{}", refused.err);

    trust(TRUST);
    assert_eq!(list("cart-1").code(), "AccessDenied", "trusted, but without a policy");

    let policy = ["--role-name", "cart", "--policy-name", "wares", "--policy-document", ON_WARES];
    assert!(up.aws(&[&["iam", "put-role-policy"], &policy[..]].concat()).success);
    let listed = list("cart-1");
    assert!(
        listed.success && listed.out.ends_with(" a\n"),
        "the same credentials: {}{}",
        listed.out,
        listed.err
    );

    let id = association["associationId"].as_str().unwrap();
    let update =
        ["eks", "update-pod-identity-association", "--cluster-name", "mycluster", "--association-id", id];
    let narrow = ["--disable-session-tags", "--policy", ONLY_LIST];
    up.aws(&[&update[..], &narrow].concat()).json();
    let pod = ["shop", "cart", "cart-2"];
    assert!(up.in_pod(pod, &["s3", "ls", "s3://wares"]).success);
    let copied = up.in_pod(pod, &["s3", "cp", "s3://wares/a", "-"]);
    assert!(
        !copied.success && copied.err.contains("403"),
        "the session policy: {}{}",
        copied.out,
        copied.err
    );
}

#[test]
fn a_web_identity_needs_its_provider_and_its_trust_in_iam() {
    let options = Options { moto: Some(moto()), ..Options::default() };
    let sandbox = Sandbox::start(options).expect("the sandbox starts");
    let issuer = sandbox.issuer_url();
    let provider = sandbox.oidc_provider().arn;
    let subject = format!("{}:sub", issuer.trim_start_matches("https://"));
    let trust = format!(
        r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Principal":{{"Federated":"{provider}"}},
           "Action":"sts:AssumeRoleWithWebIdentity",
           "Condition":{{"StringEquals":{{"{subject}":"system:serviceaccount:shop:cart"}}}}}}]}}"#
    );
    let create = ["iam", "create-role", "--role-name", "irsa", "--assume-role-policy-document", &trust];
    administer(&sandbox, &create).unwrap();
    let assume = |service_account: &str| {
        let spec = TokenSpec::new(PodSpec::new("shop", service_account, "cart-0"));
        let token = sandbox.token(&spec.audiences(&["sts.amazonaws.com"])).expect("a token");
        let arn = "arn:aws:iam::111122223333:role/irsa";
        let named = ["--role-arn", arn, "--role-session-name", "cart", "--web-identity-token", &token];
        administer(&sandbox, &[&["sts", "assume-role-with-web-identity"], &named[..]].concat())
    };
    let refused = assume("cart").unwrap_err();
    assert!(refused.contains("(InvalidIdentityToken)"), "no provider yet: {refused}");
    let register =
        ["iam", "create-open-id-connect-provider", "--client-id-list", "sts.amazonaws.com", "--url"];
    administer(&sandbox, &[&register[..], &[issuer]].concat()).unwrap();
    let assumed = assume("cart").unwrap();
    assert!(assumed.contains("assumed-role/irsa/cart"), "{assumed}");
    let refused = assume("till").unwrap_err();
    assert!(refused.contains("(AccessDenied)"), "another service account: {refused}");
}
