//! What came of one look at the table.
//!
//! Owns: what each outcome means to readiness, and when to look again. Must not know: how one looks.

use std::time::Duration;

use super::ownership::Answered;
use crate::lifecycle::readiness::Condition;
use crate::node::nft::NftError;

/// Without an event: one may have been missed.
const POLL_INTERVAL: Duration = Duration::from_secs(10);
/// The same where events cannot be subscribed to.
const POLL_INTERVAL_WITHOUT_EVENTS: Duration = Duration::from_secs(5);
/// After a failure.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// After a failure soon after the start or a turn, and between probes that fail.
const RETRY_SOON: Duration = Duration::from_millis(200);
/// A newcomer without a table looks this often, whether or not it can answer.
const NEWCOMER_POLL: Duration = Duration::from_secs(1);
/// How often an agent that has stood back sees whether the other one answers.
const STANDBY_POLL: Duration = Duration::from_secs(1);

/// What one look at the table ended with.
pub(super) enum Outcome {
    /// Nothing more to do.
    Settled,
    /// To be looked at again soon, and why.
    Unsettled(String),
    /// It has not the table, and cannot answer yet.
    CannotAnswer,
    /// Another agent has the table.
    OnStandby(Answered),
}

/// The conditions of the table, each present if its flag is set.
pub struct TableConditions {
    /// The agent's addresses lead to it. Required until it is known whether the table can be written;
    /// advisory from then on, because pods are served without the table too.
    pub guard: Option<Condition>,
    /// The instance metadata service is blocked.
    pub imds: Option<Condition>,
}

/// What the next look waits for.
pub(super) struct Pace {
    /// What is in force was changed a moment ago.
    pub(super) is_starting: bool,
    /// The kernel reports changes by others.
    pub(super) has_events: bool,
    /// The longest time between two looks of an owner.
    pub(super) renew_every: Duration,
}

/// Tells readiness.
pub(super) fn report(outcome: &Result<Outcome, NftError>, conditions: &TableConditions) {
    let TableConditions { guard, imds } = conditions;
    if let Some(imds) = imds {
        match outcome {
            Ok(Outcome::Settled | Outcome::Unsettled(_) | Outcome::OnStandby(_)) => imds.met(),
            Ok(Outcome::CannotAnswer) => imds.unmet("the agent cannot answer yet"),
            Err(error) => imds.unmet(error.to_string()),
        }
    }
    let Some(guard) = guard else { return };
    let is_settled = match outcome {
        Ok(Outcome::Settled) => {
            guard.met();
            true
        }
        Ok(Outcome::OnStandby(Answered::Another | Answered::Itself)) => {
            guard.met_by("on standby: another agent of this node has the address");
            true
        }
        Ok(Outcome::OnStandby(Answered::Nobody)) => {
            guard.unmet("no agent answers on the address; taking over");
            false
        }
        Ok(Outcome::CannotAnswer) => {
            guard.unmet("the agent cannot answer yet");
            false
        }
        Ok(Outcome::Unsettled(why)) => {
            guard.unmet(why.clone());
            false
        }
        Err(error) => {
            guard.unmet(error.to_string());
            error.is_lasting()
        }
    };
    if is_settled {
        guard.no_longer_required();
    }
}

/// How long until the next look, if nothing happens.
pub(super) fn wait_after(outcome: &Result<Outcome, NftError>, pace: &Pace) -> Duration {
    match outcome {
        Ok(Outcome::Settled) => {
            let poll = if pace.has_events { POLL_INTERVAL } else { POLL_INTERVAL_WITHOUT_EVENTS };
            poll.min(pace.renew_every)
        }
        Ok(Outcome::OnStandby(Answered::Nobody)) => RETRY_SOON,
        Ok(Outcome::Unsettled(_)) if pace.is_starting => RETRY_SOON,
        Ok(Outcome::Unsettled(_)) => RETRY_INTERVAL,
        Ok(Outcome::OnStandby(Answered::Itself | Answered::Another)) => STANDBY_POLL,
        Ok(Outcome::CannotAnswer) => NEWCOMER_POLL,
        // At once: the pause between two looks is long enough.
        Err(NftError::Overtaken) => Duration::ZERO,
        Err(_) if pace.is_starting => RETRY_SOON,
        Err(_) => RETRY_INTERVAL,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Answered, NftError, Outcome, Pace, TableConditions, report, wait_after};
    use crate::lifecycle::condition_name::ConditionName;
    use crate::lifecycle::readiness::Readiness;

    #[test]
    fn readiness_waits_for_the_table_until_it_leads_somewhere_or_cannot_be_written() {
        for (outcome, is_met, is_ready, blocks) in [
            (Ok(Outcome::Settled), true, true, true),
            (Ok(Outcome::OnStandby(Answered::Another)), true, true, true),
            (Ok(Outcome::OnStandby(Answered::Nobody)), false, false, true),
            (Ok(Outcome::Unsettled("another process answers".to_owned())), false, false, true),
            (Ok(Outcome::CannotAnswer), false, false, false),
            (Err(NftError::Overtaken), false, false, false),
            (Err(NftError::Missing), false, true, false),
        ] {
            let readiness = Readiness::new();
            readiness.condition(ConditionName::Running).met();
            let guard = readiness.condition(ConditionName::AddressGuard);
            let imds = readiness.advisory(ConditionName::ImdsBlock);
            let conditions = TableConditions { guard: Some(guard.clone()), imds: Some(imds.clone()) };
            report(&outcome, &conditions);
            let reports = readiness.report();
            assert_eq!((guard.is_met(), readiness.is_ready()), (is_met, is_ready), "{reports:?}");
            assert_eq!(imds.is_met(), blocks, "{reports:?}");
        }
    }

    #[test]
    fn the_next_look_is_soon_after_a_turn_and_in_time_for_a_renewal() {
        let pace = |is_starting, has_events, renew_s| Pace {
            is_starting,
            has_events,
            renew_every: Duration::from_secs(renew_s),
        };
        let unsettled = || Ok(Outcome::Unsettled(String::new()));
        for (outcome, pace, ms) in [
            (Ok(Outcome::Settled), pace(false, true, 20), 10_000),
            (Ok(Outcome::Settled), pace(false, false, 20), 5_000),
            (Ok(Outcome::Settled), pace(false, true, 1), 1_000),
            (unsettled(), pace(true, true, 20), 200),
            (unsettled(), pace(false, true, 20), 5_000),
            (Err(NftError::RemovedAgain), pace(true, true, 20), 200),
            (Err(NftError::RemovedAgain), pace(false, true, 20), 5_000),
            (Err(NftError::Overtaken), pace(false, true, 20), 0),
            (Ok(Outcome::OnStandby(Answered::Nobody)), pace(false, true, 20), 200),
            (Ok(Outcome::OnStandby(Answered::Another)), pace(false, true, 20), 1_000),
            (Ok(Outcome::CannotAnswer), pace(false, true, 20), 1_000),
        ] {
            assert_eq!(wait_after(&outcome, &pace), Duration::from_millis(ms));
        }
    }
}
