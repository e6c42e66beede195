//! The agent's real code, wired as `app` wires it. The only file that names its parts.
//!
//! Owns: the wiring, and asking as the endpoint asks. Must not know: pods' habits or AWS's moods.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_smithy_runtime_api::client::http::SharedHttpClient;
use pod_identity_agent::association;
use pod_identity_agent::aws::node_details::SentDetails;
use pod_identity_agent::aws::own_identity::imds::InstanceRole;
use pod_identity_agent::aws::own_identity::{OwnIdentity, OwnSource};
use pod_identity_agent::clock::{Clock, Now, Simulated};
use pod_identity_agent::config::{KeyLocation, Retention, TokenVerification, Upstream, VerificationMode};
use pod_identity_agent::credentials::assemble::{Credentials, Needs};
use pod_identity_agent::credentials::policy::serving::LONGEST_HOLD;
use pod_identity_agent::credentials::provider::{CredentialRequest, Lookup};
use pod_identity_agent::credentials::source::eks_auth::{EksAuth, Parts};
use pod_identity_agent::credentials::source::{SourceError, Sources};
use pod_identity_agent::identity::keys::{KeySource, TokenKeys};
use pod_identity_agent::identity::{self, Authentication, Authenticator, Identity, Policy};
use pod_identity_agent::lifecycle::condition_name::ConditionName;
use pod_identity_agent::lifecycle::limits::Limits;
use pod_identity_agent::lifecycle::readiness::Readiness;
use pod_identity_agent::lifecycle::tasks::Tasks;
use pod_identity_agent::rng::Rng;
use pod_identity_agent::telemetry::metrics::Metrics;
use pod_identity_agent::workload::{BearerToken, PeerKey};

use crate::issuer::ISSUER;

/// The longest time to keep a set before its renewal: the default of the flag.
const RENEW_AFTER: Duration = Duration::from_secs(3 * 3600);

/// A node.
#[derive(Clone)]
pub struct Node {
    authenticator: Arc<Authenticator>,
    credentials: Credentials,
    clock: Clock,
    time: Arc<Simulated>,
}

/// Reads the document of token keys; `None`: it cannot be read.
pub type Document = Box<dyn FnMut() -> Option<Vec<u8>> + Send>;

/// What is around a node.
pub struct Around {
    /// EKS Auth.
    pub aws: SharedHttpClient,
    /// The metadata service.
    pub imds: SharedHttpClient,
    /// The document of token keys; `None`: the agent is given none.
    pub keys: Option<Document>,
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
    pub fn start(seed: u64, wall: SystemTime, around: Around, tasks: &Tasks) -> Self {
        let time = Simulated::starting_at(wall);
        let clock = Clock::simulated(Arc::clone(&time));
        let own = OwnIdentity::new(clock.clone());
        let role = InstanceRole::through(around.imds, None, false, &clock);
        tasks.spawn("own-identity", own.clone().keep(OwnSource::Imds(role), |_| ()));
        let retention = Retention::Keep {
            renew_after: RENEW_AFTER,
            max_identities: NonZeroUsize::MIN.saturating_add(4999),
        };
        let credentials = Credentials::assemble(Needs {
            clock: clock.clone(),
            rng: Rng::seeded(seed),
            sources: Sources { eks_auth: eks_auth(&clock, own, around.aws) },
            retention: &retention,
            max_service_qps: 3,
            max_stale_after_refusal: None,
            limits: Limits::default(),
            metrics: Metrics::new().upstream,
            tasks: tasks.clone(),
        });
        if let Some(renewals) = credentials.renewals() {
            tasks.spawn("renewals", renewals.run());
        }
        let authenticator = Arc::new(authenticator(seed, around.keys, &clock, tasks));
        Self { authenticator, credentials, clock, time }
    }

    /// Asks as the endpoint does: identity, look, hold, answer. Each pod has an address of its own.
    /// `judged` is told whether a key proves the token, before anything else happens.
    pub async fn ask(&self, pod: usize, token: &BearerToken, judged: impl FnOnce(bool)) -> Answer {
        let now = self.clock.now();
        let authentication = self.authenticate(pod, token, now).await;
        judged(matches!(authentication, Authentication::Identified(Identity::Verified(_))));
        let request = match request(pod, token, authentication) {
            Ok(request) => request,
            Err(cause) => return Answer::RefusedByAgent(cause),
        };
        match self.credentials.provider.lookup(&request, now) {
            Lookup::Serve(served) => Answer::Served(served.body.to_vec()),
            Lookup::Refuse(failed) => because(&failed.error),
            Lookup::Wait(mut waiting) => match tokio::time::timeout(LONGEST_HOLD, waiting.outcome()).await {
                Ok(Ok(served)) => Answer::Served(served.body.to_vec()),
                Ok(Err(failed)) => because(&failed.error),
                Err(_elapsed) => match waiting.fallback() {
                    Some(served) => Answer::Served(served.body.to_vec()),
                    None => waiting.last_failure().as_ref().map_or(Answer::Trouble("slow"), because),
                },
            },
        }
    }

    /// Makes the wall clock wrong by so many milliseconds.
    pub fn set_wall_error_ms(&self, error_ms: i64) {
        self.time.set_wall_error_ms(error_ms);
    }

    /// Pauses the node for so long.
    pub async fn pause(&self, pause: Duration) {
        self.time.stand_still(pause);
        tokio::time::advance(pause).await;
    }

    /// What the agent takes AWS's time for.
    pub fn time(&self) -> Now {
        self.clock.now()
    }

    /// How many sets are held, and how many flights are under way.
    pub fn remains(&self) -> (u64, usize) {
        self.credentials.store.tidy();
        (self.credentials.store.len(), self.credentials.flights.len())
    }

    async fn authenticate(&self, pod: usize, token: &BearerToken, now: Now) -> Authentication {
        match self.authenticator.lookup(token, now) {
            identity::Lookup::Judged(authentication) => authentication,
            identity::Lookup::KeyUnknown(unknown) => {
                self.authenticator.ask_sources(&unknown, token, peer(pod), now).await
            }
        }
    }
}

fn request(
    pod: usize,
    token: &BearerToken,
    authentication: Authentication,
) -> Result<CredentialRequest, &'static str> {
    match authentication {
        Authentication::Identified(identity) => {
            let route = association::route_for(identity.audience()).map_err(|_| "wrong audience")?;
            let principal = identity.principal(route);
            let must_be_judged = identity.must_be_judged();
            let token = identity.presented(token.clone());
            Ok(CredentialRequest { principal, token, must_be_judged, peer: peer(pod) })
        }
        Authentication::Refused(_) => Err("the agent refuses the token"),
        Authentication::Undecided(_) => Err("undecided"),
    }
}

/// As `app` makes it of `--jwks` and `--issuer`; without keys nothing is verified.
fn authenticator(seed: u64, document: Option<Document>, clock: &Clock, tasks: &Tasks) -> Authenticator {
    let Some(document) = document else { return Authenticator::default() };
    let verification = TokenVerification {
        mode: VerificationMode::Auto,
        issuers: vec![ISSUER.to_owned()],
        keys: vec![KeyLocation::Url(format!("{ISSUER}/keys"))],
    };
    let keys = TokenKeys::of_sources(1);
    let complete = Readiness::new().advisory(ConditionName::TokenKeys);
    let source = KeySource::simulated(document, keys.clone());
    tasks.spawn("token-keys", source.keep(clock.clone(), Rng::seeded(seed + 1), complete));
    Authenticator::new(keys, Policy::new(&verification, "cluster", None))
}

fn peer(pod: usize) -> PeerKey {
    let number = u32::try_from(pod).unwrap_or(u32::MAX) & 0x00ff_ffff;
    PeerKey::new(IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 | number)), 1)
}

fn eks_auth(clock: &Clock, own: OwnIdentity, http_client: SharedHttpClient) -> EksAuth {
    let upstream = Upstream {
        endpoint: Some("http://127.0.0.1:9".to_owned()),
        use_fips: false,
        ca_bundle: None,
        proxy: None,
    };
    EksAuth::new(Parts {
        cluster: "cluster",
        region: "us-west-2",
        upstream: &upstream,
        own,
        details: SentDetails::default(),
        http_client,
        clock,
    })
}

fn because(error: &SourceError) -> Answer {
    match error {
        SourceError::Refused(refusal) => Answer::RefusedByAws(refusal.code),
        SourceError::Throttled | SourceError::Unavailable(_) | SourceError::OwnIdentity(_) => {
            Answer::Trouble(error.label())
        }
    }
}
