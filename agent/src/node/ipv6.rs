//! Whether this node has IPv6 at all.
//!
//! Owns: what counts as switched off. Must not know: who asks. A node without IPv6 is healthy: nothing on it
//! can ask over IPv6, so nothing is missing there. It is read anew each time, because an administrator may
//! switch it at any moment.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::link::{CILIUM, LINK_NAME};

/// Where the kernel says it, for the network namespace of the thread that reads.
const IPV6: &str = "/proc/sys/net/ipv6/conf";
/// The same for IPv4, which every kernel has: if this is not there, nothing is known.
const IPV4: &str = "/proc/sys/net/ipv4/conf";
/// What a new link gets.
const DEFAULT: &str = "default";
/// Why a condition about IPv6 does not apply.
pub const SWITCHED_OFF: &str = "IPv6 is switched off on this node";

/// Whether the kernel has no IPv6, or it is switched off for the link that the agent's addresses are on. If
/// that cannot be read, it is not.
pub fn is_switched_off() -> bool {
    is_off(Path::new(IPV6), Path::new(IPV4))
}

fn is_off(ipv6: &Path, ipv4: &Path) -> bool {
    if !ipv6.exists() {
        return ipv4.exists();
    }
    let is_disabled = |link: &str| match fs::read_to_string(ipv6.join(link).join("disable_ipv6")) {
        Ok(text) => Some(text.trim() == "1"),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(_) => Some(false),
    };
    // What counts is the value of the device. That of `all` is only handed on to every device when it is
    // written, and each can be changed after that.
    if let Some(is_off) = is_disabled(LINK_NAME) {
        return is_off;
    }
    // Without a link of our own the addresses are on `lo`, or on a link that will have the value of
    // `default`. Where it is not known which, there is no IPv6 only if both are off.
    let is_lo_off = is_disabled("lo").unwrap_or(false);
    is_lo_off && (ipv6.join(CILIUM).exists() || is_disabled(DEFAULT).unwrap_or(true))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::is_off;

    /// A directory as the kernel's, with these links, each with its `disable_ipv6`.
    fn is_off_with(name: &str, links: &[(&str, &str)]) -> bool {
        let root = std::env::temp_dir().join(format!("pod-identity-ipv6-{}-{name}", std::process::id()));
        for (link, value) in links {
            fs::create_dir_all(root.join(link)).unwrap();
            fs::write(root.join(link).join("disable_ipv6"), value).unwrap();
        }
        let is_off = is_off(&root, Path::new("/"));
        let _made = fs::remove_dir_all(&root);
        is_off
    }

    #[test]
    fn the_link_of_the_addresses_decides_and_without_one_what_it_would_get() {
        let nowhere = Path::new("/nowhere");
        assert!(is_off(nowhere, Path::new("/")), "a kernel without IPv6");
        assert!(!is_off(nowhere, nowhere), "nothing is known");
        let (on, off, own) = ("0\n", "1\n", "pod-id-link0");
        for (name, is_off, links) in [
            ("on", false, &[("all", on), ("default", on), ("lo", on), ("eth0", off)][..]),
            // `all` was written before, and each device since.
            ("all-own", false, &[("all", off), ("default", off), ("lo", off), (own, on)]),
            ("all-lo", false, &[("all", off), ("default", off), ("lo", on)]),
            ("own", true, &[("all", on), ("default", on), ("lo", on), (own, off)]),
            ("no-link", true, &[("all", off), ("default", off), ("lo", off)]),
            ("to-be-made", false, &[("all", on), ("default", on), ("lo", off)]),
            ("cilium", true, &[("all", on), ("default", on), ("lo", off), ("cilium_host", on)]),
            ("cilium-on", false, &[("all", on), ("default", off), ("lo", on), ("cilium_host", on)]),
        ] {
            assert_eq!(is_off_with(name, links), is_off, "{name}");
        }
    }
}
