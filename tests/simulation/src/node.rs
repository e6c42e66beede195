//! The agent's real code, wired as `app` wires it. The only file that names its parts.
//!
//! Owns: the wiring, and asking as the endpoint asks. Must not know: pods' habits or AWS's moods.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use aws_smithy_runtime_api::client::http::SharedHttpClient;
use pod_identity_agent::association::annotations::{FoundAccount, NotRead};
use pod_identity_agent::association::{Associations, Choice, NoRoute, Withdrawn};
use pod_identity_agent::aws::answer_log::AnswerLog;
use pod_identity_agent::aws::node_details::SentDetails;
use pod_identity_agent::aws::own_identity::imds::InstanceRole;
use pod_identity_agent::aws::own_identity::{OwnIdentity, OwnSource};
use pod_identity_agent::aws::region::AwsRegion;
use pod_identity_agent::clock::{Clock, Now, Simulated};
use pod_identity_agent::config::{
    KeyLocation, Retention, SessionName, Sts, TokenVerification, Upstream, VerificationMode, WebIdentity,
};
use pod_identity_agent::credentials::assemble::{Credentials, Needs, Sizes};
use pod_identity_agent::credentials::policy::hold::{Hold, LONGEST_HOLD};
use pod_identity_agent::credentials::provider::{CredentialRequest, Lookup};
use pod_identity_agent::credentials::source::eks_auth::{EksAuth, Parts};
use pod_identity_agent::credentials::source::web_identity::{self, StsWebIdentity};
use pod_identity_agent::credentials::source::{SourceError, Sources};
use pod_identity_agent::events::Events;
use pod_identity_agent::identity::keys::{IssuerDocuments, KeySource, TokenKeys};
use pod_identity_agent::identity::{self, Authentication, Authenticator, Identity, Policy};
use pod_identity_agent::lifecycle::condition_name::ConditionName;
use pod_identity_agent::lifecycle::limits::Limits;
use pod_identity_agent::lifecycle::readiness::Readiness;
use pod_identity_agent::lifecycle::tasks::Tasks;
use pod_identity_agent::pods::Pods;
use pod_identity_agent::rng::Rng;
use pod_identity_agent::telemetry::metrics::Metrics;
use pod_identity_agent::workload::{
    BearerToken, PeerKey, Principal, RouteStatus, ServedAudiences, ServiceAccountName, WEB_IDENTITY_AUDIENCE,
};

use crate::issuer::ISSUER;
use crate::life::Life;
use crate::shape::Shape;

/// The region of every node.
const REGION: &str = "us-west-2";
/// The longest time to keep a set before its renewal: the default of the flag.
const RENEW_AFTER: Duration = Duration::from_secs(3 * 3600);

/// The role of a pod has not been read yet.
pub const NOT_YET_KNOWN: &str = "the role is not known yet";
/// Nothing gives the pod a role.
pub const NO_ROLE: &str = "there is no role";

/// A node.
#[derive(Clone)]
pub struct Node {
    authenticator: Arc<Authenticator>,
    associations: Associations,
    credentials: Credentials,
    clock: Clock,
    life: Life,
    pods_per_address: u32,
}

/// Reads the document of token keys; `None`: it cannot be read.
pub type Document = Box<dyn FnMut() -> Option<Vec<u8>> + Send>;

/// Reads a service account.
pub type ReadAccount = Box<dyn Fn(ServiceAccountName) -> Reading + Send + Sync>;
/// A read under way.
pub type Reading = Pin<Box<dyn Future<Output = Result<Option<FoundAccount>, NotRead>> + Send>>;

/// What is around a node.
pub struct Around {
    /// EKS Auth.
    pub aws: SharedHttpClient,
    /// STS.
    pub sts: SharedHttpClient,
    /// Reads the annotations of service accounts; `None`: nobody is given a role.
    pub annotations: Option<ReadAccount>,
    /// The metadata service.
    pub imds: SharedHttpClient,
    /// The document of token keys; `None`: the agent is given none.
    pub keys: Option<Document>,
    /// The machine's clocks.
    pub clocks: Arc<Simulated>,
    /// Of its process.
    pub life: Life,
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
    /// Starts the agent's tasks. Must be called inside a tokio runtime.
    pub fn start(seed: u64, shape: &Shape, around: Around, tasks: &Tasks) -> Self {
        let Around { aws, sts, annotations, imds, keys, clocks, life } = around;
        let clock = Clock::simulated(clocks);
        let own = OwnIdentity::new(clock.clone());
        let role = InstanceRole::through(imds, None, false, &clock);
        let spawn = |name, work: Pin<Box<dyn Future<Output = ()> + Send>>| {
            let life = life.clone();
            tasks.spawn(name, async move { life.unless_over(work).await });
        };
        spawn("own-identity", Box::pin(own.clone().keep(OwnSource::Imds(role), |_| ())));
        let retention = Retention::Keep {
            renew_after: RENEW_AFTER,
            max_identities: NonZeroUsize::MIN.saturating_add(shape.most_identities - 1),
        };
        let answer_log = own.answer_log().clone();
        let roles = annotations.is_some().then(roles);
        let web_identity = roles.as_ref().map(|roles| of_sts(&clock, roles, sts, answer_log.clone()));
        let associations = Associations::new(roles, Rng::seeded(seed));
        let credentials = Credentials::assemble(Needs {
            clock: clock.clone(),
            rng: Rng::seeded(seed),
            sources: Sources {
                eks_auth: Some(eks_auth(&clock, own, aws)),
                web_identity,
                answer_log,
                region: AwsRegion::given(REGION),
            },
            retention: &retention,
            max_service_qps: 3,
            max_stale_after_refusal: shape.max_stale,
            limits: Limits::default(),
            metrics: Metrics::new().upstream,
            tasks: tasks.clone(),
            audit_log: None,
            pods: Pods::unreported(),
            events: Events::off(),
            route_status: {
                let associations = associations.clone();
                Arc::new(move |principal| associations.status(&principal.caller, &principal.route))
            },
        });
        if let Some(renewals) = credentials.renewals() {
            spawn("renewals", Box::pin(renewals.run()));
        }
        if let Some(read) = annotations {
            let kept = associations.clone().keep_annotations(clock.clone(), read, |_| ());
            spawn("role-annotations", Box::pin(kept));
            let (mut withdrawals, store) = (associations.withdrawals(), credentials.store.clone());
            let carried_out = async move {
                loop {
                    let Withdrawn { service_account, role } = withdrawals.next().await;
                    store.remove_role(&service_account, &role);
                }
            };
            spawn("withdrawals", Box::pin(carried_out));
        }
        let authenticator = Arc::new(authenticator(seed, shape, keys, &clock, &spawn));
        let pods_per_address = shape.pods_per_address;
        Self { authenticator, associations, credentials, clock, life, pods_per_address }
    }

    /// Its process is killed.
    pub fn kill(&self) {
        self.life.end();
    }

    /// Asks as the endpoint does: identity, look, hold, answer. `address` is a number.
    /// `judged` is told whether a key proves the token, before anything else happens.
    pub async fn ask(&self, address: usize, token: &BearerToken, judged: impl FnOnce(bool)) -> Answer {
        let answer = self.life.unless_over(self.answer(address, token, judged)).await;
        // Its connection is reset.
        answer.unwrap_or(Answer::Trouble("killed"))
    }

    async fn answer(&self, pod: usize, token: &BearerToken, judged: impl FnOnce(bool)) -> Answer {
        let authentication = self.authenticate(pod, token).await;
        let now = self.clock.now();
        judged(matches!(authentication, Authentication::Identified(Identity::Verified(_))));
        if let (Authentication::Undecided(_), Some(holding)) =
            (&authentication, self.credentials.provider.earned_by(token, now))
        {
            let Principal { caller, route, .. } = holding.principal();
            let is_given = self.associations.status(caller, route) != RouteStatus::Ended;
            if let Some(served) = is_given.then(|| holding.serve(now)).flatten() {
                return Answer::Served(served.body.to_vec());
            }
        }
        let request = match request(&self.associations, now, pod, token, authentication).await {
            Ok(request) => request,
            Err(answer) => return answer,
        };
        match self.credentials.provider.lookup(&request, self.clock.now()) {
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

    /// What the agent takes AWS's time for.
    pub fn time(&self) -> Now {
        self.clock.now()
    }

    /// The number of the address of a slot's pod.
    pub const fn address_of(&self, slot: u32) -> usize {
        (slot / self.pods_per_address) as usize
    }

    /// How much is held, and how many flights are under way. Nothing is tidied for the sake of the look.
    pub fn remains(&self) -> Sizes {
        self.credentials.sizes()
    }

    async fn authenticate(&self, pod: usize, token: &BearerToken) -> Authentication {
        let now = self.clock.now();
        match self.authenticator.lookup(token, peer(pod), now) {
            identity::Lookup::Judged(authentication) => authentication,
            identity::Lookup::Open(open) => self.authenticator.ask_others(&open, token, peer(pod), now).await,
        }
    }
}

async fn request(
    associations: &Associations,
    now: Now,
    pod: usize,
    token: &BearerToken,
    authentication: Authentication,
) -> Result<CredentialRequest, Answer> {
    match authentication {
        Authentication::Identified(identity) => {
            let chosen = match associations.choose(&identity.caller(), identity.audience(), now) {
                Choice::Route(route) => Ok(route),
                // No audience of a role changes in any story.
                Choice::Refused(why) | Choice::Former(_, why) => Err(why),
                Choice::Ask(question) => {
                    let asked = associations.ask(question, now);
                    tokio::time::timeout(LONGEST_HOLD, asked).await.unwrap_or(Err(NoRoute::NotYetKnown))
                }
            };
            let route = chosen.map_err(|why| match why {
                NoRoute::NotYetKnown => Answer::Trouble(NOT_YET_KNOWN),
                NoRoute::NoRole => Answer::RefusedByAgent(NO_ROLE),
                NoRoute::Unverified
                | NoRoute::InvalidRole(_)
                | NoRoute::OtherAudience(_)
                | NoRoute::NotAllowed => Answer::RefusedByAgent("no route"),
            })?;
            let principal = identity.principal(route);
            let must_be_judged = identity.must_be_judged();
            let token = identity.presented(token.clone());
            let hold = Hold::Unknown;
            Ok(CredentialRequest { principal, token, must_be_judged, peer: peer(pod), hold })
        }
        Authentication::Refused(_) => Err(Answer::RefusedByAgent("the agent refuses the token")),
        Authentication::Undecided(_) => Err(Answer::Trouble("no key can decide")),
    }
}

/// As `app` makes it of `--jwks` and `--issuer`; without keys nothing is verified.
fn authenticator(
    seed: u64,
    shape: &Shape,
    document: Option<Document>,
    clock: &Clock,
    spawn: &dyn Fn(&'static str, Pin<Box<dyn Future<Output = ()> + Send>>),
) -> Authenticator {
    let Some(mut document) = document else { return Authenticator::default() };
    let read = move || {
        let keys = document();
        async move { Ok(IssuerDocuments { issuer: None, keys: keys.ok_or("no answer")?.into() }) }
    };
    let verification = TokenVerification {
        mode: if shape.is_required { VerificationMode::Required } else { VerificationMode::Auto },
        issuers: vec![ISSUER.to_owned()],
        api_server: None,
        keys: vec![KeyLocation::Url(format!("{ISSUER}/keys"))],
    };
    let policy = Policy::new(&verification, "cluster", None);
    let policy = policy.serving(ServedAudiences::new(true, [WEB_IDENTITY_AUDIENCE]));
    let keys = TokenKeys::of_sources(1);
    let complete = Readiness::new().advisory(ConditionName::TokenKeys);
    let source = KeySource::read_elsewhere("simulated".to_owned(), 0, keys.clone(), false, read);
    spawn("token-keys", Box::pin(source.keep(clock.clone(), Rng::seeded(seed + 1), complete)));
    Authenticator::new(keys, policy)
}

fn peer(pod: usize) -> PeerKey {
    let number = u32::try_from(pod).unwrap_or(u32::MAX) & 0x00ff_ffff;
    PeerKey::new(IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 | number)), 1)
}

/// As the flags have it by default, with annotations.
fn roles() -> WebIdentity {
    WebIdentity {
        audiences: vec![WEB_IDENTITY_AUDIENCE.to_owned()],
        reads_annotations: true,
        role_map: None,
        role_limits: None,
        session_name: SessionName::Pod,
        sts: Sts::default(),
    }
}

fn upstream() -> Upstream {
    let endpoint = Some("http://127.0.0.1:9".to_owned());
    Upstream { endpoint, use_fips: false, ca_bundle: None, proxy: None }
}

fn of_sts(
    clock: &Clock,
    roles: &WebIdentity,
    http_client: SharedHttpClient,
    answer_log: AnswerLog,
) -> StsWebIdentity {
    StsWebIdentity::new(web_identity::Parts {
        region: AwsRegion::given(REGION),
        sts: &roles.sts,
        upstream: &upstream(),
        answer_log,
        http_client,
        clock,
    })
}

fn eks_auth(clock: &Clock, own: OwnIdentity, http_client: SharedHttpClient) -> EksAuth {
    EksAuth::new(Parts {
        cluster: "cluster",
        region: AwsRegion::given(REGION),
        upstream: &upstream(),
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
