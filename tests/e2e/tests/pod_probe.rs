//! `--probe-namespace`: the agent asks as a pod would, on a node of its own: a network namespace that the
//! test makes.

use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::harness::{Agent, Builder, eventually, sandbox};

/// Takes over what a pod sends to the agent, and nothing else: as portmap does for a hostPort.
const DIVERTED: &str = "add table ip thief; \
    add chain ip thief pods { type nat hook prerouting priority -100; }; \
    add rule ip thief pods ip daddr 169.254.170.23 tcp dport 80 dnat to 169.254.170.23:8080";

/// An agent on a node with nothing but lo and the two addresses.
fn start_on_a_node(builder: &Builder) -> Agent {
    builder.spawn_as(|agent| {
        let setup = "ip link set lo up && ip addr add 169.254.170.23/32 dev lo && \
            ip addr add 169.254.169.254/32 dev lo && \
            { ip -6 addr add fd00:ec2::23/128 dev lo nodad || true; } && exec \"$0\" \"$@\"";
        let mut node = Command::new("unshare");
        node.args(["--net", "sh", "-c", setup]).arg(agent.get_program()).args(agent.get_args());
        node.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
        node.envs(agent.get_envs().filter_map(|(name, value)| Some((name, value?))));
        *agent = node;
    })
}

fn builder(sandbox: &sandbox::Sandbox) -> Builder {
    Builder::new(sandbox)
        .port(80)
        .flag("--bind-hosts", "169.254.170.23")
        .also("--bind-hosts", "fd00:ec2::23")
        .flag("--probe-namespace", "true")
}

/// A program on the agent's node.
fn on_the_node(agent: &Agent, program: &[&str]) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/proc/{}/ns/net", agent.pid())).args(program);
    command.stderr(Stdio::null());
    command
}

fn page(agent: &Agent, port: u16, path: &str) -> String {
    let url = format!("http://127.0.0.1:{port}{path}");
    let out = on_the_node(agent, &["curl", "--silent", "--max-time", "2", &url]).output().unwrap();
    String::from_utf8(out.stdout).unwrap()
}

fn condition(agent: &Agent, name: &str) -> Value {
    let page: Value = serde_json::from_str(&page(agent, agent.probe_port, "/readyz")).unwrap_or_default();
    let conditions = page["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|condition| condition["name"] == name).unwrap_or_default()
}

async fn until_the_pod_finds_the_agent(agent: &Agent) {
    eventually(&format!("a pod finds the agent\n{}", agent.log()), async || {
        condition(agent, "self-probe-from-pod")["met"] == true
    })
    .await;
}

/// A stranger's server; killed when dropped.
struct Stranger(Child);

impl Drop for Stranger {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn stranger(agent: &Agent, address: &str, port: &str) -> Stranger {
    let program = ["python3", "-m", "http.server", port, "--bind", address, "--directory", "/usr/share"];
    Stranger(on_the_node(agent, &program).stdout(Stdio::null()).spawn().unwrap())
}

#[tokio::test]
async fn the_agent_finds_itself_from_where_a_pod_stands_and_leaves_nothing_behind() {
    let sandbox = sandbox();
    let agent = start_on_a_node(&builder(&sandbox));
    until_the_pod_finds_the_agent(&agent).await;
    let metrics = page(&agent, agent.metrics_port, "/metrics");
    assert!(metrics.contains(r#"self_probe{from="namespace",family="ipv4"} 1"#), "{metrics}");
    assert!(metrics.contains(r#"self_probe{from="namespace",family="ipv6"} 1"#), "{metrics}");
    let links = on_the_node(&agent, &["ip", "-brief", "link"]).output().unwrap();
    let links = String::from_utf8(links.stdout).unwrap();
    assert!(!links.contains("pod-id-probe"), "{links}");
    // The helper has what the server shall not have, and ends with it.
    let children = format!("/proc/{0}/task/{0}/children", agent.pid());
    let helper: u32 = std::fs::read_to_string(children).unwrap().trim().parse().expect("one child");
    let status = std::fs::read_to_string(format!("/proc/{helper}/status")).unwrap();
    assert!(status.contains("CapEff:\t0000000000201000\n"), "SYS_ADMIN and NET_ADMIN: {status}");
    let environment = std::fs::read(format!("/proc/{helper}/environ")).unwrap();
    assert!(environment.is_empty());
    drop(agent);
    eventually("the helper has ended", async || {
        !std::fs::read_to_string(format!("/proc/{helper}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    })
    .await;
}

#[tokio::test]
async fn a_thief_that_only_pods_meet_is_noticed() {
    let sandbox = sandbox();
    let agent = start_on_a_node(&builder(&sandbox));
    until_the_pod_finds_the_agent(&agent).await;
    let _thief = stranger(&agent, "0.0.0.0", "8080");
    assert!(on_the_node(&agent, &["nft", DIVERTED]).status().unwrap().success());
    // A new address is a change, which is a reason to ask before the half minute is over.
    on_the_node(&agent, &["ip", "addr", "add", "127.0.0.9/32", "dev", "lo"]).status().unwrap();
    eventually("the thief is noticed", async || {
        let condition = condition(&agent, "self-probe-from-pod");
        condition["reason"].as_str().is_some_and(|reason| {
            let answers =
                "another process answers on 169.254.170.23:80 and may receive pod tokens: HTTP/1.0 404";
            reason.contains(answers) && reason.contains("Server: SimpleHTTP")
        })
    })
    .await;
    // The host itself is not diverted, so it could not have known.
    assert_eq!(condition(&agent, "self-probe")["met"], true);
    let metrics = page(&agent, agent.metrics_port, "/metrics");
    assert!(metrics.contains(r#"self_probe{from="namespace",family="ipv4"} 0"#), "{metrics}");
    assert!(metrics.contains(r#"self_probe{from="host",family="ipv4"} 1"#), "{metrics}");
}

#[tokio::test]
async fn metadata_that_pods_still_reach_is_told() {
    let sandbox = sandbox();
    // The address is the node's own here, so that the block of what is forwarded does not stop it.
    let agent = start_on_a_node(&builder(&sandbox).flag("--block-imds", "true"));
    until_the_pod_finds_the_agent(&agent).await;
    assert_eq!(condition(&agent, "imds-out-of-reach")["met"], true);
    let _metadata = stranger(&agent, "169.254.169.254", "80");
    on_the_node(&agent, &["ip", "addr", "add", "127.0.0.9/32", "dev", "lo"]).status().unwrap();
    eventually("it is told", async || {
        condition(&agent, "imds-out-of-reach")["reason"]
            == "pods can reach 169.254.169.254:80 despite --block-imds"
    })
    .await;
}

#[tokio::test]
async fn a_helper_that_was_killed_leaves_no_good_news_behind() {
    let sandbox = sandbox();
    let agent = start_on_a_node(&builder(&sandbox));
    until_the_pod_finds_the_agent(&agent).await;
    let children = format!("/proc/{0}/task/{0}/children", agent.pid());
    let helper = std::fs::read_to_string(children).unwrap().trim().to_owned();
    // As the kernel does it when memory runs out.
    assert!(Command::new("kill").args(["-KILL", &helper]).status().unwrap().success());
    // A change is a reason to ask before the half minute is over.
    on_the_node(&agent, &["ip", "addr", "add", "127.0.0.9/32", "dev", "lo"]).status().unwrap();
    eventually("it is told", async || {
        condition(&agent, "self-probe-from-pod")["reason"].as_str().is_some_and(|reason| {
            reason.starts_with("unknown until the agent is restarted") && reason.contains("signal: 9")
        })
    })
    .await;
    let metrics = page(&agent, agent.metrics_port, "/metrics");
    assert!(metrics.contains(r#"self_probe{from="namespace",family="ipv4"} 0"#), "{metrics}");
    assert!(metrics.contains(r#"self_probe{from="host",family="ipv4"} 1"#), "{metrics}");
}

#[tokio::test]
async fn without_the_privilege_the_agent_serves_and_says_what_it_cannot_tell() {
    let sandbox = sandbox();
    let agent = Builder::new(&sandbox).flag("--probe-namespace", "true").spawn_as(|agent| {
        let mut bare = Command::new("setpriv");
        bare.args(["--bounding-set=-all", "--inh-caps=-all"]).arg(agent.get_program()).args(agent.get_args());
        bare.env_clear().stdin(Stdio::null());
        bare.envs(agent.get_envs().filter_map(|(name, value)| Some((name, value?))));
        *agent = bare;
    });
    agent.until_ready().await;
    eventually("it is told", async || {
        let page = agent.probe("/readyz").await.unwrap().body;
        page.contains(
            "unknown: cannot set up a network namespace for the probe: cannot create a network namespace",
        )
    })
    .await;
}
