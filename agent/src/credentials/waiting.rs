//! A request that waits: for its turn, for a call to AWS, or for the better of a renewal and what is held.
//!
//! Owns: what ends the waiting, and what a request falls back to. Must not know: which requests wait, or for
//! what (`provider`).

use crate::clock::Clock;
use crate::credentials::flight::outcome::FIRST_RENEWAL_RETRY;
use crate::credentials::flight::shared_call::{FlightHandle, FlightId};
use crate::credentials::flight::table::Joined;
use crate::credentials::policy::serving::RENEWAL_WAIT;
use crate::credentials::provider::{CredentialRequest, Failed, Provider, Served};
use crate::credentials::record::Held;
use crate::credentials::source::{SourceError, Unavailable};

/// A request that waits. Dropping it cancels nothing.
pub struct Waiting {
    pub(super) waiting_for: WaitingFor,
    pub(super) fallback: Option<Fallback>,
    /// The flight judges the very token that the request came with.
    pub(super) is_judgement: bool,
    pub(super) clock: Clock,
}

/// What a request is served if nothing better comes, and its turn if that expires meanwhile.
pub(super) struct Fallback {
    pub(super) held: Held,
    pub(super) turn: Box<Turn>,
}

/// What a request waits for.
pub(super) enum WaitingFor {
    Flight(FlightHandle),
    /// Its peer has all the flights it may have.
    PeerQuota(Box<Turn>),
    /// A call with another token of the same pod.
    OtherToken(FlightHandle, Box<Turn>),
}

/// A request that starts its flight, or joins one, when it is its turn.
#[derive(Clone)]
pub(super) struct Turn {
    pub(super) provider: Provider,
    pub(super) request: CredentialRequest,
}

impl Waiting {
    /// Waits for the flight. With credentials to fall back to, for 300 ms at most; else for as long as the
    /// caller cares to poll. Cancel-safe.
    ///
    /// # Errors
    /// [`Failed`], when there are no credentials and the flight has failed, or those that there were are
    /// revoked or are the token's no more.
    pub async fn outcome(&mut self) -> Result<Served, Failed> {
        let served = self.best().await?;
        // Now there is a set that the time can be asked with, if it is to be.
        self.clock.ask_soon();
        Ok(served)
    }

    async fn best(&mut self) -> Result<Served, Failed> {
        if let Some(Fallback { held, .. }) = &self.fallback {
            let held = held.clone();
            if let Some(outcome) = self.renewed_or(held).await {
                return outcome;
            }
            if let Some(Fallback { turn, .. }) = self.fallback.take() {
                self.waiting_for = WaitingFor::PeerQuota(turn);
            }
        }
        let flight = match self.waiting_for.flight().await {
            Ok(flight) => flight,
            Err(outcome) => {
                let outcome = outcome.map(Served::from_memory);
                return outcome.map_err(|error| Failed { error, flight: None });
            }
        };
        let id = flight.id();
        let outcome = flight.done().await;
        outcome.map(|held| Served::fetched(held, id)).map_err(|error| Failed { error, flight: Some(id) })
    }

    /// The renewal, if it comes in time, or else what is held. `None`: that has expired meanwhile, so the
    /// request has nothing to fall back to any more.
    async fn renewed_or(&mut self, held: Held) -> Option<Result<Served, Failed>> {
        let Ok(flight) = self.waiting_for.flight().await else { return None };
        let id = flight.id();
        let renewed = tokio::time::timeout(RENEWAL_WAIT, flight.done()).await;
        let has_expired = has_expired(&held, &self.clock);
        match renewed {
            Ok(Ok(newer)) => Some(Ok(Served::fetched(newer, id))),
            Ok(Err(error)) if held.record.is_revoked() || (self.is_judgement && error.is_about_token()) => {
                Some(Err(Failed { error, flight: Some(id) }))
            }
            _ if has_expired => None,
            Ok(Err(_)) => Some(Ok(Served::from_memory(held))),
            Err(_elapsed) => {
                // Once per back-off interval: the next requests are not made to wait for the same slow AWS.
                held.record.quiet_until(self.clock.now().boot.plus(FIRST_RENEWAL_RETRY));
                Some(Ok(Served::from_memory(held)))
            }
        }
    }

    /// The credentials for a caller that may not wait.
    pub fn fallback(&self) -> Option<Served> {
        let held = self.fallback.as_ref().map(|fallback| fallback.held.clone());
        let is_good = |held: &Held| !held.record.is_revoked() && !has_expired(held, &self.clock);
        held.filter(is_good).map(Served::from_memory)
    }

    /// Whether it waits only because its peer has all the flights it may have.
    pub fn is_over_quota(&self) -> bool {
        matches!(self.waiting_for, WaitingFor::PeerQuota(_))
    }

    /// What went wrong so far; `None` while it is only slow.
    pub fn last_failure(&self) -> Option<SourceError> {
        match &self.waiting_for {
            WaitingFor::Flight(flight) => flight.last_failure(),
            WaitingFor::PeerQuota(_) | WaitingFor::OtherToken(..) => None,
        }
    }

    /// The flight it waits for, if it has joined one.
    pub fn flight(&self) -> Option<FlightId> {
        match &self.waiting_for {
            WaitingFor::Flight(flight) => Some(flight.id()),
            WaitingFor::PeerQuota(_) | WaitingFor::OtherToken(..) => None,
        }
    }
}

impl WaitingFor {
    /// The flight, after waiting for its turn if need be. `Err`: it ended a moment ago. Cancel-safe.
    async fn flight(&mut self) -> Result<&mut FlightHandle, Result<Held, SourceError>> {
        while let Some(turn) = self.turn().await {
            *self = match turn.take().await {
                Joined::Done(outcome) => return Err(outcome),
                Joined::InFlight(flight) => Self::Flight(flight),
                Joined::Behind(other) => Self::OtherToken(other, turn),
            };
        }
        match self {
            Self::Flight(flight) => Ok(flight),
            // Cannot be: it was replaced above.
            Self::PeerQuota(_) | Self::OtherToken(..) => {
                Err(Err(SourceError::Unavailable(Unavailable::Lost)))
            }
        }
    }

    /// The turn, when nothing stands before it but the peer's quota; `None` if it was taken.
    async fn turn(&mut self) -> Option<Box<Turn>> {
        match self {
            Self::Flight(_) => None,
            Self::PeerQuota(turn) => Some(turn.clone()),
            Self::OtherToken(other, turn) => {
                let _of_another_token = other.done().await;
                Some(turn.clone())
            }
        }
    }
}

impl Turn {
    async fn take(&self) -> Joined {
        let Self { provider, request } = self;
        let permit = match request.principal.is_verified() {
            true => None,
            false => Some(provider.quotas.flight(request.peer).await),
        };
        provider.start_or_join(request, permit)
    }
}

/// Whether a set has expired while a request waited: its last moments have passed, or AWS has said that it is
/// later than it seemed.
fn has_expired(held: &Held, clock: &Clock) -> bool {
    held.credentials.expiry().is_over(clock.now())
}
