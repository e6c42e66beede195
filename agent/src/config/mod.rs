//! The configuration: flags and environment, checked as a whole before anything starts.
//!
//! Owns: every rule about settings, and that all problems are reported at once. Must not know: sockets, AWS
//! clients, or anything that happens after the start. Invariants: a setting with a default is never an
//! `Option` here, and neither `Debug` nor a problem shows a secret.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

mod addresses;
mod boolean;
pub(crate) mod duration;
mod environment;
mod imds_block;
mod kubernetes;
mod log;
mod metadata_service;
mod names;
pub(crate) mod no_proxy;
mod node_network;
mod notices;
mod own_credentials;
mod pods;
mod problem;
mod region;
mod shutdown;
mod summary;
mod unused_variables;
mod upstream;
pub(crate) mod url;
mod verification;
mod web_identity;

pub use environment::Environment;
pub(crate) use environment::variables_printing_secrets;
pub use imds_block::ImdsBlock;
pub use kubernetes::{ApiServer, Kubernetes};
pub use log::{Format, Level, Log};
pub use metadata_service::MetadataService;
pub use no_proxy::NoProxy;
pub use node_network::{Guard, Lasting, LinkPlace, NodeNetwork};
pub use pods::{CheckMode, PodChecks};
pub use problem::{ConfigError, Problem};
pub use region::RegionSource;
pub(crate) use region::is_region;
pub use shutdown::ShutdownTimes;
pub use unused_variables::UnusedVariable;
pub use url::is_local_host;
pub use verification::{KeyLocation, TokenVerification, VerificationMode};
pub use web_identity::{SessionName, Sts, WebIdentity};

use boolean::go_bool;
use problem::Problems;
use unused_variables::unused;

use crate::cli::ServerArgs;
use crate::secret::Secret;

/// At most once in 5 s, as files are checked: hundreds of nodes ask the same API server. An hour is what EKS
/// leaves between publishing a key and signing with it (docs/design/facts.md#issuer-and-keys).
const REFRESH_INTERVALS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60 * 60));
/// The default of `--max-service-qps`, and what 0 means.
const DEFAULT_SERVICE_QPS: u32 = 3;

/// Everything the server needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The EKS cluster that has the pod identity associations.
    pub cluster_name: String,
    /// The AWS region of the cluster and of EKS Auth.
    pub region: RegionSource,
    /// Where credentials are served.
    pub listen: Listen,
    /// The port of the probes on loopback. 0: the kernel chooses.
    pub probe_port: u16,
    /// Where metrics are served.
    pub metrics: SocketAddr,
    /// Whether and how long credentials are cached.
    pub retention: Retention,
    /// The longest time to serve a set after AWS first reported that its association no longer exists. It can
    /// only shorten the time of docs/design/decisions.md#freshness.
    pub max_stale_after_refusal: Option<Duration>,
    /// Maximum background renewals per second, at least 1. Calls that a pod waits for are not limited by it.
    pub max_service_qps: u32,
    /// Requests per second of one pod that are answered at once, with a burst of two seconds' worth; `None`:
    /// all are.
    pub pod_request_rate: Option<u32>,
    /// The connection to EKS Auth.
    pub upstream: Upstream,
    /// Whether tokens for EKS Pod Identity are exchanged at EKS Auth. If not, the agent has nothing to sign.
    pub pod_identity: bool,
    /// The file with the token of the trial call; `None`: there is no such call.
    pub trial_token_file: Option<PathBuf>,
    /// How pods get roles that the cluster gives them; `None`: it gives none.
    pub web_identity: Option<WebIdentity>,
    /// The source of the credentials that the agent signs with.
    pub own_credentials: OwnCredentials,
    /// Variables of credentials that are set and that the agent does not use.
    pub unused_own_credentials: Vec<UnusedVariable>,
    /// The node the agent runs on.
    pub node: NodeDetails,
    /// The changes to the node's network.
    pub node_network: NodeNetwork,
    /// How tokens are verified.
    pub verification: TokenVerification,
    /// The time after which keys that come over the network are read again.
    pub jwks_refresh_interval: Duration,
    /// What the agent has to do with the API server.
    pub kubernetes: Kubernetes,
    /// How long the end of the agent may take.
    pub shutdown: ShutdownTimes,
    /// A directory of this pod alone, which outlives its container.
    pub state_dir: Option<PathBuf>,
    /// The log.
    pub log: Log,
}

/// Where credentials are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Each address once; never a wildcard, never empty.
    pub hosts: Vec<IpAddr>,
    /// The same port on every host. 0: the kernel chooses.
    pub port: u16,
}

/// Whether credentials are cached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retention {
    /// Each request calls AWS, or joins the flight of its identity.
    Off,
    /// Cached and renewed.
    Keep {
        /// The age at which a set is renewed at the latest; more than zero.
        renew_after: Duration,
        /// Maximum number of identities in the cache.
        max_identities: NonZeroUsize,
    },
}

/// The connection to EKS Auth.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// An http(s) URL that replaces the region's endpoint; http only on this node.
    pub endpoint: Option<String>,
    /// Whether the region's FIPS endpoint is used; never together with `endpoint`.
    pub use_fips: bool,
    /// A PEM file that replaces the system's root certificates; it was readable and valid at start.
    pub ca_bundle: Option<PathBuf>,
    /// The proxies, if any.
    pub proxy: Option<Proxy>,
}

/// Proxies; at least one of `http` and `https`. Their URLs may contain a password.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// For http endpoints.
    pub http: Option<Secret>,
    /// For https endpoints.
    pub https: Option<Secret>,
    /// Hosts that are reached without a proxy.
    pub no_proxy: NoProxy,
}

/// The source of the agent's own AWS credentials.
#[derive(Clone, Debug)]
pub enum OwnCredentials {
    /// The node's instance role.
    Imds(MetadataService),
    /// A shared credentials or config file, read again whenever it changes.
    File {
        /// The path. The file may be created later.
        path: PathBuf,
        /// How its profiles are spelled.
        kind: ProfileFile,
        /// The profile in it.
        profile: String,
    },
    /// Environment variables.
    Environment {
        /// `AWS_ACCESS_KEY_ID`, or its alias.
        access_key_id: String,
        /// `AWS_SECRET_ACCESS_KEY`, or its alias.
        secret_access_key: Secret,
        /// `AWS_SESSION_TOKEN`.
        session_token: Option<Secret>,
    },
}

/// The two kinds of files that AWS tools share; they spell profiles differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProfileFile {
    /// `~/.aws/credentials`: a profile is `[name]`.
    Credentials,
    /// `~/.aws/config`: a profile is `[profile name]`.
    Config,
}

/// The node the agent runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeDetails {
    /// Its name in Kubernetes, if known.
    pub name: Option<String>,
    /// Whether the node's name, instance ID and zone ID are sent to EKS Auth.
    pub send: bool,
}

impl Config {
    /// Reads and checks flags and environment together.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem found.
    pub fn from_args(args: &ServerArgs, environment: &Environment) -> Result<Self, ConfigError> {
        let mut problems = Problems::default();
        for problem in args.stray.iter().filter(|text| !is_stray_boolean(text)) {
            problems.note(Problem::with_value(
                "arguments",
                "must be flags; no other arguments are expected",
                problem,
            ));
        }
        for problem in &environment.unreadable {
            problems.note(problem.clone());
        }
        let config = Self::read(args, environment, &mut problems);
        problems.finish(config)
    }

    /// Whether Events about pods are written: it takes the pods of this node to know about whom.
    pub fn writes_events(&self) -> bool {
        let Kubernetes { api_server, watch_pods, events, .. } = &self.kubernetes;
        *events && api_server.is_some() && self.node.name.is_some() && watch_pods.is_some()
    }

    fn read(args: &ServerArgs, environment: &Environment, problems: &mut Problems) -> Option<Self> {
        let cluster_name = problems.take(names::cluster(args.cluster_name.as_deref()));
        let region = region::read(args.region.as_deref(), environment, problems);
        let port = problems.take(addresses::port("--port", &args.port));
        let hosts = addresses::bind_hosts(&args.bind_hosts, problems);
        let probe_port = problems.take(addresses::port("--probe-port", &args.probe_port));
        let metrics_host = problems.take(addresses::metrics_host(&args.metrics_address));
        let metrics_port = problems.take(addresses::port("--metrics-port", &args.metrics_port));
        let listen = hosts.zip(port).map(|(hosts, port)| Listen { hosts, port });
        let metrics = metrics_host.zip(metrics_port).map(|(host, port)| SocketAddr::new(host, port));
        if let (Some(listen), Some(probe_port), Some(metrics)) = (&listen, probe_port, metrics) {
            addresses::note_clashes(listen, probe_port, metrics, problems);
        }
        let retention = read_retention(args, problems);
        let max_stale_after_refusal = problems.take(max_stale(args.max_stale_after_refusal.as_deref()));
        let max_service_qps = problems.take(service_qps(&args.max_service_qps));
        let pod_request_rate = problems.take(pod_request_rate(&args.pod_request_rate));
        let upstream = upstream::read(args.endpoint.as_deref(), environment, problems);
        let rotate = problems.take(go_bool("--rotate-credentials", &args.rotate_credentials));
        let flags = own_credentials::Flags {
            source: &args.own_credentials,
            file: args.own_credentials_file.as_deref(),
            // An invalid flag is a problem already, so the source chosen here does not matter.
            rotate: rotate.unwrap_or(false),
        };
        let node = read_node(args, environment, problems);
        let node_network = node_network::read(args, listen.as_ref(), [probe_port, metrics_port], problems);
        let api_server = kubernetes::api_server(args, environment, problems);
        let verification = verification::read(args, api_server.as_ref().and_then(Option::as_ref), problems);
        let kubernetes = kubernetes::read(args, api_server, problems);
        let (verified, cluster) = (verification.as_ref(), kubernetes.as_ref());
        let sources = web_identity::sources(args, environment, verified, cluster, problems);
        let are_needed = sources.as_ref().is_none_or(|(pod_identity, _)| *pod_identity);
        let own_credentials = own_credentials::read_if(are_needed, flags, environment, problems);
        let jwks_refresh_interval = problems.take(refresh_interval(&args.jwks_refresh_interval));
        let (shutdown, log) = (shutdown::read(args, problems), log::read(args, problems));
        let ((pod_identity, web_identity), own) = (sources?, own_credentials?);
        Some(Self {
            cluster_name: cluster_name?,
            region: region?,
            listen: listen?,
            probe_port: probe_port?,
            metrics: metrics?,
            retention: retention?,
            max_stale_after_refusal: max_stale_after_refusal?,
            max_service_qps: max_service_qps?,
            pod_request_rate: pod_request_rate?,
            upstream: upstream?,
            pod_identity,
            trial_token_file: trial_token_file(args, pod_identity),
            web_identity,
            unused_own_credentials: unused(&own, flags.names_a_file(), environment),
            own_credentials: own,
            node: node?,
            node_network: node_network?,
            verification: verification?,
            jwks_refresh_interval: jwks_refresh_interval?,
            kubernetes: kubernetes?,
            shutdown: shutdown?,
            state_dir: args.state_dir.as_ref().map(PathBuf::from),
            log: log?,
        })
    }
}

fn read_node(args: &ServerArgs, environment: &Environment, problems: &mut Problems) -> Option<NodeDetails> {
    let name = problems.take(names::node(args.node_name.as_deref(), environment));
    let send = problems.take(go_bool("--send-node-details", &args.send_node_details));
    Some(NodeDetails { name: name?, send: send? })
}

/// An empty path switches it off, as does the lack of anybody to ask.
fn trial_token_file(args: &ServerArgs, pod_identity: bool) -> Option<PathBuf> {
    let path = args.trial_token_file.as_deref().filter(|path| pod_identity && !path.is_empty());
    path.map(PathBuf::from)
}

/// The second half of `--rotate-credentials true`, as the chart of Amazon's agent writes it.
fn is_stray_boolean(text: &str) -> bool {
    text == "true" || text == "false"
}

fn read_retention(args: &ServerArgs, problems: &mut Problems) -> Option<Retention> {
    let renew_after = problems.take(duration_of(
        "--max-credential-retention-before-renewal",
        &args.max_credential_retention_before_renewal,
    ));
    let size = args.max_cache_size.parse::<usize>().map_err(|_| {
        let rule = "must be a number of identities; 0 disables caching";
        Problem::with_value("--max-cache-size", rule, &args.max_cache_size)
    });
    let (renew_after, size) = (renew_after, problems.take(size));
    let (renew_after, size) = (renew_after?, size?);
    Some(match NonZeroUsize::new(size) {
        Some(max_identities) if !renew_after.is_zero() => Retention::Keep { renew_after, max_identities },
        Some(_) | None => Retention::Off,
    })
}

fn max_stale(text: Option<&str>) -> Result<Option<Duration>, Problem> {
    text.map(|text| duration_of("--max-stale-after-refusal", text)).transpose()
}

/// As in Amazon's agent, which takes its default for whatever is not more than zero.
fn service_qps(text: &str) -> Result<u32, Problem> {
    let number = text.parse::<i64>().ok().and_then(|number| u32::try_from(number.max(0)).ok());
    match number {
        Some(0) => Ok(DEFAULT_SERVICE_QPS),
        Some(qps) => Ok(qps),
        None => {
            let rule = format!("must be a whole number; 0 means {DEFAULT_SERVICE_QPS}");
            Err(Problem::with_value("--max-service-qps", rule, text))
        }
    }
}

/// `None` for 0.
fn pod_request_rate(text: &str) -> Result<Option<u32>, Problem> {
    match text.parse::<u32>() {
        Ok(rate) => Ok((rate > 0).then_some(rate)),
        Err(_) => {
            let rule = "must be a number; 0 means no limit";
            Err(Problem::with_value("--pod-request-rate", rule, text))
        }
    }
}

fn refresh_interval(text: &str) -> Result<Duration, Problem> {
    duration_within("--jwks-refresh-interval", text, REFRESH_INTERVALS)
}

/// A duration, of this flag.
pub(crate) fn duration_of(setting: &str, text: &str) -> Result<Duration, Problem> {
    duration::parse(text).map_err(|error| {
        Problem::with_value(setting, format!("must be a duration such as 1h30m: {error}"), text)
    })
}

fn duration_within(
    setting: &'static str,
    text: &str,
    (least, most): (Duration, Duration),
) -> Result<Duration, Problem> {
    let duration = duration_of(setting, text)?;
    if (least..=most).contains(&duration) {
        Ok(duration)
    } else {
        Err(Problem::with_value(setting, format!("must be between {least:?} and {most:?}"), text))
    }
}

#[cfg(test)]
mod tests;
