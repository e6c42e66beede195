//! Keeping the table while the agent runs, and reading it.
//!
//! Owns: when it is read and written, and what is reported. Must not know: what is in it.
//!
//! Nothing depends on it: where it cannot be kept, pods are served, no alert fires, and one line says so.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::clients::{Client, Clients, PodsByAddress};
use super::listing::Counted;
use super::step::{self, Step};
use super::table::{self, TABLE};
use super::{Numbers, Reading};
use crate::config::ImdsBlock;
use crate::lifecycle::readiness::Condition;
use crate::node::guard::{Switch, TableStatus};
use crate::node::nft::{self, NftError};
use crate::node::other_agents;
use crate::pods::{LivePod, Pods};

/// Each reading starts `nft`, a process of 3 ms. It is soon enough for who looks at metrics or a log.
const INTERVAL: Duration = Duration::from_secs(60);
/// What is in force is written again so often in the time that it lasts.
const RENEWALS: u32 = 6;
/// The same where `nft`, the permission or the kernel's nf_tables is missing. A node does not often get them
/// later.
const INTERVAL_WITHOUT: Duration = Duration::from_secs(600);
/// So many readings of a new agent tell of no address without a name: the list of pods comes within seconds,
/// where it comes.
const FIRST_READINGS: u32 = 2;

/// What is counted, and who gets reports.
pub struct CounterSpec {
    /// What is done with the connections. Not [`ImdsBlock::Off`].
    pub mode: ImdsBlock,
    /// How long connections are counted after the agent has died; zero: until `cleanup`.
    pub lasts: Duration,
    /// Whether they are counted. Advisory.
    pub condition: Condition,
}

/// Keeps the table that counts.
pub struct CountsKeeper {
    spec: CounterSpec,
    pods: Pods,
    switch: Switch,
    numbers: Numbers,
    clients: Clients,
    readings: u32,
    renewed: Option<Instant>,
    has_told_why_not: bool,
}

impl CountsKeeper {
    /// `switch`: who owns the guard's table writes this one too.
    pub fn new(spec: CounterSpec, pods: Pods, switch: Switch, numbers: Numbers) -> Self {
        let (clients, has_told_why_not) = (Clients::default(), false);
        Self { spec, pods, switch, numbers, clients, readings: 0, renewed: None, has_told_why_not }
    }

    /// Runs until it is dropped.
    pub async fn keep(mut self) {
        loop {
            let status = self.switch.status();
            let may_write = step::may_write(status, || !other_agents::is_there_one());
            let read = self.read(may_write).await;
            let wait = match &read {
                Err(error) if error.is_lasting() => INTERVAL_WITHOUT,
                Ok(_) | Err(_) => self.interval(),
            };
            self.report(read, may_write);
            // At a turn of the guard's table this agent may have to write, at once.
            let turned = self
                .switch
                .until(Duration::ZERO, |state| state.status != status && state.status == TableStatus::Owner);
            let _in_time = timeout(wait, turned).await;
            // Whatever comes, no two processes at a time.
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// What has lapsed counts nothing, so it is looked at more often than that.
    fn interval(&self) -> Duration {
        match self.renew_every() {
            Some(renew_every) => renew_every.min(INTERVAL),
            None => INTERVAL,
        }
    }

    fn renew_every(&self) -> Option<Duration> {
        Some(self.spec.lasts / RENEWALS).filter(|every| !every.is_zero())
    }

    async fn read(&mut self, may_write: bool) -> Result<Option<Counted>, NftError> {
        let counted = list().await?;
        if !may_write {
            return Ok(counted);
        }
        let renew_every = self.renew_every();
        let is_due = renew_every.is_some_and(|every| self.renewed.is_none_or(|at| at.elapsed() >= every));
        let CounterSpec { mode, lasts, .. } = self.spec;
        let transaction = match step::next(counted.as_ref(), mode, is_due) {
            Step::Nothing => return Ok(counted),
            Step::Create => table::creation(mode, lasts),
            Step::Replace => table::replacement(mode, lasts),
            Step::Renew => table::renewal(mode, lasts),
        };
        nft::write(transaction).await?;
        self.renewed = Some(Instant::now());
        list().await
    }

    fn report(&mut self, read: Result<Option<Counted>, NftError>, may_write: bool) {
        let condition = &self.spec.condition;
        let counted = match read {
            Ok(Some(counted)) if counted.is_whole => counted,
            Ok(_) if !may_write => {
                condition.met_by("on standby: another agent of this node counts");
                return self.numbers.show(None);
            }
            Ok(_) => {
                condition.unmet("another process removes the rules that count as soon as they are written");
                return self.numbers.show(None);
            }
            Err(error) if error.is_lasting() => {
                if !std::mem::replace(&mut self.has_told_why_not, true) {
                    tracing::info!(reason = %error, "metadata clients are not counted on this node");
                }
                condition.not_applicable(error.to_string());
                return self.numbers.show(None);
            }
            // The kernel counts on, and the next reading has all of it.
            Err(error) => return condition.unmet(error.to_string()),
        };
        condition.met();
        self.readings = self.readings.saturating_add(1);
        let pods = by_address(&self.pods);
        let is_early = pods.is_none() && self.readings <= FIRST_READINGS;
        let clients = if is_early { &[] } else { counted.clients.as_slice() };
        let found = self.clients.take(clients, &pods, Instant::now());
        found.tell.iter().for_each(|client| tell(self.spec.mode, client));
        let Counted { passed, blocked, .. } = counted;
        self.numbers.show(Some(Reading { passed, blocked, pods: found.pods }));
    }
}

async fn list() -> Result<Option<Counted>, NftError> {
    Ok(nft::list(TABLE).await?.as_ref().map(Counted::of))
}

/// A pod on the host network has the node's addresses; one that has ended has given its own back.
fn by_address(pods: &Pods) -> PodsByAddress {
    let mut pods = pods.all()?;
    pods.retain(|pod| !pod.is_on_host_network);
    // Of two with the same address, the one that is there.
    pods.sort_by_key(|pod| !pod.is_finished);
    let of_pod = |pod: Arc<LivePod>| {
        let addresses = pod.addresses.clone();
        addresses.into_iter().map(move |address| (address, Arc::clone(&pod)))
    };
    Some(pods.into_iter().flat_map(of_pod).collect::<HashMap<_, _>>())
}

/// docs/metadata-block.md has admins search for the begin of each sentence.
fn tell(mode: ImdsBlock, client: &Client) {
    let Client { address, pod, connections } = client;
    let namespace = pod.as_ref().map(|pod| &*pod.name.namespace);
    let name = pod.as_ref().map(|pod| &*pod.name.name);
    let service_account = pod.as_ref().map(|pod| &*pod.service_account.name);
    match mode {
        ImdsBlock::Off => {}
        ImdsBlock::Observe => tracing::info!(
            %address,
            namespace,
            pod = name,
            service_account,
            connections,
            "instance metadata reached by a pod, which can use the node's role; give its service account a \
             role, then set --block-imds=on"
        ),
        ImdsBlock::On => tracing::info!(
            %address,
            namespace,
            pod = name,
            service_account,
            connections,
            "instance metadata blocked for a pod, which cannot use the node's role; give its service account \
             a role if it needs one"
        ),
    }
}
