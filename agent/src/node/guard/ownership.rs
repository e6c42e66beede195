//! Who owns the table: the switch between an old agent and a new one. Pure.
//!
//! Owns: when this agent takes the table, keeps it, and leaves it to another. Must not know: how it is
//! written, and what is in force.
//!
//! ```text
//! newcomer ── can answer ──► owner ── another's epoch ──► stood back ── nobody answers three times ──► owner
//! ```
//!
//! A newcomer takes the table once. After that nobody takes it from an owner that answers: two agents that
//! each wrote what they want changed it 72 times in 150 looks (docs/design/facts.md#nftables).

use std::time::Duration;

use tokio::time::Instant;

use super::elements::Epoch;

/// How long an agent that is not the owner waits for the owner to make a missing table again. The owner does
/// within milliseconds.
pub(super) const LEFT_TO_OWNER: Duration = Duration::from_secs(3);
/// So many failed probes in a row, and the owner is dead: a busy node may lose one packet, and the next.
const FAILED_PROBES: u32 = 3;
/// At least so far apart: a change of rules has probes come faster.
const BETWEEN_PROBES: Duration = Duration::from_millis(200);
/// An agent that has taken the table back and lost it to somebody who does not seem to answer either waits
/// this long before it does so again, then twice as long, and so on: the two may see each other wrongly, and
/// the owner would change for ever.
const FIRST_TRUCE: Duration = Duration::from_secs(30);
/// The longest of these.
const LONGEST_TRUCE: Duration = Duration::from_secs(30 * 60);

/// What this agent is to the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It has not had the table yet.
    Newcomer,
    /// It wrote the table last.
    Owner {
        /// What it wrote.
        epoch: Epoch,
        /// When it did so.
        renewed: Instant,
    },
    /// Another agent has taken the table over.
    StoodBack,
}

/// The table as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// There is none.
    NoTable,
    /// There is one.
    Table {
        /// Of whom.
        epoch: Option<Epoch>,
        /// Whether it is as this agent wrote it.
        is_as_written: bool,
    },
    /// There is one of an agent of another version, which says in another way who wrote it.
    OfAnotherFormat,
}

/// Who answers where pods ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// This agent.
    Itself,
    /// Another agent of this node.
    Another,
    /// Nobody that is an agent.
    Nobody,
}

/// What this agent has to do with the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Nothing,
    /// Make it.
    Create,
    /// Write all of it, instead of the one with this epoch.
    Replace(Option<Epoch>),
    /// Write its elements.
    Renew(Epoch),
}

/// What is known at one look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// The table.
    pub(super) seen: Seen,
    /// Whether this agent can answer pods: it listens, and misses nothing else that readiness waits for.
    pub(super) can_answer: bool,
    /// Whether there is no other agent on this node, which would make a missing table again.
    pub(super) is_alone: bool,
    /// Whether the elements should be others than those it wrote.
    pub(super) is_outdated: bool,
    /// Who answered the last probe; asked only of an agent that has stood back.
    pub(super) answered: Option<Answered>,
}

/// This agent's part in the table.
#[derive(Debug)]
pub(super) struct Ownership {
    renew_every: Duration,
    role: Role,
    missing_since: Option<Instant>,
    failed_probes: u32,
    last_failed: Option<Instant>,
    /// Until then the table is not taken back, and how long the next such time is.
    truce: Option<(Instant, Duration)>,
}

impl Ownership {
    /// `has_stood_back`: another agent of this node has taken over from this pod before.
    /// `renew_every`: how often the owner makes its elements last longer.
    pub(super) const fn new(has_stood_back: bool, renew_every: Duration) -> Self {
        let role = if has_stood_back { Role::StoodBack } else { Role::Newcomer };
        Self { renew_every, role, missing_since: None, failed_probes: 0, last_failed: None, truce: None }
    }

    /// What this agent is to the table.
    pub(super) const fn role(&self) -> Role {
        self.role
    }

    /// The next step; and the role, if another agent has taken over.
    pub(super) fn next(&mut self, look: &Look, now: Instant) -> Step {
        self.missing_since = match look.seen {
            Seen::NoTable => self.missing_since.or(Some(now)),
            Seen::Table { .. } | Seen::OfAnotherFormat => None,
        };
        match self.role {
            Role::Newcomer => self.take(look, now),
            Role::Owner { epoch, renewed } => self.keep(look, epoch, now - renewed >= self.renew_every),
            Role::StoodBack => self.stand_by(look, now),
        }
    }

    /// This agent has written the table, and is its owner.
    pub(super) fn written(&mut self, epoch: Epoch, now: Instant) {
        if self.role == Role::StoodBack {
            let lasts = self.truce.map_or(FIRST_TRUCE, |(_, lasts)| (lasts * 2).min(LONGEST_TRUCE));
            self.truce = Some((now + lasts, lasts));
        }
        self.role = Role::Owner { epoch, renewed: now };
        self.missing_since = None;
        self.failed_probes = 0;
    }

    /// Another one wrote at the same time, and was faster.
    pub(super) fn overtaken(&mut self) {
        self.role = Role::StoodBack;
    }

    fn take(&self, look: &Look, now: Instant) -> Step {
        match look.seen {
            Seen::NoTable if (look.can_answer && look.is_alone) || self.is_left(now) => Step::Create,
            Seen::Table { epoch, .. } if look.can_answer => Step::Replace(epoch),
            // Nobody can be faster with an epoch that cannot be read. Of two that write at once, the one that
            // does not find its own afterwards stands back.
            Seen::OfAnotherFormat if look.can_answer => Step::Replace(None),
            Seen::NoTable | Seen::Table { .. } | Seen::OfAnotherFormat => Step::Nothing,
        }
    }

    fn keep(&mut self, look: &Look, own: Epoch, is_due: bool) -> Step {
        match look.seen {
            Seen::NoTable => Step::Create,
            Seen::Table { epoch: Some(other), .. } if other != own => {
                self.role = Role::StoodBack;
                Step::Nothing
            }
            Seen::OfAnotherFormat => {
                self.role = Role::StoodBack;
                Step::Nothing
            }
            Seen::Table { epoch, is_as_written: false } => Step::Replace(epoch),
            Seen::Table { is_as_written: true, .. } if is_due || look.is_outdated => Step::Renew(own),
            Seen::Table { is_as_written: true, .. } => Step::Nothing,
        }
    }

    fn stand_by(&mut self, look: &Look, now: Instant) -> Step {
        match look.answered {
            Some(Answered::Nobody) if self.last_failed.is_some_and(|last| now - last < BETWEEN_PROBES) => {}
            Some(Answered::Nobody) => {
                self.failed_probes = self.failed_probes.saturating_add(1);
                self.last_failed = Some(now);
            }
            Some(Answered::Another) => self.failed_probes = 0,
            Some(Answered::Itself) | None => {}
        }
        // The owner leads to a port that is this agent's now: it has died.
        let is_led_here = look.answered == Some(Answered::Itself);
        let is_truce = self.truce.is_some_and(|(until, _)| now < until);
        let is_dead = is_led_here || (self.failed_probes >= FAILED_PROBES && !is_truce);
        match look.seen {
            Seen::NoTable if self.is_left(now) && look.can_answer => Step::Create,
            Seen::Table { epoch, .. } if is_dead && look.can_answer => Step::Replace(epoch),
            Seen::OfAnotherFormat if is_dead && look.can_answer => Step::Replace(None),
            Seen::NoTable | Seen::Table { .. } | Seen::OfAnotherFormat => Step::Nothing,
        }
    }

    fn is_left(&self, now: Instant) -> bool {
        self.missing_since.is_some_and(|since| now - since >= LEFT_TO_OWNER)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{Answered, Epoch, LEFT_TO_OWNER, Look, Ownership, Role, Seen, Step};

    const RENEW_EVERY: Duration = Duration::from_secs(20);

    fn table(epoch: u32, is_as_written: bool) -> Seen {
        Seen::Table { epoch: Some(Epoch(epoch)), is_as_written }
    }

    fn look(seen: Seen) -> Look {
        Look { seen, can_answer: true, is_alone: true, is_outdated: false, answered: None }
    }

    fn owner(epoch: u32, now: Instant) -> Ownership {
        let mut ownership = Ownership::new(false, RENEW_EVERY);
        ownership.written(Epoch(epoch), now);
        ownership
    }

    #[test]
    fn a_newcomer_takes_the_table_when_it_can_answer_and_not_before() {
        let now = Instant::now();
        let mut newcomer = Ownership::new(false, RENEW_EVERY);
        for seen in [Seen::NoTable, table(4, false)] {
            assert_eq!(newcomer.next(&Look { can_answer: false, ..look(seen) }, now), Step::Nothing);
        }
        assert_eq!(newcomer.next(&look(Seen::NoTable), now), Step::Create);
        assert_eq!(newcomer.next(&look(table(4, false)), now), Step::Replace(Some(Epoch(4))));
    }

    #[test]
    fn a_node_without_a_table_is_guarded_before_the_agent_can_answer() {
        let now = Instant::now();
        let mut newcomer = Ownership::new(false, RENEW_EVERY);
        let waiting = Look { can_answer: false, ..look(Seen::NoTable) };
        let beside_another = Look { is_alone: false, ..look(Seen::NoTable) };
        assert_eq!(newcomer.next(&waiting, now), Step::Nothing);
        assert_eq!(newcomer.next(&beside_another, now), Step::Nothing, "its owner may make it again");
        assert_eq!(newcomer.next(&waiting, now + LEFT_TO_OWNER), Step::Create);
        assert_eq!(newcomer.next(&beside_another, now + LEFT_TO_OWNER), Step::Create);
    }

    #[test]
    fn the_owner_renews_in_time_and_turns_at_once() {
        let now = Instant::now();
        let mut owner = owner(3, now);
        assert_eq!(owner.next(&look(table(3, true)), now), Step::Nothing);
        assert_eq!(owner.next(&look(table(3, true)), now + RENEW_EVERY), Step::Renew(Epoch(3)));
        let turned = Look { is_outdated: true, ..look(table(3, true)) };
        assert_eq!(owner.next(&turned, now), Step::Renew(Epoch(3)));
    }

    #[test]
    fn the_owner_makes_again_what_is_gone_or_changed() {
        let now = Instant::now();
        let mut owner = owner(3, now);
        assert_eq!(owner.next(&look(Seen::NoTable), now), Step::Create);
        assert_eq!(owner.next(&look(table(3, false)), now), Step::Replace(Some(Epoch(3))));
        let without_epoch = Seen::Table { epoch: None, is_as_written: false };
        assert_eq!(owner.next(&look(without_epoch), now), Step::Replace(None));
    }

    #[test]
    fn the_owner_stands_back_for_another_and_takes_nothing_back_while_that_one_answers() {
        let now = Instant::now();
        let mut old = owner(3, now);
        assert_eq!(old.next(&look(table(4, false)), now), Step::Nothing);
        assert_eq!(old.role(), Role::StoodBack);
        let answered = Look { answered: Some(Answered::Another), ..look(table(4, false)) };
        for seconds in 0..1_000 {
            assert_eq!(old.next(&answered, now + Duration::from_secs(seconds)), Step::Nothing);
        }
    }

    #[test]
    fn three_failed_probes_in_a_row_take_the_table_back() {
        let now = Instant::now();
        let mut old = Ownership::new(true, RENEW_EVERY);
        let failed = Look { answered: Some(Answered::Nobody), ..look(table(4, false)) };
        let answered = Look { answered: Some(Answered::Another), ..failed };
        let at = |probe: u32| now + super::BETWEEN_PROBES * probe;
        for (probe, look) in (0..).zip([failed, failed, answered, failed, failed]) {
            assert_eq!(old.next(&look, at(probe)), Step::Nothing);
        }
        // A change of rules has it look once more, and that is no third probe.
        assert_eq!(old.next(&failed, at(4) + Duration::from_millis(60)), Step::Nothing);
        assert_eq!(old.next(&failed, at(5)), Step::Replace(Some(Epoch(4))));
        // Its write may fail; then it is tried again.
        assert_eq!(old.next(&look(table(5, false)), at(5)), Step::Replace(Some(Epoch(5))));
        old.written(Epoch(6), at(5));
        assert_eq!(old.next(&look(table(6, true)), at(5)), Step::Nothing);
    }

    #[test]
    fn a_table_of_another_version_is_taken_as_any_other_is_and_left_as_any_other_is() {
        let now = Instant::now();
        let seen = look(Seen::OfAnotherFormat);
        let mut newcomer = Ownership::new(false, RENEW_EVERY);
        assert_eq!(newcomer.next(&Look { can_answer: false, ..seen }, now), Step::Nothing);
        assert_eq!(newcomer.next(&seen, now), Step::Replace(None));
        let mut old = owner(3, now);
        assert_eq!(old.next(&seen, now), Step::Nothing, "another agent has taken over");
        assert_eq!(old.role(), Role::StoodBack);
        let failed = Look { answered: Some(Answered::Nobody), ..seen };
        let at = |probe: u32| now + super::BETWEEN_PROBES * probe;
        assert_eq!(old.next(&failed, at(1)), Step::Nothing);
        assert_eq!(old.next(&Look { answered: Some(Answered::Another), ..seen }, at(2)), Step::Nothing);
        assert_eq!(
            [3, 4, 5].map(|probe| old.next(&failed, at(probe))),
            [Step::Nothing, Step::Nothing, Step::Replace(None)]
        );
    }

    #[test]
    fn two_agents_that_do_not_see_each_other_change_the_owner_less_and_less() {
        let start = Instant::now();
        let mut old = owner(1, start);
        let (mut epoch, mut taken) = (1, Vec::new());
        for tenth in 0..36_000 {
            let now = start + Duration::from_millis(100) * tenth;
            // The other one takes it whenever this one has it.
            epoch += u32::from(matches!(old.role(), Role::Owner { .. }));
            let failed = Look { answered: Some(Answered::Nobody), ..look(table(epoch, false)) };
            if let Step::Replace(Some(_)) = old.next(&failed, now) {
                epoch += 1;
                old.written(Epoch(epoch), now);
                taken.push(now - start);
            }
        }
        assert!((5..=9).contains(&taken.len()), "in an hour: {taken:?}");
    }

    #[test]
    fn a_dead_owners_port_that_this_agent_has_now_takes_the_table_back_at_once() {
        let now = Instant::now();
        let mut old = Ownership::new(true, RENEW_EVERY);
        let own = Look { answered: Some(Answered::Itself), ..look(table(4, false)) };
        assert_eq!(old.next(&Look { can_answer: false, ..own }, now), Step::Nothing);
        assert_eq!(old.next(&own, now), Step::Replace(Some(Epoch(4))));
    }

    #[test]
    fn a_missing_table_is_left_to_its_owner_for_three_seconds() {
        let now = Instant::now();
        let mut old = Ownership::new(true, RENEW_EVERY);
        assert_eq!(old.next(&look(Seen::NoTable), now), Step::Nothing);
        let almost = LEFT_TO_OWNER.saturating_sub(Duration::from_millis(1));
        assert_eq!(old.next(&look(Seen::NoTable), now + almost), Step::Nothing);
        // It was back in between.
        assert_eq!(old.next(&look(table(4, false)), now + almost), Step::Nothing);
        assert_eq!(old.next(&look(Seen::NoTable), now + LEFT_TO_OWNER), Step::Nothing);
        assert_eq!(old.next(&look(Seen::NoTable), now + LEFT_TO_OWNER * 2), Step::Create);
    }
}
