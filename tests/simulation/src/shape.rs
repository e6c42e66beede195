//! How the agent of a story is set up, and where its pods are: drawn from the seed before the story begins.
//!
//! Owns: the settings that differ between stories. Must not know: what happens in them.

use std::time::Duration;

use crate::kind::Kind;
use crate::rng::Rng;

/// The flag's default.
const MANY: usize = 5_000;

/// A set-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The agent refuses what no key proves (`--token-verification required`).
    pub is_required: bool,
    /// `--max-cache-size`.
    pub most_identities: usize,
    /// So many pods share an address, because something translates theirs.
    pub pods_per_address: u32,
    /// `--max-stale-after-refusal`.
    pub max_stale: Option<Duration>,
    /// So many nodes, with an agent each, share what AWS allows the account.
    pub nodes: u32,
    /// So many of a hundred pods have the role of an annotation in place of an association.
    pub percent_of_roles: u32,
}

impl Shape {
    /// The defaults of the flags, and a node with an address for each pod.
    pub const USUAL: Self = Self {
        is_required: false,
        most_identities: MANY,
        pods_per_address: 1,
        max_stale: None,
        nodes: 1,
        percent_of_roles: 0,
    };

    /// That of a story. `has_keys`: without any, nothing can be required.
    pub fn of(kind: Kind, seed: u64, has_keys: bool) -> Self {
        match kind {
            Kind::Days => Self::of_days(&mut Rng::stream(seed, u64::from(u32::MAX) + 2, 102), has_keys),
            Kind::KeysRequired => Self { is_required: true, ..Self::USUAL },
            Kind::Tight => Self {
                most_identities: 3 + usize::try_from(seed % 6).unwrap_or_default(),
                pods_per_address: 5,
                ..Self::USUAL
            },
            Kind::Gone if seed.is_multiple_of(2) => {
                Self { max_stale: Some(Duration::from_secs(60)), ..Self::USUAL }
            }
            Kind::Rates => Self { nodes: 5, ..Self::USUAL },
            Kind::Crowd
            | Kind::Sleepers
            | Kind::WrongClock
            | Kind::Steps
            | Kind::Pause
            | Kind::PauseInOutage
            | Kind::Keys
            | Kind::OwnCredentials
            | Kind::WrongDates
            | Kind::Slow
            | Kind::Gone => Self::USUAL,
        }
    }

    fn of_days(chance: &mut Rng, has_keys: bool) -> Self {
        let is_required = chance.percent(30) && has_keys;
        let is_tight = chance.percent(25);
        let most = 3 + usize::try_from(chance.below(18)).unwrap_or_default();
        let shares = chance.percent(25);
        let stale = Duration::from_secs(60 + u64::from(chance.below(180)));
        Self {
            is_required,
            most_identities: if is_tight { most } else { MANY },
            pods_per_address: if shares { 5 } else { 1 },
            max_stale: chance.percent(25).then_some(stale),
            nodes: 1,
            // A role is given to nobody whom no key proves.
            percent_of_roles: if has_keys { chance.one_of(0, &[30, 60]) } else { 0 },
        }
    }

    /// Whether there is room for all, and an address for each.
    pub fn is_roomy(&self) -> bool {
        !self.is_tight() && self.pods_per_address == 1
    }

    /// Whether the bound of what is kept may be reached.
    pub const fn is_tight(&self) -> bool {
        self.most_identities < MANY
    }
}
