//! Keeping the table while the agent runs.
//!
//! Owns: the looks, and what is written after each. Must not know: who should own the table (`ownership`
//! decides), what is in it, and what follows from a look (`outcome`).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::answering::{Answering, Led};
use super::elements::{self, Epoch, Lead, Rules};
use super::events::{Change, Events};
use super::listing::{Listing, Writer};
use super::note;
use super::outcome::{self, Outcome, Pace};
use super::ownership::{Answered, Look, Ownership, Role, Seen, Step};
use super::places::{Place, Places};
use super::spec::{CanAnswer, START_PATIENCE, TableSpec, be_patient, can_answer_now};
use super::switch::{State, Switch, TableStatus};
use super::table::TABLE;
use crate::node::kernel_events;
use crate::node::listening::Listening;
use crate::node::nft::{self, NftError};
use crate::node::other_agents;
use crate::node::self_probe::ProbeKey;

/// Each look starts `nft`, a process.
const MIN_INTERVAL: Duration = Duration::from_millis(20);

/// An agent on standby looks so much later than the owner, which has to repair what has changed: looking
/// takes a processor from it.
const GIVES_WAY: Duration = Duration::from_millis(100);

/// Keeps the table.
pub struct TableKeeper {
    spec: TableSpec,
    places: Places,
    can_answer: CanAnswer,
    answering: Answering,
    switch: Switch,
    changed: watch::Sender<u64>,
    ownership: Ownership,
    written: Option<(Rules, Listing)>,
    /// What was written with a new epoch, and is not read yet.
    unread: Option<(Rules, Epoch)>,
    /// Whether a probe has shown that what was written leads to this agent.
    is_seen_to_lead: bool,
    /// Whether this agent could answer at some time. Before, nobody is sent to its guard ports.
    may_lead: bool,
    /// When what is in force was last changed.
    turned: Instant,
    /// This node's nft lists what this agent has written as it cannot read it. What looks like another
    /// version's table may be its own then, and writing it again would never end.
    is_own_unreadable: bool,
}

impl TableKeeper {
    /// `changed` is incremented each time the table is written.
    pub fn new(
        spec: TableSpec,
        places: Places,
        can_answer: CanAnswer,
        probe_key: ProbeKey,
        switch: Switch,
        changed: watch::Sender<u64>,
    ) -> Self {
        let ownership = Ownership::new(note::is_there(spec.state_dir.as_deref()), spec.lasting.renew_every());
        let answering = Answering::new(probe_key, spec.port);
        Self {
            spec,
            places,
            can_answer,
            answering,
            switch,
            changed,
            ownership,
            written: None,
            unread: None,
            is_seen_to_lead: false,
            may_lead: false,
            turned: Instant::now(),
            is_own_unreadable: false,
        }
    }

    /// Runs until it is dropped, or until this agent leaves the table.
    pub async fn keep(mut self) {
        let switch = self.switch.clone();
        let patience =
            be_patient(self.spec.conditions.guard.clone(), Arc::clone(&self.can_answer.beside_others));
        tokio::select! {
            _ = async { tokio::join!(self.keep_table(), patience) } => {}
            () = switch.wait_for_leave() => {}
        }
        self.leave().await;
        switch.left();
    }

    async fn keep_table(&mut self) {
        let mut places = self.places.changes();
        let mut events = Events::open().ok();
        let mut change = None;
        loop {
            places.mark_unchanged();
            if change == Some(Change::Removed) {
                self.make_again().await;
            }
            // Subscribe first, then look: a change in between leads to another look.
            let outcome = self.look().await;
            outcome::report(&outcome, &self.spec.conditions);
            let pace = Pace {
                is_starting: self.turned.elapsed() < START_PATIENCE,
                has_events: events.is_some(),
                renew_every: self.spec.lasting.renew_every(),
            };
            let wait = outcome::wait_after(&outcome, &pace);
            sleep(MIN_INTERVAL).await;
            let is_waited_for = matches!(outcome, Ok(Outcome::CannotAnswer));
            let wakes = kernel_events::wait(&mut events, Events::open, Events::next, wait);
            change = tokio::select! {
                change = wakes => change,
                // It fails only without a sender, and `self` holds one.
                _changed = places.changed() => None,
                () = can_answer_now(&*self.can_answer.beside_others, is_waited_for) => None,
            };
            if self.ownership.role() == Role::StoodBack {
                sleep(GIVES_WAY).await;
            }
        }
    }

    /// The table now, if this agent can tell a table of its own from one of another version.
    async fn list(&self) -> Result<Option<Listing>, NftError> {
        let listed = list().await?;
        let is_of_another = listed.as_ref().is_some_and(|listed| listed.writer == Writer::OfAnotherFormat);
        if is_of_another && self.is_own_unreadable { Err(NftError::Unreadable) } else { Ok(listed) }
    }

    /// The owner makes a table that was removed again as it was, before it looks: pods have no guard
    /// meanwhile, and a look takes several times as long as to write (measured under load: 20 to 50 ms
    /// and 10). Where somebody else was faster this fails. Either way the look comes next.
    async fn make_again(&mut self) {
        if !matches!(self.ownership.role(), Role::Owner { .. }) {
            return;
        }
        let Some((rules, _)) = self.written.clone() else { return };
        let epoch = Epoch::any();
        let creation = elements::creation(epoch, &rules, self.spec.lasting);
        if self.write(creation, rules, epoch).await.is_ok() {
            tracing::warn!("nftables table removed by another process; made again");
        }
    }

    async fn look(&mut self) -> Result<Outcome, NftError> {
        let mut listed = self.list().await?;
        self.find_unread(listed.as_ref()).await;
        let before = self.ownership.role();
        let answered = match before {
            Role::StoodBack => {
                let answered = self.answering.at_any_of(&self.guarded()).await;
                // What answered while the table changed says nothing.
                let again = self.list().await?;
                let is_same = again == listed && again.is_some();
                listed = again;
                is_same.then_some(answered)
            }
            Role::Newcomer | Role::Owner { .. } => None,
        };
        let can_answer = self.can_answer().await && self.listens_everywhere();
        self.may_lead |= can_answer;
        let desired = self.desired().await;
        let written = self.written.as_ref();
        let look = Look {
            seen: seen(listed.as_ref(), written.map(|(_, written)| written)),
            can_answer,
            is_alone: listed.is_some() || !other_agents::is_there_one(),
            is_outdated: written.is_some_and(|(rules, _)| *rules != desired),
            answered,
        };
        let step = self.ownership.next(&look, Instant::now());
        self.stand_back_if_taken(before).await;
        self.tell_of_repair(before, &look, step);
        let lasting = self.spec.lasting;
        let (transaction, epoch) = match step {
            Step::Nothing => {
                self.show(listed.as_ref());
                return Ok(self.settled(&look, answered).await);
            }
            Step::Create => {
                let epoch = Epoch::any();
                (elements::creation(epoch, &desired, lasting), epoch)
            }
            Step::Replace(read) => {
                let epoch = read.map_or_else(Epoch::any, Epoch::next);
                (elements::replacement(read, epoch, &desired, lasting), epoch)
            }
            Step::Renew(own) => (elements::renewal(own, &desired, lasting), own),
        };
        if let Err(error) = self.write(transaction, desired, epoch).await {
            // What is still in force may lead to the port of an agent that has died, which this one can take.
            self.show(listed.as_ref());
            return Err(error);
        }
        Ok(self.settled(&look, answered).await)
    }

    async fn write(&mut self, transaction: String, desired: Rules, epoch: Epoch) -> Result<(), NftError> {
        nft::write(transaction).await?;
        self.unread = Some((desired.clone(), epoch));
        let listed = list().await?;
        self.unread = None;
        let listed = listed.ok_or(NftError::RemovedAgain)?;
        match listed.writer {
            Writer::Known(written) if written == epoch => self.own(listed, desired, epoch).await,
            Writer::Known(_) | Writer::Nobody => {
                self.ownership.overtaken();
                self.stand_back().await;
                return Err(NftError::Overtaken);
            }
            Writer::OfAnotherFormat => {
                self.is_own_unreadable = true;
                return Err(NftError::Unreadable);
            }
        }
        Ok(())
    }

    /// Where reading failed after a transaction, its epoch is found at the next look. It is no other agent's:
    /// for that, this one would stand back, and nobody would renew the table.
    async fn find_unread(&mut self, listed: Option<&Listing>) {
        let unread = self.unread.take();
        let Some((listed, (desired, epoch))) = listed.zip(unread) else { return };
        if listed.writer == Writer::Known(epoch) {
            self.own(listed.clone(), desired, epoch).await;
        }
    }

    /// The table is as this agent wrote it.
    async fn own(&mut self, listed: Listing, desired: Rules, epoch: Epoch) {
        let is_new = self.written.as_ref().is_none_or(|(rules, _)| *rules != desired);
        if is_new || self.switch.status() != TableStatus::Owner {
            tracing::info!(rules = ?desired, epoch = epoch.0, "nftables table written");
            self.is_seen_to_lead = false;
            self.turned = Instant::now();
            self.changed.send_modify(|times| *times = times.wrapping_add(1));
        }
        self.ownership.written(epoch, Instant::now());
        note::remove(self.spec.state_dir.as_deref()).await;
        self.show(Some(&listed));
        self.written = Some((desired, listed));
    }

    async fn settled(&mut self, look: &Look, answered: Option<Answered>) -> Outcome {
        match (self.ownership.role(), answered) {
            (Role::Newcomer, _) if !look.can_answer => Outcome::CannotAnswer,
            (Role::Newcomer, _) => Outcome::Unsettled("the table is not written yet".to_owned()),
            (Role::StoodBack, answered) => Outcome::OnStandby(answered.unwrap_or(Answered::Another)),
            (Role::Owner { .. }, _) if self.is_seen_to_lead => Outcome::Settled,
            (Role::Owner { .. }, _) => match self.see_where_it_leads().await {
                Ok(()) => {
                    self.is_seen_to_lead = true;
                    Outcome::Settled
                }
                Err(why) => Outcome::Unsettled(why),
            },
        }
    }

    /// Whether pods' connections come to this agent by the table, at each address that the node has.
    async fn see_where_it_leads(&mut self) -> Result<(), String> {
        // Where no agent has ever answered, one that has been led to for long is as good as it gets.
        let patient_until = self.turned + START_PATIENCE;
        let Led { here, problems, is_anywhere } =
            self.answering.led_here(&self.guarded(), patient_until).await;
        self.switch.show_led(here);
        match (problems.is_empty(), is_anywhere) {
            (true, true) => Ok(()),
            (true, false) => Err("the node has none of the agent's addresses yet".to_owned()),
            (false, _) => Err(problems.join("; ")),
        }
    }

    async fn desired(&self) -> Rules {
        let TableSpec { port, block_imds, .. } = self.spec;
        let places = self.guarded_places();
        let listening = match places.iter().any(|(_, place)| !place.has_own_port) {
            true => Some(Listening::on(port).await),
            false => None,
        };
        let leads = places.into_iter().map(|(address, place)| Lead {
            address,
            to: if place.has_own_port || !self.may_lead { None } else { place.other_port() },
            is_foreign: !place.has_own_port
                && listening.as_ref().is_some_and(|found| found.only_on_every(address)),
        });
        Rules { port, leads: leads.collect(), block_imds }
    }

    fn guarded_places(&self) -> Vec<(IpAddr, Place)> {
        if self.spec.guards { self.places.list() } else { Vec::new() }
    }

    fn guarded(&self) -> Vec<IpAddr> {
        self.guarded_places().into_iter().map(|(address, _)| address).collect()
    }

    async fn can_answer(&self) -> bool {
        (self.can_answer.beside_others)() || ((self.can_answer.alone)() && self.has_no_predecessor().await)
    }

    /// Whether nobody would be taken anything from: no other agent of this node, and none of Amazon's, which
    /// listens on exactly its addresses.
    async fn has_no_predecessor(&self) -> bool {
        let listening = Listening::on(self.spec.port).await;
        let is_others = |(address, place): (IpAddr, Place)| !place.has_own_port && listening.exactly(address);
        !other_agents::is_there_one() && !self.places.list().into_iter().any(is_others)
    }

    /// At an address of a family that the node does not have, nobody can ask.
    fn listens_everywhere(&self) -> bool {
        let missing = |address: IpAddr| address.is_ipv6() && crate::node::ipv6::is_switched_off();
        self.guarded_places().into_iter().all(|(address, place)| place.listens() || missing(address))
    }

    async fn stand_back_if_taken(&mut self, before: Role) {
        if matches!(before, Role::Owner { .. }) && self.ownership.role() == Role::StoodBack {
            self.stand_back().await;
        }
    }

    async fn stand_back(&mut self) {
        tracing::info!("another agent of this node has taken over; on standby");
        self.written = None;
        note::leave(self.spec.state_dir.as_deref()).await;
    }

    fn tell_of_repair(&self, before: Role, look: &Look, step: Step) {
        let was_owner = matches!(before, Role::Owner { .. });
        match step {
            Step::Create | Step::Replace(_) if was_owner => {
                tracing::warn!("nftables table changed or removed by another process; writing it again");
            }
            Step::Create | Step::Replace(_) if before == Role::StoodBack => {
                tracing::warn!(answered = ?look.answered, "no other agent answers; taking over again");
            }
            Step::Create | Step::Replace(_) | Step::Renew(_) | Step::Nothing => {}
        }
    }

    fn show(&self, listed: Option<&Listing>) {
        let status = match self.ownership.role() {
            Role::Newcomer => TableStatus::None,
            Role::Owner { .. } => TableStatus::Owner,
            Role::StoodBack => TableStatus::StoodBack,
        };
        let guard_port = |address| Some((address, listed?.guard_port_of(address)?));
        let guard_ports = self.guarded().into_iter().filter_map(guard_port);
        let leads_here = match status {
            TableStatus::Owner => self.switch.state().leads_here,
            TableStatus::None | TableStatus::StoodBack => Vec::new(),
        };
        self.switch.show(State { status, guard_ports: guard_ports.collect(), leads_here });
    }

    /// The last change: connections go to the port of SDKs, if somebody listens on exactly this address
    /// there, as every agent does. Where nobody does, the elements lapse by themselves; where a process
    /// listens on every address, tokens must not come to it.
    async fn leave(&mut self) {
        let Role::Owner { epoch, .. } = self.ownership.role() else { return };
        let Some((rules, _)) = self.written.take() else { return };
        let is_ours = list()
            .await
            .is_ok_and(|listed| listed.is_some_and(|listed| listed.writer == Writer::Known(epoch)));
        if !is_ours {
            return;
        }
        let listening = Listening::on(rules.port).await;
        let leads = rules.leads.iter().map(|lead| match listening.exactly(lead.address) {
            true => Lead { to: None, is_foreign: false, ..*lead },
            false => Lead { is_foreign: listening.only_on_every(lead.address), ..*lead },
        });
        let last = Rules { leads: leads.collect(), ..rules.clone() };
        if let Some(lead) = last.leads.iter().find(|lead| lead.is_foreign) {
            tracing::warn!(
                address = %lead.address,
                port = last.port,
                seconds = self.spec.lasting.to_self.as_secs(),
                "another process listens on this port of every address, so that connections of pods are \
                 refused for so long, or until an agent with the guard starts, or `pod-identity-agent \
                 cleanup` runs on this node"
            );
        }
        if last == rules {
            return;
        }
        if let Err(error) = nft::write(elements::renewal(epoch, &last, self.spec.lasting)).await {
            tracing::warn!(err = %error, "cannot redirect to the agent on port {}", rules.port);
        }
    }
}

fn seen(listed: Option<&Listing>, written: Option<&Listing>) -> Seen {
    let Some(listed) = listed else { return Seen::NoTable };
    let is_as_written = written == Some(listed);
    match listed.writer {
        Writer::Known(epoch) => Seen::Table { epoch: Some(epoch), is_as_written },
        Writer::Nobody => Seen::Table { epoch: None, is_as_written },
        Writer::OfAnotherFormat => Seen::OfAnotherFormat,
    }
}

async fn list() -> Result<Option<Listing>, NftError> {
    Ok(nft::list(TABLE).await?.map(Listing::new))
}
