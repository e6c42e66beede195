//! A cgroup with a limit of memory or of threads, of version 1 or 2, that ends with its test.
//!
//! Owns: making and removing it, and what the kernel says of it. Must not know: what lives in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A cgroup for one process.
pub(crate) struct Cgroup {
    path: PathBuf,
    is_v2: bool,
}

impl Cgroup {
    /// A new one, with so many bytes of memory.
    pub(crate) fn with_memory(bytes: u64) -> Self {
        let cgroup = Self::of("memory");
        let file = if cgroup.is_v2 { "memory.max" } else { "memory.limit_in_bytes" };
        cgroup.set(file, &bytes.to_string());
        cgroup
    }

    /// A new one, with so many threads.
    pub(crate) fn with_threads(most: u32) -> Self {
        let cgroup = Self::of("pids");
        cgroup.limit_threads(&most.to_string());
        cgroup
    }

    /// From now on it may have so many threads; `max`: any.
    pub(crate) fn limit_threads(&self, most: &str) {
        self.set("pids.max", most);
    }

    /// How many threads it has.
    pub(crate) fn threads(&self) -> u32 {
        let text = fs::read_to_string(self.path.join("pids.current")).expect("the cgroup is there");
        text.trim().parse().expect("a number")
    }

    fn of(controller: &str) -> Self {
        let root = Path::new("/sys/fs/cgroup");
        let is_v2 = root.join("cgroup.controllers").exists();
        let mount = if is_v2 { root.to_owned() } else { root.join(controller) };
        if is_v2 {
            // The root passes its controllers on where nobody has said otherwise.
            let _passed_on = fs::write(mount.join("cgroup.subtree_control"), format!("+{controller}"));
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = mount.join(format!("pod-identity-e2e-{}-{number}", std::process::id()));
        let cgroup = Self { path, is_v2 };
        cgroup.must(fs::create_dir(&cgroup.path));
        cgroup
    }

    fn set(&self, file: &str, limit: &str) {
        self.must(fs::write(self.path.join(file), limit));
    }

    fn must(&self, done: std::io::Result<()>) {
        if let Err(error) = done {
            panic!(
                "{}: {error}: run the tests as root, with cgroups that can be written",
                self.path.display()
            );
        }
    }

    /// The file that takes the number of a process.
    pub(crate) fn processes(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// Whether the kernel charges it for the buffers of its sockets: version 1 does not.
    pub(crate) fn has_buffers(&self) -> bool {
        self.is_v2
    }

    /// What it has now, with version 2 the buffers of its sockets included.
    pub(crate) fn usage(&self) -> u64 {
        let file = if self.is_v2 { "memory.current" } else { "memory.usage_in_bytes" };
        let text = fs::read_to_string(self.path.join(file)).expect("the cgroup is there");
        text.trim().parse().expect("a number")
    }

    /// The most memory that it had at one time, with version 2 the buffers of its sockets included.
    pub(crate) fn peak(&self) -> Option<u64> {
        let file = if self.is_v2 { "memory.peak" } else { "memory.max_usage_in_bytes" };
        fs::read_to_string(self.path.join(file)).ok()?.trim().parse().ok()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The kernel needs a moment after the last process.
        for _ in 0..40 {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(25));
        }
    }
}
