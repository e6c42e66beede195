//! Associations by the AWS CLI, from their creation to their end; and the end of the local EKS itself.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use super::up::{TRUST, Up};

const CLUSTER: [&str; 2] = ["--cluster-name", "mycluster"];

/// Looks at a process, and the pause between two: 5 s, in which it sees that its standard input has ended.
const LOOKS: usize = 100;
const PAUSE: Duration = Duration::from_millis(50);

#[test]
fn an_association_is_made_found_changed_and_deleted() {
    let up = Up::start();
    let (one, other) = (up.create_role("one", TRUST), up.create_role("other", TRUST));
    let eks = |arguments: &[&str]| up.aws(&[&["eks"], arguments, &CLUSTER].concat());
    let names = ["--namespace", "shop", "--service-account", "cart"];
    let create = [&["create-pod-identity-association"], &names[..], &["--role-arn", &one]].concat();
    let made = eks(&create).json()["association"].clone();
    let id = made["associationId"].as_str().unwrap();
    assert_eq!((made["roleArn"].as_str(), made.get("ownerArn")), (Some(one.as_str()), None));
    assert_eq!(eks(&create).code(), "ResourceInUseException");

    let listed = eks(&["list-pod-identity-associations", "--namespace", "shop"]).json();
    assert_eq!(listed["associations"][0]["associationId"], *id, "{listed}");
    let with_id =
        |command: &'static str, more: &[&str]| eks(&[&[command, "--association-id", id], more].concat());
    with_id("update-pod-identity-association", &["--role-arn", &other]).json();
    let shown = with_id("describe-pod-identity-association", &[]).json();
    assert_eq!(shown["association"]["roleArn"], *other);

    let pod = ["shop", "cart", "cart-0"];
    let who = up.in_pod(pod, &["sts", "get-caller-identity", "--query", "Arn"]);
    assert!(who.out.contains("assumed-role/other/eks-mycluster-cart-0-"), "{}{}", who.out, who.err);
    with_id("delete-pod-identity-association", &[]).json();
    assert_eq!(with_id("describe-pod-identity-association", &[]).code(), "ResourceNotFoundException");
}

#[test]
fn nothing_is_left_of_it_when_it_is_ended_or_killed() {
    for (signal, ends_well) in [(Signal::SIGINT, true), (Signal::SIGKILL, false)] {
        let mut up = Up::start();
        let children = up.children();
        assert_eq!(children.len(), 2, "the agent and moto: {children:?}");
        assert_eq!(up.end(signal), ends_well);
        for child in children {
            // Zombies of a parent that is gone are the machine's to collect.
            let is_gone = || {
                let stat = std::fs::read_to_string(format!("/proc/{child}/stat"));
                kill(child, None).is_err() || !stat.is_ok_and(|stat| !stat.contains(") Z "))
            };
            let goes = (0..LOOKS).any(|_| {
                std::thread::sleep(PAUSE);
                is_gone()
            });
            assert!(goes, "{child} outlives {signal}");
        }
    }
}
