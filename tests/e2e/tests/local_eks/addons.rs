//! AWS's guide "Attach an IAM Role to an Amazon EKS add-on using Pod Identity", command by command.

use serde_json::Value;

use super::up::{TRUST, Up};

const ADDON: [&str; 4] = ["--cluster-name", "mycluster", "--addon-name", "aws-ebs-csi-driver"];
/// The add-on's pods have it.
const SERVICE_ACCOUNT: [&str; 2] = ["kube-system", "ebs-csi-controller-sa"];
const VERSION: &str = "v1.31.0-eksbuild.1";

fn associations(up: &Up) -> Vec<Value> {
    let list = up.aws(&["eks", "list-pod-identity-associations", "--cluster-name", "mycluster"]).json();
    let all = list["associations"].as_array().unwrap().iter();
    all.filter(|each| each["namespace"] == SERVICE_ACCOUNT[0]).cloned().collect()
}

#[test]
#[ignore = "in make nightly: the AWS CLI is started some fifty times, which takes the processors"]
fn an_add_on_owns_its_associations_as_the_guide_says() {
    let up = Up::start();
    let eks = |command: &str, more: &[&str]| up.aws(&[&["eks", command], &ADDON[..], more].concat());

    // "Retrieve IAM info about an Amazon EKS add-on"
    let versions = ["eks", "describe-addon-versions", "--addon-name", "aws-ebs-csi-driver"];
    let versions = up.aws(&[&versions[..], &["--kubernetes-version", "1.30"]].concat()).json();
    let newest = &versions["addons"][0]["addonVersions"][0];
    assert_eq!(
        (newest["addonVersion"].as_str(), &newest["requiresIamPermissions"]),
        (Some(VERSION), &true.into())
    );
    let configuration = ["eks", "describe-addon-configuration", "--query", "podIdentityConfiguration"];
    let named = ["--addon-name", "aws-ebs-csi-driver", "--addon-version", VERSION];
    let suggested = up.aws(&[&configuration[..], &named].concat()).json();
    assert_eq!(suggested[0]["serviceAccount"], SERVICE_ACCOUNT[1]);
    let policy = suggested[0]["recommendedManagedPolicies"][0].as_str().unwrap().to_owned();

    // The role with the suggested policy, and the add-on without it yet.
    let role = up.create_role("StorageDriver", TRUST);
    let attach = ["iam", "attach-role-policy", "--role-name", "StorageDriver", "--policy-arn", &policy];
    assert!(up.aws(&attach).success, "moto has the managed policies");
    eks("create-addon", &[]).json();
    assert!(associations(&up).is_empty());

    // "Update an Amazon EKS Add-on to use a Pod Identity Association"
    let mapping = format!("serviceAccount={},roleArn={role}", SERVICE_ACCOUNT[1]);
    eks("update-addon", &["--pod-identity-associations", &mapping]).json();
    let owned = associations(&up);
    let owner = owned[0]["ownerArn"].as_str().unwrap();
    assert!(owner.contains(":addon/mycluster/aws-ebs-csi-driver/"), "{owner}");
    let pod = [SERVICE_ACCOUNT[0], SERVICE_ACCOUNT[1], "ebs-csi-controller-0"];
    let who = up.in_pod(pod, &["sts", "get-caller-identity"]);
    assert!(who.out.contains("assumed-role/StorageDriver/"), "{}{}", who.out, who.err);

    // "Troubleshoot Pod Identities for EKS Add-ons": the role's trust policy.
    let trust =
        ["iam", "get-role", "--role-name", "StorageDriver", "--query", "Role.AssumeRolePolicyDocument"];
    assert_eq!(up.aws(&trust).json()["Statement"][0]["Principal"]["Service"], "pods.eks.amazonaws.com");

    // "Remove all pod identity associations from an Amazon EKS add-on"
    eks("update-addon", &["--pod-identity-associations", "[]"]).json();
    assert!(associations(&up).is_empty());

    // "all previous pod identity associations are overwritten": of an add-on with two service accounts.
    let efs =
        ["--cluster-name", "mycluster", "--addon-name", "aws-efs-csi-driver", "--pod-identity-associations"];
    let set = |command: &str, service_account: &str| {
        let mapping = format!("serviceAccount={service_account},roleArn={role}");
        up.aws(&[&["eks", command], &efs[..], &[&mapping]].concat()).json()
    };
    let owner = set("create-addon", "efs-csi-controller-sa")["addon"]["addonArn"].clone();
    assert_eq!(associations(&up)[0]["serviceAccount"], "efs-csi-controller-sa");
    set("update-addon", "efs-csi-node-sa");
    let overwritten = associations(&up);
    assert_eq!(overwritten.len(), 1);
    assert_eq!(
        (&overwritten[0]["serviceAccount"], &overwritten[0]["ownerArn"]),
        (&"efs-csi-node-sa".into(), &owner)
    );
}

#[test]
#[ignore = "in make nightly: the AWS CLI is started some fifty times, which takes the processors"]
fn an_add_on_takes_over_nothing_and_takes_its_own_with_it_unless_told_to_preserve() {
    let up = Up::start();
    let eks = |command: &str, more: &[&str]| up.aws(&[&["eks", command], &ADDON[..], more].concat());
    let role = up.create_role("StorageDriver", TRUST);
    let names = ["--namespace", SERVICE_ACCOUNT[0], "--service-account", SERVICE_ACCOUNT[1]];
    let create =
        ["eks", "create-pod-identity-association", "--cluster-name", "mycluster", "--role-arn", &role];
    let by_hand = up.aws(&[&create[..], &names].concat()).json()["association"]["associationId"].clone();

    // "Add-ons cannot assume ownership of existing pod identity associations."
    let mapping = format!("serviceAccount={},roleArn={role}", SERVICE_ACCOUNT[1]);
    let wanted = ["--pod-identity-associations", mapping.as_str()];
    let overwrite = [&wanted[..], &["--resolve-conflicts", "OVERWRITE"]].concat();
    assert_eq!(eks("create-addon", &overwrite).code(), "ResourceInUseException");
    assert_eq!(eks("describe-addon", &[]).code(), "ResourceNotFoundException", "nothing is half made");
    let delete =
        ["eks", "delete-pod-identity-association", "--cluster-name", "mycluster", "--association-id"];
    up.aws(&[&delete[..], &[by_hand.as_str().unwrap()]].concat()).json();
    let addon = eks("create-addon", &wanted).json()["addon"].clone();
    assert_eq!(addon["podIdentityAssociations"].as_array().unwrap().len(), 1, "{addon}");

    // "You can prevent this cascading delete by using the preserve option."
    eks("delete-addon", &["--preserve"]).json();
    let preserved = associations(&up);
    assert_eq!((preserved.len(), preserved[0].get("ownerArn")), (1, None));
    up.aws(&[&delete[..], &[preserved[0]["associationId"].as_str().unwrap()]].concat()).json();
    eks("create-addon", &wanted).json();
    eks("delete-addon", &[]).json();
    assert!(associations(&up).is_empty(), "deleted with the add-on");
}
