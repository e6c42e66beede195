//! Flags of `server` that show over loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use sandbox::{Association, Options, PodSpec, Sandbox, Service};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::harness::{Agent, Builder, Request, binary, eks_auth_calls, eventually, free_port, pod, sandbox};

const RETENTION: &str = "--max-credential-retention-before-renewal";

#[test]
fn version_is_printed() {
    let printed = |arguments: &[&str]| {
        let output = Command::new(binary()).args(arguments).env_clear().output().expect("the agent runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let version = env!("CARGO_PKG_VERSION");
    for arguments in [&["--version"] as &[_], &["version"], &["version", "--verbosity", "error"]] {
        assert!(printed(arguments).contains(version), "{arguments:?}");
    }
}

#[tokio::test]
async fn verbosity_decides_what_is_logged() {
    let sandbox = sandbox();
    // The level, and the most verbose one that is logged.
    for (level, least, not_logged) in [
        ("panic", None, vec!["error", "warn", "info", "debug", "trace"]),
        ("error", None, vec!["warn", "info", "debug", "trace"]),
        ("warn", None, vec!["info", "debug", "trace"]),
        ("info", Some("info"), vec!["debug", "trace"]),
        ("debug", Some("debug"), vec!["trace"]),
        ("trace", Some("debug"), vec![]),
    ] {
        let agent = Builder::new(&sandbox).flag("--verbosity", level).start().await;
        assert_eq!(agent.ask(&pod(&sandbox, "app-0").token).await.status, 200);
        let log = agent.log();
        let has = |level: &str| log.lines().any(|line| line.contains(&format!(r#""level":"{level}""#)));
        assert!(least.is_none_or(has), "{level}: {log}");
        assert_eq!(not_logged.into_iter().find(|level| has(level)), None, "{level}: {log}");
    }
}

#[tokio::test]
async fn the_format_of_the_log_is_json_or_text() {
    let sandbox = sandbox();
    for (format, is_json) in [("json", true), ("text", false)] {
        let agent = Builder::new(&sandbox).flag("--log-format", format).start().await;
        let log = agent.log();
        assert!(log.contains("effective configuration"), "{log}");
        assert!(log.lines().all(|line| serde_json::from_str::<Value>(line).is_ok() == is_json), "{log}");
    }
}

#[tokio::test]
async fn each_listener_is_where_its_flags_say() {
    let sandbox = sandbox();
    let [port, probes, metrics] = [free_port(), free_port(), free_port()];
    // The flags come after those that the harness gives, so they count.
    let agent = Builder::new(&sandbox)
        .probe_port(probes)
        .flag("--port", &port.to_string())
        .flag("--bind-hosts", "127.0.0.3")
        .also("--bind-hosts", "127.0.0.4")
        .flag("--probe-port", &probes.to_string())
        .flag("--metrics-address", "127.0.0.2")
        .flag("--metrics-port", &metrics.to_string())
        .start()
        .await;
    let at = |last: u8, port: u16| SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), port));
    let token = pod(&sandbox, "app-0").token;
    for (last, is_there) in [(3, true), (4, true), (1, false)] {
        let answer = Request::credentials(&token).send(at(last, port)).await;
        assert_eq!(
            answer.is_ok_and(|answer| answer.status == 200),
            is_there,
            "credentials at 127.0.0.{last}"
        );
    }
    for (last, is_there) in [(2, true), (1, false), (3, false)] {
        let page = Request::get("/metrics").send(at(last, metrics)).await;
        assert_eq!(page.is_ok_and(|page| page.status == 200), is_there, "metrics at 127.0.0.{last}");
    }
    assert_eq!(Request::get("/healthz").send(at(1, probes)).await.unwrap().status, 200);
    assert_eq!(agent.probe("/readyz").await.unwrap().status, 200);
}

#[tokio::test]
async fn retention_is_the_age_at_which_credentials_are_renewed() {
    let sandbox = sandbox();
    let agent = Builder::new(&sandbox).flag(RETENTION, "1s").start().await;
    let token = pod(&sandbox, "app-0").token;
    let first = agent.ask(&token).await.access_key_id();
    eventually("they are renewed", async || agent.ask(&token).await.access_key_id() != first).await;
    let keeping = Builder::new(&sandbox).flag(RETENTION, "1h").start().await;
    let never = Builder::new(&sandbox).flag(RETENTION, "0").start().await;
    let kept = keeping.ask(&token).await.access_key_id();
    assert_eq!(keeping.ask(&token).await.access_key_id(), kept);
    assert_ne!(never.ask(&token).await.access_key_id(), never.ask(&token).await.access_key_id());
}

#[tokio::test]
async fn no_more_identities_are_cached_than_the_flag_says() {
    let sandbox = sandbox();
    let agent = Builder::verifying(&sandbox).flag("--max-cache-size", "2").start().await;
    let tokens: Vec<String> = (0..6).map(|n| pod(&sandbox, &format!("app-{n}")).token).collect();
    for token in &tokens {
        assert_eq!(agent.ask(token).await.status, 200, "a full cache refuses nobody");
    }
    let cached = r#"pod_identity_agent_cached_identities{verified="true"}"#;
    eventually("two are left", async || agent.metric(cached).await == 2).await;
    let before = eks_auth_calls(&sandbox).len();
    for token in &tokens {
        assert_eq!(agent.ask(token).await.status, 200);
    }
    let calls = eks_auth_calls(&sandbox).len() - before;
    assert!(calls >= 4, "{calls} calls for six pods of which two at most were cached");
}

/// How long five background renewals take, of many that are due.
async fn five_renewals(rate: &str) -> Duration {
    let sandbox = sandbox();
    let agent = Builder::new(&sandbox).flag("--max-service-qps", rate).flag(RETENTION, "1s").start().await;
    let tokens: Vec<String> = (0..12).map(|n| pod(&sandbox, &format!("app-{n}")).token).collect();
    for token in &tokens {
        assert_eq!(agent.ask(token).await.status, 200);
    }
    let fetched = tokens.len();
    let renewals = async |agent: &Agent| {
        for token in &tokens {
            assert_eq!(agent.ask(token).await.status, 200, "a hit");
        }
        eks_auth_calls(&sandbox).len() - fetched
    };
    eventually("the first", async || renewals(&agent).await >= 1).await;
    let started = Instant::now();
    eventually("five more", async || renewals(&agent).await >= 6).await;
    started.elapsed()
}

#[tokio::test]
async fn background_renewals_keep_to_their_rate() {
    let (one, many) = tokio::join!(five_renewals("1"), five_renewals("50"));
    assert!(one >= Duration::from_secs(4), "{one:?} for five at one a second");
    assert!(many < one, "{many:?} for five at fifty a second, {one:?} at one");
}

#[tokio::test]
async fn the_endpoint_of_the_flag_comes_before_those_of_variables() {
    let sandbox = sandbox();
    // Nobody listens there.
    let nowhere = "http://127.0.0.1:9";
    let variables = ["AWS_ENDPOINT_URL_EKS_AUTH", "AWS_ENDPOINT_URL"];
    let by_flag = Builder::new(&sandbox).flag("--endpoint", sandbox.eks_auth_url());
    let by_flag = variables.iter().fold(by_flag, |builder, name| builder.env(name, nowhere)).start().await;
    assert_eq!(by_flag.ask(&pod(&sandbox, "app-0").token).await.status, 200);
    let by_variable = Builder::new(&sandbox)
        .without("--endpoint")
        .env(variables[0], sandbox.eks_auth_url())
        .env(variables[1], nowhere)
        .start()
        .await;
    assert_eq!(by_variable.ask(&pod(&sandbox, "app-1").token).await.status, 200);
    let wrong = Builder::new(&sandbox).flag("--endpoint", nowhere).start().await;
    assert_eq!(wrong.ask(&pod(&sandbox, "app-2").token).await.status, 503);
}

#[tokio::test]
async fn the_region_of_the_flag_comes_before_that_of_variables() {
    let sandbox = sandbox();
    // The sandbox takes signatures for its own region only.
    for (flag, variable, status) in [("us-west-2", "eu-west-1", 200), ("eu-west-1", "us-west-2", 503)] {
        let agent = Builder::new(&sandbox).flag("--region", flag).env("AWS_REGION", variable).start().await;
        let answer = agent.ask(&pod(&sandbox, "app-0").token).await;
        assert_eq!(answer.status, status, "--region {flag}, AWS_REGION {variable}: {answer:?}");
    }
}

/// A folder as the kubelet mounts it.
fn mounted(sandbox: &Sandbox) -> String {
    let folder = sandbox.dir().join("service-account");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("token"), "own-token").unwrap();
    let ca = concat!(env!("CARGO_MANIFEST_DIR"), "/../../agent/src/config/testdata/ca.pem");
    std::fs::copy(ca, folder.join("ca.crt")).unwrap();
    folder.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_api_server_is_asked_where_the_folder_has_a_token() {
    let sandbox = sandbox();
    let folder = mounted(&sandbox);
    for (mode, folder, is_asked) in
        [("auto", &*folder, true), ("off", &folder, false), ("auto", "/nothing-is-mounted-here", false)]
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let builder = Builder::new(&sandbox)
            .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
            .env("KUBERNETES_SERVICE_PORT", &port)
            .flag("--kubernetes", mode)
            .flag("--kubernetes-credentials", folder);
        let agent = builder.start().await;
        let asked = tokio::time::timeout(Duration::from_secs(3), listener.accept()).await;
        assert_eq!(asked.is_ok(), is_asked, "--kubernetes={mode} --kubernetes-credentials={folder}");
        if let Ok(Ok((mut stream, _))) = asked {
            let mut first = [0; 1];
            stream.read_exact(&mut first).await.unwrap();
            assert_eq!(first, [0x16], "the hello of TLS: its token does not go in the clear");
        }
        // An API server that never answers costs nobody anything.
        assert_eq!(agent.ask(&pod(&sandbox, "app-0").token).await.status, 200);
    }
}

#[tokio::test]
async fn a_token_that_no_key_proves_is_shown_to_the_api_server_unless_switched_off() {
    let sandbox = sandbox();
    let folder = mounted(&sandbox);
    for (mode, is_shown) in [("auto", true), ("off", false)] {
        // Nobody listens there.
        let agent = Builder::new(&sandbox)
            .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
            .env("KUBERNETES_SERVICE_PORT", "1")
            .flag("--kubernetes-credentials", &folder)
            .flag("--token-review", mode)
            .start()
            .await;
        assert_eq!(agent.ask(&pod(&sandbox, "app-0").token).await.status, 200);
        let failed = agent.metric(r#"pod_identity_agent_token_reviews_total{outcome="failed"}"#).await;
        assert_eq!(failed > 0, is_shown, "--token-review={mode}");
    }
}

#[tokio::test]
async fn pods_are_watched_where_the_node_has_a_name_unless_switched_off() {
    let sandbox = sandbox();
    let folder = mounted(&sandbox);
    for (name, is_switched_off, is_watched) in
        [(Some("node-1"), false, true), (Some("node-1"), true, false), (None, false, false)]
    {
        let builder = Builder::new(&sandbox)
            .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
            .env("KUBERNETES_SERVICE_PORT", "1")
            .flag("--kubernetes-credentials", &folder);
        let builder = if is_switched_off { builder.switch("--watch-pods=false") } else { builder };
        let builder = name.into_iter().fold(builder, |builder, name| builder.flag("--node-name", name));
        let agent = builder.start().await;
        let page: Value = serde_json::from_str(&agent.probe("/readyz").await.unwrap().body).unwrap();
        let conditions = page["conditions"].as_array().unwrap();
        let names = conditions.iter().filter(|condition| condition["name"] == "pods").count();
        assert_eq!(names == 1, is_watched, "{name:?}, switched off: {is_switched_off}: {page}");
    }
}

#[tokio::test]
async fn the_agents_own_credentials_come_from_where_the_flag_says() {
    let sandbox = sandbox();
    let good = sandbox.node_credentials(Duration::from_secs(3600));
    let bad = "[default]\naws_access_key_id = AKIABAD\naws_secret_access_key = bad\n";
    let (good_file, bad_file) = (sandbox.dir().join("good"), sandbox.dir().join("bad"));
    std::fs::write(&good_file, good.as_file()).unwrap();
    std::fs::write(&bad_file, bad).unwrap();
    let [good_file, bad_file] = [good_file, bad_file].map(|path| path.to_str().unwrap().to_owned());
    let asks_imds = || !sandbox.calls_of(Service::Imds).is_empty();
    let with_bad_variables = || {
        let builder = Builder::new(&sandbox).env("AWS_SHARED_CREDENTIALS_FILE", &bad_file);
        builder.env("AWS_ACCESS_KEY_ID", "AKIABAD").env("AWS_SECRET_ACCESS_KEY", "bad")
    };
    let with_good_variables = || {
        let builder = with_bad_variables().env("AWS_ACCESS_KEY_ID", &good.access_key_id);
        let builder = builder.env("AWS_SECRET_ACCESS_KEY", &good.secret_access_key);
        builder.env("AWS_SESSION_TOKEN", good.session_token.as_deref().unwrap())
    };
    for (what, builder, is_imds) in [
        ("imds", with_bad_variables().flag("--own-credentials", "imds"), true),
        ("environment", with_good_variables().flag("--own-credentials", "environment"), false),
        (
            "file, which the flag names",
            with_bad_variables().flag("--own-credentials", "file").flag("--own-credentials-file", &good_file),
            false,
        ),
        ("auto: a flag names a file", with_bad_variables().flag("--own-credentials-file", &good_file), false),
        ("auto: variables", with_good_variables().flag("--own-credentials", "auto"), false),
    ] {
        sandbox.reset_calls();
        let agent = builder.start().await;
        let answer = agent.ask(&pod(&sandbox, "app-0").token).await;
        assert_eq!(answer.status, 200, "{what}: {answer:?}");
        assert_eq!(asks_imds(), is_imds, "{what}");
    }
}

#[tokio::test]
async fn tokens_of_pods_on_another_node_are_refused() {
    let sandbox = sandbox();
    for (node, is_served) in [(sandbox.node_name().to_owned(), true), ("another-node".to_owned(), false)] {
        sandbox.reset_calls();
        let agent = Builder::verifying(&sandbox).flag("--node-name", &node).start().await;
        let answer = agent.ask(&pod(&sandbox, "app-0").token).await;
        assert_eq!(answer.status == 200, is_served, "on {node}: {answer:?}");
        assert_eq!(eks_auth_calls(&sandbox).is_empty(), !is_served, "AWS is not asked for it");
    }
}

#[tokio::test]
async fn an_association_that_is_gone_ends_when_the_flag_says() {
    let role = "arn:aws:iam::111122223333:role/app";
    let both = ["app", "other"].map(|account| Association::new("default", account, role));
    let sandbox = Sandbox::start(Options { associations: both.to_vec(), ..Options::default() }).unwrap();
    let account = |account: &str| {
        let spec = PodSpec { service_account: account.to_owned(), ..PodSpec::default() };
        sandbox.pod(spec).unwrap().token
    };
    let (app, other) = (account("app"), account("other"));
    let renewing = || Builder::new(&sandbox).flag(RETENTION, "1s");
    let limited = renewing().flag("--max-stale-after-refusal", "2s").start().await;
    let unlimited = renewing().start().await;
    for agent in [&limited, &unlimited] {
        for token in [&app, &other] {
            assert_eq!(agent.ask(token).await.status, 200);
        }
    }
    sandbox.set_associations(vec![both[1].clone()]).unwrap();
    let gone = Instant::now();
    eventually("it ends", async || {
        // The other one is still there, so it is not AWS that fails.
        assert_eq!(limited.ask(&other).await.status, 200);
        limited.ask(&app).await.status != 200
    })
    .await;
    // Not before AWS has said so for two seconds.
    assert!(gone.elapsed() >= Duration::from_secs(2), "{:?}", gone.elapsed());
    assert_eq!(limited.ask(&app).await.reason, "ResourceNotFoundException");
    assert_eq!(unlimited.ask(&app).await.status, 200, "without the flag it takes five minutes");
}
