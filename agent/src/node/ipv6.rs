//! Whether this node has IPv6 at all.
//!
//! Owns: what counts as switched off. Must not know: who asks. A node without IPv6 is healthy: nothing on it
//! can ask over IPv6, so nothing is missing there. It is read anew each time, because an administrator may
//! switch it at any moment.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::link::LINK_NAME;

/// Where the kernel says it, for the network namespace of the thread that reads.
const IPV6: &str = "/proc/sys/net/ipv6/conf";
/// The same for IPv4, which every kernel has: if this is not there, nothing is known.
const IPV4: &str = "/proc/sys/net/ipv4/conf";
/// Why a condition about IPv6 does not apply.
pub const SWITCHED_OFF: &str = "IPv6 is switched off on this node";

/// Whether the kernel has no IPv6, or it is switched off for the whole node or for the link that the agent's
/// addresses are on. If that cannot be read, it is not.
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
    let of_our_link = is_disabled(LINK_NAME).or_else(|| is_disabled("lo"));
    is_disabled("all") == Some(true) || of_our_link == Some(true)
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
    fn the_whole_node_and_the_link_of_the_addresses_decide() {
        let nowhere = Path::new("/nowhere");
        assert!(is_off(nowhere, Path::new("/")), "a kernel without IPv6");
        assert!(!is_off(nowhere, nowhere), "nothing is known");
        assert!(!is_off_with("on", &[("all", "0\n"), ("lo", "0\n"), ("eth0", "1\n")]));
        assert!(is_off_with("all", &[("all", "1\n"), ("lo", "0\n")]));
        assert!(is_off_with("lo", &[("all", "0\n"), ("lo", "1\n")]));
        assert!(is_off_with("own", &[("all", "0\n"), ("lo", "0\n"), ("pod-id-link0", "1\n")]));
        assert!(!is_off_with("not-lo", &[("all", "0\n"), ("lo", "1\n"), ("pod-id-link0", "0\n")]));
    }
}
