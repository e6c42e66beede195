//! The command line: the flags of Amazon's agent with their names, short forms and defaults, and our own.
//!
//! Owns: how flags are spelt and explained. Must not know: whether a value is good. Values stay text here, so
//! that `config` can report every bad one at once; the parser would stop at the first.
//!
//! Amazon's agent parses with cobra and pflag. Three of clap's defaults are changed to match: the last value
//! of a flag given twice counts; a boolean flag takes a value only after an equals sign; positional arguments
//! are passed on to `config`, because the public chart passes `--rotate-credentials` and `true` as two
//! arguments.

mod asking;
pub(crate) mod unknown_flags;

use clap::{ArgAction, Args, Parser, Subcommand};

pub use asking::{AskedAgent, DoctorArgs, Output, ProbeArgs, Probed, STATE_DIR, StatusArgs, WaitArgs};
pub use unknown_flags::CommandLine;

/// Provides AWS credentials to the pods of a node.
#[derive(Debug, Parser)]
#[command(name = "pod-identity-agent", version, args_override_self = true, arg_required_else_help = true)]
#[command(
    about = "Provides AWS credentials to the pods of a Kubernetes node. A drop-in replacement for the EKS \
                   Pod Identity Agent"
)]
pub struct Cli {
    /// Log level of the server's own messages: panic, fatal, error, warn, info, debug or trace. Other
    /// commands print their result at any level
    #[arg(short, long, global = true, default_value = "info", value_name = "LEVEL")]
    pub verbosity: String,
    /// The subcommand.
    #[command(subcommand)]
    pub command: Subcommands,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Subcommands {
    /// Serve credentials to the pods of this node
    Server(Box<ServerArgs>),
    /// Set up the link, addresses and routes that credentials are served on, and exit (needs CAP_NET_ADMIN)
    Initialize(InitializeArgs),
    /// Remove what the agent has set up on this node: link, addresses, nftables table (needs CAP_NET_ADMIN)
    Cleanup(CleanupArgs),
    /// Show which pods have credentials, by which association or role and until when, what went wrong last,
    /// and how the agent is
    Status(StatusArgs),
    /// Check each thing that must be true on this node: a verdict for each, and what to do where it is not so
    Doctor(DoctorArgs),
    /// Wait until the agent of this container serves pods
    Wait(WaitArgs),
    /// Ask the agent of this container whether it is alive or ready, for an exec probe; exit code 1: it is
    /// not
    Probe(ProbeArgs),
    /// Probes the agent as a pod would. The server starts it; users do not.
    #[command(hide = true)]
    ProbeFromNamespace,
    /// Print the version
    Version,
}

/// Arguments of `initialize`.
#[derive(Debug, Args)]
pub struct InitializeArgs {
    /// Link that gets the addresses: dummy (creates pod-id-link0), lo, or auto. auto means dummy, but lo
    /// where Cilium runs or the kernel has no dummy links
    #[arg(long, default_value = "auto", value_name = "LINK")]
    pub link: String,

    /// Positional arguments, which Amazon's agent ignores here.
    #[arg(hide = true)]
    pub stray: Vec<String>,
}

/// Arguments of `cleanup`.
#[derive(Debug, Args)]
pub struct CleanupArgs {
    /// Keep running until SIGTERM after the removal, for use in a DaemonSet: its pods are running once every
    /// node is clean
    #[arg(long)]
    pub stay: bool,
}

/// Arguments of `server`. All are text; `config` parses them.
#[derive(Clone, Debug, Args)]
pub struct ServerArgs {
    /// Name of the EKS cluster that this node belongs to (required)
    #[arg(short, long, value_name = "NAME")]
    pub cluster_name: Option<String>,

    /// Port to serve credentials on
    #[arg(short, long, default_value = "80", value_name = "PORT", allow_hyphen_values = true)]
    pub port: String,

    /// IP address to serve credentials on, or localhost. Repeat the flag for more; brackets are optional
    #[arg(short, long, value_name = "ADDRESS", action = ArgAction::Append)]
    #[arg(default_values = DEFAULT_BIND_HOSTS)]
    pub bind_hosts: Vec<String>,

    /// Port of /healthz and /readyz on localhost
    #[arg(long, default_value = "2703", value_name = "PORT", allow_hyphen_values = true)]
    pub probe_port: String,

    /// IP address to serve metrics on, or localhost
    #[arg(long, default_value = "0.0.0.0", value_name = "ADDRESS")]
    pub metrics_address: String,

    /// Port to serve metrics on
    #[arg(long, default_value = "2705", value_name = "PORT", allow_hyphen_values = true)]
    pub metrics_port: String,

    /// Maximum age of cached credentials before they are renewed; 0 disables caching
    #[arg(long, default_value = "3h", value_name = "DURATION", allow_hyphen_values = true)]
    pub max_credential_retention_before_renewal: String,

    /// Maximum number of identities (pods) to cache credentials for; 0 disables caching
    #[arg(long, default_value = "2000", value_name = "NUMBER", allow_hyphen_values = true)]
    pub max_cache_size: String,

    /// Maximum background renewals per second; 0 means the default. Calls that a pod waits for are not
    /// limited by it
    #[arg(long, default_value = "3", value_name = "NUMBER", allow_hyphen_values = true)]
    pub max_service_qps: String,

    /// Sign with a credentials file and read it again when it changes, as on hybrid nodes
    #[arg(long, value_name = "BOOL", default_value = "false", default_missing_value = "true")]
    #[arg(num_args = 0..=1, require_equals = true)]
    pub rotate_credentials: String,

    /// URL of EKS Auth, instead of the region's endpoint [also: AWS_ENDPOINT_URL_EKS_AUTH, AWS_ENDPOINT_URL]
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,

    /// AWS region of the cluster [default: that of the EC2 instance] [also: AWS_REGION, AWS_DEFAULT_REGION]
    #[arg(long, value_name = "REGION", help_heading = OURS)]
    pub region: Option<String>,

    /// Source of the agent's own AWS credentials: auto, imds, file or environment. auto means file if
    /// --rotate-credentials or --own-credentials-file is given, else environment if AWS_ACCESS_KEY_ID (or
    /// AWS_ACCESS_KEY) is set, else file if AWS_SHARED_CREDENTIALS_FILE, AWS_CONFIG_FILE or AWS_PROFILE (or
    /// AWS_DEFAULT_PROFILE) is set, else imds. environment reads AWS_SECRET_ACCESS_KEY (or AWS_SECRET_KEY)
    /// and AWS_SESSION_TOKEN too
    #[arg(long, default_value = "auto", value_name = "SOURCE", help_heading = OURS)]
    pub own_credentials: String,

    /// Path of the credentials file [also: AWS_SHARED_CREDENTIALS_FILE, or AWS_CONFIG_FILE if set alone;
    /// default: $HOME/.aws/credentials]. The profile is the value of AWS_PROFILE (or AWS_DEFAULT_PROFILE), or
    /// default. One file is read, and of it only access keys: no SSO, credential_process or role_arn
    #[arg(long, value_name = "PATH", help_heading = OURS)]
    pub own_credentials_file: Option<String>,

    /// Name of this node in Kubernetes [also: NODE_NAME]
    #[arg(long, value_name = "NAME", help_heading = OURS)]
    pub node_name: Option<String>,

    /// Send the node's name, instance ID and zone ID to EKS Auth with each call
    #[arg(long, value_name = "BOOL", default_value = "false", default_missing_value = "true")]
    #[arg(num_args = 0..=1, require_equals = true, help_heading = OURS)]
    pub send_node_details: String,

    /// Whether the Kubernetes API is asked: auto asks it in a cluster where the agent has a token of its own,
    /// off never
    #[arg(long, default_value = "auto", value_name = "MODE", help_heading = OURS)]
    pub kubernetes: String,

    /// Folder with the agent's own service account token (token) and the cluster's certificates (ca.crt)
    #[arg(long, default_value = "/var/run/secrets/kubernetes.io/serviceaccount", value_name = "PATH")]
    #[arg(help_heading = OURS)]
    pub kubernetes_credentials: String,

    /// Watch the pods of this node at the Kubernetes API, where it is asked and --node-name is known: a
    /// deleted pod's credentials and token are worth nothing within seconds
    #[arg(long, value_name = "BOOL", default_value = "true", default_missing_value = "true")]
    #[arg(num_args = 0..=1, require_equals = true, help_heading = OURS)]
    pub watch_pods: String,

    /// How long a watch of the pods lasts until the API server ends it and another goes on where it was, 10s
    /// to 1h. Up to a fifth of it is taken off, so that the nodes of a cluster do not begin theirs together
    #[arg(long, default_value = "290s", value_name = "DURATION", allow_hyphen_values = true)]
    #[arg(help_heading = OURS)]
    pub watch_timeout: String,

    /// Write Kubernetes Events about pods that get no credentials for a reason that somebody can mend, such
    /// as a missing association. Needs --watch-pods
    #[arg(long, value_name = "BOOL", default_value = "false", default_missing_value = "true")]
    #[arg(num_args = 0..=1, require_equals = true, help_heading = OURS)]
    pub kubernetes_events: String,

    /// What to do with a token of a pod that the Kubernetes API does not know on this node: off, audit (count
    /// it), enforce (refuse it)
    #[arg(long, default_value = "audit", value_name = "MODE", help_heading = OURS)]
    pub check_pod_uid: String,

    /// What to do with a request from another address than its pod's: off, audit (count it), enforce (refuse
    /// it)
    #[arg(long, default_value = "audit", value_name = "MODE", help_heading = OURS)]
    pub check_pod_address: String,

    /// URL or file of the keys (JWKS) that verify the cluster's service account tokens. Repeat the flag for
    /// more. auto, the default: the keys and the issuer come from the API server, which is asked beside all
    /// others unless --kubernetes=off. A verified pod keeps its cached credentials when its token is rotated.
    /// Keys of a URL below an --issuer verify that issuer's tokens only, others those of every --issuer
    #[arg(long, value_name = "auto|URL|PATH", action = ArgAction::Append, help_heading = OURS)]
    pub jwks: Vec<String>,

    /// Issuer of the cluster's service account tokens, beside the one that the API server names (required
    /// with a URL or file of --jwks). Repeat the flag for more
    #[arg(long, value_name = "URL", action = ArgAction::Append, help_heading = OURS)]
    pub issuer: Vec<String>,

    /// How often the keys of the API server and of the URLs of --jwks are read again, 5s to 1h. A key that
    /// was withdrawn verifies for so long, a tenth more at most. They are also read when a token names an
    /// unknown key
    #[arg(long, default_value = "5m", value_name = "DURATION", allow_hyphen_values = true)]
    #[arg(help_heading = OURS)]
    pub jwks_refresh_interval: String,

    /// What to do with tokens that no configured key can verify: auto forwards them to EKS Auth, required
    /// answers 503, off skips local verification
    #[arg(long, default_value = "auto", value_name = "MODE", help_heading = OURS)]
    pub token_verification: String,

    /// Whether tokens that no key can verify are shown to the API server (TokenReview): auto, where it is
    /// asked; off. Needs the right to create tokenreviews, as the ClusterRole system:auth-delegator gives it;
    /// without it, and where the API server does not answer, --token-verification decides
    #[arg(long, default_value = "auto", value_name = "MODE", help_heading = OURS)]
    pub token_review: String,

    /// File with a token of the agent's own for pods.eks.amazonaws.com, read anew for each try: one trial
    /// call with it at EKS Auth before the agent is ready for the first time shows a wrong cluster name and a
    /// node role without permission. Pods are served meanwhile. Default: no such call
    #[arg(long, value_name = "PATH", help_heading = OURS)]
    pub trial_token_file: Option<String>,

    /// Exchange tokens for EKS Pod Identity at EKS Auth. false where there is no EKS: then the agent needs no
    /// AWS credentials of its own
    #[arg(long, value_name = "BOOL", default_value = "true", default_missing_value = "true")]
    #[arg(num_args = 0..=1, require_equals = true, help_heading = ROLES)]
    pub pod_identity: String,

    /// Give pods the role that the annotation eks.amazonaws.com/role-arn of their service account names, by
    /// STS, for tokens of --web-identity-audience. Needs the right to get serviceaccounts
    #[arg(long, value_name = "BOOL", default_value = "false", default_missing_value = "true")]
    #[arg(num_args = 0..=1, require_equals = true, help_heading = ROLES)]
    pub service_account_roles: String,

    /// File with roles of service accounts, as the ConfigMap of the EKS pod identity webhook has them:
    /// {"namespace/name": {"RoleARN": "arn:aws:iam::..."}}. An entry counts before an annotation. Read again
    /// when it changes
    #[arg(long, value_name = "PATH", help_heading = ROLES)]
    pub role_map: Option<String>,

    /// File with the roles that pods of a namespace may have by annotation or map: {"namespace": ["ARN"]},
    /// each with * for any text. What matches nothing is denied. Read again when it changes
    #[arg(long, value_name = "PATH", help_heading = ROLES)]
    pub role_limits: Option<String>,

    /// Audience of tokens that are exchanged at STS. Repeat the flag for more
    #[arg(long, value_name = "AUDIENCE", action = ArgAction::Append, help_heading = ROLES)]
    #[arg(default_value = "sts.amazonaws.com")]
    pub web_identity_audience: Vec<String>,

    /// Name of the sessions at STS: pod (namespace and pod), service-account (the same for all its pods, as
    /// Amazon MSK wants it), or fixed:NAME
    #[arg(long, default_value = "pod", value_name = "NAMES", help_heading = ROLES)]
    pub session_name: String,

    /// URL of STS, instead of the region's endpoint [also: AWS_ENDPOINT_URL_STS, AWS_ENDPOINT_URL]
    #[arg(long, value_name = "URL", help_heading = ROLES)]
    pub sts_endpoint: Option<String>,

    /// Stop serving cached credentials when AWS reports that the association no longer exists and first did
    /// so this long ago; it is asked again at that time. Default: after three such reports spanning five
    /// minutes; this flag can only shorten that. Not while AWS fails, or reports it of most associations
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, help_heading = OURS)]
    pub max_stale_after_refusal: Option<String>,

    /// Requests per second of one pod that are answered at once, with a burst of twice as many. What exceeds
    /// it is answered later, so that one pod in a busy loop does not slow the others. 0: no limit
    #[arg(long, default_value = "2000", value_name = "NUMBER", allow_hyphen_values = true)]
    #[arg(help_heading = OURS)]
    pub pod_request_rate: String,

    /// Maximum time to answer pending requests after SIGTERM, at most 5m. Keep it below the pod's
    /// terminationGracePeriodSeconds
    // 20 s leaves ten of Kubernetes' default of 30 s for what comes after.
    #[arg(long, default_value = "20s", value_name = "DURATION", allow_hyphen_values = true)]
    #[arg(help_heading = OURS)]
    pub shutdown_grace: String,

    /// After SIGTERM, serve pods on for this long, unless another agent of this node takes over before
    // A pod that replaces a deleted one starts within seconds; with --shutdown-grace below 30 s.
    #[arg(long, default_value = "8s", value_name = "DURATION", allow_hyphen_values = true)]
    #[arg(help_heading = OURS)]
    pub shutdown_delay: String,

    /// Directory of this pod alone, such as an emptyDir: what the agent remembers between restarts of its
    /// container, and the socket that probe, status, doctor and wait ask at. They look for it in
    /// /run/pod-identity-agent
    #[arg(long, value_name = "PATH", help_heading = OURS)]
    pub state_dir: Option<String>,

    /// Set up the link, addresses and routes and restore them when they change; no init container is needed
    /// then (needs CAP_NET_ADMIN)
    #[arg(long, value_name = "BOOL", default_value = "false", default_missing_value = "true")]
    #[arg(num_args = 0..=1, require_equals = true, help_heading = NODE)]
    pub manage_link: String,

    /// Link that --manage-link puts the addresses on: dummy (creates pod-id-link0), lo, or auto. auto means
    /// dummy, but lo where Cilium runs or the kernel has no dummy links
    #[arg(long, default_value = "auto", value_name = "LINK", help_heading = NODE)]
    pub link: String,

    /// Prevent others, such as pods with hostPort 80 or service controllers, from taking over port 80 of the
    /// agent's addresses (needs CAP_NET_ADMIN and nft)
    #[arg(long, value_name = "BOOL", default_value = "false", default_missing_value = "true")]
    #[arg(num_args = 0..=1, require_equals = true, help_heading = NODE)]
    pub guard_address: String,

    /// Port that --guard-address redirects port 80 of the agent's addresses to while another process has that
    /// port. While an older agent has this one too, it is the next port
    #[arg(long, default_value = "2707", value_name = "PORT", allow_hyphen_values = true, help_heading = NODE)]
    pub guard_port: String,

    /// With --guard-address: leave port 80 of the node free for others, such as an ingress on the host
    /// network
    #[arg(long, value_name = "BOOL", default_value = "false", default_missing_value = "true")]
    #[arg(num_args = 0..=1, require_equals = true, help_heading = NODE)]
    pub share_port: String,

    /// How long connections to the agent's addresses go to --guard-port after the agent has died; at
    /// least 6s
    #[arg(long, default_value = "2m", value_name = "DURATION", allow_hyphen_values = true)]
    #[arg(help_heading = NODE)]
    pub guard_port_timeout: String,

    /// How long the agent's addresses are kept from others after the agent has died; at least 6s
    #[arg(long, default_value = "24h", value_name = "DURATION", allow_hyphen_values = true)]
    #[arg(help_heading = NODE)]
    pub guard_timeout: String,

    /// How long --block-imds lasts after the agent has died, block or count; at least 6s, or 0: until cleanup
    #[arg(long, default_value = "30m", value_name = "DURATION", allow_hyphen_values = true)]
    #[arg(help_heading = NODE)]
    pub imds_block_timeout: String,

    /// What to do when pods that do not use host networking connect to the instance metadata service
    /// (169.254.169.254 and fd00:ec2::254): off, observe (count by pod who does), or on (count and block);
    /// true and false are on and off (needs CAP_NET_ADMIN and nft)
    #[arg(long, value_name = "MODE", default_value = "off", default_missing_value = "on")]
    #[arg(num_args = 0..=1, help_heading = NODE)]
    pub block_imds: String,

    /// Every 30 s, probe the agent from a temporary network namespace, over the path a pod would use (needs
    /// CAP_SYS_ADMIN and CAP_NET_ADMIN, used by a helper process)
    #[arg(long, value_name = "BOOL", default_value = "false", default_missing_value = "true")]
    #[arg(num_args = 0..=1, require_equals = true, help_heading = NODE)]
    pub probe_namespace: String,

    /// Format of the log: json or text
    #[arg(long, default_value = "json", value_name = "FORMAT", help_heading = OURS)]
    pub log_format: String,

    /// Log a line for each set of credentials that AWS issues: for which pod, from which address, by which
    /// association and role, with which access key ID. On the target audit, as JSON in both formats, at every
    /// --verbosity
    #[arg(long, value_name = "BOOL", default_value = "false", default_missing_value = "true")]
    #[arg(num_args = 0..=1, require_equals = true, help_heading = OURS)]
    pub audit_log: String,

    /// Positional arguments between the flags.
    #[arg(hide = true)]
    pub stray: Vec<String>,

    /// The value of the global `--verbosity`, copied here so that `config` sees every setting.
    #[arg(skip)]
    pub verbosity: String,

    /// What operators read about flags that are unknown here, [left out](CommandLine) of the command line.
    #[arg(skip)]
    pub unknown_flags: Vec<String>,
}

/// The two addresses that the AWS SDKs accept for container credentials (docs/design/facts.md#sdk-addresses).
const DEFAULT_BIND_HOSTS: [&str; 2] = ["169.254.170.23", "[fd00:ec2::23]"];
/// Heading of the flags that Amazon's agent does not have.
const OURS: &str = "Options that Amazon's agent does not have";
/// Heading of the flags about roles and where they come from.
const ROLES: &str = "Role options";
/// Heading of the flags about the node's network.
const NODE: &str = "Node network options";

#[cfg(test)]
impl ServerArgs {
    /// The arguments of `pod-identity-agent server …`.
    pub(crate) fn of(arguments: &[&str]) -> Self {
        let all = ["pod-identity-agent", "server"].iter().chain(arguments);
        let cli = Cli::try_parse_from(all).unwrap();
        match cli.command {
            Subcommands::Server(args) => Self { verbosity: cli.verbosity, ..*args },
            Subcommands::Initialize(_)
            | Subcommands::Cleanup(_)
            | Subcommands::Status(_)
            | Subcommands::Doctor(_)
            | Subcommands::Wait(_)
            | Subcommands::Probe(_)
            | Subcommands::ProbeFromNamespace
            | Subcommands::Version => {
                panic!("not the server")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::{Cli, ServerArgs};

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn values_are_given_as_pflag_takes_them() {
        for spelling in
            [&["-c", "a"] as &[_], &["-ca"], &["-c=a"], &["--cluster-name", "a"], &["--cluster-name=a"]]
        {
            assert_eq!(ServerArgs::of(spelling).cluster_name.as_deref(), Some("a"), "{spelling:?}");
        }
        assert_eq!(ServerArgs::of(&["--max-cache-size", "-1"]).max_cache_size, "-1");
        assert_eq!(ServerArgs::of(&["--endpoint="]).endpoint.as_deref(), Some(""));
    }

    #[test]
    fn the_last_value_of_a_flag_counts_and_hosts_add_up() {
        assert_eq!(ServerArgs::of(&["-p", "1", "--port=2"]).port, "2");
        assert_eq!(
            ServerArgs::of(&["-b", "::1", "--bind-hosts", "127.0.0.1"]).bind_hosts,
            ["::1", "127.0.0.1"]
        );
        assert_eq!(ServerArgs::of(&[]).bind_hosts, super::DEFAULT_BIND_HOSTS);
    }

    #[test]
    fn a_boolean_flag_takes_its_value_only_after_an_equals_sign() {
        let args = ServerArgs::of(&["--rotate-credentials", "true", "-c", "a"]);
        assert_eq!(
            (args.rotate_credentials.as_str(), args.stray.as_slice()),
            ("true", &["true".to_owned()][..])
        );
        assert_eq!(args.cluster_name.as_deref(), Some("a"));
        assert_eq!(ServerArgs::of(&["--rotate-credentials=false"]).rotate_credentials, "false");
        assert_eq!(ServerArgs::of(&[]).rotate_credentials, "false");
    }

    #[test]
    fn the_level_may_come_before_and_after_the_subcommand() {
        let level = |arguments: &[&str]| Cli::try_parse_from(arguments).unwrap().verbosity;
        assert_eq!(level(&["agent", "-v", "trace", "server"]), "trace");
        assert_eq!(level(&["agent", "server", "-vtrace"]), "trace");
        assert_eq!(level(&["agent", "initialize", "--verbosity=error"]), "error");
        assert_eq!(level(&["agent", "version"]), "info");
    }

    #[test]
    fn a_misspelt_flag_is_refused_with_the_nearest_one() {
        let error = Cli::try_parse_from(["agent", "server", "--cluster-nam", "a"]).unwrap_err();
        assert!(error.to_string().contains("--cluster-name"), "{error}");
    }
}
