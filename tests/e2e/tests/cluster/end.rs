//! The cluster itself: what is there of it when it has ended.
//!
//! It has clusters of its own, so it takes no turn, and is named to run beside tests that wait for nodes to
//! be moved and to boot.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::harness::cluster::{Cluster, eventually};

/// Every process whose command line names the cluster's folder: its own, and its nodes'.
fn processes(folder: &Path) -> Vec<String> {
    let all = fs::read_dir("/proc").expect("Linux").flatten();
    let lines = all.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.contains(&*folder.to_string_lossy())).collect()
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
fn a_cluster_that_is_ended_or_whose_starter_is_killed_leaves_nothing() {
    let before = links();
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        let one = Cluster::start_bare();
        let folder = one.folder().to_owned();
        let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
        assert!(processes(&folder).len() > 5 && cgroups(&name) > 0, "else this test sees nothing");
        one.end_by(signal);
        eventually("everything is gone", || {
            processes(&folder).is_empty() && cgroups(&name) == 0 && !folder.exists()
        });
        assert_eq!(links(), before);
    }
}
