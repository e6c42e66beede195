//! A table of another version of the agent on the node: older rules, or newer ones that this version does not
//! know.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};

use super::releases::{IN_TURN, epoch, led_to, readiness_says, release, table};
use super::{on_both_families, pods_with_credentials};
use crate::harness::{Agent, Builder, IPV4, IPV6, Load, Node, Window, eventually, on_a_node, sandbox};

/// The table of a version that has more in it, and counts its owner as this one does.
const WITH_MORE: &str = "
    set owner { type inet_service . inet_service; elements = { 0 . 7 }; }
    set not_known { type ipv4_addr; elements = { 10.9.9.9 }; }
    map to_guard_ipv4 { type ipv4_addr . inet_service : ipv4_addr . inet_service; flags timeout; }
    chain not_known { type filter hook forward priority 5; ip daddr @not_known counter; }
";
/// One whose owner is counted in another type, and whose maps have other keys.
const COUNTED_IN_ANOTHER_WAY: &str = "
    set owner { type mark; elements = { 7 }; }
    map to_guard_ipv4 { type ipv4_addr : inet_service; }
    chain prerouting {
        type nat hook prerouting priority -110;
        ip daddr 169.254.170.23 tcp dport 80 dnat ip to 169.254.170.23:PORT
        ip6 daddr fd00:ec2::23 tcp dport 80 dnat ip6 to [fd00:ec2::23]:PORT
    }
    chain output {
        type nat hook output priority -110;
        ip daddr 169.254.170.23 tcp dport 80 dnat ip to 169.254.170.23:PORT
        ip6 daddr fd00:ec2::23 tcp dport 80 dnat ip6 to [fd00:ec2::23]:PORT
    }
";
/// One without an owner, of rules and no maps.
const WITHOUT_OWNER: &str = "
    chain prerouting {
        type nat hook prerouting priority -110;
        ip daddr 169.254.170.23 tcp dport 80 dnat ip to 169.254.170.23:80
    }
";

/// Writes it in place of what is there, at once.
fn write(node: &Node, content: &str, port: u16) {
    let content = content.replace("PORT", &port.to_string());
    node.sh(&format!(
        "nft -f - <<'END'\nadd table inet pod_identity_agent\ndelete table inet pod_identity_agent\n\
         table inet pod_identity_agent {{ {content} }}\nEND\n"
    ));
}

fn is_ours(node: &Node) -> bool {
    let table = table(node);
    let has_maps = table.contains("set owner") && table.contains("ipv4_addr . inet_service : ipv4_addr");
    let of_others = ["type mark", "not_known", "dnat ip to 169.254.170.23:"];
    has_maps && of_others.iter().all(|words| !table.contains(words))
}

/// Another version's agent that is on the node and answers, and has the table no longer in its hand.
fn of_another_version(builder: Builder) -> Agent {
    builder.in_place_of("nft", "echo it is not the time >&2; exit 1").spawn()
}

/// Whether anybody listens on the guard port, by IPv4 and by IPv6.
fn guard_ports() -> [bool; 2] {
    [IPV4, IPV6].map(|address| std::net::TcpStream::connect((address, 2707)).is_ok())
}

fn assert_taken_over(content: &'static str) {
    on_a_node(async move |node| {
        node.add_link();
        write(node, content, 2707);
        let sandbox = sandbox();
        let began = Instant::now();
        let new = release(&sandbox, 1).start().await;
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert!(is_ours(node), "{}", table(node));
        let (first, text) = (epoch(node), table(node));
        pods_with_credentials(node, &sandbox, 1, IPV4).await;
        sleep(Duration::from_secs(3)).await;
        assert_eq!((epoch(node), is_ours(node)), (first, true), "{text}\n{}", table(node));
        let log = new.log();
        assert!(!log.contains("cannot parse the output of nft") && !log.contains("nft failed"), "{log}");
        assert_eq!(log.matches("nftables table written").count(), 1, "{log}");
    });
}

#[test]
fn a_table_with_more_in_it_is_taken_over() {
    assert_taken_over(WITH_MORE);
}

#[test]
fn a_table_that_counts_its_owner_in_another_way_is_taken_over() {
    assert_taken_over(COUNTED_IN_ANOTHER_WAY);
}

#[test]
fn a_table_without_an_owner_is_taken_over() {
    assert_taken_over(WITHOUT_OWNER);
}

#[test]
fn an_owner_leaves_it_to_an_agent_of_another_version_that_answers_and_takes_it_back_when_that_dies() {
    let _turn = IN_TURN.lock();
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let old = release(&sandbox, 1).start().await;
        let pods = pods_with_credentials(node, &sandbox, 4, IPV4).await;
        let loads = on_both_families(&pods, Load::start, 20);
        // Until it has given its own guard port back, that one would be the one found there.
        eventually("the old one has port 80 alone", async || guard_ports() == [false, false]).await;
        let other = of_another_version(release(&sandbox, 2));
        eventually("the other listens on its guard port", async || guard_ports() == [true, true]).await;
        write(node, COUNTED_IN_ANOTHER_WAY, 2707);
        eventually("the old one stands by", async || readiness_says(&old, "on standby").await).await;
        let text = table(node);
        assert!(text.contains("type mark"));
        sleep(Duration::from_secs(6)).await;
        assert_eq!(table(node), text, "it does not fight: {}", old.log());
        assert!(!old.log().contains("cannot parse the output of nft"), "{}", old.log());
        let died = Instant::now();
        other.signal(Signal::SIGKILL);
        eventually("the old one has the table again", async || is_ours(node)).await;
        let took = died.elapsed();
        eprintln!("back after {took:?}");
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert_eq!(led_to(node), None, "it has port 80");
        let back = epoch(node);
        sleep(Duration::from_secs(3)).await;
        assert_eq!(epoch(node), back);
        for load in loads {
            load.end().await.assert_unhurt_but_in(&[Window::of(died, took)]);
        }
    });
}

/// As another version's table would be listed, and as a new nft may list the agent's own.
#[test]
fn a_table_that_its_own_writer_cannot_read_is_written_once_and_pods_are_served() {
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let writes = std::env::temp_dir().join(format!("pod-identity-writes-{}", std::process::id()));
        let script = format!(
            "if [ \"$1\" = --file ]; then echo >>{}; fi\n\
             listed=$(nft \"$@\") || exit 1\n\
             echo \"$listed\" | sed \"s/.concat.: .[0-9]*, [0-9]*./\\\"val\\\": \\\"unknown\\\"/\"",
            writes.display()
        );
        let agent = release(&sandbox, 1).in_place_of("nft", &script).spawn();
        eventually("it says so", async || readiness_says(&agent, "cannot parse the output of nft").await)
            .await;
        // Twice as long as until the next try.
        sleep(Duration::from_secs(10)).await;
        let written = std::fs::read_to_string(&writes).expect("it has written");
        std::fs::remove_file(&writes).expect("a file");
        assert_eq!(written.lines().count(), 1, "{}", agent.log());
        agent.until_ready().await;
        pods_with_credentials(node, &sandbox, 1, IPV4).await;
    });
}

/// It has an epoch that this agent has not had before, and is no other agent's: for that it would stand back,
/// and the table would be nobody's.
#[test]
fn a_table_that_cannot_be_read_just_after_it_was_repaired_is_its_writers_own() {
    on_a_node(async |node| {
        node.add_link();
        let sandbox = sandbox();
        let armed = std::env::temp_dir().join(format!("pod-identity-armed-{}", std::process::id()));
        let script = format!(
            "armed={}\n\
             if [ \"$1\" = --json ] && [ -e \"$armed.read\" ]; then rm \"$armed.read\"; exit 1; fi\n\
             nft \"$@\" || exit 1\n\
             if [ \"$1\" = --file ] && [ -e \"$armed\" ]; then mv \"$armed\" \"$armed.read\"; fi",
            armed.display()
        );
        let agent = release(&sandbox, 1).in_place_of("nft", &script).start().await;
        let before = epoch(node);
        std::fs::write(&armed, "").expect("a file");
        node.sh("nft flush chain inet pod_identity_agent prerouting");
        eventually("it is repaired", async || epoch(node) != before).await;
        eventually("the failure was met", async || !armed.exists() && !armed.with_extension("read").exists())
            .await;
        sleep(Duration::from_secs(3)).await;
        let log = agent.log();
        assert!(!log.contains("another agent of this node has taken over"), "{log}");
        assert!(is_ours(node), "{}", table(node));
        assert!(!readiness_says(&agent, "on standby").await);
        pods_with_credentials(node, &sandbox, 1, IPV4).await;
    });
}
