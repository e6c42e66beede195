//! What `status` and `doctor` show: where each number is read.
//!
//! Owns: the closure that reads, when somebody asks. Must not know: how it is shown (`status`), or who asks.

use std::sync::Arc;
use std::time::SystemTime;

use nix::sys::resource::{Resource, getrlimit};

use super::cluster::Cluster;
use super::{Credentials, OwnIdentity, Peers, Services};
use crate::aws::reach::Reach;
use crate::aws::region::AwsRegion;
use crate::clock::{Clock, Now, Trust, rfc3339};
use crate::config::{Config, RegionSource};
use crate::credentials::source::OfEach;
use crate::identity::keys::TokenKeys;
use crate::lifecycle::readiness::Readiness;
use crate::outgoing::Client;
use crate::pods::{PodStates, Pods};
use crate::server::door::capacity::Capacity;
use crate::server::local_socket::{Answers, GatherStatus};
use crate::status::snapshot::{
    Agent, AskedSource, ClockState, ConnectionToAws, Counts, OwnCredentials, ReportedCondition, Snapshot,
    Unanswered, Utc,
};
use crate::telemetry::metrics::BudgetNumbers;
use crate::workload::Source;

/// What is read.
struct Gathering {
    about: About,
    clock: Clock,
    started: Now,
    readiness: Readiness,
    own: OwnIdentity,
    region: AwsRegion,
    credentials: Credentials,
    to_aws: Client,
    keys: TokenKeys,
    peers: Peers,
    pods: Pods,
}

/// What the configuration says.
struct About {
    cluster: String,
    region_is_given: bool,
    node: Option<String>,
    /// Whether there is anything to sign.
    signs: bool,
    endpoints: OfEach<Option<String>>,
}

/// The parts that are asked.
pub(super) struct Asked<'a> {
    pub(super) credentials: &'a Credentials,
    pub(super) to_aws: &'a Client,
    pub(super) own: &'a OwnIdentity,
    pub(super) region: &'a AwsRegion,
    pub(super) keys: &'a TokenKeys,
    pub(super) peers: &'a Peers,
    pub(super) cluster: &'a Cluster,
}

impl Services {
    /// What the socket of this pod answers.
    pub(super) fn local_answers(&self, config: &Config, asked: &Asked<'_>) -> Answers {
        let gathering = Gathering {
            about: About::of(config),
            clock: self.clock.clone(),
            started: self.clock.now(),
            readiness: self.readiness.clone(),
            own: asked.own.clone(),
            region: asked.region.clone(),
            credentials: asked.credentials.clone(),
            to_aws: asked.to_aws.clone(),
            keys: asked.keys.clone(),
            peers: asked.peers.clone(),
            pods: asked.cluster.pods.clone(),
        };
        // It holds text, numbers and lists alone: nothing that JSON cannot have.
        let status: GatherStatus =
            Arc::new(move |most| serde_json::to_vec(&gathering.snapshot(most)).unwrap_or_default());
        Answers { readiness: self.readiness.clone(), status }
    }
}

impl About {
    fn of(config: &Config) -> Self {
        let sts = config.web_identity.as_ref().and_then(|web_identity| web_identity.sts.endpoint.clone());
        Self {
            cluster: config.cluster_name.clone(),
            region_is_given: matches!(config.region, RegionSource::Given(_)),
            node: config.node.name.clone(),
            signs: config.pod_identity,
            endpoints: OfEach { eks_auth: config.upstream.endpoint.clone(), web_identity: sts },
        }
    }
}

impl Gathering {
    fn snapshot(&self, most: usize) -> Snapshot {
        let now = self.clock.now();
        let listing = self.credentials.identities(most);
        Snapshot {
            agent: self.agent(now),
            conditions: self.conditions(),
            own_credentials: self.about.signs.then(|| self.own_credentials()),
            sources: self.sources(now),
            connections_to_aws: self.connections_to_aws(),
            clock: self.clock_state(now),
            counts: self.counts(now),
            identities: listing.identities,
            identities_left_out: listing.left_out,
        }
    }

    fn agent(&self, now: Now) -> Agent {
        let uptime = now.boot.since(self.started.boot);
        Agent {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster: self.about.cluster.clone(),
            region: self.region.get().map(|name| name.to_string()),
            region_from_instance: !self.about.region_is_given,
            node: self.about.node.clone(),
            // By the time that is known now: at the start the node's clock may have been wrong.
            started: now.wall.checked_sub(uptime).and_then(rfc3339),
            uptime_seconds: uptime.as_secs(),
            ready: self.readiness.is_ready(),
        }
    }

    fn conditions(&self) -> Vec<ReportedCondition> {
        let reports = self.readiness.report().into_iter();
        let shown = reports.map(|report| ReportedCondition {
            name: report.name.as_str().to_owned(),
            met: report.met,
            required: report.required,
            reason: report.reason,
        });
        shown.collect()
    }

    fn own_credentials(&self) -> OwnCredentials {
        let source = self.own.source().map(|source| source.to_string());
        OwnCredentials { source, expires: self.own.expires().and_then(rfc3339) }
    }

    fn sources(&self, now: Now) -> Vec<AskedSource> {
        let of_each = self.credentials.budgets.numbers().into_iter();
        of_each.map(|(source, budget)| self.asked_source(source, budget, now)).collect()
    }

    fn asked_source(&self, source: Source, budget: BudgetNumbers, now: Now) -> AskedSource {
        let reach = self.credentials.reaches.of(source).as_ref();
        AskedSource {
            name: source.as_str().to_owned(),
            endpoint: self.about.endpoints.of(source).clone(),
            calls_in_flight: budget.in_flight,
            calls_limit: budget.limit,
            calls_waiting: budget.waiting.iter().map(|(_, number)| number).sum(),
            unanswered: reach.and_then(Reach::unanswered).map(|unanswered| Unanswered {
                calls: unanswered.calls,
                since: ago(now, unanswered.since),
                last_cause: unanswered.last_cause.to_string(),
            }),
        }
    }

    fn connections_to_aws(&self) -> Vec<ConnectionToAws> {
        let ways = self.to_aws.ways().into_iter();
        ways.map(|way| ConnectionToAws {
            to: way.to,
            addresses: way.addresses.iter().map(ToString::to_string).collect(),
        })
        .collect()
    }

    fn clock_state(&self, now: Now) -> ClockState {
        let aws_time = match now.trust {
            Trust::Unknown => "unknown",
            Trust::Unconfirmed => "unconfirmed",
            Trust::Confirmed => "confirmed",
        };
        let offset_seconds = super::metrics::signed_seconds(self.clock.offset_ms());
        ClockState { aws_time: aws_time.to_owned(), offset_seconds }
    }

    fn counts(&self, now: Now) -> Counts {
        let store = &self.credentials.store;
        Counts {
            verified_identities: store.verified_len(),
            unverified_identities: store.unverified_len(),
            token_keys: self.keys.view(now.boot).keys,
            connections_open: self.peers.stats().snapshot().connections_open,
            connections_limit: Capacity::of_this_process().places,
            descriptors_limit: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _hard)| soft),
            pods: self.pods.states(now.boot).map(number_of),
        }
    }
}

/// A moment that the boot clock has seen, by the time that is known now.
fn ago(now: Now, at: crate::clock::BootTime) -> Option<Utc> {
    let wall: Option<SystemTime> = now.wall.checked_sub(now.boot.since(at));
    wall.and_then(rfc3339)
}

const fn number_of(states: PodStates) -> usize {
    let PodStates { asked, silent, missed, other } = states;
    asked + silent + missed + other
}
