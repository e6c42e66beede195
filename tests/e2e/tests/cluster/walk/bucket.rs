//! "Assuming IAM Roles Using Service Accounts on Amazon EKS": a bucket, a pod that is denied, a role, an
//! annotation, and the same pod again.

use serde_json::json;

use super::{assert_given_by_agent, begin, container, denied};
use crate::harness::cluster::{Shell, Turn, cluster};

const LIST: &str = "kubectl exec -it awscli -n default -- aws s3 ls my-test-bucket";

fn pod(cluster: &Turn) -> String {
    let spec = json!({
        "serviceAccountName": "my-service-account", "terminationGracePeriodSeconds": 0,
        "containers": [container(cluster, "sleep infinity")],
    });
    // By the label it is removed, if this test ends before its time.
    let metadata = json!({"name": "awscli", "namespace": "default", "labels": {"made-by": "test"}});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}).to_string()
}

#[test]
fn a_pod_is_denied_and_lists_its_bucket_once_its_service_account_has_a_role() {
    let cluster = cluster("walk: bucket");
    let (_injection, shell) = begin(&cluster, "bucket", "default");
    shell.at_end("kubectl delete serviceaccount my-service-account");

    // "Create a Kubernetes service account"
    shell.run(
        "cat >my-service-account.yaml <<EOF
apiVersion: v1
kind: ServiceAccount
metadata:
  name: my-service-account
  namespace: default
EOF
        kubectl apply -f my-service-account.yaml",
    );

    // "Create the S3 bucket". In other regions than us-east-1, S3 wants to know where.
    shell.run(
        "aws s3api create-bucket --bucket my-test-bucket --region us-west-2 \\
            --create-bucket-configuration LocationConstraint=us-west-2
        echo Hello | aws s3 cp - s3://my-test-bucket/my-test-file.txt",
    );

    // "Try to access the bucket from Kubernetes": to AWS the pod is its node.
    shell.write("my-pod.yaml", &pod(&cluster));
    shell.run("kubectl apply -f my-pod.yaml\nkubectl wait --for=condition=Ready pod/awscli --timeout=60s");
    let said = denied(&shell, LIST);
    assert!(said.contains("(AccessDenied) when calling the ListObjectsV2 operation"), "{said}");

    create_oidc_provider(&shell);
    configure_irsa(&shell);

    // Not in the document: pods opt in, and are created again, as AWS's document has it.
    shell.run(
        "kubectl label namespace default pod-identity-agent/inject=web-identity
        kubectl delete pod awscli
        kubectl apply -f my-pod.yaml
        kubectl wait --for=condition=Ready pod/awscli --timeout=60s",
    );

    // "Validate the configuration"
    let listed = shell.run(LIST);
    assert!(listed.trim_end().ends_with(" my-test-file.txt"), "{listed}");
    assert_given_by_agent(&cluster, "awscli", "my-test-role", false);
    assert_hints_show_it(&shell);
}

/// "Create an OIDC provider": there is none, and then there is one. eksctl cannot be had.
fn create_oidc_provider(shell: &Shell<'_>) {
    let known = "aws iam list-open-id-connect-providers | grep $oidc_id | cut -d \"/\" -f4";
    // Another walk may have made it.
    shell.run(
        "list='aws iam list-open-id-connect-providers --output text --query OpenIDConnectProviderList[].Arn'
        for arn in $($list); do
            aws iam delete-open-id-connect-provider --open-id-connect-provider-arn $arn
        done",
    );
    shell.run(
        "oidc_id=$(aws eks describe-cluster --name sandbox --query \"cluster.identity.oidc.issuer\" \\
            --output text | cut -d '/' -f 5)",
    );
    assert_eq!(denied(shell, known), "", "there is no output");
    shell.run(
        "url=$(aws eks describe-cluster --name sandbox --query \"cluster.identity.oidc.issuer\" --output text)
        aws iam create-open-id-connect-provider --url $url --client-id-list sts.amazonaws.com",
    );
    assert!(!shell.run(known).trim().is_empty(), "there is output");
}

/// "Configure IRSA"
fn configure_irsa(shell: &Shell<'_>) {
    shell.run(
        r#"cat >my-test-policy.json <<EOF
{
  "Version":"2012-10-17",
  "Statement": [
    {
      "Action": "s3:*",
      "Effect": "Allow",
      "Resource": [
        "arn:aws:s3:::my-test-bucket",
        "arn:aws:s3:::my-test-bucket/*"
      ]
    }
  ]
}
EOF
aws iam create-policy --policy-name my-test-policy --policy-document file://my-test-policy.json
account_id=$(aws sts get-caller-identity --query "Account" --output text)
oidc_provider=$(aws eks describe-cluster --name sandbox --region us-west-2 \
    --query "cluster.identity.oidc.issuer" --output text | sed -e "s/^https:\/\///")
cat >trust-relationship.json <<EOF
{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Effect": "Allow",
      "Principal": {
        "Federated": "arn:aws:iam::$account_id:oidc-provider/$oidc_provider"
      },
      "Action": "sts:AssumeRoleWithWebIdentity",
      "Condition": {
        "StringEquals": {
          "$oidc_provider:aud": "sts.amazonaws.com",
          "$oidc_provider:sub": "system:serviceaccount:default:my-service-account"
        }
      }
    }
  ]
}
EOF
aws iam create-role --role-name my-test-role --assume-role-policy-document file://trust-relationship.json \
    --description "my-irsa-role"
aws iam attach-role-policy --role-name my-test-role \
    --policy-arn=arn:aws:iam::$account_id:policy/my-test-policy
kubectl annotate serviceaccount -n default my-service-account \
    eks.amazonaws.com/role-arn=arn:aws:iam::$account_id:role/my-test-role"#,
    );
}

/// "A few things you can try to debug the issue"
fn assert_hints_show_it(shell: &Shell<'_>) {
    for (command, shows) in [
        ("kubectl describe pod awscli -n default", "my-service-account"),
        (
            "kubectl describe serviceaccount my-service-account -n default",
            "eks.amazonaws.com/role-arn: arn:aws:iam::111122223333:role/my-test-role",
        ),
        (
            "aws iam list-attached-role-policies --role-name my-test-role \
                --query AttachedPolicies[].PolicyArn --output text",
            "arn:aws:iam::111122223333:policy/my-test-policy",
        ),
        (
            "aws iam get-policy --policy-arn arn:aws:iam::$account_id:policy/my-test-policy",
            "\"PolicyName\": \"my-test-policy\"",
        ),
        (
            "aws iam get-policy-version --policy-arn arn:aws:iam::$account_id:policy/my-test-policy \
                --version-id v1",
            "arn:aws:s3:::my-test-bucket/*",
        ),
        (
            "aws iam get-role --role-name my-test-role --query Role.AssumeRolePolicyDocument",
            "system:serviceaccount:default:my-service-account",
        ),
    ] {
        let shown = shell.run(command);
        assert!(shown.contains(shows), "{command}: {shown}");
    }
}
