//! "How to Use an IAM Role Assigned to a Kubernetes Service Account in AWS with Hybrid Deployment": jobs of a
//! third party get a role by the annotation of their service account.

use serde_json::json;

use super::{NO_ROLE, assert_given_by_agent, begin, container};
use crate::harness::cluster::{Shell, Turn, cluster};

/// Runs a job that lists the bucket until it is complete or has failed; returns its pod and what that wrote.
fn job(cluster: &Turn, shell: &Shell<'_>, name: &str, ends: &str) -> (String, String) {
    let spec = json!({
        "serviceAccountName": "hd-job-sa", "restartPolicy": "Never",
        "containers": [container(cluster, "aws s3 ls s3://hybrid")],
    });
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": "hybrid"},
        "spec": {"backoffLimit": 0, "template": {"spec": spec}},
    });
    shell.write("job.yaml", &job.to_string());
    shell.run(&format!(
        "kubectl apply -f job.yaml\nkubectl wait -n hybrid --for=condition={ends} job/{name} --timeout=60s"
    ));
    let pod = shell.run(&format!("kubectl get pods -n hybrid -l job-name={name} -o name"));
    let wrote = shell.run(&format!("kubectl logs -n hybrid job/{name}"));
    (pod.trim().trim_start_matches("pod/").to_owned(), wrote)
}

#[test]
fn jobs_of_an_annotated_service_account_assume_its_role() {
    let cluster = cluster("walk: jobs");
    let (_injection, shell) = begin(&cluster, "jobs", "hybrid");
    shell.run(
        "kubectl label namespace hybrid pod-identity-agent/inject=web-identity
        kubectl create serviceaccount -n hybrid hd-job-sa",
    );
    create_policy_and_role(&shell);
    trust_the_service_account(&shell);

    let (_, wrote) = job(&cluster, &shell, "before", "failed");
    assert!(wrote.contains(NO_ROLE), "the agent's sentence: {wrote}");

    // "Annotate Kubernetes service account"
    shell.run(
        "kubectl annotate serviceaccount hd-job-sa -n hybrid \
            eks.amazonaws.com/role-arn=arn:aws:iam::111122223333:role/hybrid",
    );

    // "When these jobs run, they automatically assume the associated IAM role"
    let (pod, wrote) = job(&cluster, &shell, "after", "complete");
    assert!(wrote.trim_end().ends_with(" file"), "{wrote}");
    assert_given_by_agent(&cluster, &pod, "hybrid", false);
}

/// "Create IAM policy" and "Create IAM role", which at first trusts EC2.
fn create_policy_and_role(shell: &Shell<'_>) {
    shell.run(
        r#"aws s3 mb s3://hybrid
echo Hello | aws s3 cp - s3://hybrid/file
cat >s3-policy.json <<EOF
{ "Version": "2012-10-17", "Statement": [ { "Effect": "Allow", "Action": [ "s3:DeleteObjectTagging",
  "s3:ReplicateObject", "s3:PutObject", "s3:GetObjectAcl", "s3:GetObject", "s3:DeleteObjectVersion",
  "s3:ListBucket", "s3:PutObjectTagging", "s3:DeleteObject", "s3:PutObjectAcl" ],
  "Resource": [ "arn:aws:s3:::hybrid",
  "arn:aws:s3:::hybrid/*" ] } ] }
EOF
aws iam create-policy --policy-name hybrid --policy-document file://s3-policy.json
cat >trust-policy.json <<EOF
{ "Version": "2012-10-17", "Statement": [ { "Effect": "Allow",
  "Principal": { "Service": "ec2.amazonaws.com" }, "Action": "sts:AssumeRole" } ] }
EOF
aws iam create-role --role-name hybrid --assume-role-policy-document file://trust-policy.json
aws iam attach-role-policy --role-name hybrid --policy-arn arn:aws:iam::111122223333:policy/hybrid"#,
    );
}

/// "Retrieve OIDC provider URL" and "Create trust policy". What the document does in the console, the AWS CLI
/// does.
fn trust_the_service_account(shell: &Shell<'_>) {
    shell.run(
        r#"url=$(aws eks describe-cluster --name sandbox --region us-west-2 \
    --query "cluster.identity.oidc.issuer" --output text)
oidc_id=${url##*/}
aws iam list-open-id-connect-providers | grep $oidc_id ||
    aws iam create-open-id-connect-provider --url $url --client-id-list sts.amazonaws.com
provider=oidc.eks.us-west-2.amazonaws.com/id/$oidc_id
cat >trust-policy-irsa.json <<EOF
{ "Version": "2012-10-17", "Statement": [ { "Effect": "Allow", "Principal": { "Federated":
  "arn:aws:iam::111122223333:oidc-provider/$provider" }, "Action": "sts:AssumeRoleWithWebIdentity",
  "Condition": { "StringEquals": { "$provider:sub": "system:serviceaccount:hybrid:hd-job-sa" } } } ] }
EOF
aws iam update-assume-role-policy --role-name hybrid --policy-document file://trust-policy-irsa.json"#,
    );
}
