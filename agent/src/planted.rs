//! Bugs planted on purpose, so that the simulation can prove that it would notice them.
//!
//! Owns: the list of bugs and the switch. Must not know: what any of them breaks. The places ask [`is_on`], which is
//! the constant `false` without the feature `planted-bugs`, and in release builds always. The switch is per thread: a
//! simulated node lives on one thread, so tests may run side by side.

/// A bug that can be planted; each at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A remembered verdict is found by its place alone, whoever's token it was (`identity::memory`).
    SharedPlace,
    /// Sets are served to their last second (`credentials::decide`).
    ServesTheExpired,
    /// A refusal a moment ago counts for more than unexpired credentials (`credentials::decide`).
    RefusalBeatsHeld,
    /// No request waits for a renewal, however little life is left (`credentials::decide`).
    NeverWaits,
    /// The wall clock alone is believed (`credentials::held`).
    OneClock,
    /// A failed renewal becomes an error for the one who waited for it (`credentials::provider`).
    NoFallback,
    /// Each who asks starts a flight of their own (`credentials::flights`).
    TwoFlights,
    /// A flight that landed stays in the table (`credentials::flights`).
    FlightStays,
    /// After one failed renewal a set is left alone for a day (`credentials::settle`).
    GivesUp,
    /// There is always room for one more call (`credentials::budget`).
    NoLimit,
    /// Throttling changes nothing (`credentials::budget`).
    NeverShrinks,
    /// Permits do not come back (`credentials::budget`).
    LeakedPermit,
    /// Sets that nobody asked for are renewed as well (`credentials::renewal`).
    RenewsForNobody,
    /// Of two sets the older is kept (`credentials::store`).
    KeepsTheOlder,
    /// A 403, which is about the agent, counts as a refusal of the pod (`credentials::source::classify`).
    BlamesThePod,
    /// The `Date` of AWS's answers is not looked at (`credentials::source::clock`).
    IgnoresDate,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::SharedPlace,
        Self::ServesTheExpired,
        Self::RefusalBeatsHeld,
        Self::NeverWaits,
        Self::OneClock,
        Self::NoFallback,
        Self::TwoFlights,
        Self::FlightStays,
        Self::GivesUp,
        Self::NoLimit,
        Self::NeverShrinks,
        Self::LeakedPermit,
        Self::RenewsForNobody,
        Self::KeepsTheOlder,
        Self::BlamesThePod,
        Self::IgnoresDate,
    ];
}

#[cfg(all(feature = "planted-bugs", debug_assertions))]
mod switch {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Plants a bug for all that runs on this thread from now on, or takes it out again.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    /// Whether this bug is planted.
    pub fn is_on(bug: Bug) -> bool {
        // A thread that is ending has no switch any more, and no bug.
        PLANTED.try_with(|planted| planted.get() == Some(bug)).unwrap_or(false)
    }
}

#[cfg(all(feature = "planted-bugs", debug_assertions))]
pub use switch::{is_on, plant};

/// Whether this bug is planted: never, in this build.
#[cfg(not(all(feature = "planted-bugs", debug_assertions)))]
#[inline]
pub const fn is_on(_bug: Bug) -> bool {
    false
}
