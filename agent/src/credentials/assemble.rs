//! The parts of this folder, put together: for the product, for the unit tests and for the simulation alike.
//!
//! Owns: which part is given which. Must not know: how any of them does its work.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::aws::reach::Reach;
use crate::clock::Clock;
use crate::config::Retention;
use crate::credentials::audit_log::AuditLog;
use crate::credentials::flight::attempts::FlightRunner;
use crate::credentials::flight::final_answers::FinalAnswers;
use crate::credentials::flight::outcome::Outcomes;
use crate::credentials::flight::patience::Patience;
use crate::credentials::flight::table::Flights;
use crate::credentials::limits::budgets::Budgets;
use crate::credentials::limits::peer_quota::PeerQuotas;
use crate::credentials::limits::renewal_rate::RenewalRate;
use crate::credentials::policy::entitlement::Entitlement;
use crate::credentials::policy::recovery::Recovery;
use crate::credentials::provider::Provider;
use crate::credentials::renewal::Renewals;
use crate::credentials::revocation::Revocations;
use crate::credentials::source::{OfEach, Sources};
use crate::credentials::store::Store;
use crate::credentials::store::recent_refusals::RecentRefusals;
use crate::credentials::store::schedule::Schedule;
use crate::credentials::trial::Trial;
use crate::events::Events;
use crate::lifecycle::limits::Limits;
use crate::lifecycle::tasks::Tasks;
use crate::pods::Pods;
use crate::rng::Rng;
use crate::telemetry::metrics::UpstreamMetrics;
use crate::workload::{Principal, RouteStatus};

/// What the folder needs from outside.
pub struct Needs<'a> {
    /// The clock.
    pub clock: Clock,
    /// Jitter.
    pub rng: Rng,
    /// Where credentials come from.
    pub sources: Sources,
    /// What is kept, and for how long at most.
    pub retention: &'a Retention,
    /// `--max-service-qps`.
    pub max_service_qps: u32,
    /// `--max-stale-after-refusal`.
    pub max_stale_after_refusal: Option<Duration>,
    /// Counts the limits that are reached.
    pub limits: Limits,
    /// Counts the calls.
    pub metrics: Arc<UpstreamMetrics>,
    /// Runs the flights.
    pub tasks: Tasks,
    /// `--audit-log`.
    pub audit_log: Option<AuditLog>,
    /// The pods of this node.
    pub pods: Pods,
    /// Where problems of pods are reported.
    pub events: Events,
    /// What the cluster says today of the route of a principal: what is not given is not renewed.
    pub route_status: RouteStatusOf,
}

/// What the cluster says today of the route of a principal.
pub type RouteStatusOf = Arc<dyn Fn(&Principal) -> RouteStatus + Send + Sync>;

/// The folder, put together. Clones share all of it.
#[derive(Clone)]
pub struct Credentials {
    /// What requests are answered from.
    pub provider: Provider,
    /// What is kept.
    pub store: Store,
    /// What is under way.
    pub flights: Flights,
    /// The share of each source.
    pub budgets: Budgets,
    /// What AWS answers for good.
    pub answers: FinalAnswers,
    /// Whether it answers, of each source that is asked.
    pub reaches: OfEach<Option<Reach>>,
    /// The trial call; `None` where EKS Auth is not asked.
    trial: Option<Arc<Trial>>,
    schedule: Schedule,
    pub(in crate::credentials) refusals: RecentRefusals,
    quotas: PeerQuotas,
    pub(in crate::credentials) clock: Clock,
    pods: Pods,
    route_status: RouteStatusOf,
}

/// How much there is of all that grows with pods, and must go with them (invariant 8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Records of identities.
    pub records: u64,
    /// Tokens that find their pod's record by their digest.
    pub links: usize,
    /// Calls under way.
    pub flights: usize,
    /// Checks that are planned, void ones too.
    pub checks: usize,
    /// Peers with a call under way, or one that was refused a moment ago.
    pub peers: usize,
}

impl Sizes {
    /// Those of two agents together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            records: self.records + other.records,
            links: self.links + other.links,
            flights: self.flights + other.flights,
            checks: self.checks + other.checks,
            peers: self.peers + other.peers,
        }
    }
}

impl Credentials {
    /// Puts the parts together. Nothing runs yet but what requests start.
    pub fn assemble(needs: Needs<'_>) -> Self {
        let Needs { clock, rng, sources, retention, limits, metrics, tasks, pods, route_status, .. } = needs;
        let store = Store::new(retention, clock.clone(), limits.clone(), pods.clone());
        let quotas = PeerQuotas::new(clock.clone(), limits);
        let (refusals, schedule) = (RecentRefusals::new(), Schedule::default());
        let budgets = Budgets::new(&sources, &clock);
        let (answer_log, reaches) = (sources.answer_log.clone(), sources.reaches());
        let answers = FinalAnswers::new(answer_log, clock.clone());
        let trial = Trial::new(&sources, &budgets, &answers, &metrics, &clock, &rng).map(Arc::new);
        let recovery = Arc::new(Mutex::new(OfEach::<Recovery>::default()));
        let runner = FlightRunner {
            clock: clock.clone(),
            rng: rng.clone(),
            patience: OfEach::<Patience>::default(),
            budgets: budgets.clone(),
            renewal_rate: RenewalRate::per_second(needs.max_service_qps),
            sources,
            store: store.clone(),
            refusals: refusals.clone(),
            answers: answers.clone(),
            metrics,
        };
        let outcomes = Outcomes {
            clock: clock.clone(),
            rng: rng.clone(),
            store: store.clone(),
            refusals: refusals.clone(),
            entitlement: Entitlement::new(needs.max_stale_after_refusal),
            recovery: Arc::clone(&recovery),
            schedule: schedule.clone(),
            renew_after: renew_after(retention),
            audit_log: needs.audit_log,
            pods: pods.clone(),
            events: needs.events,
            route_status: Arc::clone(&route_status),
        };
        let flights = Flights::new(runner, outcomes, rng, tasks);
        let provider = Provider {
            store: store.clone(),
            flights: flights.clone(),
            refusals: refusals.clone(),
            quotas: quotas.clone(),
            recovery,
            clock: clock.clone(),
        };
        Self {
            provider,
            store,
            flights,
            budgets,
            answers,
            reaches,
            trial,
            schedule,
            refusals,
            quotas,
            clock,
            pods,
            route_status,
        }
    }

    /// How much there is of all that grows with pods.
    pub fn sizes(&self) -> Sizes {
        Sizes {
            records: self.store.len(),
            links: self.store.links(),
            flights: self.flights.len(),
            checks: self.schedule.len(),
            peers: self.quotas.peers(),
        }
    }

    /// The trial call; `None` where EKS Auth is not asked.
    pub fn trial(&self) -> Option<Arc<Trial>> {
        self.trial.clone()
    }

    /// The worker that takes away what pods have that are gone.
    pub fn revocations(&self) -> Revocations {
        Revocations { pods: self.pods.clone(), store: self.store.clone() }
    }

    /// The worker that renews in the background; `None` where nothing is kept.
    pub fn renewals(&self) -> Option<Renewals> {
        self.store.keeps().then(|| Renewals {
            schedule: self.schedule.clone(),
            flights: self.flights.clone(),
            store: self.store.clone(),
            refusals: self.refusals.clone(),
            quotas: self.quotas.clone(),
            clock: self.clock.clone(),
            route_status: Arc::clone(&self.route_status),
        })
    }
}

const fn renew_after(retention: &Retention) -> Duration {
    match retention {
        Retention::Off => Duration::MAX,
        Retention::Keep { renew_after, .. } => *renew_after,
    }
}
