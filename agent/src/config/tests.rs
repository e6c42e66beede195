//! Complete configurations: from a command line and an environment to a `Config` or its problems.

use std::time::Duration;

use super::{Config, Environment, Format, Level, MetadataService, OwnCredentials, RegionSource, Retention};
use crate::cli::ServerArgs;

const REGION: (&str, &str) = ("AWS_REGION", "us-west-2");

fn read(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    Config::from_args(&ServerArgs::of(arguments), &Environment::of(variables))
        .map_err(|error| error.problems().iter().map(ToString::to_string).collect())
}

fn good(arguments: &[&str]) -> Config {
    let arguments: Vec<_> = ["-c", "prod"].into_iter().chain(arguments.iter().copied()).collect();
    read(&arguments, &[REGION]).unwrap()
}

fn problems(arguments: &[&str]) -> Vec<String> {
    let arguments: Vec<_> = ["-c", "prod"].into_iter().chain(arguments.iter().copied()).collect();
    read(&arguments, &[REGION]).unwrap_err()
}

#[test]
fn the_defaults_are_those_of_the_amazon_agent() {
    let config = good(&[]);
    assert_eq!(config.cluster_name, "prod");
    assert_eq!(config.region, RegionSource::Given("us-west-2".to_owned()));
    let hosts: Vec<_> = config.listen.hosts.iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["169.254.170.23", "fd00:ec2::23"]);
    assert_eq!((config.listen.port, config.probe_port), (80, 2703));
    assert_eq!(config.metrics, "0.0.0.0:2705".parse().unwrap());
    let three_hours = Duration::from_secs(3 * 3600);
    assert_eq!(
        config.retention,
        Retention::Keep { renew_after: three_hours, max_identities: 2000.try_into().unwrap() }
    );
    assert_eq!(config.max_service_qps, 3);
    assert_eq!(config.pod_request_rate, Some(2_000));
    assert!(
        config.upstream.endpoint.is_none() && !config.upstream.use_fips && config.upstream.proxy.is_none()
    );
    assert!(matches!(
        config.own_credentials,
        OwnCredentials::Imds(MetadataService { endpoint: None, ipv6: false })
    ));
    assert!(config.node.name.is_none() && !config.node.send);
    assert_eq!(config.shutdown.grace, Duration::from_secs(20));
    assert_eq!((config.log.level, config.log.format), (Level::Info, Format::Json));
    assert!(!config.log.audit);
}

#[test]
fn the_arguments_of_amazons_chart_are_accepted() {
    // The order of the chart's DaemonSet template, with the arguments of its hybrid variant.
    let chart = ["--port", "80", "--cluster-name", "prod", "--probe-port", "2703", "--metrics-port", "2705"];
    let chart: Vec<_> = chart.into_iter().chain(["--rotate-credentials", "true", "-v", "trace"]).collect();
    let config =
        read(&chart, &[REGION, ("AWS_SHARED_CREDENTIALS_FILE", "/eks-hybrid/.aws/credentials")]).unwrap();
    assert!(matches!(config.own_credentials, OwnCredentials::File { .. }));
    assert_eq!(config.log.level, Level::Trace);
}

#[test]
fn the_rotation_flag_is_parsed_as_pflag_parses_it() {
    let rotates = |argument: &str| {
        let arguments = ["-c", "prod", argument];
        matches!(
            read(&arguments, &[REGION, ("HOME", "/h")]).unwrap().own_credentials,
            OwnCredentials::File { .. }
        )
    };
    assert!(
        rotates("--rotate-credentials")
            && rotates("--rotate-credentials=true")
            && rotates("--rotate-credentials=1")
    );
    assert!(!rotates("--rotate-credentials=false"));
    // pflag does not read the next argument as its value, so the second argument changes nothing.
    let bare = read(&["-c", "prod", "--rotate-credentials", "false"], &[REGION, ("HOME", "/h")]).unwrap();
    assert!(matches!(bare.own_credentials, OwnCredentials::File { .. }));
    assert_eq!(problems(&["--rotate-credentials=maybe"]).len(), 1);
}

#[test]
fn a_rate_of_zero_or_less_is_amazons_default() {
    for (text, rate) in [("0", 3), ("-1", 3), ("1", 1), ("4294967295", u32::MAX)] {
        assert_eq!(good(&["--max-service-qps", text]).max_service_qps, rate, "{text}");
    }
    assert_eq!(
        good(&["--max-service-qps=0", "--metrics-address", "localhost"]).metrics.to_string(),
        "127.0.0.1:2705"
    );
}

#[test]
fn zero_for_either_disables_caching() {
    for off in [["--max-cache-size", "0"], ["--max-credential-retention-before-renewal", "0"]] {
        assert_eq!(good(&off).retention, Retention::Off, "{off:?}");
    }
    assert_eq!(good(&["--max-credential-retention-before-renewal=0s"]).retention, Retention::Off);
}

#[test]
fn every_problem_is_reported_at_once() {
    let arguments = [
        ["-c", "EKS_CLUSTER_NAME"],
        ["-p", "99999"],
        ["-b", "everywhere"],
        ["--probe-port", "x"],
        ["--metrics-address", "everywhere"],
        ["--metrics-port", "-1"],
        ["--max-credential-retention-before-renewal", "-1h"],
        ["--max-cache-size", "many"],
        ["--max-service-qps", "many"],
        ["--pod-request-rate", "fast"],
        ["--endpoint", "eks"],
        ["--own-credentials", "container"],
        ["--node-name", "A"],
        ["--jwks", "http://far.example/keys"],
        ["--issuer", ""],
        ["--token-verification", "maybe"],
        ["--shutdown-grace", "6m"],
        ["-v", "loud"],
        ["--log-format", "xml"],
        ["--region", "moon"],
        ["stray", "--send-node-details=x"],
    ];
    let found =
        read(arguments.as_flattened(), &[("AWS_CA_BUNDLE", "/does/not/exist"), ("HTTP_PROXY", "a b")])
            .unwrap_err();
    let settings = "arguments --cluster-name --region --port --bind-hosts --probe-port --metrics-address \
        --metrics-port --max-credential-retention-before-renewal --max-cache-size --max-service-qps \
        --pod-request-rate --endpoint AWS_CA_BUNDLE HTTP_PROXY --node-name --send-node-details \
        --token-verification --jwks --issuer --own-credentials --shutdown-grace --verbosity --log-format";
    let named: Vec<_> = found.iter().map(|problem| problem.split(':').next().unwrap()).collect();
    assert_eq!(named.join(" "), settings, "{found:#?}");
}

#[test]
fn one_invalid_value_is_one_problem_with_flag_rule_and_value() {
    let cases: [(&[&str], &str); 10] = [
        (
            &["--pod-request-rate", "-1"],
            "--pod-request-rate: must be a number; 0 means no limit (got \"-1\")",
        ),
        (&["--port", "http"], "--port: must be a port from 0 to 65535 (got \"http\")"),
        (&["--max-service-qps=few"], "--max-service-qps: must be a whole number; 0 means 3 (got \"few\")"),
        (
            &["--max-cache-size", "-1"],
            "--max-cache-size: must be a number of identities; 0 disables caching (got \"-1\")",
        ),
        (
            &["--max-stale-after-refusal", "soon"],
            "--max-stale-after-refusal: must be a duration such as 1h30m: a number is missing (got \"soon\")",
        ),
        (
            &["--shutdown-grace", "-1s"],
            "--shutdown-grace: must be a duration such as 1h30m: it must not be negative (got \"-1s\")",
        ),
        (
            &["--shutdown-grace", "5m1s"],
            "--shutdown-grace: must be at most 5m: the kubelet would kill the pod before that (got \"5m1s\")",
        ),
        (
            &["--metrics-port", "2703"],
            "--metrics-port: must differ from --probe-port: both would listen on the same address and port",
        ),
        (&["yes"], "arguments: must be flags; no other arguments are expected (got \"yes\")"),
        (
            &["--endpoint", "https://user:planted@host"],
            "--endpoint: must not contain a user name or password",
        ),
    ];
    for (arguments, expected) in cases {
        assert_eq!(problems(arguments), [expected]);
    }
    assert!(read(&[], &[]).unwrap_err().iter().all(|problem| problem.contains("is required")));
    assert_eq!(good(&["--shutdown-grace", "5m"]).shutdown.grace, Duration::from_secs(300));
}

#[test]
fn the_time_to_serve_a_refused_set_is_limited_only_by_its_flag() {
    assert_eq!(good(&[]).max_stale_after_refusal, None);
    assert_eq!(good(&["--max-stale-after-refusal", "0"]).max_stale_after_refusal, Some(Duration::ZERO));
    let minute = good(&["--max-stale-after-refusal=1m"]);
    assert_eq!(minute.max_stale_after_refusal, Some(Duration::from_secs(60)));
    assert!(minute.summary().to_string().contains(" max_stale_after_refusal=60s"));
}

#[test]
fn token_keys_are_read_again_between_each_five_seconds_and_each_hour() {
    assert_eq!(good(&[]).jwks_refresh_interval, Duration::from_secs(300));
    assert_eq!(good(&["--jwks-refresh-interval", "5s"]).jwks_refresh_interval, Duration::from_secs(5));
    let expected = "--jwks-refresh-interval: must be between 5s and 3600s (got \"4s\")";
    assert_eq!(problems(&["--jwks-refresh-interval=4s"]), [expected]);
}

#[test]
fn a_rate_of_zero_is_no_limit() {
    assert_eq!(good(&["--pod-request-rate", "0"]).pod_request_rate, None);
    assert!(good(&["--pod-request-rate=100"]).summary().to_string().contains(" pod_request_rate=100 "));
}

#[test]
fn no_secret_shows_in_debug_or_summary() {
    let variables = [
        REGION,
        ("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "planted-key"),
        ("AWS_SESSION_TOKEN", "planted-token"),
        ("HTTPS_PROXY", "http://user:planted-password@proxy:3128"),
    ];
    let config = read(&["-c", "prod"], &variables).unwrap();
    let shown = format!("{config:?} {}", config.summary());
    assert!(!shown.contains("planted"), "{shown}");
    assert!(shown.contains("[redacted]"));
}

/// The notices about variables that are not used, shortened to the variable and the reason.
fn unused(arguments: &[&str], variables: &[(&str, &str)]) -> Vec<String> {
    let args = ServerArgs::of(&[["-c", "prod"].as_slice(), arguments].concat());
    let variables = [[REGION, ("HOME", "/h")].as_slice(), variables].concat();
    let notices = Config::from_args(&args, &Environment::of(&variables)).unwrap().notices(&args);
    assert!(!notices.concat().contains("planted"), "{notices:?}");
    notices.iter().filter_map(|notice| notice.split_once(" is not used")).map(short).collect()
}

fn short((variable, why): (&str, &str)) -> String {
    let why = why.split_once("come from ").map_or(why, |(_, source)| source);
    format!("{variable}: {}", why.trim_start_matches([':', ' ']).trim_end_matches("; see --own-credentials"))
}

#[test]
fn variables_of_credentials_that_are_not_used_are_named() {
    let keys = [("AWS_ACCESS_KEY_ID", "AKIA"), ("AWS_SECRET_ACCESS_KEY", "planted")];
    let aliases = [("AWS_ACCESS_KEY", "AKIB"), ("AWS_SECRET_KEY", "planted")];
    let files = [("AWS_SHARED_CREDENTIALS_FILE", "/b"), ("AWS_CONFIG_FILE", "/d")];
    let profiles = [("AWS_PROFILE", "p"), ("AWS_DEFAULT_PROFILE", "q")];
    assert_eq!(unused(&[], &keys), [""; 0]);
    assert_eq!(unused(&[], &aliases), [""; 0]);
    assert_eq!(unused(&[], &files[..1]), [""; 0]);
    assert_eq!(unused(&[], &profiles[1..]), [""; 0]);
    assert_eq!(
        unused(&[], &[keys, aliases].concat()),
        ["AWS_ACCESS_KEY: AWS_ACCESS_KEY_ID is set", "AWS_SECRET_KEY: AWS_SECRET_ACCESS_KEY is set"]
    );
    assert_eq!(
        unused(&[], &[files, profiles].concat()),
        ["AWS_CONFIG_FILE: AWS_SHARED_CREDENTIALS_FILE is set", "AWS_DEFAULT_PROFILE: AWS_PROFILE is set"]
    );
    assert_eq!(
        unused(&["--own-credentials=file", "--own-credentials-file=/a"], &[keys, files].concat()),
        [
            "AWS_ACCESS_KEY_ID: /a",
            "AWS_SECRET_ACCESS_KEY: /a",
            "AWS_SHARED_CREDENTIALS_FILE: /a",
            "AWS_CONFIG_FILE: /a"
        ]
    );
    assert_eq!(
        unused(&["--own-credentials=imds"], &[aliases[0], ("AWS_SESSION_TOKEN", "planted"), profiles[0]]),
        [
            "AWS_ACCESS_KEY: the instance metadata service",
            "AWS_SESSION_TOKEN: the instance metadata service",
            "AWS_PROFILE: the instance metadata service"
        ]
    );
    assert_eq!(
        unused(&[], &[keys.as_slice(), &files[..1], &profiles[1..]].concat()),
        ["AWS_SHARED_CREDENTIALS_FILE: the environment", "AWS_DEFAULT_PROFILE: the environment"]
    );
}

#[test]
fn settings_without_effect_are_noticed_and_not_refused() {
    let notices = |arguments: &[&str]| {
        let arguments: Vec<_> = ["-c", "prod"].into_iter().chain(arguments.iter().copied()).collect();
        let environment = Environment::of(&[REGION, ("HOME", "/h")]);
        let args = ServerArgs::of(&arguments);
        Config::from_args(&args, &environment).unwrap().notices(&args)
    };
    assert!(notices(&[]).is_empty());
    assert!(notices(&["--rotate-credentials", "false"]).concat().contains("--rotate-credentials=false"));
    assert!(notices(&["--rotate-credentials", "--own-credentials", "imds"]).concat().contains("no effect"));
    let variables = [
        REGION,
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1/credentials"),
        ("AWS_CONFIG_FILE", "/config"),
    ];
    let args = ServerArgs::of(&["-c", "prod"]);
    let noticed = Config::from_args(&args, &Environment::of(&variables)).unwrap().notices(&args);
    assert_eq!(noticed.len(), 3, "{noticed:?}");
    assert!(noticed[0].contains("AWS_WEB_IDENTITY_TOKEN_FILE is not used"), "{noticed:?}");
    assert!(noticed[2].contains("read from /config"), "{noticed:?}");
    assert!(notices(&["--send-node-details"]).concat().contains("--node-name"));
    assert!(
        notices(&["--kubernetes-events", "--node-name", "n"]).concat().contains("--kubernetes-events has no")
    );
    assert!(notices(&["--max-cache-size", "0"]).concat().contains("not cached"));
    assert!(notices(&["--max-service-qps", "0"]).concat().contains("means 3"));
    let keys = ["--jwks", "https://a/keys", "--jwks", "/b", "--issuer", "https://a", "--issuer", "https://b"];
    let told = notices(&keys);
    assert!(told.len() == 1 && told[0].contains("keys of /b verify tokens of every --issuer"), "{told:?}");
    assert!(
        notices(&["--max-credential-retention-before-renewal", "1m"]).concat().contains("--max-service-qps")
    );
}
