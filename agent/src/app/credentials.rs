//! The folder `credentials`, wired.
//!
//! Owns: which part is given which. Must not know: how any does its work.

use std::sync::Arc;
use std::time::Duration;

use super::{Error, Services};
use crate::aws::http_client;
use crate::aws::node_details::SentDetails;
use crate::aws::own_identity::OwnIdentity;
use crate::aws::own_identity::imds::InstanceRole;
use crate::config::{Config, OwnCredentials, Retention};
use crate::credentials::flight::attempts::FlightRunner;
use crate::credentials::flight::table::Flights;
use crate::credentials::limits::peer_quota::PeerQuotas;
use crate::credentials::limits::renewal_rate::RenewalRate;
use crate::credentials::limits::upstream_budget::UpstreamBudget;
use crate::credentials::policy::entitlement::Entitlement;
use crate::credentials::provider::Provider;
use crate::credentials::renewal::Renewals;
use crate::credentials::source::eks_auth::{EksAuth, Parts};
use crate::credentials::store::Store;
use crate::credentials::store::recent_refusals::RecentRefusals;
use crate::credentials::store::schedule::Schedule;
use crate::rng::Rng;

/// All of it.
pub(super) struct Credentials {
    pub(super) store: Store,
    pub(super) flights: Flights,
    pub(super) failures: RecentRefusals,
    pub(super) quotas: PeerQuotas,
    pub(super) schedule: Schedule,
    pub(super) budget: UpstreamBudget,
    pub(super) provider: Provider,
    pub(super) details: SentDetails,
}

impl Credentials {
    pub(super) fn build(config: &Config, core: &Services, own: OwnIdentity) -> Result<Self, Error> {
        let clock = &core.clock;
        let details = SentDetails::from_config(&config.node);
        let store = Store::new(&config.retention, clock.clone(), core.bounds.clone());
        let quotas = PeerQuotas::new(clock.clone(), core.bounds.clone());
        let (failures, schedule, budget) =
            (RecentRefusals::new(), Schedule::default(), UpstreamBudget::new(clock.clone()));
        let flights = Flights::new(FlightRunner {
            clock: clock.clone(),
            chance: Rng::from_entropy(),
            budget: budget.clone(),
            pace: RenewalRate::per_second(config.max_service_qps),
            source: EksAuth::new(Parts {
                cluster: &config.cluster_name,
                region: &config.region,
                upstream: &config.upstream,
                own,
                details: details.clone(),
                http_client: http_client::for_aws(&config.upstream)?,
                clock,
            }),
            store: store.clone(),
            failures: failures.clone(),
            entitlement: Entitlement::new(config.max_stale_after_refusal),
            schedule: schedule.clone(),
            renew_after: match config.retention {
                Retention::Off => Duration::MAX,
                Retention::Keep { renew_after, .. } => renew_after,
            },
            tasks: core.tasks.clone(),
            metrics: Arc::clone(&core.metrics.upstream),
        });
        let provider =
            Provider::new(store.clone(), flights.clone(), failures.clone(), quotas.clone(), clock.clone());
        Ok(Self { store, flights, failures, quotas, schedule, budget, provider, details })
    }

    pub(super) fn learn_node_details(&self, config: &Config, core: &Services) {
        let OwnCredentials::Imds { endpoint, ipv6 } = &config.own_credentials else { return };
        if config.node.send {
            let imds = InstanceRole::new(endpoint.as_deref(), *ipv6, &core.clock);
            let details = self.details.clone();
            core.tasks.spawn("node-details", async move { details.learn(&imds).await });
        }
    }

    pub(super) fn start_renewals(&self, core: &Services) {
        if !self.store.keeps() {
            return;
        }
        let renewals = Renewals {
            schedule: self.schedule.clone(),
            flights: self.flights.clone(),
            store: self.store.clone(),
            failures: self.failures.clone(),
            quotas: self.quotas.clone(),
            clock: core.clock.clone(),
        };
        core.until_stopped("renewals", renewals.run());
    }
}
