//! How many connections this process can have: by its descriptors and by the memory of its cgroup.
//!
//! Owns: the numbers of docs/design/decisions.md#fairness, and reading what the kernel allows. Must not know:
//! how places are shared.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::bind::SOCKET_BUFFER;
use super::limits::{HEAD_BYTES, MEMORY_OF_REQUESTS};
use crate::outgoing::MOST_SOCKETS;

/// For all that is not a pod's connection: the way to AWS when every connection is in the making, and
/// connections that are closing, files and the admin listeners.
const RESERVED_DESCRIPTORS: usize = MOST_SOCKETS + 64;
/// Where there are few descriptors, places matter more than a way to AWS at its worst: an eighth is reserved,
/// this at least, and never more than a quarter.
const LEAST_RESERVED: usize = 128;
/// Enough for 250 pods with 64 each; more would only hide a leak.
const MOST_PLACES: usize = 16_384;
/// As many may wait; they cost descriptors, and less memory.
const MOST_WAITING: usize = 8_192;
/// However little memory there is: below this a node could not start its pods. If all of them, and as many
/// that wait, are stuffed by their clients, they take 48 MiB.
const LEAST_PLACES: usize = 512;
/// What the agent takes without connections, with 2,000 identities and room to spare.
const MEMORY_WITHOUT_CONNECTIONS: u64 = 48 << 20;
/// What the kernel charges for a full socket buffer.
const BUFFER: usize = 2 * SOCKET_BUFFER;
/// What a connection with HTTP state takes at most: a head that does not end, both socket buffers full, what
/// is remembered of the request before, and its state here and in the kernel.
const PER_PLACE: usize = HEAD_BYTES + 2 * BUFFER + MEMORY_OF_REQUESTS + (8 << 10);
/// What a connection that waits takes at most: all that its client could send. With a usual request it takes
/// 8 KiB.
const PER_WAITING: usize = BUFFER + (4 << 10);
/// Each place comes with one to wait in.
const MEMORY_PER_PLACE: u64 = (PER_PLACE + PER_WAITING) as u64;

/// Places for connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Connections with a request, and those that are kept after one.
    pub places: usize,
    /// Accepted connections that have sent nothing yet, or wait for a place.
    pub waiting: usize,
}

impl Capacity {
    /// What this process may have.
    pub fn of_this_process() -> Self {
        // Linux never fails here; if it did, the usual soft limit of a login is assumed.
        let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(1_024, |(soft, _hard)| soft);
        Self::of(descriptors, memory_limit())
    }

    /// With so many descriptors and so much memory.
    pub fn of(descriptors: u64, memory: Option<u64>) -> Self {
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        let reserve = (descriptors / 8).clamp(LEAST_RESERVED.min(descriptors / 4), RESERVED_DESCRIPTORS);
        let usable = descriptors.saturating_sub(reserve).clamp(2, 1 << 20);
        let by_memory = memory.map_or(MOST_PLACES, |limit| {
            let places = limit.saturating_sub(MEMORY_WITHOUT_CONNECTIONS) / MEMORY_PER_PLACE;
            usize::try_from(places).unwrap_or(usize::MAX)
        });
        // Five eighths of the descriptors are for those that wait: with 1,024, 400 processes of one pod can
        // start together, before any of them has sent its request.
        let by_memory = by_memory.max(LEAST_PLACES);
        let places = (usable * 3 / 8).min(by_memory).clamp(1, MOST_PLACES);
        Self { places, waiting: (usable - places).min(by_memory).clamp(1, MOST_WAITING) }
    }
}

/// Raises the soft limit of descriptors to the hard one, as Go programs do by themselves: many runtimes start
/// containers with a soft limit of 1,024, kept low for programs that use select(2). Returns the limit.
///
/// # Errors
/// The kernel's, which Linux never gives here.
pub fn raise_descriptor_limit() -> nix::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// The least of the memory limits of this process's cgroup and of those above it; `None` if there is none, or
/// none can be read.
fn memory_limit() -> Option<u64> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limit_below(Path::new("/sys/fs/cgroup"), &own)
}

fn limit_below(root: &Path, own: &str) -> Option<u64> {
    let groups = own.lines().filter_map(|line| {
        let (_id, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let (mount, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        Some((mount, PathBuf::from(path.trim_start_matches('/')), file))
    });
    // A container may see its own cgroup as the root, whatever path the kernel says; so every parent is read.
    let files = groups.flat_map(|(mount, path, file)| {
        let folders: Vec<_> = path.ancestors().map(|folder| mount.join(folder).join(file)).collect();
        folders
    });
    // "max" in version 2, and a number beyond all memory in version 1, are no limit.
    files.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Capacity, limit_below, raise_descriptor_limit};

    const MIB: u64 = 1 << 20;

    #[test]
    fn places_are_what_descriptors_and_memory_allow() {
        for (descriptors, memory, places, waiting) in [
            (1 << 20, None, 16_384, 8_192),
            (u64::MAX, Some(1 << 60), 16_384, 8_192),
            (1 << 20, Some(256 * MIB), 2_218, 2_218),
            (1 << 20, Some(64 * MIB), 512, 512),
            (1 << 20, Some(32 * MIB), 512, 512),
            (20_000, None, 7_326, 8_192),
            (2_048, None, 672, 1_120),
            (1_024, None, 336, 560),
            (256, None, 72, 120),
            (0, None, 1, 1),
        ] {
            assert_eq!(Capacity::of(descriptors, memory), Capacity { places, waiting }, "{descriptors}");
        }
    }

    #[test]
    fn the_least_that_there_is_fits_into_64_mib_however_it_is_stuffed() {
        let Capacity { places, waiting } = Capacity::of(1 << 20, Some(64 * MIB));
        let most = places * super::PER_PLACE + waiting * super::PER_WAITING;
        // README: 12 MiB at start; the rest is for identities.
        assert!(most <= 48 << 20, "{most}");
    }

    #[test]
    fn the_soft_limit_of_descriptors_is_the_hard_one_afterwards() {
        use nix::sys::resource::{Resource, getrlimit};
        let limit = raise_descriptor_limit().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (limit, limit));
    }

    #[test]
    fn the_memory_limit_is_the_least_of_both_versions_of_cgroups() {
        let root = std::env::temp_dir().join(format!("pod-identity-cgroups-{}", std::process::id()));
        let _left_by_an_earlier_run = fs::remove_dir_all(&root);
        fs::create_dir_all(root.join("pod/agent")).unwrap();
        fs::create_dir_all(root.join("memory")).unwrap();
        assert_eq!(limit_below(&root, "0::/pod/agent\n"), None);
        fs::write(root.join("pod/agent/memory.max"), "max\n").unwrap();
        assert_eq!(limit_below(&root, "0::/pod/agent\n"), None);
        fs::write(root.join("pod/memory.max"), "67108864\n").unwrap();
        assert_eq!(limit_below(&root, "0::/pod/agent\n"), Some(64 * MIB));
        // Version 1 in a container: the path is the host's, the folder its own.
        fs::write(root.join("memory/memory.limit_in_bytes"), "33554432\n").unwrap();
        assert_eq!(limit_below(&root, "4:memory:/kubepods/pod1\n3:cpu,cpuacct:/\n"), Some(32 * MIB));
        fs::remove_dir_all(&root).unwrap();
    }
}
