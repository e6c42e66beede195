//! What each SDK makes of the agent when AWS fails, is slow or refuses, and when the agent is replaced: all
//! SDKs side by side, each in a pod, by its default chain.
//!
//! Owns: what happens. The results are docs/sdk-matrix.md, which each run is compared with.

mod page;
mod sdks;

use std::net::IpAddr;
use std::time::Duration;

use nix::sys::signal::Signal;
use sandbox::{Fault, Options, Sandbox, Service};
use tokio::task::JoinSet;
use tokio::time::sleep;

use self::page::{Fate, Row, judge};
use self::sdks::{Asked, Asking, SDKS};
use crate::harness::{Agent, IPV4, IPV6, Node, Wired, failing, heal, on_a_node, rotate_token, slow};
use crate::node::releases::release;

/// The words of AWS or of the agent that an SDK's user should read.
const CAUSES: [&str; 2] = ["set by a test", "AWS is unreachable or failing"];

/// A node with an agent and AWS, and on it each SDK, ready to be asked.
struct Stage {
    sandbox: Sandbox,
    asking: Vec<Asking>,
}

impl Stage {
    async fn new(node: &Node, at: IpAddr) -> (Self, Agent) {
        Self::with(Options::default(), node, at).await
    }

    async fn with(options: Options, node: &Node, at: IpAddr) -> (Self, Agent) {
        node.add_link();
        let sandbox = Sandbox::start(options).expect("the sandbox starts");
        let agent = release(&sandbox, 1).start().await;
        let sts = node.expose(sandbox.sts_url(), at).await;
        let mut asking = Vec::new();
        for sdk in &SDKS {
            asking.push(sdk.start(node.pod(&sandbox), at, &sts).await);
        }
        (Self { sandbox, asking }, agent)
    }

    /// Has all ask at once.
    async fn ask(&mut self) -> Vec<Asked> {
        let mut under_way = JoinSet::new();
        for (index, mut asking) in self.asking.drain(..).enumerate() {
            under_way.spawn(async move {
                let asked = asking.ask().await;
                (index, asking, asked)
            });
        }
        let mut done = under_way.join_all().await;
        done.sort_by_key(|(index, ..)| *index);
        let (asking, asked): (_, Vec<Asked>) =
            done.into_iter().map(|(_, asking, asked)| (asking, asked)).unzip();
        self.asking = asking;
        for (asking, asked) in self.asking.iter().zip(&asked) {
            if let Ok(identity) = &asked.result {
                let pod = &asking.pod.identity.spec;
                assert!(identity.is_of(pod, &self.sandbox), "{} of {pod:?} is {identity:?}", asking.name);
            }
        }
        asked
    }

    /// All that is known of how they fared.
    fn rows(&self, asked: Vec<Asked>, log: &str) -> Vec<Row> {
        let of = |(asking, Asked { result, took }): (&Asking, Asked)| {
            let fate = match &result {
                Ok(_) => Fate::Served,
                Err(text) if CAUSES.iter().any(|cause| text.contains(cause)) => Fate::Told,
                Err(_) => Fate::NotTold,
            };
            let calls = self.sandbox.calls_for(&asking.pod.identity);
            let calls = calls.iter().filter(|call| call.service == Service::EksAuth).count();
            let requests = requests_of(log, &asking.pod);
            Row { name: asking.name, fate, took, requests, calls, reads: result.err().unwrap_or_default() }
        };
        self.asking.iter().zip(asked).map(of).collect()
    }
}

/// How many requests the access log has of a pod.
fn requests_of(log: &str, pod: &Wired) -> usize {
    let addresses = [pod.ipv4(), pod.ipv6()].map(|address| address.parse::<IpAddr>().expect("an address"));
    let peers = addresses.map(|address| format!("\"peer.addr\":\"{address}\""));
    log.lines().filter(|line| peers.iter().any(|peer| line.contains(peer))).count()
}

/// What is not judged: whether these are served depends on pauses that they choose by chance.
fn by_chance(rows: &mut [Row], names: &[&str]) {
    let is_meant = |row: &&mut Row| names.iter().any(|name| row.name.contains(name));
    rows.iter_mut().filter(is_meant).for_each(|row| row.fate = Fate::ByChance);
}

fn aws_fails(sandbox: &Sandbox) {
    let effect = failing(503, "ServiceUnavailableException");
    sandbox.faults().set([Fault::new(Service::EksAuth, effect)]);
}

/// What happens while all ask.
fn while_all_ask(
    title: &'static str,
    at: IpAddr,
    begin: impl Fn(&Sandbox) + Send + 'static,
    end_after: Option<Duration>,
) {
    on_a_node(async move |node| {
        let (mut stage, agent) = Stage::new(node, at).await;
        begin(&stage.sandbox);
        let faults = stage.sandbox.faults().clone();
        let ending = async {
            if let Some(after) = end_after {
                sleep(after).await;
                faults.set([]);
            }
        };
        let (asked, ()) = tokio::join!(stage.ask(), ending);
        judge(title, &stage.rows(asked, &agent.log()));
    });
}

fn aws_fails_for(title: &'static str, seconds: u64) {
    while_all_ask(title, IPV4, aws_fails, Some(Duration::from_secs(seconds)));
}

#[test]
fn nothing_is_wrong_over_ipv4() {
    while_all_ask("Nothing is wrong, IPv4", IPV4, heal, None);
}

#[test]
fn nothing_is_wrong_over_ipv6() {
    while_all_ask("Nothing is wrong, IPv6", IPV6, heal, None);
}

fn aws_refuses(sandbox: &Sandbox) {
    let effect = failing(400, "AccessDeniedException");
    sandbox.faults().set([Fault::new(Service::EksAuth, effect)]);
}

#[test]
fn aws_refuses_for_good() {
    while_all_ask("AWS refuses a new pod", IPV4, aws_refuses, None);
}

/// Its association or its permission arrives while they wait: nobody may have been told that it is final.
#[test]
fn aws_refuses_for_2_s() {
    while_all_ask("AWS refuses a new pod for 2 s", IPV4, aws_refuses, Some(Duration::from_secs(2)));
}

#[test]
fn aws_fails_for_1_s() {
    aws_fails_for("AWS fails for 1 s", 1);
}

#[test]
fn aws_fails_for_3_s() {
    aws_fails_for("AWS fails for 3 s", 3);
}

#[test]
fn aws_fails_for_10_s() {
    aws_fails_for("AWS fails for 10 s", 10);
}

#[test]
fn aws_fails_for_30_s() {
    aws_fails_for("AWS fails for 30 s", 30);
}

#[test]
fn aws_takes_1500_ms() {
    let slow = |sandbox: &Sandbox| sandbox.faults().set([slow(1_500)]);
    while_all_ask("AWS takes 1.5 s", IPV4, slow, None);
}

#[test]
fn aws_takes_2500_ms() {
    let slow = |sandbox: &Sandbox| sandbox.faults().set([slow(2_500)]);
    while_all_ask("AWS takes 2.5 s", IPV4, slow, None);
}

/// How soon the kubelet has another one answering (docs/install.md, SIGKILL on the cluster).
const RESTARTED_AFTER: Duration = Duration::from_millis(660);

#[test]
fn the_agent_is_killed_while_all_ask() {
    on_a_node(async |node| {
        let (mut stage, agent) = Stage::new(node, IPV4).await;
        stage.sandbox.faults().set([slow(1_000)]);
        let next = release(&stage.sandbox, 2);
        let restart = async {
            sleep(Duration::from_millis(300)).await;
            agent.signal(Signal::SIGKILL);
            sleep(RESTARTED_AFTER).await;
            next.start().await
        };
        let (asked, new) = tokio::join!(stage.ask(), restart);
        let mut rows = stage.rows(asked, &(agent.log() + &new.log()));
        // Three tries with pauses from 0 s to 3 s: they may all be over before there is an agent again.
        by_chance(&mut rows, &["Rust", "CRT", "1.19"]);
        judge("The agent is killed, and answers again after 0.7 s", &rows);
    });
}

#[test]
fn the_agent_is_updated_while_all_ask() {
    on_a_node(async |node| {
        let (mut stage, agent) = Stage::new(node, IPV4).await;
        let new = release(&stage.sandbox, 2).start().await;
        stage.sandbox.faults().set([slow(1_000)]);
        let end = async {
            sleep(Duration::from_millis(300)).await;
            agent.signal(Signal::SIGTERM);
        };
        let (asked, ()) = tokio::join!(stage.ask(), end);
        let mut rows = stage.rows(asked, &(agent.log() + &new.log()));
        // Its nine tries take about as long as AWS.
        by_chance(&mut rows, &["100 ms"]);
        judge("The agent is updated", &rows);
    });
}

/// Asserts that all were served, and says nothing more of it.
fn all_are_served(asked: &[Asked]) {
    assert!(asked.iter().all(|asked| asked.result.is_ok()), "{asked:?}");
}

#[test]
fn tokens_are_rotated_between_two_requests() {
    on_a_node(async |node| {
        // The first is asked for before all have started, so it has to outlive that.
        let (token_lifetime, credential_lifetime) = (Duration::from_secs(24), Duration::from_secs(27));
        let options = Options { token_lifetime, credential_lifetime, ..Options::default() };
        let (mut stage, agent) = Stage::with(options, node, IPV4).await;
        all_are_served(&stage.ask().await);
        // The old token has expired then, and so has what any SDK holds: each asks the agent again.
        sleep(credential_lifetime).await;
        for asking in &stage.asking {
            rotate_token(&asking.pod.identity);
        }
        let asked = stage.ask().await;
        judge("The token is rotated", &stage.rows(asked, &agent.log()));
    });
}

/// A node on which all have a set of 60 s.
fn with_short_sets(then: impl AsyncFnOnce(Stage, Agent) + Send + 'static) {
    on_a_node(async |node| {
        let options = Options { credential_lifetime: Duration::from_secs(60), ..Options::default() };
        let (mut stage, agent) = Stage::with(options, node, IPV4).await;
        all_are_served(&stage.ask().await);
        then(stage, agent).await;
    });
}

#[test]
fn aws_fails_when_a_set_has_55_s_left() {
    with_short_sets(async |mut stage: Stage, agent: Agent| {
        aws_fails(&stage.sandbox);
        sleep(Duration::from_secs(5)).await;
        let asked = stage.ask().await;
        judge("AWS fails when a set has 55 s left", &stage.rows(asked, &agent.log()));
    });
}

#[test]
fn sets_live_for_60_s_only() {
    with_short_sets(async |mut stage: Stage, agent: Agent| {
        all_are_served(&stage.ask().await);
        let asked = stage.ask().await;
        judge("Sets live for 60 s only", &stage.rows(asked, &agent.log()));
    });
}
