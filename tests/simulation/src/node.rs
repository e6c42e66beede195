//! The agent's real code, wired as `app` wires it. The only file that names its parts.
//!
//! Owns: the wiring, and asking as the endpoint asks. Must not know: pods' habits or AWS's moods.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use pod_identity_agent::association;
use pod_identity_agent::aws::node_details::SentDetails;
use pod_identity_agent::aws::own_identity::OwnIdentity;
use pod_identity_agent::clock::{Clock, Simulated};
use pod_identity_agent::config::{Retention, Upstream};
use pod_identity_agent::credentials::flight::attempts::FlightRunner;
use pod_identity_agent::credentials::flight::table::Flights;
use pod_identity_agent::credentials::limits::peer_quota::PeerQuotas;
use pod_identity_agent::credentials::limits::renewal_rate::RenewalRate;
use pod_identity_agent::credentials::limits::upstream_budget::UpstreamBudget;
use pod_identity_agent::credentials::policy::entitlement::Entitlement;
use pod_identity_agent::credentials::provider::{LONGEST_HOLD, Lookup, Provider};
use pod_identity_agent::credentials::renewal::Renewals;
use pod_identity_agent::credentials::source::SourceError;
use pod_identity_agent::credentials::source::eks_auth::{EksAuth, Parts};
use pod_identity_agent::credentials::store::Store;
use pod_identity_agent::credentials::store::recent_refusals::RecentRefusals;
use pod_identity_agent::credentials::store::schedule::Schedule;
use pod_identity_agent::identity::{Authentication, Authenticator, BearerToken, PresentedToken};
use pod_identity_agent::lifecycle::limits::Limits;
use pod_identity_agent::lifecycle::tasks::Tasks;
use pod_identity_agent::rng::Rng;
use pod_identity_agent::telemetry::metrics::Metrics;
use pod_identity_agent::workload::{CredentialKey, PeerKey};

/// The longest time to keep a set before its renewal: the default of the flag.
const RENEW_AFTER: Duration = Duration::from_secs(3 * 3600);

/// What counts as one identity: without keys it is the token, with keys it is the pod.
pub const fn identity_of(_pod: usize, token: usize) -> usize {
    token
}

/// A node.
#[derive(Clone)]
pub struct Node {
    authenticator: Arc<Authenticator>,
    provider: Provider,
    store: Store,
    flights: Flights,
    clock: Clock,
    time: Arc<Simulated>,
}

/// What a process got.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Credentials: the body.
    Served(Vec<u8>),
    /// The agent itself would not have this token; why.
    RefusedByAgent(&'static str),
    /// AWS would not; its code.
    RefusedByAws(&'static str),
    /// Not now; why.
    Trouble(&'static str),
}

impl Node {
    /// Starts the node's tasks with the wall clock at `wall`. Must be called inside a tokio runtime.
    pub fn start(seed: u64, wall: SystemTime, http_client: SharedHttpClient, tasks: &Tasks) -> Self {
        let time = Simulated::starting_at(wall);
        let clock = Clock::simulated(Arc::clone(&time));
        let retention = Retention::Keep {
            renew_after: RENEW_AFTER,
            max_identities: NonZeroUsize::MIN.saturating_add(4999),
        };
        let bounds = Limits::default();
        let store = Store::new(&retention, clock.clone(), bounds.clone());
        let quotas = PeerQuotas::new(clock.clone(), bounds);
        let (failures, schedule) = (RecentRefusals::new(), Schedule::default());
        let flights = Flights::new(FlightRunner {
            clock: clock.clone(),
            chance: Rng::seeded(seed),
            budget: UpstreamBudget::new(clock.clone()),
            pace: RenewalRate::per_second(3),
            source: eks_auth(&clock, http_client),
            store: store.clone(),
            failures: failures.clone(),
            entitlement: Entitlement::new(None),
            schedule: schedule.clone(),
            renew_after: RENEW_AFTER,
            tasks: tasks.clone(),
            metrics: Metrics::new().upstream,
        });
        let renewals = Renewals {
            schedule,
            flights: flights.clone(),
            store: store.clone(),
            failures: failures.clone(),
            quotas: quotas.clone(),
            clock: clock.clone(),
        };
        tasks.spawn("renewals", renewals.run());
        let provider = Provider::new(store.clone(), flights.clone(), failures, quotas, clock.clone());
        Self { authenticator: Arc::default(), provider, store, flights, clock, time }
    }

    /// Asks as the endpoint does: identity, look, hold, answer. Each pod has an address of its own.
    pub async fn ask(&self, pod: usize, token: &BearerToken) -> Answer {
        let now = self.clock.now();
        let (key, presented) = match self.identify(token) {
            Ok(caller) => caller,
            Err(cause) => return Answer::RefusedByAgent(cause),
        };
        match self.provider.look(&key, &presented, peer(pod), now) {
            Lookup::Serve(served) => Answer::Served(served.body.to_vec()),
            Lookup::Refuse(error) => because(&error),
            Lookup::Wait(mut waiting) => match tokio::time::timeout(LONGEST_HOLD, waiting.outcome()).await {
                Ok(Ok(served)) => Answer::Served(served.body.to_vec()),
                Ok(Err(error)) => because(&error),
                Err(_elapsed) => match waiting.fallback() {
                    Some(served) => Answer::Served(served.body.to_vec()),
                    None => waiting.trouble().as_ref().map_or(Answer::Trouble("slow"), because),
                },
            },
        }
    }

    /// Makes the wall clock wrong by so many milliseconds.
    pub fn set_wall_error_ms(&self, error_ms: i64) {
        self.time.set_wall_error_ms(error_ms);
    }

    /// What the agent takes the wall time for.
    pub fn wall(&self) -> SystemTime {
        self.clock.now().wall
    }

    /// How many sets are held, and how many flights are under way.
    pub fn remains(&self) -> (u64, usize) {
        self.store.tidy();
        (self.store.len(), self.flights.len())
    }

    fn identify(&self, token: &BearerToken) -> Result<(CredentialKey, PresentedToken), &'static str> {
        let presented = |expires, issued| PresentedToken { token: token.clone(), expires, issued };
        match self.authenticator.authenticate(token, self.clock.now().wall) {
            Authentication::Unverified(identity) => match association::source_for(identity.audience()) {
                Ok(_source) => Ok((identity.key(), presented(identity.expires(), identity.issued()))),
                Err(_) => Err("wrong audience"),
            },
            Authentication::Verified(identity) => {
                Ok((identity.key(), presented(identity.expires(), identity.issued())))
            }
            Authentication::Refused(_) => Err("the agent refuses the token"),
            Authentication::Undecided => Err("undecided"),
        }
    }
}

fn peer(pod: usize) -> PeerKey {
    let number = u32::try_from(pod).unwrap_or(u32::MAX) & 0x00ff_ffff;
    PeerKey::new(IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 | number)), 1)
}

fn eks_auth(clock: &Clock, http_client: SharedHttpClient) -> EksAuth {
    let upstream = Upstream {
        endpoint: Some("http://127.0.0.1:9".to_owned()),
        use_fips: false,
        ca_bundle: None,
        proxy: None,
    };
    let own = Credentials::new("AKIASIMULATED", "node-secret", None, None, "simulation");
    EksAuth::new(Parts {
        cluster: "cluster",
        region: "us-west-2",
        upstream: &upstream,
        own: OwnIdentity::fixed(own, clock.clone()),
        details: SentDetails::default(),
        http_client,
        clock,
    })
}

fn because(error: &SourceError) -> Answer {
    match error {
        SourceError::Refused(refused) => Answer::RefusedByAws(refused.code.as_str()),
        SourceError::Throttled | SourceError::Unavailable(_) | SourceError::OwnIdentity(_) => {
            Answer::Trouble(error.label())
        }
    }
}
