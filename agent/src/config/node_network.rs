//! What the agent may change in the node's network.
//!
//! Owns: the flags about link, guard and metadata service, and which of them belong together. Must not know:
//! how the network is changed.

use std::fmt;
use std::time::Duration;

use super::boolean::go_bool;
use super::imds_block::ImdsBlock;
use super::problem::{Problem, Problems};
use super::{Listen, addresses, duration_of};
use crate::cli::ServerArgs;

/// The changes to the node's network. None by default: the init container of Amazon's chart does what is
/// needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeNetwork {
    /// The link to keep addresses and routes on; `None`: nothing is changed.
    pub manage_link: Option<LinkPlace>,
    /// How the addresses are guarded, if they are.
    pub guard: Option<Guard>,
    /// What is done with pods that do not use host networking and connect to the instance metadata service.
    pub block_imds: ImdsBlock,
    /// How long what is in the table lasts when nobody renews it.
    pub lasting: Lasting,
    /// Whether the agent is probed from a temporary network namespace, over the path of a pod.
    pub probe_namespace: bool,
}

/// How long elements of the table last that nobody renews: the agent has died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lasting {
    /// An element that leads to a guard port, which may soon be anybody's.
    pub to_guard: Duration,
    /// An element that sends port 80 to itself, so that a crash loop or a long outage of the agent keeps
    /// tokens from pods with hostPort 80.
    pub to_self: Duration,
    /// The block of the instance metadata service, and the count of who goes there; zero: until `cleanup`.
    pub block: Duration,
}

/// With less, the owner would renew more often than once a second.
const SHORTEST_LASTING: Duration = Duration::from_secs(RENEWALS as u64);
/// The owner renews so often in the time that the shortest of them lasts: by default every 20 s.
const RENEWALS: u32 = 6;

/// The link that has the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkPlace {
    /// `pod-id-link0`, but `lo` where Cilium runs or the kernel has no dummy links.
    Auto,
    /// `pod-id-link0`.
    Dummy,
    /// `lo`.
    Lo,
}

/// How others are prevented from taking over our addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// The port of our addresses that the one of `--port` leads to meanwhile.
    pub port: u16,
    /// Whether others may use the port of `--port` on the node.
    pub shares_port: bool,
}

impl Lasting {
    /// How often they are renewed.
    pub fn renew_every(&self) -> Duration {
        let block = if self.block.is_zero() { self.to_self } else { self.block };
        self.to_guard.min(self.to_self).min(block) / RENEWALS
    }
}

impl Guard {
    /// The two ports that an old agent and a new one take turns on.
    pub const fn ports(self) -> [u16; 2] {
        [self.port, self.port.saturating_add(1)]
    }
}

impl NodeNetwork {
    /// Whether there is a table that changes where connections go.
    pub const fn keeps_a_table(&self) -> bool {
        self.guard.is_some() || self.blocks_imds()
    }

    /// Whether pods are kept from the instance metadata service.
    pub const fn blocks_imds(&self) -> bool {
        matches!(self.block_imds, ImdsBlock::On)
    }

    /// Whether connections to the instance metadata service are counted.
    pub const fn counts_imds(&self) -> bool {
        !matches!(self.block_imds, ImdsBlock::Off)
    }

    /// Whether `nft` is run.
    pub const fn runs_nft(&self) -> bool {
        self.keeps_a_table() || self.counts_imds()
    }

    /// Whether any of this needs `CAP_NET_ADMIN`.
    pub const fn changes_the_node(&self) -> bool {
        self.manage_link.is_some() || self.runs_nft()
    }
}

impl LinkPlace {
    /// Reads `--link`.
    ///
    /// # Errors
    /// [`Problem`], when it is none of the three words.
    pub fn read(text: &str) -> Result<Self, Problem> {
        match text {
            "auto" => Ok(Self::Auto),
            "dummy" => Ok(Self::Dummy),
            "lo" => Ok(Self::Lo),
            _ => Err(Problem::with_value("--link", "must be auto, dummy or lo", text)),
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Dummy => "dummy",
            Self::Lo => "lo",
        }
    }
}

/// Reads all flags about the network and notes every problem. `taken`: the other ports that the agent listens
/// on.
pub(super) fn read(
    args: &ServerArgs,
    listen: Option<&Listen>,
    taken: [Option<u16>; 2],
    problems: &mut Problems,
) -> Option<NodeNetwork> {
    let manages = problems.take(go_bool("--manage-link", &args.manage_link));
    let place = problems.take(LinkPlace::read(&args.link));
    let guards = problems.take(go_bool("--guard-address", &args.guard_address));
    let port = problems.take(addresses::port("--guard-port", &args.guard_port));
    let shares_port = problems.take(go_bool("--share-port", &args.share_port));
    let block_imds = problems.take(ImdsBlock::read(&args.block_imds));
    let probe_namespace = problems.take(go_bool("--probe-namespace", &args.probe_namespace));
    let lasting = lasting(args, problems);
    let (guards, shares_port, port) = (guards?, shares_port?, port?);
    if shares_port && !guards {
        problems.note(Problem::without_value(
            "--share-port",
            "requires --guard-address: without it no port would serve pods",
        ));
    }
    let is_fixed = listen.is_none_or(|listen| listen.port != 0);
    let is_taken = |port| listen.is_some_and(|listen| listen.port == port) || taken.contains(&Some(port));
    let is_free = !Guard { port, shares_port }.ports().into_iter().any(is_taken) && port != u16::MAX;
    if guards && !(is_fixed && is_free && port != 0) {
        let rule = "must be a port other than 0 that no other flag uses, nor the next port, and --port must \
                    not be 0";
        problems.note(Problem::with_value("--guard-port", rule, &args.guard_port));
    }
    Some(NodeNetwork {
        manage_link: manages?.then_some(place?),
        guard: guards.then_some(Guard { port, shares_port }),
        block_imds: block_imds?,
        lasting: lasting?,
        probe_namespace: probe_namespace?,
    })
}

fn lasting(args: &ServerArgs, problems: &mut Problems) -> Option<Lasting> {
    let to_guard = problems.take(lasts("--guard-port-timeout", &args.guard_port_timeout));
    let to_self = problems.take(lasts("--guard-timeout", &args.guard_timeout));
    let block = match args.imds_block_timeout.trim() {
        "0" | "0s" => Some(Duration::ZERO),
        timeout => problems.take(lasts("--imds-block-timeout", timeout)),
    };
    Some(Lasting { to_guard: to_guard?, to_self: to_self?, block: block? })
}

fn lasts(flag: &'static str, text: &str) -> Result<Duration, Problem> {
    let lasts = duration_of(flag, text)?;
    if lasts < SHORTEST_LASTING {
        return Err(Problem::with_value(
            flag,
            "must be at least 6s: the agent renews it in a sixth of that",
            text,
        ));
    }
    Ok(lasts)
}

impl fmt::Display for NodeNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let manage_link = self.manage_link.map_or("no", LinkPlace::as_str);
        write!(f, "manage_link={manage_link}")?;
        match self.guard {
            Some(Guard { port, shares_port }) => write!(f, " guard_port={port} share_port={shares_port}")?,
            None => f.write_str(" guard_address=false")?,
        }
        write!(f, " block_imds={} probe_namespace={}", self.block_imds.as_str(), self.probe_namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::{Guard, ImdsBlock, LinkPlace, NodeNetwork};
    use crate::cli::ServerArgs;
    use crate::config::{Config, ConfigError, Environment};

    fn read(flags: &[&str]) -> Result<NodeNetwork, ConfigError> {
        let all = [&["--cluster-name", "c", "--region", "eu-west-1"], flags].concat();
        Config::from_args(&ServerArgs::of(&all), &Environment::default()).map(|config| config.node_network)
    }

    #[test]
    fn nothing_is_changed_by_default() {
        let network = read(&[]).unwrap();
        assert_eq!((network.manage_link, network.guard), (None, None));
        assert_eq!(network.block_imds, ImdsBlock::Off);
        assert!(!network.probe_namespace && !network.changes_the_node());
        // The link alone changes nothing.
        assert!(!read(&["--link", "lo"]).unwrap().changes_the_node());
    }

    #[test]
    fn each_part_has_a_flag() {
        assert_eq!(read(&["--manage-link"]).unwrap().manage_link, Some(LinkPlace::Auto));
        assert_eq!(read(&["--manage-link", "--link=lo"]).unwrap().manage_link, Some(LinkPlace::Lo));
        let guarded = read(&["--guard-address", "--guard-port=8080", "--share-port"]).unwrap();
        assert_eq!(guarded.guard, Some(Guard { port: 8080, shares_port: true }));
        assert_eq!(read(&["--guard-address"]).unwrap().guard, Some(Guard { port: 2707, shares_port: false }));
        let blocking = read(&["--block-imds"]).unwrap();
        assert!(blocking.blocks_imds() && blocking.keeps_a_table() && blocking.changes_the_node());
        let observing = read(&["--block-imds", "observe"]).unwrap();
        assert!(!observing.blocks_imds() && !observing.keeps_a_table(), "it changes where nothing goes");
        assert!(observing.counts_imds() && observing.runs_nft() && observing.changes_the_node());
        assert!(read(&["--probe-namespace"]).unwrap().probe_namespace);
    }

    #[test]
    fn invalid_combinations_are_reported_with_their_flag() {
        for (flags, name) in [
            (&["--link", "eth0"][..], "--link"),
            (&["--share-port"], "--share-port"),
            (&["--guard-address", "--guard-port", "80"], "--guard-port"),
            (&["--guard-address", "--guard-port", "0"], "--guard-port"),
            (&["--guard-address", "--port", "0"], "--guard-port"),
            (&["--guard-address", "--guard-port", "2705"], "--guard-port"),
            (&["--manage-link=perhaps"], "--manage-link"),
            (&["--block-imds=audit"], "--block-imds"),
        ] {
            let error = read(flags).unwrap_err();
            assert!(error.problems().iter().any(|problem| problem.to_string().contains(name)), "{flags:?}");
        }
    }
}
