//! The promises of this folder, on simulated time and a scripted AWS. Everything between the provider and the
//! SDK's HTTP client is the real code.

mod associations;
mod audit;
mod aws;
mod burst;
mod clock;
mod entitlement;
mod events;
mod fairness;
mod fleet;
mod freshness;
mod gone;
mod holding;
mod listing;
mod names;
mod outage;
mod revocation;
mod roles;
mod roles_in_trouble;
mod sharing;

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_credential_types::Credentials as OwnCredentials;
use parking_lot::Mutex;

use self::aws::Aws;
use crate::aws::answer_log::AnswerLog;
use crate::aws::node_details::SentDetails;
use crate::aws::own_identity::OwnIdentity;
use crate::aws::region::AwsRegion;
use crate::clock::{Clock, Simulated};
use crate::config::{Retention, Sts, Upstream};
use crate::credentials::assemble::{Credentials, Needs, RouteStatusOf};
use crate::credentials::audit_log::AuditLog;
use crate::credentials::policy::hold::{Hold, LONGEST_HOLD};
use crate::credentials::provider::{CredentialRequest, Lookup};
use crate::credentials::source::eks_auth::{EksAuth, Parts};
use crate::credentials::source::web_identity::{Parts as StsParts, StsWebIdentity};
use crate::credentials::source::{SourceError, Sources};
use crate::events::{Events, Reports};
use crate::lifecycle::limits::Limits;
use crate::lifecycle::tasks::Tasks;
use crate::pods::Pods;
use crate::rng::Rng;
use crate::telemetry::metrics::Metrics;
use crate::workload::{
    BearerToken, Caller, CredentialKey, PeerKey, PresentedToken, Principal, RoleArn, Route, RouteStatus,
};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// A node: the whole folder.
#[derive(Clone)]
struct Node {
    credentials: Credentials,
    limits: Limits,
    clock: Clock,
    time: Arc<Simulated>,
    aws: Aws,
    /// STS, for roles that the cluster gives.
    sts: Aws,
    /// Roles that the cluster gives nobody any more.
    statuses: Statuses,
    pods: Pods,
    /// What was reported of pods.
    reports: Arc<Mutex<Reports>>,
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

    fn with(retention: &Retention, max_stale_after_refusal: Option<Duration>) -> Self {
        Self::on(Aws::new(), 7, retention, max_stale_after_refusal)
    }

    /// One of several nodes of an account.
    fn on(aws: Aws, seed: u64, retention: &Retention, max_stale_after_refusal: Option<Duration>) -> Self {
        let time = Simulated::starting_at(UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let clock = Clock::simulated(Arc::clone(&time));
        let own = OwnCredentials::new("AKIANODE", "node-secret", None, None, "test");
        let upstream = Upstream {
            endpoint: Some("http://127.0.0.1:9".to_owned()),
            use_fips: false,
            ca_bundle: None,
            proxy: None,
        };
        let own = OwnIdentity::fixed(own, clock.clone());
        let answer_log = own.answer_log().clone();
        let eks_auth = EksAuth::new(Parts {
            cluster: "cluster",
            region: AwsRegion::given("us-west-2"),
            upstream: &upstream,
            own,
            details: SentDetails::default(),
            http_client: aws.http_client(),
            clock: &clock,
        });
        let (sts, statuses) = (Aws::sts(), Statuses::default());
        let web_identity = of_sts(&sts, &upstream, &answer_log, &clock);
        let (limits, tasks) = (Limits::default(), Tasks::new());
        // Dropping the questions means only that nobody answers them.
        let (pods, _questions) = Pods::new();
        let metrics = Metrics::new();
        let (events, reports) = Events::new(pods.clone(), metrics.events);
        let credentials = Credentials::assemble(Needs {
            clock: clock.clone(),
            rng: Rng::seeded(seed),
            sources: Sources {
                eks_auth: Some(eks_auth),
                web_identity: Some(web_identity),
                answer_log,
                region: AwsRegion::given("us-west-2"),
            },
            retention,
            max_service_qps: 3,
            max_stale_after_refusal,
            limits: limits.clone(),
            metrics: metrics.upstream,
            tasks: tasks.clone(),
            audit_log: Some(AuditLog::new("cluster", Some("node-1"))),
            pods: pods.clone(),
            events,
            route_status: by(&statuses),
        });
        if let Some(renewals) = credentials.renewals() {
            tasks.spawn("renewals", renewals.run());
        }
        tasks.spawn("revocations", credentials.revocations().run(|_| ()));
        let reports = Arc::new(Mutex::new(reports));
        Self { credentials, limits, clock, time, aws, sts, statuses, pods, reports }
    }

    /// Asks as the endpoint does: looks, waits as long as a request is held, serves or says why not.
    async fn ask(&self, pod: usize) -> Result<Got, Option<SourceError>> {
        self.ask_as(&self.request(pod)).await
    }

    async fn ask_as(&self, request: &CredentialRequest) -> Result<Got, Option<SourceError>> {
        let served = match self.credentials.provider.lookup(request, self.clock.now()) {
            Lookup::Serve(served) => served,
            Lookup::Refuse(failed) => return Err(Some(failed.error)),
            Lookup::Wait(mut waiting) => match tokio::time::timeout(LONGEST_HOLD, waiting.outcome()).await {
                Ok(outcome) => outcome.map_err(|failed| Some(failed.error))?,
                Err(_elapsed) => return Err(waiting.last_failure()),
            },
        };
        let body: serde_json::Value = serde_json::from_slice(&served.body).unwrap();
        let asked = match &request.principal.route {
            Route::EksAuth => &self.aws,
            Route::WebIdentity(_) => &self.sts,
        };
        let left = asked.life_left(body["AccessKeyId"].as_str().unwrap());
        Ok(Got { access_key_id: body["AccessKeyId"].as_str().unwrap().to_owned(), left })
    }

    /// Asks as boto3 does: three tries of 2 s, 1 s apart. Whether one of them was served.
    async fn ask_as_boto3(&self, pod: usize) -> bool {
        self.ask_as_boto3_for(&self.request(pod)).await
    }

    async fn ask_as_boto3_for(&self, request: &CredentialRequest) -> bool {
        for attempt in 0..3 {
            if attempt > 0 {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            if let Ok(Ok(_)) = tokio::time::timeout(Duration::from_secs(2), self.ask_as(request)).await {
                return true;
            }
        }
        false
    }

    /// The request of a pod that nobody has verified, from an address of its own.
    fn request(&self, pod: usize) -> CredentialRequest {
        let token = BearerToken::from_header(token_of(pod).as_bytes()).unwrap();
        let key = CredentialKey::Unverified(token.digest());
        CredentialRequest {
            principal: Principal { key, caller: Caller::Unknown, route: Route::EksAuth },
            token: PresentedToken { token, expires: self.time_at_start() + 24 * HOUR, issued: None },
            must_be_judged: false,
            peer: peer(pod),
            hold: Hold::Unknown,
        }
    }

    /// The same, from the address of another pod.
    fn request_from(&self, peer: PeerKey, pod: usize) -> CredentialRequest {
        CredentialRequest { peer, ..self.request(pod) }
    }

    fn time_at_start(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }
}

fn of_sts(sts: &Aws, upstream: &Upstream, answer_log: &AnswerLog, clock: &Clock) -> StsWebIdentity {
    StsWebIdentity::new(StsParts {
        region: AwsRegion::given("us-west-2"),
        sts: &Sts::default(),
        upstream,
        answer_log: answer_log.clone(),
        http_client: sts.http_client(),
        clock,
    })
}

/// What has become of roles; all others are given.
type Statuses = Arc<Mutex<HashMap<RoleArn, RouteStatus>>>;

fn by(statuses: &Statuses) -> RouteStatusOf {
    let statuses = Arc::clone(statuses);
    Arc::new(move |principal| match &principal.route {
        Route::EksAuth => RouteStatus::Given,
        Route::WebIdentity(wanted) => {
            statuses.lock().get(&wanted.role).copied().unwrap_or(RouteStatus::Given)
        }
    })
}

/// Each pod has an address of its own.
fn peer(pod: usize) -> PeerKey {
    let address = Ipv4Addr::from_bits(u32::try_from(pod).unwrap() + 0x0a00_0000);
    PeerKey::new(address.into(), 1)
}

fn token_of(pod: usize) -> String {
    format!("a.pod{pod}.c")
}
