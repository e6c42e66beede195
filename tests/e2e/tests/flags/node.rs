//! Flags that show in the network of a node.

use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::TcpStream;

use crate::harness::{Builder, IPV4, binary, eventually, on_a_node, sandbox};

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
            assert!(is_open(port).await && !is_open(other).await, "--guard-port {flag:?}");
            assert_eq!(node.pod(&sandbox).ask(IPV4).await.unwrap().status, 200, "pods ask port 80");
        }
    });
}
