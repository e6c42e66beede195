//! Who answers on the guarded addresses, where pods ask. Found by keyed probes.
//!
//! Owns: the probes, and which addresses they can tell anything about. Must not know: the table, and what
//! follows.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use tokio::time::Instant;

use super::ownership::Answered;
use crate::node::other_agents;
use crate::node::self_probe::{ProbeKey, ProbeOutcome, from_host};

/// Asks.
pub(super) struct Answering {
    key: ProbeKey,
    /// The port that SDKs use.
    port: u16,
    /// The addresses where an agent has answered a probe. Of others it is not known whether anybody could: a
    /// host's firewall may refuse the probe.
    reachable: BTreeSet<IpAddr>,
}

/// What probes say of an agent that the table should lead to.
pub(super) struct Led {
    /// The addresses that lead to it, or may: of these nothing better is known.
    pub(super) here: Vec<IpAddr>,
    /// What was found at the others.
    pub(super) problems: Vec<String>,
    /// Whether there is an address that leads to it, or none is guarded.
    pub(super) is_anywhere: bool,
}

impl Answering {
    pub(super) const fn new(key: ProbeKey, port: u16) -> Self {
        Self { key, port, reachable: BTreeSet::new() }
    }

    /// Which of these addresses lead to this agent. From `patient_until` on, the table has led here for so
    /// long that an address where no agent ever answered counts as well. The time is read after the probe,
    /// which takes a moment: from then on looks are rare, and the last of the frequent ones must see it.
    pub(super) async fn led_here(&mut self, addresses: &[IpAddr], patient_until: Instant) -> Led {
        let (mut here, mut problems) = (Vec::new(), Vec::new());
        for address in addresses {
            let target = SocketAddr::new(*address, self.port);
            match from_host(&self.key, target).await {
                ProbeOutcome::ThisAgent => {
                    self.reachable.insert(*address);
                    here.push(*address);
                }
                // Other conditions show these.
                ProbeOutcome::AddressMissing | ProbeOutcome::FamilyOff => {}
                outcome @ (ProbeOutcome::AnotherAgent
                | ProbeOutcome::Forwarded { .. }
                | ProbeOutcome::OtherProcess { .. }
                | ProbeOutcome::NoAnswer { .. }) => {
                    if Instant::now() >= patient_until && !self.reachable.contains(address) {
                        here.push(*address);
                    }
                    problems.push(outcome.message(target));
                }
            }
        }
        let is_anywhere = !here.is_empty() || addresses.is_empty();
        Led { here, problems, is_anywhere }
    }

    /// Who answers on these addresses. Those where no agent ever did say nothing.
    pub(super) async fn at_any_of(&mut self, addresses: &[IpAddr]) -> Answered {
        if addresses.is_empty() {
            return if other_agents::is_there_one() { Answered::Another } else { Answered::Nobody };
        }
        let mut answered = None;
        for address in addresses {
            let by = match from_host(&self.key, SocketAddr::new(*address, self.port)).await {
                ProbeOutcome::ThisAgent => Answered::Itself,
                ProbeOutcome::AnotherAgent => Answered::Another,
                ProbeOutcome::AddressMissing | ProbeOutcome::FamilyOff => continue,
                ProbeOutcome::Forwarded { .. }
                | ProbeOutcome::OtherProcess { .. }
                | ProbeOutcome::NoAnswer { .. } => {
                    if self.reachable.contains(address) {
                        return Answered::Nobody;
                    }
                    continue;
                }
            };
            self.reachable.insert(*address);
            answered = Some(if answered.is_none_or(|before| before == by) { by } else { Answered::Another });
        }
        answered.unwrap_or(Answered::Another)
    }
}
