//! What an administrator in a hurry gets wrong, in the order in which it happens, and what AWS says.

use serde_json::Value;

use super::up::{TRUST, Up};

const CLUSTER: [&str; 2] = ["--cluster-name", "mycluster"];
const NAMES: [&str; 4] = ["--namespace", "shop", "--service-account", "cart"];
const CREATE: [&str; 2] = ["eks", "create-pod-identity-association"];
const UPDATE: &str = "update-pod-identity-association";
const DELETE: &str = "delete-pod-identity-association";
const INVALID: &str = "InvalidParameterException";
const MISSING: &str = "ResourceNotFoundException";
const ROLE: &str = "arn:aws:iam::111122223333:role/cart";
const ADDON: [&str; 2] = ["--addon-name", "aws-ebs-csi-driver"];

/// The trust policy of EKS Pod Identity with one mistake.
fn trust_with(right: &str, wrong: &str) -> String {
    let spoilt = TRUST.replacen(right, wrong, 1);
    assert_ne!(spoilt, TRUST, "it has no {right}");
    spoilt
}

/// The command fails with this code, and its words contain these.
fn assert_told(up: &Up, arguments: &[&str], code: &str, words: &str) {
    let said = up.aws(arguments);
    assert!(!said.success, "{arguments:?} succeeded: {}", said.out);
    assert_eq!(said.code(), code, "{arguments:?}: {}", said.err);
    assert!(said.err.contains(words), "{arguments:?}: {}", said.err);
}

#[test]
#[ignore = "in make nightly: the AWS CLI is started some fifty times, which takes the processors"]
fn each_mistake_with_a_role_or_an_association_is_told() {
    let up = Up::start();
    with_roles(&up);
    let made = with_a_place(&up, &up.create_role("cart", TRUST));
    let (id, arn) = (made["associationId"].as_str().unwrap(), made["associationArn"].as_str().unwrap());
    with_ids(&up, id, arn);

    // A target role that does not trust the first one: EKS takes it, and the pod is told.
    let target = up.create_role("target", TRUST);
    let aim = ["eks", UPDATE, "--association-id", id, "--target-role-arn", &target];
    up.aws(&[&aim, &CLUSTER[..]].concat()).json();
    let who = up.in_pod(["shop", "cart", "cart-0"], &["sts", "get-caller-identity"]);
    assert!(!who.success && who.err.contains("EKS Auth cannot assume the role"), "{}{}", who.out, who.err);
    assert_told(&up, &["ec2", "describe-instances"], "UnknownServiceException", "no service 'ec2'");
    let provider = "arn:aws:iam::111122223333:oidc-provider/issuer.example";
    let add = ["iam", "add-client-id-to-open-id-connect-provider", "--client-id", "mine"];
    let add = [&add[..], &["--open-id-connect-provider-arn", provider]].concat();
    assert_told(&up, &add, "NotImplemented", "does not know AddClientIDToOpenIDConnectProvider");
}

/// Roles that are not there, not the cluster's, or trust somebody else.
fn with_roles(up: &Up) {
    let refused = |role: &str, words: &str| {
        let create = [&CREATE[..], &NAMES, &CLUSTER, &["--role-arn", role]].concat();
        assert_told(up, &create, INVALID, words);
    };
    refused(ROLE, "Role provided in the request does not exist.");
    refused("cart", "The role ARN 'cart' is not valid.");
    refused("arn:aws:iam::444455556666:role/cart", "Cross-account pass role is not allowed.");
    refused("arn:aws-cn:iam::111122223333:role/cart", "Role provided in the request does not exist.");
    for (wrong, words) in [
        (TRUST.replacen('{', "", 1), "Syntax errors in policy."),
        (trust_with("Principal", "Principle"), "Syntax errors in policy."),
        (trust_with("\"Effect\"", "\"Resource\":\"*\",\"Effect\""), "Has prohibited field Resource."),
        (trust_with("sts:TagSession", "s3:GetObject"), "Trust Policy statement actions can only be"),
    ] {
        let create = ["iam", "create-role", "--role-name", "cart", "--assume-role-policy-document", &wrong];
        assert_told(up, &create, "MalformedPolicyDocument", words);
    }
    for (name, wrong) in [
        ("of-another-service", trust_with("pods.eks", "pod.eks")),
        ("without-tags", trust_with(",\"sts:TagSession\"", "")),
    ] {
        refused(&up.create_role(name, &wrong), "Trust policy of the role provided is invalid.");
    }
}

/// Another region, another cluster, and the right place twice; gives the association.
fn with_a_place(up: &Up, role: &str) -> Value {
    let create = [&CREATE[..], &NAMES, &["--role-arn", role]].concat();
    let elsewhere = [&create[..], &CLUSTER, &["--region", "us-east-1"]].concat();
    assert_told(up, &elsewhere, MISSING, "No cluster found for name: mycluster.");
    let misspelt = [&create[..], &["--cluster-name", "mycluser"]].concat();
    assert_told(up, &misspelt, MISSING, "No cluster found for name: mycluser.");
    let listed = up.aws(&["eks", "list-clusters", "--region", "us-east-1"]).json();
    assert_eq!(listed["clusters"].as_array().map(Vec::len), Some(0), "{listed}");
    let right = [&create[..], &CLUSTER].concat();
    let made = up.aws(&right).json()["association"].clone();
    let twice = format!("Association already exists: {}", made["associationId"].as_str().unwrap());
    assert_told(up, &right, "ResourceInUseException", &twice);
    made
}

/// Changes that are none, and ids that are none.
fn with_ids(up: &Up, id: &str, arn: &str) {
    let refused = |command: &str, id: &str, more: &[&str], code: &str, words: &str| {
        let named = [&["eks", command], &CLUSTER[..], &["--association-id", id], more].concat();
        assert_told(up, &named, code, words);
    };
    refused(UPDATE, id, &[], INVALID, "must change at least one");
    refused(UPDATE, id, &["--role-arn", "arn:aws:iam::111122223333:role/gone"], INVALID, "does not exist.");
    refused(UPDATE, id, &["--target-role-arn", "cart"], INVALID, "The role ARN 'cart' is not valid.");
    let policy = r#"{"Version":"2012-10-17","Statement":[]}"#;
    refused(UPDATE, id, &["--policy", policy], INVALID, "needs disableSessionTags");
    for wrong in ["a-1", arn] {
        refused(DELETE, wrong, &[], INVALID, "The parameter associationId should be 19 characters long.");
    }
    refused(DELETE, "a-00000000000000000", &[], MISSING, "does not exist: a-00000000000000000");
}

#[test]
#[ignore = "in make nightly: the AWS CLI is started some fifty times, which takes the processors"]
fn each_mistake_with_an_add_on_is_told_and_changes_nothing() {
    let up = Up::start();
    let role = up.create_role("driver", TRUST);
    let of = |service_account: &str, role: &str| format!("serviceAccount={service_account},roleArn={role}");
    let right = of("ebs-csi-controller-sa", &role);
    let eks = |command: &'static str, more: &[&str]| {
        up.aws(&[&["eks", command], &CLUSTER[..], &ADDON, more].concat())
    };
    let with = "--pod-identity-associations";
    assert_eq!(
        eks("update-addon", &[with, &right]).code(),
        "ResourceNotFoundException",
        "before it is there"
    );
    eks("create-addon", &[with, &right]).json();
    assert_eq!(eks("create-addon", &[with, &right]).code(), "ResourceInUseException", "twice");
    let before = eks("describe-addon", &[]).json();
    for (wrong, words) in [
        (
            of("ebs-csi-controler-sa", &role),
            "Service account ebs-csi-controler-sa in pod identity configuration is not supported for addon \
             aws-ebs-csi-driver",
        ),
        (of("ebs-csi-controller-sa", ROLE), "Role provided in the request does not exist."),
        (of("ebs-csi-controller-sa", "driver"), "The role ARN 'driver' is not valid."),
    ] {
        let update = [&["eks", "update-addon"], &CLUSTER[..], &ADDON, &[with, &wrong]].concat();
        assert_told(&up, &update, INVALID, words);
    }
    assert_eq!(eks("describe-addon", &[]).json(), before);
    let coredns = ["eks", "create-addon", "--addon-name", "coredns", with, &of("coredns", &role)];
    let unsupported = "Pod Identity feature is not supported for addon version: v1.11.3-eksbuild.1";
    assert_told(&up, &[&coredns, &CLUSTER[..]].concat(), INVALID, unsupported);
}
