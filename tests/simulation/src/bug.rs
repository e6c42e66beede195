//! Bugs planted on purpose, so that the simulation can prove that it would notice them.
//!
//! Owns: the list of bugs, and the switch. Must not know: what any of them breaks. The tree has none of them:
//! `bugs/` holds a patch for each, and `bugs/cargo.sh` builds a copy of the tree with all of them applied
//! (feature `planted`), where one can be switched on at run time. The switch is per thread: a simulated node
//! lives on one thread, so tests may run side by side.

/// A bug that the simulation must find; `bugs/` has a patch for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A remembered verdict is found by its slot alone, whichever token it was for
    /// (`identity::verdict_cache`).
    SharedSlot,
    /// Sets are served to their last second (`credentials::policy::serving`).
    ServesTheExpired,
    /// A refusal a moment ago counts for more than unexpired credentials (`credentials::policy::serving`).
    RefusalBeatsHeld,
    /// No request waits for a renewal, however little life is left (`credentials::policy::serving`).
    NeverWaits,
    /// The wall clock alone is believed (`credentials::policy::freshness`).
    OneClock,
    /// A failed renewal becomes an error for the client that waited for it (`credentials::provider`).
    NoFallback,
    /// Each request starts a flight of its own (`credentials::flight::table`).
    TwoFlights,
    /// A flight that is over stays in the table (`credentials::flight::table`).
    FlightStays,
    /// After one failed renewal a set is left alone for a day (`credentials::flight::outcome`).
    GivesUp,
    /// There is always room for one more call (`credentials::limits::upstream_budget`).
    NoLimit,
    /// Throttling changes nothing (`credentials::limits::upstream_budget`).
    NeverShrinks,
    /// Permits do not come back (`credentials::limits::upstream_budget`).
    LeakedPermit,
    /// Sets that nobody asked for are renewed as well (`credentials::renewal`).
    RenewsForNobody,
    /// Of two sets the older is kept (`credentials::cached`).
    KeepsTheOlder,
    /// A 403, which is about the agent, counts as a refusal of the pod
    /// (`credentials::source::eks_auth::classify`).
    BlamesThePod,
    /// The `Date` of AWS's answers is not looked at (`aws::time`).
    IgnoresDate,
    /// What no key proves is not refused where that is required (`identity::authenticator`).
    AllowsTheUnproven,
    /// Credentials of another role do not replace what is held (`credentials::record`).
    KeepsTheRole,
    /// A role that its pod has lost is renewed on (`credentials::renewal`, `credentials::store`).
    KeepsTheLeftRole,
    /// That there is no association ends nothing (`credentials::policy::entitlement`).
    NeverRevokes,
    /// No call has more than 1.2 s (`credentials::flight::patience`).
    NoPatience,
    /// At the bound a verified pod makes room for another (`credentials::store::verified`).
    EvictsVerified,
}

impl Bug {
    /// Whether this build has the bugs at all.
    pub const ARE_PLANTED: bool = cfg!(feature = "planted");

    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::SharedSlot,
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
        Self::AllowsTheUnproven,
        Self::KeepsTheRole,
        Self::KeepsTheLeftRole,
        Self::NeverRevokes,
        Self::NoPatience,
        Self::EvictsVerified,
    ];

    /// The bug of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|bug| format!("{bug:?}") == name)
    }
}

/// Switches a bug on for all that runs on this thread from now on, or off again.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<Bug>) {
    pod_identity_agent::planted::plant(bug.map(|bug| format!("{bug:?}")));
}

/// There are none to switch on in this build.
#[cfg(not(feature = "planted"))]
pub const fn plant(_bug: Option<Bug>) {}
