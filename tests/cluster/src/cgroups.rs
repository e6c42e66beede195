//! The cluster's cgroups: the one thing besides a folder that stays when its processes are gone.
//!
//! Owns: making and removing them, in version 1 and 2. Must not know: what runs in them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::failure::{Failure, at};

/// All our names begin so; what follows is the starter's pid.
const PREFIX: &str = "pod-identity-cluster-";
const ROOT: &str = "/sys/fs/cgroup";
/// Where the processes are that belong to no node.
const OWN: &str = "own";

/// The name for the cluster of that starter.
pub(crate) fn name(starter: u32) -> String {
    format!("{PREFIX}{starter}")
}

/// Makes the cluster's cgroup with one for each child, in every hierarchy.
pub(crate) fn make(name: &str, children: &[String]) -> Result<(), Failure> {
    for root in hierarchies() {
        let top = root.join(name);
        let below = children.iter().map(|child| top.join(child));
        // In version 2 only leaves have processes.
        for group in [top.clone(), top.join(OWN)].into_iter().chain(below) {
            new(&group)?;
        }
    }
    Ok(())
}

/// Moves this process in, and what it starts from now on.
pub(crate) fn join(name: &str) -> Result<(), Failure> {
    for root in hierarchies() {
        let file = root.join(name).join(OWN).join("cgroup.procs");
        fs::write(&file, "0").map_err(at(format!("{} takes no process", file.display())))?;
    }
    Ok(())
}

/// Moves this process back to where all processes are at first, so that ours can be removed.
pub(crate) fn leave() {
    for root in hierarchies() {
        let _stays_and_so_does_the_cgroup = fs::write(root.join("cgroup.procs"), "0");
    }
}

/// Removes a child of the cluster's cgroup with all below it, and makes it anew.
pub(crate) fn renew(name: &str, child: &str) -> Result<(), Failure> {
    for root in hierarchies() {
        let group = root.join(name).join(child);
        remove_below(&group);
        new(&group)?;
    }
    Ok(())
}

/// Removes the cluster's cgroup, as far as it is empty of processes.
pub(crate) fn remove(name: &str) {
    for root in hierarchies() {
        remove_below(&root.join(name));
    }
}

/// Removes those of starters that are gone: what is left when both outer processes were killed at once.
pub(crate) fn sweep() {
    hierarchies().iter().flat_map(|root| left_in(root)).for_each(|group| remove_below(&group));
}

/// What starters that are gone have left in a folder, by its name.
pub(crate) fn left_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_left =
        |name: &str| name.strip_prefix(PREFIX).is_some_and(|pid| !Path::new("/proc").join(pid).exists());
    entries
        .filter(|entry| entry.file_name().to_str().is_some_and(is_left))
        .map(|entry| entry.path())
        .collect()
}

/// The most memory that all of it had at one time, in bytes; `None` where the kernel does not say.
pub(crate) fn peak_memory_file(name: &str) -> Option<PathBuf> {
    let version1 = Path::new(ROOT).join("memory").join(name).join("memory.max_usage_in_bytes");
    let version2 = Path::new(ROOT).join(name).join("memory.peak");
    [version1, version2].into_iter().find(|file| file.exists())
}

/// Every place where a cgroup is made: one in version 2, one per controller in version 1.
fn hierarchies() -> Vec<PathBuf> {
    if Path::new(ROOT).join("cgroup.controllers").exists() {
        return vec![ROOT.into()];
    }
    let entries = fs::read_dir(ROOT).into_iter().flatten().flatten();
    let controllers = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    controllers.map(|entry| entry.path()).collect()
}

fn new(group: &Path) -> Result<(), Failure> {
    fs::create_dir_all(group).map_err(at(format!("{} cannot be made", group.display())))?;
    inherit(group);
    Ok(())
}

/// A new cpuset of version 1 has no processor and takes no process; in version 2 a parent must pass its
/// controllers on.
fn inherit(group: &Path) {
    let Some(parent) = group.parent() else { return };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if let (true, Ok(value)) = (group.join(file).exists(), fs::read_to_string(parent.join(file))) {
            let _version_2_has_them_empty = fs::write(group.join(file), value);
        }
    }
    if let Ok(controllers) = fs::read_to_string(parent.join("cgroup.controllers")) {
        for controller in controllers.split_whitespace() {
            let _not_ours_to_give =
                fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"));
        }
    }
}

/// From the leaves up. One that still has processes stays, and its parents with it.
fn remove_below(group: &Path) {
    let children = fs::read_dir(group).into_iter().flatten().flatten();
    for child in children.filter(|child| child.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_below(&child.path());
    }
    // The kernel needs a moment after the last process.
    for _ in 0..20 {
        match fs::remove_dir(group) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                std::thread::sleep(std::time::Duration::from_millis(25));
            }
            Ok(()) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_starters_that_are_gone_have_left_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        // Above the largest pid of Linux (PID_MAX_LIMIT, 2^22).
        let (alive, gone) = (name(std::process::id()), name(u32::MAX));
        for entry in [&alive, &gone, "somebody-elses"] {
            fs::create_dir(folder.path().join(entry)).unwrap();
        }
        assert_eq!(left_in(folder.path()), [folder.path().join(gone)]);
    }
}
