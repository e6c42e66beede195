//! The cluster itself: what it starts again, and what is there of it when it has ended.
//!
//! It has clusters of its own, so it takes no turn, and is named to run beside tests that wait for nodes to
//! be moved and to boot.

use std::fs;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::cluster::{Cluster, eventually};

/// Every process whose command line names the cluster's folder: its own, and its nodes'.
fn processes(folder: &Path) -> Vec<(Pid, String)> {
    let all = fs::read_dir("/proc").expect("Linux").flatten();
    let lines = all.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        Some((Pid::from_raw(pid), fs::read_to_string(entry.path().join("cmdline")).ok()?))
    });
    lines.filter(|(_, line)| line.contains(&*folder.to_string_lossy())).collect()
}

/// The one process of this cluster that runs this part of its control plane.
fn part(folder: &Path, name: &str) -> Option<Pid> {
    let runs = |line: &str| line.split('\0').next().is_some_and(|program| program.ends_with(name));
    let mut pids = processes(folder).into_iter().filter(|(_, line)| runs(line)).map(|(pid, _)| pid);
    let one = pids.next();
    assert_eq!(pids.next(), None, "a second {name}");
    one
}

/// The controller manager ends by itself where the API server is slow to make its first roles, and no test of
/// that cluster could pass.
fn starts_its_parts_again(one: &Cluster) {
    for name in ["etcd", "kube-controller-manager", "kube-scheduler"] {
        let before = part(one.folder(), name).expect("it runs");
        kill(before, Signal::SIGKILL).expect("it is ours");
        eventually("the part is started again", || part(one.folder(), name).is_some_and(|now| now != before));
    }
    // etcd keeps it, the controller manager makes its account, the scheduler finds it a node.
    let in_later = |command: &[&str]| one.try_kubectl(&[&["--namespace", "later"], command].concat());
    eventually("the pod has a node", || {
        // Until they are there: each can be made and its answer be lost.
        one.try_kubectl(&["create", "namespace", "later"]);
        in_later(&["run", "later", "--image", "localhost/none"]);
        !in_later(&["get", "pod", "later", "--output", "jsonpath={.spec.nodeName}"]).stdout.is_empty()
    });
}

fn cgroups(name: &str) -> usize {
    let controllers = fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten();
    let below = controllers.filter(|controller| controller.path().join(name).exists()).count();
    below + usize::from(Path::new("/sys/fs/cgroup").join(name).exists())
}

fn links() -> Vec<String> {
    let all = fs::read_dir("/sys/class/net").expect("Linux").flatten();
    let mut names: Vec<_> = all.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_cluster_starts_its_parts_again_and_leaves_nothing_when_it_or_its_starter_is_ended() {
    let before = links();
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        let one = Cluster::start_bare();
        let folder = one.folder().to_owned();
        let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
        assert!(processes(&folder).len() > 5 && cgroups(&name) > 0, "else this test sees nothing");
        if signal == Signal::SIGINT {
            starts_its_parts_again(&one);
        }
        one.end_by(signal);
        eventually("everything is gone", || {
            processes(&folder).is_empty() && cgroups(&name) == 0 && !folder.exists()
        });
        assert_eq!(links(), before);
    }
}
