//! The shares of all sources that are asked.
//!
//! Owns: that each source has a budget of its own: throttling by one slows no call to the other. Must not
//! know: how a budget adapts (`upstream_budget`).

use crate::clock::Clock;
use crate::credentials::limits::upstream_budget::UpstreamBudget;
use crate::credentials::source::{OfEach, Sources};
use crate::telemetry::metrics::BudgetNumbers;
use crate::workload::Route;

/// A budget for each source. Clones share them.
#[derive(Clone)]
pub struct Budgets {
    budgets: OfEach<UpstreamBudget>,
    are_used: OfEach<bool>,
}

impl Budgets {
    /// Those of these sources.
    pub fn new(sources: &Sources, clock: &Clock) -> Self {
        let are_used =
            OfEach { eks_auth: sources.eks_auth.is_some(), web_identity: sources.web_identity.is_some() };
        Self { budgets: OfEach::made(|| UpstreamBudget::new(clock.clone())), are_used }
    }

    /// That of the source that a route leads to.
    pub const fn of(&self, route: &Route) -> &UpstreamBudget {
        self.budgets.of(route)
    }

    /// The numbers for metrics, of all that are used together.
    pub fn numbers(&self) -> BudgetNumbers {
        let used = self.budgets.all().into_iter().zip(self.are_used.all()).filter(|(_, is_used)| **is_used);
        used.map(|(budget, _)| budget.numbers()).fold(BudgetNumbers::default(), BudgetNumbers::and)
    }
}
