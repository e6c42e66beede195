//! The commands of documents about roles of service accounts, in their order: `kubectl` on the real cluster,
//! `aws` on the local EKS, and in pods that are given their variables by deploy/injection.
//! docs/walkthroughs.md maps each step to its test.
//!
//! Owns: the installation that gives such roles, and that it was the agent that gave them. Must not know: the
//! documents.

mod annotation;
mod bucket;
mod jobs;
mod sources;

use serde_json::{Value, json};

use super::injection::Injection;
use crate::harness::cluster::{Shell, Turn};

const ACCOUNT: &str = "111122223333";
const REGION: &str = "us-west-2";
/// The agent's sentence for a pod that nobody gave a role.
const NO_ROLE: &str = "No annotation or map entry gives this service account a role";
/// The role map's one service account, and its role.
const MAPPED: &str = "mapped";

/// Installs the agent that reads annotations and has a map, and the injection. What is in a namespace of a
/// walk's own goes with it.
fn begin<'a>(cluster: &'a Turn, name: &str, namespace: &str) -> (Injection<'a>, Shell<'a>) {
    let mapped = format!("arn:aws:iam::{ACCOUNT}:role/{MAPPED}");
    cluster.install(&json!({
        "kubernetes": {"serviceAccounts": true},
        "webIdentity": {"roleMap": {format!("default/{MAPPED}"): {"RoleARN": mapped}}},
    }));
    let injection = Injection::with(cluster, REGION, &json!({}));
    let shell = Shell::new(cluster, name);
    if namespace == "default" {
        shell.at_end("kubectl label namespace default pod-identity-agent/inject-");
    } else {
        shell.run(&format!("kubectl create namespace {namespace}"));
        shell.at_end(&format!("kubectl delete namespace {namespace} --wait=false"));
    }
    (injection, shell)
}

/// The identity provider of the cluster, which documents have eksctl or the console create; another walk may
/// have.
fn create_provider(cluster: &Turn, shell: &Shell<'_>) {
    let create = "aws iam create-open-id-connect-provider --client-id-list sts.amazonaws.com --url";
    let output = shell.try_run(&format!("{create} {}", cluster.issuer()));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() || said.contains("(EntityAlreadyExists)"), "{said}");
}

/// A role that a service account may assume by its token, where a document takes one for granted.
fn create_role(cluster: &Turn, shell: &Shell<'_>, name: &str, service_account: &str) {
    let issuer = cluster.issuer().trim_start_matches("https://");
    let conditions = json!({
        format!("{issuer}:aud"): "sts.amazonaws.com",
        format!("{issuer}:sub"): format!("system:serviceaccount:{service_account}"),
    });
    let statement = json!({
        "Effect": "Allow", "Action": "sts:AssumeRoleWithWebIdentity",
        "Principal": {"Federated": format!("arn:aws:iam::{ACCOUNT}:oidc-provider/{issuer}")},
        "Condition": {"StringEquals": conditions},
    });
    shell.write("trust.json", &json!({"Version": "2012-10-17", "Statement": [statement]}).to_string());
    shell.run(&format!(
        "aws iam create-role --role-name {name} --assume-role-policy-document file://trust.json"
    ));
}

/// The container of the documents, in this cluster's image instead of amazon/aws-cli. It knows where the
/// local EKS is, and nothing of credentials.
fn container(cluster: &Turn, command: &str) -> Value {
    json!({
        "name": "awscli", "image": "localhost/client:test", "imagePullPolicy": "Never",
        "command": ["/bin/sh", "-c", command],
        "env": [{"name": "AWS_ENDPOINT_URL", "value": cluster.aws_url()}],
    })
}

/// All that a command wrote, which must have failed.
fn denied(shell: &Shell<'_>, command: &str) -> String {
    let output = shell.try_run(command);
    let wrote = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!output.status.success(), "{command} was not denied: {wrote}");
    wrote
}

/// The agent gave the pod the role of that name: by an association, or by what the cluster says of its
/// service account.
fn assert_given_by_agent(cluster: &Turn, pod: &str, role: &str, by_association: bool) {
    let lines = cluster.access_lines(pod);
    let role = format!("arn:aws:sts::{ACCOUNT}:assumed-role/{role}");
    let is_given = lines.iter().any(|line| {
        let is_by_association = line["association"].is_string();
        line["outcome"] == "fetched" && line["role"] == role && is_by_association == by_association
    });
    assert!(is_given, "the agent gave {pod} no {role}: {lines:?}");
}
