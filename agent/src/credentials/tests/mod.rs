//! The promises of this folder, on simulated time and a scripted AWS. Everything between the provider and the SDK's HTTP
//! client is the real code.

mod aws;
mod entitlement;
mod fairness;
mod freshness;
mod outage;
mod sharing;

use std::net::Ipv4Addr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_credential_types::Credentials;

use self::aws::Aws;
use crate::aws::node_details::SentDetails;
use crate::aws::own_identity::OwnIdentity;
use crate::clock::{Clock, Simulated};
use crate::config::{Retention, Upstream};
use crate::credentials::flight::attempts::FlightRunner;
use crate::credentials::flight::table::Flights;
use crate::credentials::limits::peer_quota::PeerQuotas;
use crate::credentials::limits::renewal_rate::RenewalRate;
use crate::credentials::limits::upstream_budget::UpstreamBudget;
use crate::credentials::policy::entitlement::Entitlement;
use crate::credentials::provider::{LONGEST_HOLD, Lookup, Provider};
use crate::credentials::renewal::Renewals;
use crate::credentials::source::SourceError;
use crate::credentials::source::eks_auth::{EksAuth, Parts};
use crate::credentials::store::Store;
use crate::credentials::store::recent_refusals::RecentRefusals;
use crate::credentials::store::schedule::Schedule;
use crate::identity::{BearerToken, PresentedToken};
use crate::lifecycle::limits::Limits;
use crate::lifecycle::tasks::Tasks;
use crate::rng::Rng;
use crate::telemetry::metrics::Metrics;
use crate::workload::{CredentialKey, PeerKey};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// A node: the whole folder, wired as `app` wires it.
#[derive(Clone)]
struct Node {
    provider: Provider,
    store: Store,
    flights: Flights,
    budget: UpstreamBudget,
    bounds: Limits,
    clock: Clock,
    time: Arc<Simulated>,
    aws: Aws,
}

/// What a client got.
#[derive(Debug)]
struct Got {
    access_key_id: String,
    left: Duration,
}

impl Node {
    fn new() -> Self {
        Self::keeping(&Retention::Keep {
            renew_after: 3 * HOUR,
            max_identities: NonZeroUsize::new(2000).unwrap(),
        })
    }

    fn keeping(retention: &Retention) -> Self {
        Self::with(retention, None)
    }

    fn with(retention: &Retention, max_stale: Option<Duration>) -> Self {
        let time = Simulated::starting_at(UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let clock = Clock::simulated(Arc::clone(&time));
        let aws = Aws::new(clock.clone());
        let own = OwnIdentity::fixed(
            Credentials::new("AKIANODE", "node-secret", None, None, "test"),
            clock.clone(),
        );
        let upstream = Upstream {
            endpoint: Some("http://127.0.0.1:9".to_owned()),
            use_fips: false,
            ca_bundle: None,
            proxy: None,
        };
        let source = EksAuth::new(Parts {
            cluster: "cluster",
            region: "us-west-2",
            upstream: &upstream,
            own,
            details: SentDetails::default(),
            http_client: aws.http_client(),
            clock: &clock,
        });
        let bounds = Limits::default();
        let store = Store::new(retention, clock.clone(), bounds.clone());
        let failures = RecentRefusals::new();
        let quotas = PeerQuotas::new(clock.clone(), bounds.clone());
        let schedule = Schedule::default();
        let budget = UpstreamBudget::new(clock.clone());
        let tasks = Tasks::new();
        let renew_after = match retention {
            Retention::Off => Duration::MAX,
            Retention::Keep { renew_after, .. } => *renew_after,
        };
        let flights = Flights::new(FlightRunner {
            clock: clock.clone(),
            chance: Rng::seeded(7),
            budget: budget.clone(),
            pace: RenewalRate::per_second(3),
            source,
            store: store.clone(),
            failures: failures.clone(),
            entitlement: Entitlement::new(max_stale),
            schedule: schedule.clone(),
            renew_after,
            tasks: tasks.clone(),
            metrics: Metrics::new().upstream,
        });
        if store.keeps() {
            let renewals = Renewals {
                schedule,
                flights: flights.clone(),
                store: store.clone(),
                failures: failures.clone(),
                quotas: quotas.clone(),
                clock: clock.clone(),
            };
            tasks.spawn("renewals", renewals.run());
        }
        let provider = Provider::new(store.clone(), flights.clone(), failures, quotas, clock.clone());
        Self { provider, store, flights, budget, bounds, clock, time, aws }
    }

    /// Asks as the endpoint does: looks, waits as long as a request is held, serves or says why not.
    async fn ask(&self, pod: usize) -> Result<Got, Option<SourceError>> {
        let (key, presented) = self.caller(pod);
        self.ask_as(&key, &presented, peer(pod)).await
    }

    async fn ask_as(
        &self,
        key: &CredentialKey,
        presented: &PresentedToken,
        peer: PeerKey,
    ) -> Result<Got, Option<SourceError>> {
        let served = match self.provider.look(key, presented, peer, self.clock.now()) {
            Lookup::Serve(served) => served,
            Lookup::Refuse(error) => return Err(Some(error)),
            Lookup::Wait(mut waiting) => match tokio::time::timeout(LONGEST_HOLD, waiting.outcome()).await {
                Ok(outcome) => outcome.map_err(Some)?,
                Err(_elapsed) => return Err(waiting.trouble()),
            },
        };
        let body: serde_json::Value = serde_json::from_slice(&served.body).unwrap();
        let left = self.aws.life_left(body["AccessKeyId"].as_str().unwrap());
        Ok(Got { access_key_id: body["AccessKeyId"].as_str().unwrap().to_owned(), left })
    }

    fn caller(&self, pod: usize) -> (CredentialKey, PresentedToken) {
        let token = BearerToken::from_header(token_of(pod).as_bytes()).unwrap();
        let key = CredentialKey::Unverified(token.digest());
        (key, PresentedToken { token, expires: self.time_at_start() + 24 * HOUR, issued: None })
    }

    fn time_at_start(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }
}

/// Each pod has an address of its own.
fn peer(pod: usize) -> PeerKey {
    let address = Ipv4Addr::from_bits(u32::try_from(pod).unwrap() + 0x0a00_0000);
    PeerKey::new(address.into(), 1)
}

fn token_of(pod: usize) -> String {
    format!("a.pod{pod}.c")
}
