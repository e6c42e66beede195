//! The privileges of the process, reduced at start to those that it needs.
//!
//! Owns: capabilities, `no_new_privs`, and that other processes of the same user cannot dump or read this
//! one. Must not know: which feature needs which privilege; the caller says so. docs/privileges.md has the
//! table for admins.
//!
//! Two traps. Capabilities belong to a thread, not to the process, so this runs before a second thread is
//! started. And a privilege that cannot be dropped is logged, but does not keep the agent from serving
//! (invariant 10).

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;

/// To bind a port below this one the kernel requires `CAP_NET_BIND_SERVICE`, unless a sysctl says otherwise.
const PRIVILEGED_BELOW: u16 = 1024;
/// That sysctl.
const UNPRIVILEGED_PORT_START: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";

/// What the process needs privileges for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The ports that it listens on.
    pub ports: Vec<u16>,
    /// Whether it changes links, addresses, routes or rules.
    pub network: bool,
    /// Whether programs that it starts change them too.
    pub network_in_programs: bool,
}

/// The privileges that are left, and what failed on the way.
#[derive(Debug, Default)]
pub struct Privileges {
    kept: Vec<String>,
    missing: Vec<String>,
    problems: Vec<String>,
}

/// Why one step failed.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error("{step}: {source}")]
    Kernel { step: &'static str, source: nix::Error },
    #[error("{step}: {source}")]
    Capabilities { step: &'static str, source: CapsError },
}

impl Needs {
    fn capabilities(&self, unprivileged_from: u16) -> CapsHashSet {
        // Port 0 lets the kernel choose, and it chooses high ports.
        let is_low = self.ports.iter().any(|port| *port != 0 && *port < unprivileged_from);
        let low = is_low.then_some(Capability::CAP_NET_BIND_SERVICE);
        let network = self.network.then_some(Capability::CAP_NET_ADMIN);
        low.into_iter().chain(network).collect()
    }

    /// The capabilities that programs started by the agent inherit. Without this they would have none if the
    /// agent is not root.
    fn inherited(&self) -> CapsHashSet {
        self.network_in_programs.then_some(Capability::CAP_NET_ADMIN).into_iter().collect()
    }
}

impl Privileges {
    /// Drops all privileges that are not needed. Call it while the process has one thread.
    pub fn reduce_to(needs: &Needs) -> Self {
        Self::drop_all_but(&needs.capabilities(unprivileged_from()), &needs.inherited())
    }

    /// Logs what is left. Separate, because logging starts after the privileges are dropped.
    pub fn log(&self) {
        for problem in &self.problems {
            tracing::warn!(reason = problem, "a privilege could not be dropped");
        }
        let (kept, missing) = (self.kept.join(" "), self.missing.join(" "));
        if missing.is_empty() {
            tracing::debug!(kept, "privileges dropped");
        } else {
            tracing::debug!(kept, missing, "privileges dropped; missing ones were not granted at start");
        }
    }

    /// Drops all capabilities except `wanted`; programs that are started get `inherited`.
    pub(crate) fn drop_all_but(wanted: &CapsHashSet, inherited: &CapsHashSet) -> Self {
        let mut privileges = Self::default();
        privileges.attempt(
            prctl::set_no_new_privs().map_err(|source| StepError::Kernel { step: "no_new_privs", source }),
        );
        privileges.attempt(
            prctl::set_dumpable(false).map_err(|source| StepError::Kernel { step: "dumpable", source }),
        );
        if let Err(error) = privileges.reduce_capabilities(wanted, inherited) {
            privileges.problems.push(error.to_string());
        }
        privileges.missing = names(wanted.iter().filter(|of| !privileges.kept.contains(&of.to_string())));
        privileges
    }

    fn attempt(&mut self, step: Result<(), StepError>) {
        if let Err(error) = step {
            self.problems.push(error.to_string());
        }
    }

    fn reduce_capabilities(
        &mut self,
        wanted: &CapsHashSet,
        inherited: &CapsHashSet,
    ) -> Result<(), StepError> {
        let in_step = |step| move |source| StepError::Capabilities { step, source };
        let permitted = caps::read(None, CapSet::Permitted).map_err(in_step("permitted set"))?;
        let effective = caps::read(None, CapSet::Effective).map_err(in_step("effective set"))?;
        let kept: CapsHashSet = wanted.intersection(&permitted).copied().collect();
        self.attempt(caps::clear(None, CapSet::Ambient).map_err(in_step("ambient set")));
        // The bounding set first: it cannot be changed any more once CAP_SETPCAP is dropped.
        if effective.contains(&Capability::CAP_SETPCAP) {
            for capability in caps::all().difference(wanted) {
                self.attempt(drop_from_bounding(*capability).map_err(in_step("bounding set")));
            }
        }
        let inherited: CapsHashSet = inherited.intersection(&kept).copied().collect();
        self.attempt(caps::set(None, CapSet::Inheritable, &inherited).map_err(in_step("inheritable set")));
        caps::set(None, CapSet::Effective, &kept).map_err(in_step("effective set"))?;
        caps::set(None, CapSet::Permitted, &kept).map_err(in_step("permitted set"))?;
        for capability in &inherited {
            self.attempt(caps::raise(None, CapSet::Ambient, *capability).map_err(in_step("ambient set")));
        }
        self.kept = names(&kept);
        Ok(())
    }
}

/// Whether this process may change links and rules at this moment.
pub fn may_change_network() -> bool {
    caps::has_cap(None, CapSet::Effective, Capability::CAP_NET_ADMIN).unwrap_or(false)
}

/// A capability that the kernel does not know, or that is dropped already, is not an error.
fn drop_from_bounding(capability: Capability) -> Result<(), CapsError> {
    match caps::has_cap(None, CapSet::Bounding, capability) {
        Ok(true) => caps::drop(None, CapSet::Bounding, capability),
        Ok(false) | Err(_) => Ok(()),
    }
}

fn names<'a>(set: impl IntoIterator<Item = &'a Capability>) -> Vec<String> {
    let mut names: Vec<_> = set.into_iter().map(ToString::to_string).collect();
    names.sort_unstable();
    names
}

/// Never less than the kernel's default: the sysctl may be reset while the agent runs.
fn unprivileged_from() -> u16 {
    let text = std::fs::read_to_string(UNPRIVILEGED_PORT_START).unwrap_or_default();
    text.trim().parse().map_or(PRIVILEGED_BELOW, |port: u16| port.max(PRIVILEGED_BELOW))
}

#[cfg(test)]
mod tests {
    use caps::{Capability, CapsHashSet};

    use super::Needs;

    fn of(ports: &[u16], network: bool) -> CapsHashSet {
        let needs = Needs { ports: ports.to_vec(), network, network_in_programs: false };
        needs.capabilities(1024)
    }

    #[test]
    fn only_low_ports_and_changes_to_the_network_need_a_capability() {
        assert_eq!(of(&[0, 1024, 2703], false), CapsHashSet::new());
        assert_eq!(of(&[2703, 80], false), [Capability::CAP_NET_BIND_SERVICE].into());
        assert_eq!(of(&[2703], true), [Capability::CAP_NET_ADMIN].into());
        assert_eq!(of(&[80], true), [Capability::CAP_NET_ADMIN, Capability::CAP_NET_BIND_SERVICE].into());
    }

    #[test]
    fn programs_inherit_nothing_unless_they_change_the_network() {
        assert!(Needs { network: true, ..Needs::default() }.inherited().is_empty());
        let needs = Needs { network: true, network_in_programs: true, ..Needs::default() };
        assert_eq!(needs.inherited(), [Capability::CAP_NET_ADMIN].into());
    }
}
