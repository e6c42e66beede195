//! The composition root: build, bind, run, drain. It alone knows every part.
//!
//! Owns: which part is given which, and the order of start and end. Must not know: how any part does its
//! work. Nothing here fails for a lack of network: what cannot be had yet is a readiness condition, not an
//! exit (invariant 10).

mod cluster;
mod credentials;
mod leaving;
mod listener_names;
mod listeners;
mod metrics;
mod node;
mod probes;
mod region;
mod status;
mod tasks;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use self::cluster::Cluster;
use self::credentials::Signing;
use self::status::Asked;
use crate::aws::node_details::SentDetails;
use crate::aws::own_identity::{Acceptance, OwnIdentity, OwnSource, OwnState};
use crate::aws::region::AwsRegion;
use crate::clock::Clock;
use crate::config::{Config, VerificationMode};
use crate::credentials::assemble::Credentials;
use crate::identity::keys::{FetchError, KeySource, TokenKeys};
use crate::identity::{Authenticator, Policy, own_proof, own_token};
use crate::kubernetes::api::Api;
use crate::lifecycle::condition_name::ConditionName;
use crate::lifecycle::limits::{self, Limit, Limits};
use crate::lifecycle::readiness::{Condition, Readiness};
use crate::lifecycle::shutdown::Shutdown;
use crate::lifecycle::tasks::Tasks;
use crate::node::guard::{Places, Switch};
use crate::node::metadata_clients::Numbers;
use crate::node::self_probe::{ProbeKey, ProbeKeyError, Prober};
use crate::outgoing::{Client, SetUpError};
use crate::rng::Rng;
use crate::server::access_log::AccessLog;
use crate::server::door::accept::Acceptor;
use crate::server::door::capacity::Capacity;
use crate::server::door::limits::{ConnectionLimits, PeerLimits};
use crate::server::door::peers::Peers;
use crate::server::local_socket::{self, Answers};
use crate::server::pages::admin::Admin;
use crate::server::pages::credentials::Endpoint;
use crate::server::pages::host::AllowedHosts;
use crate::server::pages::presence::PresenceChecks;
use crate::telemetry::metrics::{Metrics, MetricsPage, Readings};
use crate::workload::ServedAudiences;

/// How long the remaining tasks have to end, once everything is answered.
const LAST_TASKS: Duration = Duration::from_secs(1);

/// Why the agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection to AWS cannot be configured.
    #[error("the connection to AWS cannot be configured")]
    HttpClient(#[from] SetUpError),
    /// The sources of token keys cannot be configured.
    #[error("the sources of token keys cannot be configured")]
    TokenKeys(#[from] FetchError),
    /// No key can be made for the agent's own probes.
    #[error("no key can be made for the agent's own probes")]
    Probes(#[from] ProbeKeyError),
    /// The signals cannot be handled.
    #[error("SIGTERM and SIGINT cannot be handled")]
    Signals(#[source] io::Error),
}

/// Runs the agent until a signal stops it and everything in flight is answered.
///
/// # Errors
/// [`Error`], when it cannot start. Once it runs, nothing but a signal ends it.
///
/// `prober`: the helper process that probes from a network namespace, where it is wanted and could be
/// started.
pub async fn run(config: Config, prober: Option<io::Result<Prober>>) -> Result<(), Error> {
    let services = Services::new();
    let signals = services.shutdown.on_signal().map_err(Error::Signals)?;
    services.until_stopped("signals", signals);

    let (own, own_source) = own_identity(&config, &services.clock);
    let details = SentDetails::from_config(&config.node);
    let region = AwsRegion::from_config(&config.region);
    let cluster = services.join_cluster(&config);
    // One for EKS Auth and STS: they share proxy and certificates, and each host has its own connections.
    let to_aws = Client::new(&config.upstream, &services.clock)?;
    let signing = Signing { own: own.clone(), region: region.clone(), details: details.clone() };
    let credentials = services.assemble_credentials(&config, &to_aws, signing, &cluster);
    let keys = services.keep_token_keys(&config, cluster.api.as_ref())?;
    let limits = PeerLimits::for_credentials(Capacity::of_this_process(), config.pod_request_rate);
    tracing::debug!(?limits, "places for connections");
    let peers = Peers::new(limits, host_addresses(&config));

    // First the listeners, so that a pod that is already waiting is held instead of refused; then what
    // answers behind them.
    let probe_key = ProbeKey::new()?;
    let door = services.credential_door(&config, &credentials, &keys, &cluster, &peers, probe_key.clone());
    let (places, switch) = (Places::new(listeners::guarded(&config)), Switch::new());
    let listeners = services.listen(&config, &door, &places, &switch, &probe_key);
    let admin =
        services.serve_admin(&config, services.readings(&credentials, &keys, &peers, &own, &cluster.pods));
    let asked = Asked {
        credentials: &credentials,
        to_aws: &to_aws,
        own: &own,
        region: &region,
        keys: &keys,
        peers: &peers,
        cluster: &cluster,
    };
    services.answer_locally(&config, services.local_answers(&config, &asked));
    node::start(&services, &config, &cluster.pods, &places, &switch, probe_key, prober);
    services.learn_region(&config, region);
    if config.pod_identity {
        services.keep_own_identity(own, own_source);
    }
    services.watch_answers(&credentials);
    services.make_trial_call(&config, &credentials);
    services.renew_credentials(&credentials, &cluster);
    services.learn_node_details(&config, details);
    services.keep_access_log();
    services.show_limits(&peers);
    services.running.met();

    leaving::leave_when_asked(&services.shutdown, &config, &switch).await;
    services.running.unmet("shutting down");
    for listener in listeners {
        // A listener that panicked has been logged by its task; the others still drain.
        let _ended = listener.await;
    }
    services.shutdown.stop();
    admin.stop();
    let late = services.tasks.close_and_wait(LAST_TASKS).await;
    tracing::info!(late_tasks = ?late, "stopped");
    Ok(())
}

/// What every part is given.
struct Services {
    clock: Clock,
    tasks: Tasks,
    shutdown: Shutdown,
    readiness: Readiness,
    running: Condition,
    limits: Limits,
    metrics: Arc<Metrics>,
    access_log: Arc<AccessLog>,
    /// Who connects to the instance metadata service.
    metadata_clients: Numbers,
}

impl Services {
    fn new() -> Self {
        let readiness = Readiness::new();
        // Met when everything runs, so that no probe sees "ready" in between.
        let running = readiness.condition(ConditionName::Running);
        Self {
            clock: Clock::system(),
            tasks: Tasks::new(),
            shutdown: Shutdown::new(),
            readiness,
            running,
            limits: Limits::default(),
            metrics: Arc::new(Metrics::new()),
            access_log: Arc::default(),
            metadata_clients: Numbers::default(),
        }
    }

    fn credential_door(
        &self,
        config: &Config,
        credentials: &Credentials,
        keys: &TokenKeys,
        cluster: &Cluster,
        peers: &Peers,
        probe_key: ProbeKey,
    ) -> Acceptor<Endpoint> {
        let policy = Policy::new(&config.verification, &config.cluster_name, config.node.name.as_deref());
        let web_identity = config.web_identity.iter().flat_map(|web_identity| &web_identity.audiences);
        let policy =
            policy.serving(ServedAudiences::new(config.pod_identity, web_identity.map(String::as_str)));
        let authenticator = Authenticator::new(keys.clone(), policy).with_reviews(cluster.reviews.clone());
        let authenticator = Arc::new(authenticator);
        self.watch_tokens(config, &authenticator);
        let endpoint = Endpoint {
            hosts: AllowedHosts::new(&config.listen.hosts),
            authenticator,
            associations: cluster.associations.clone(),
            presence: PresenceChecks {
                pods: cluster.pods.clone(),
                modes: config.kubernetes.pod_checks,
                metrics: Arc::clone(&self.metrics.pod_checks),
            },
            events: cluster.events.clone(),
            provider: credentials.provider.clone(),
            probe_key,
            clock: self.clock.clone(),
            shutdown: self.shutdown.clone(),
            metrics: Arc::clone(&self.metrics.requests),
            authentications: Arc::clone(&self.metrics.authentications),
            access_log: Arc::clone(&self.access_log),
        };
        let limits = ConnectionLimits::default();
        Acceptor::new(Arc::new(endpoint), peers.clone(), limits, self.shutdown.clone(), self.tasks.clone())
    }

    /// Nobody is served there any more if it panics, whatever it showed before.
    fn start_listener(
        &self,
        name: ConditionName,
        bound: &Condition,
        serving: impl Future<Output = ()> + Send + 'static,
    ) -> tokio::task::JoinHandle<()> {
        self.tasks.spawn_essential(name.as_str(), bound.clone(), serving)
    }

    /// Probes and metrics. Their shutdown is their own: they answer until everything else has ended.
    fn serve_admin(&self, config: &Config, readings: Readings) -> Shutdown {
        let shutdown = Shutdown::new();
        let probes = Admin::Probes(self.readiness.clone());
        self.serve_page(
            probes,
            PeerLimits::for_probes(),
            &shutdown,
            SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), config.probe_port),
            ConditionName::Probes,
        );
        let probes = Admin::Probes(self.readiness.clone());
        self.serve_page(
            probes,
            PeerLimits::for_probes(),
            &shutdown,
            SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), config.probe_port),
            ConditionName::ProbesIpv6,
        );
        let page = MetricsPage::new(Arc::clone(&self.metrics), readings);
        let page = Admin::Metrics(Arc::new(page), self.readiness.clone());
        self.serve_page(page, PeerLimits::for_metrics(), &shutdown, config.metrics, ConditionName::Metrics);
        shutdown
    }

    /// Until the process ends: a container that drains is alive.
    fn answer_locally(&self, config: &Config, answers: Answers) {
        if let Some(dir) = config.state_dir.clone() {
            self.until_stopped("local-socket", local_socket::serve(dir, answers));
        }
    }

    fn serve_page(
        &self,
        page: Admin,
        limits: PeerLimits,
        shutdown: &Shutdown,
        address: SocketAddr,
        name: ConditionName,
    ) {
        let bound = self.readiness.advisory(name);
        let peers = Peers::new(limits, |_| false);
        let door = Acceptor::new(
            Arc::new(page),
            peers,
            ConnectionLimits::for_admin(),
            shutdown.clone(),
            self.tasks.clone(),
        );
        let shown = bound.clone();
        let serving = async move { door.serve_when_bound(address.ip(), address.port(), shown).await };
        self.start_listener(name, &bound, serving);
    }

    fn keep_own_identity(&self, own: OwnIdentity, source: OwnSource) {
        let present = self.readiness.condition(ConditionName::OwnCredentials);
        // Shown and never waited for: one bad policy would make every node unready.
        let accepted = self.readiness.advisory(ConditionName::UpstreamAcceptsUs);
        let reporting = own.clone().report_acceptance(move |acceptance| match acceptance {
            Acceptance::NotRejected => accepted.met(),
            Acceptance::Rejected(call) => accepted.unmet(call.to_string()),
        });
        let keeping = own.keep(source, move |state| match state {
            OwnState::Present => present.met(),
            OwnState::Missing(why) => present.unmet(why),
        });
        self.until_stopped("own-credentials", async move {
            tokio::join!(keeping, reporting);
        });
    }

    /// Starts one task per source of token keys, the API server first. There may be none.
    fn keep_token_keys(&self, config: &Config, api: Option<&Api>) -> Result<TokenKeys, FetchError> {
        let verification = &config.verification;
        if verification.mode == VerificationMode::Off {
            return Ok(TokenKeys::of_sources(0));
        }
        let keys = TokenKeys::of_sources(verification.sources());
        let api_server = api.map(|api| Ok(cluster::keys_of_issuer(api, keys.clone())));
        let first = api_server.iter().count();
        let others = verification.keys.iter().enumerate().map(|(index, location)| {
            KeySource::new(location, first + index, keys.clone(), &config.upstream, &self.clock)
        });
        for source in api_server.into_iter().chain(others).collect::<Result<Vec<_>, _>>()? {
            let source = source.refreshed_every(config.jwks_refresh_interval);
            // Shown and never waited for: without keys EKS Auth judges, or clients are asked to come again.
            let complete = self.readiness.advisory(ConditionName::TokenKeys);
            self.until_stopped("token-keys", source.keep(self.clock.clone(), Rng::from_entropy(), complete));
        }
        Ok(keys)
    }

    /// Shown and never waited for: where there is another judge, pods are served.
    fn watch_tokens(&self, config: &Config, authenticator: &Arc<Authenticator>) {
        if config.verification.sources() == 0 || config.verification.mode == VerificationMode::Off {
            return;
        }
        let known = self.readiness.advisory(ConditionName::TokenIssuer);
        let reporting = authenticator.foreign_tokens().report(self.clock.clone(), move |said| match said {
            None => known.met(),
            Some(why) => known.unmet(why),
        });
        self.until_stopped("foreign-tokens", reporting);
        let Some(file) = config.trial_token_file.clone() else { return };
        let (authenticator, clock) = (Arc::clone(authenticator), self.clock.clone());
        self.until_stopped("own-proof", async move {
            // What is wrong with the file is the trial call's to say.
            let read_token = || {
                let file = file.clone();
                async move { own_token::read(&file).await.ok() }
            };
            own_proof::prove(&authenticator, read_token, &clock, &Rng::from_entropy()).await;
        });
    }

    fn keep_access_log(&self) {
        let access = Arc::clone(&self.access_log);
        self.until_stopped("access-log", async move { access.keep_summing().await });
    }

    fn show_limits(&self, peers: &Peers) {
        let (limits, peers) = (self.limits.clone(), peers.clone());
        let watching = limits::watch(self.readiness.clone(), move |limit| reached(limit, &limits, &peers));
        self.until_stopped("limits", watching);
    }
}

fn own_identity(config: &Config, clock: &Clock) -> (OwnIdentity, OwnSource) {
    (OwnIdentity::new(clock.clone()), OwnSource::from_config(&config.own_credentials, clock))
}

/// The addresses that host-network processes call from: loopback (known to `Peers`) and those we answer on.
fn host_addresses(config: &Config) -> impl Fn(IpAddr) -> bool + Send + Sync + 'static {
    let ours = config.listen.hosts.clone();
    move |address| ours.contains(&address)
}

/// How often a limit was reached: the listeners count their own.
fn reached(limit: Limit, limits: &Limits, peers: &Peers) -> u64 {
    let door = || peers.stats().snapshot();
    match limit {
        Limit::HeldRequestsPerPeer => door().holds_delayed,
        Limit::RequestRatePerPeer => door().requests_paced,
        Limit::ConnectionsPerPeer => door().connections_delayed_peer + door().connections_refused_peer,
        Limit::Connections => door().connections_delayed_full + door().connections_refused_full,
        Limit::VerifiedIdentities
        | Limit::UnverifiedIdentities
        | Limit::IdentitiesPerPeer
        | Limit::UpstreamCallsPerPeer => limits.count(limit),
    }
}

#[cfg(test)]
mod tests {
    use super::{ConditionName, Services};

    #[tokio::test]
    async fn a_credential_listener_that_panics_makes_the_agent_unready() {
        let services = Services::new();
        let bound = services.readiness.condition(ConditionName::ListenerIpv4);
        services.running.met();
        bound.met();
        assert!(services.readiness.is_ready());
        let listening =
            services.start_listener(ConditionName::ListenerIpv4, &bound, async { panic!("scripted") });
        assert!(listening.await.is_err());
        assert!(!services.readiness.is_ready());
    }
}
