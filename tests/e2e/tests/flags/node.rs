//! Flags that show in the network of a node.

use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::TcpStream;

use crate::harness::{Builder, IPV4, Node, binary, eventually, on_a_node, sandbox};

fn run(arguments: &[&str]) -> Output {
    let output = Command::new(binary()).args(arguments).env_clear().output().expect("the agent runs");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    output
}

/// The links of this node that have the agent's IPv4 address.
fn links_with_the_address() -> Vec<String> {
    let output = Command::new("ip").args(["-o", "-4", "addr"]).output().expect("ip runs");
    let lines = String::from_utf8(output.stdout).expect("UTF-8");
    let with_it = lines.lines().filter(|line| line.contains(" 169.254.170.23/32 "));
    with_it.filter_map(|line| line.split_whitespace().nth(1)).map(str::to_owned).collect()
}

#[test]
fn link_decides_which_link_gets_the_addresses() {
    on_a_node(async |node| {
        // It stands for the dummy, which not every kernel can make.
        let dummy = "link add pod-id-link0 type bridge\n";
        for (link, has_it) in [("lo", "lo"), ("dummy", "pod-id-link0"), ("auto", "pod-id-link0")] {
            node.ip(dummy);
            run(&["initialize", "--link", link]);
            assert_eq!(links_with_the_address(), [has_it], "initialize --link {link}");
            run(&["cleanup"]);
            assert!(links_with_the_address().is_empty(), "after cleanup");

            node.sh("ip link show pod-id-link0 >/dev/null 2>&1 || ip link add pod-id-link0 type bridge");
            let sandbox = sandbox();
            let agent =
                Builder::on_a_node(&sandbox).switch("--manage-link").flag("--link", link).start().await;
            assert_eq!(links_with_the_address(), [has_it], "server --link {link}");
            drop(agent);
            run(&["cleanup"]);
            node.sh("ip link del pod-id-link0 2>/dev/null || true");
        }
    });
}

#[test]
fn initialize_and_cleanup_print_their_result_at_any_verbosity() {
    on_a_node(async |_node| {
        for (command, result) in [("initialize", "the node has"), ("cleanup", "removed address")] {
            for level in ["error", "trace"] {
                run(&["initialize", "--link", "lo"]);
                let output = run(&[command, "--verbosity", level]);
                let said = String::from_utf8_lossy(&output.stdout);
                assert!(said.contains(result), "{command} --verbosity {level}: {said}");
                assert!(output.stderr.is_empty(), "{command} --verbosity {level}: {output:?}");
            }
        }
    });
}

/// Killed when dropped.
struct Staying(Child);

impl Drop for Staying {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[test]
fn stay_keeps_cleanup_running_until_sigterm() {
    on_a_node(async |_node| {
        run(&["initialize", "--link", "lo"]);
        assert_eq!(links_with_the_address(), ["lo"]);
        let mut cleanup = Command::new(binary());
        cleanup.args(["cleanup", "--stay"]).env_clear().stdin(Stdio::null()).stderr(Stdio::null());
        let mut staying = Staying(cleanup.spawn().expect("the agent runs"));
        eventually("all is removed", async || links_with_the_address().is_empty()).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(staying.0.try_wait().expect("a child").is_none(), "it stays");
        kill(Pid::from_raw(staying.0.id().try_into().expect("a pid")), Signal::SIGTERM).expect("it is there");
        let mut status = None;
        eventually("it ends", async || {
            status = staying.0.try_wait().expect("a child");
            status.is_some()
        })
        .await;
        assert!(status.is_some_and(|status| status.success()), "{status:?}");
    });
}

#[test]
fn guard_port_is_where_a_guarded_agent_listens() {
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        for (flag, port, other) in [(None, 2707, 2799), (Some("2799"), 2799, 2707)] {
            let builder = Builder::on_a_node(&sandbox).switch("--guard-address").switch("--share-port");
            let builder = match flag {
                Some(port) => builder.flag("--guard-port", port),
                None => builder,
            };
            let _agent = builder.start().await;
            let is_open = async |port: u16| TcpStream::connect(SocketAddr::new(IPV4, port)).await.is_ok();
            assert!(is_open(port).await, "--guard-port {flag:?}");
            // Who is still sent to the port of the agent before finds this one, for five seconds.
            eventually("it listens nowhere else", async || !is_open(other).await).await;
            assert_eq!(node.pod(&sandbox).ask(IPV4).await.unwrap().status, 200, "pods ask port 80");
        }
    });
}

/// The time-outs in the table, by the name of the map or set: `to_guard_ipv4` and so on.
fn timeouts(node: &Node) -> Vec<(String, String)> {
    let table = node.rules_of("inet", "pod_identity_agent");
    let mut found = Vec::new();
    let mut name = "";
    for line in table.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("map" | "set") => name = words.next().expect("a name"),
            _ => found.extend(
                line.split(" timeout ")
                    .nth(1)
                    .and_then(|rest| rest.split_whitespace().next())
                    .map(|timeout| (name.to_owned(), timeout.to_owned())),
            ),
        }
    }
    found
}

#[test]
fn what_is_in_force_lasts_as_long_as_the_flags_say() {
    on_a_node(async |node| {
        node.add_link_ipv4();
        // Not an agent, and not on every address: it may have what comes to port 80 when the agent is dead.
        let _other = std::net::TcpListener::bind((IPV4, 80)).unwrap();
        let sandbox = sandbox();
        let guarded = || {
            let builder = Builder::on_a_node(&sandbox).flag("--bind-hosts", "169.254.170.23");
            builder.switch("--guard-address").switch("--block-imds")
        };
        let timed = |builder: Builder, to_guard, to_self, block| {
            let builder = builder.flag("--guard-port-timeout", to_guard).flag("--guard-timeout", to_self);
            builder.flag("--imds-block-timeout", block)
        };
        for (builder, expected) in [
            (guarded(), ["2m", "1d", "30m", "30m"]),
            (timed(guarded(), "1m30s", "10h", "1h"), ["1m30s", "10h", "1h", "1h"]),
        ] {
            let _agent = builder.start().await;
            let names = ["to_guard_ipv4", "to_self_ipv4", "blocked_ipv4", "blocked_ipv6"];
            let expected: Vec<_> = names.into_iter().zip(expected).collect();
            let found = timeouts(node);
            assert_eq!(found.iter().map(|(n, t)| (n.as_str(), t.as_str())).collect::<Vec<_>>(), expected);
        }
        let _agent = timed(guarded(), "6s", "6s", "0").start().await;
        let table = node.rules_of("inet", "pod_identity_agent");
        assert!(table.contains("{ 169.254.169.254 }"), "until cleanup: {table}");
    });
}

#[test]
fn probe_asks_the_agent_of_the_pods_own_directory() {
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let directories = ["ready", "waiting", "empty"].map(|name| {
            let path = std::env::temp_dir().join(format!("pod-identity-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            path.to_str().unwrap().to_owned()
        });
        let [of_ready, of_waiting, of_none] = &directories;
        let probe = |what: &str, directory: &str| {
            let arguments = ["probe", what, "--state-dir", directory, "--verbosity", "trace"];
            let output = Command::new(binary()).args(arguments).env_clear().output().unwrap();
            let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            (output.status.code(), said)
        };
        let _ready = Builder::on_a_node(&sandbox).flag("--state-dir", of_ready).start().await;
        // Another one of this node has its ports, those of probes too.
        let _waiting = Builder::on_a_node(&sandbox)
            .flag("--state-dir", of_waiting)
            .flag("--own-credentials", "file")
            .flag("--own-credentials-file", "/no/such/file")
            .spawn();
        let good = (Some(0), "ok\n".to_owned());
        assert_eq!(probe("ready", of_ready), good);
        eventually("it is alive", async || probe("live", of_waiting) == good).await;
        eventually("it says why it is not ready", async || {
            let (code, said) = probe("ready", of_waiting);
            code == Some(1) && said.contains("own-credentials: ") && said.contains("/no/such/file")
        })
        .await;
        let (code, said) = probe("live", of_none);
        assert!(code == Some(1) && said.starts_with("no answer of the agent on "), "{said}");
        for directory in directories {
            std::fs::remove_dir_all(directory).unwrap();
        }
    });
}
