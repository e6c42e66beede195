//! The shares of all sources that are asked.
//!
//! Owns: that each source has a budget of its own: throttling by one slows no call to the other. Must not
//! know: how a budget adapts (`upstream_budget`).

use crate::clock::Clock;
use crate::credentials::limits::upstream_budget::UpstreamBudget;
use crate::credentials::source::{OfEach, Sources};
use crate::telemetry::metrics::BudgetNumbers;
use crate::workload::Source;

/// A budget for each source. Clones share them.
#[derive(Clone)]
pub struct Budgets {
    budgets: OfEach<UpstreamBudget>,
    used: Vec<Source>,
}

impl Budgets {
    /// Those of these sources.
    pub fn new(sources: &Sources, clock: &Clock) -> Self {
        Self { budgets: OfEach::made(|| UpstreamBudget::new(clock.clone())), used: sources.present() }
    }

    /// That of a source.
    pub const fn of(&self, source: Source) -> &UpstreamBudget {
        self.budgets.of(source)
    }

    /// The numbers for metrics, of each source that is used.
    pub fn numbers(&self) -> Vec<(Source, BudgetNumbers)> {
        self.used.iter().map(|source| (*source, self.of(*source).numbers())).collect()
    }
}
