//! Real SDKs in pods, with exactly what EKS gives a container, over both families.

use std::net::IpAddr;
use std::path::Path;

use crate::clients::{built, python, script};
use crate::harness::{Builder, IPV4, IPV6, on_a_node, sandbox};

/// What the program prints: the ARN it is, then the access key it signed with.
fn assert_is_the_pod(at: IpAddr, program: &'static [fn() -> std::path::PathBuf]) {
    on_a_node(async move |node| {
        node.add_link();
        let sandbox = sandbox();
        let _agent = Builder::on_a_node(&sandbox).start().await;
        let pod = node.pod(&sandbox);
        let sts = node.expose(sandbox.sts_url(), at).await;
        let program: Vec<_> = program.iter().map(|part| part()).collect();
        let program: Vec<&Path> = program.iter().map(AsRef::as_ref).collect();
        let output = pod.run(&program, at, &sts).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said = String::from_utf8(output.stdout).unwrap();
        let arn =
            format!("arn:aws:sts::111122223333:assumed-role/app/eks-sandbox-{}-", pod.identity.spec.pod);
        assert!(said.starts_with(&arn), "{said}");
        let held = pod.ask(at).await.unwrap().access_key_id();
        assert_eq!(said.lines().nth(1), Some(held.as_str()), "it signed with what the agent holds");
    });
}

fn boto3_python() -> std::path::PathBuf {
    python("python")
}

fn who_am_i() -> std::path::PathBuf {
    built("who-am-i")
}

#[test]
fn boto3_in_a_pod_is_its_role_over_ipv4() {
    assert_is_the_pod(IPV4, &[boto3_python, script]);
}

#[test]
fn boto3_in_a_pod_is_its_role_over_ipv6() {
    assert_is_the_pod(IPV6, &[boto3_python, script]);
}

#[test]
fn the_rust_sdk_in_a_pod_is_its_role_over_ipv4() {
    assert_is_the_pod(IPV4, &[who_am_i]);
}

#[test]
fn the_rust_sdk_in_a_pod_is_its_role_over_ipv6() {
    assert_is_the_pod(IPV6, &[who_am_i]);
}
