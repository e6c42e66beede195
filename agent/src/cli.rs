//! The command line: names, short forms and defaults of the Amazon agent, and ours beside them.
//!
//! Owns: how flags are spelt and explained. Must not know: whether a value is good. Values stay text here, so that
//! `config` can report every bad one at once; the parser would stop at the first.
//!
//! The Amazon agent parses with cobra and pflag. What differs from clap's habits is set here on purpose: a flag given
//! twice counts once, the last time; a switch takes a value only behind an equals sign; loose words are let through
//! to `config`, because the public chart passes `--rotate-credentials` and `true` as two arguments.

use clap::{ArgAction, Args, Parser, Subcommand};

/// Gives the pods of a node their AWS credentials.
#[derive(Debug, Parser)]
#[command(name = "pod-identity-agent", version, args_override_self = true, arg_required_else_help = true)]
#[command(
    about = "Gives the pods of a Kubernetes node their AWS credentials; a drop-in for the EKS Pod Identity Agent"
)]
pub struct Cli {
    /// What is logged of the agent itself: panic, fatal, error, warn, info, debug or trace
    #[arg(short, long, global = true, default_value = "info", value_name = "LEVEL")]
    pub verbosity: String,
    /// What to do.
    #[command(subcommand)]
    pub command: Subcommands,
}

/// What the agent can be told to do.
#[derive(Debug, Subcommand)]
pub enum Subcommands {
    /// Serve credentials to the pods of this node
    Server(Box<ServerArgs>),
    /// Give the node the link, addresses and routes that credentials are served on, and exit
    Initialize(InitializeArgs),
    /// Remove from the node what the agent has put there: link, addresses, nftables table
    Cleanup(CleanupArgs),
    /// Asks the agent as a pod would; started by the server, for itself.
    #[command(hide = true)]
    ProbeFromNamespace,
    /// Print the version
    Version,
}

/// Arguments of `initialize`.
#[derive(Debug, Args)]
pub struct InitializeArgs {
    /// Where the addresses live: dummy (a link of their own, pod-id-link0), lo, or auto: pod-id-link0, but lo where Cilium
    /// runs or the kernel has no dummy links
    #[arg(long, default_value = "auto", value_name = "LINK")]
    pub link: String,

    /// Loose words, which the Amazon agent ignores here.
    #[arg(hide = true)]
    pub stray: Vec<String>,
}

/// Arguments of `cleanup`.
#[derive(Debug, Args)]
pub struct CleanupArgs {
    /// Then stay until SIGTERM, as a DaemonSet wants it; its pods are running when every node is done
    #[arg(long)]
    pub stay: bool,
}

/// Arguments of `server`. All are text; `config` reads them.
#[derive(Clone, Debug, Args)]
pub struct ServerArgs {
    /// Name of the EKS cluster the agent runs in (required)
    #[arg(short, long, value_name = "NAME")]
    pub cluster_name: Option<String>,

    /// Port credentials are served on
    #[arg(short, long, default_value = "80", value_name = "PORT", allow_hyphen_values = true)]
    pub port: String,

    /// Address credentials are served on; repeat the flag for more, brackets are optional
    #[arg(short, long, value_name = "ADDRESS", action = ArgAction::Append, default_values = DEFAULT_BIND_HOSTS)]
    pub bind_hosts: Vec<String>,

    /// Port of /healthz and /readyz on localhost
    #[arg(long, default_value = "2703", value_name = "PORT", allow_hyphen_values = true)]
    pub probe_port: String,

    /// Address metrics are served on
    #[arg(long, default_value = "0.0.0.0", value_name = "ADDRESS")]
    pub metrics_address: String,

    /// Port metrics are served on
    #[arg(long, default_value = "2705", value_name = "PORT", allow_hyphen_values = true)]
    pub metrics_port: String,

    /// Age at which kept credentials are renewed at the latest; 0 keeps none
    #[arg(long, default_value = "3h", value_name = "DURATION", allow_hyphen_values = true)]
    pub max_credential_retention_before_renewal: String,

    /// Number of identities whose credentials are kept; 0 keeps none
    #[arg(long, default_value = "2000", value_name = "NUMBER", allow_hyphen_values = true)]
    pub max_cache_size: String,

    /// Background renewals per second; calls that a pod waits for are not capped by it
    #[arg(long, default_value = "3", value_name = "NUMBER", allow_hyphen_values = true)]
    pub max_service_qps: String,

    /// Sign with a credentials file that changes, as on hybrid nodes
    #[arg(long, value_name = "BOOL", default_value = "false", default_missing_value = "true")]
    #[arg(num_args = 0..=1, require_equals = true)]
    pub rotate_credentials: String,

    /// URL of EKS Auth in place of the region's [also: AWS_ENDPOINT_URL_EKS_AUTH, AWS_ENDPOINT_URL]
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,

    /// AWS region [also: AWS_REGION, AWS_DEFAULT_REGION]
    #[arg(long, value_name = "REGION", help_heading = OURS)]
    pub region: Option<String>,

    /// Where the agent's own AWS credentials come from: auto, imds, file or environment. auto is file with
    /// --rotate-credentials or --own-credentials-file, else environment if AWS_ACCESS_KEY_ID is set, else imds
    #[arg(long, default_value = "auto", value_name = "SOURCE", help_heading = OURS)]
    pub own_credentials: String,

    /// The credentials file [also: AWS_SHARED_CREDENTIALS_FILE; else .aws/credentials in HOME]. The profile is
    /// AWS_PROFILE, else default
    #[arg(long, value_name = "PATH", help_heading = OURS)]
    pub own_credentials_file: Option<String>,

    /// Name of this node in Kubernetes [also: NODE_NAME]
    #[arg(long, value_name = "NAME", help_heading = OURS)]
    pub node_name: Option<String>,

    /// Tell EKS Auth the node's name, instance and zone with each call
    #[arg(long, value_name = "BOOL", default_value = "false", default_missing_value = "true", help_heading = OURS)]
    #[arg(num_args = 0..=1, require_equals = true)]
    pub send_node_details: String,

    /// Keys of the cluster's service account tokens, a URL or a file; repeat the flag for more. Verified pods keep their
    /// credentials over token rotations
    #[arg(long, value_name = "URL|PATH", action = ArgAction::Append, help_heading = OURS)]
    pub jwks: Vec<String>,

    /// Issuer of the cluster's service account tokens (required with --jwks); repeat the flag for more
    #[arg(long, value_name = "URL", action = ArgAction::Append, help_heading = OURS)]
    pub issuer: Vec<String>,

    /// What becomes of tokens that no key can decide: auto lets EKS Auth judge, required does not serve them, off lets EKS
    /// Auth judge all
    #[arg(long, default_value = "auto", value_name = "MODE", help_heading = OURS)]
    pub token_verification: String,

    /// How long credentials are served on after AWS first said that their association is gone. Without it: until AWS has
    /// said so three times over five minutes; with it, no longer than that
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true, help_heading = OURS)]
    pub max_stale_after_refusal: Option<String>,

    /// How long a stop may take while requests are still answered; below the pod's termination grace, at most 5m
    // 20 s leaves ten of Kubernetes' 30 s (terminationGracePeriodSeconds) for what comes after.
    #[arg(long, default_value = "20s", value_name = "DURATION", allow_hyphen_values = true, help_heading = OURS)]
    pub shutdown_grace: String,

    /// Keep link, addresses and routes in place, whatever happens to them; no init container is needed then (needs
    /// CAP_NET_ADMIN)
    #[arg(long, value_name = "BOOL", default_value = "false", default_missing_value = "true", help_heading = NODE)]
    #[arg(num_args = 0..=1, require_equals = true)]
    pub manage_link: String,

    /// Where --manage-link keeps the addresses: dummy (a link of their own, pod-id-link0), lo, or auto: pod-id-link0, but lo
    /// where Cilium runs or the kernel has no dummy links
    #[arg(long, default_value = "auto", value_name = "LINK", help_heading = NODE)]
    pub link: String,

    /// Keep others from taking over port 80 of our addresses: pods with hostPort 80, service controllers (needs
    /// CAP_NET_ADMIN and nft)
    #[arg(long, value_name = "BOOL", default_value = "false", default_missing_value = "true", help_heading = NODE)]
    #[arg(num_args = 0..=1, require_equals = true)]
    pub guard_address: String,

    /// Port of our addresses that --guard-address leads port 80 to
    #[arg(long, default_value = "2707", value_name = "PORT", allow_hyphen_values = true, help_heading = NODE)]
    pub guard_port: String,

    /// With --guard-address: leave port 80 of the node to others, such as an ingress on the host network
    #[arg(long, value_name = "BOOL", default_value = "false", default_missing_value = "true", help_heading = NODE)]
    #[arg(num_args = 0..=1, require_equals = true)]
    pub share_port: String,

    /// Keep pods off the host network from reaching the instance's metadata and credentials at 169.254.169.254 and
    /// fd00:ec2::254 (needs CAP_NET_ADMIN and nft)
    #[arg(long, value_name = "BOOL", default_value = "false", default_missing_value = "true", help_heading = NODE)]
    #[arg(num_args = 0..=1, require_equals = true)]
    pub block_imds: String,

    /// Try the way of the pods from a network namespace made for it, twice a minute (needs CAP_SYS_ADMIN, in a process of
    /// its own)
    #[arg(long, value_name = "BOOL", default_value = "false", default_missing_value = "true", help_heading = NODE)]
    #[arg(num_args = 0..=1, require_equals = true)]
    pub probe_namespace: String,

    /// Form of a log line: json or text
    #[arg(long, default_value = "json", value_name = "FORMAT", help_heading = OURS)]
    pub log_format: String,

    /// Loose words between the flags.
    #[arg(hide = true)]
    pub stray: Vec<String>,

    /// The level of the whole command line, put here so that `config` sees every setting.
    #[arg(skip)]
    pub verbosity: String,
}

/// The two addresses that the AWS SDKs let credentials be fetched from (facts 1.4).
const DEFAULT_BIND_HOSTS: [&str; 2] = ["169.254.170.23", "[fd00:ec2::23]"];
/// Heads the flags that the Amazon agent does not have.
const OURS: &str = "Options beyond the EKS Pod Identity Agent's";
/// Heads those about the node's network.
const NODE: &str = "The node's network";

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
    fn a_flag_given_twice_counts_the_last_time_and_hosts_add_up() {
        assert_eq!(ServerArgs::of(&["-p", "1", "--port=2"]).port, "2");
        assert_eq!(
            ServerArgs::of(&["-b", "::1", "--bind-hosts", "127.0.0.1"]).bind_hosts,
            ["::1", "127.0.0.1"]
        );
        assert_eq!(ServerArgs::of(&[]).bind_hosts, super::DEFAULT_BIND_HOSTS);
    }

    #[test]
    fn a_switch_takes_its_value_only_behind_an_equals_sign() {
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
    fn the_level_may_stand_before_and_behind_the_subcommand() {
        let level = |arguments: &[&str]| Cli::try_parse_from(arguments).unwrap().verbosity;
        assert_eq!(level(&["agent", "-v", "trace", "server"]), "trace");
        assert_eq!(level(&["agent", "server", "-vtrace"]), "trace");
        assert_eq!(level(&["agent", "initialize", "--verbosity=error"]), "error");
        assert_eq!(level(&["agent", "version"]), "info");
    }

    #[test]
    fn an_unknown_flag_is_refused_with_the_nearest_one() {
        let error = Cli::try_parse_from(["agent", "server", "--cluster-nam", "a"]).unwrap_err();
        assert!(error.to_string().contains("--cluster-name"), "{error}");
    }
}
