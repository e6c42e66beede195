//! The listeners that pods come to, wired: which ports, and what makes the agent reached.
//!
//! Owns: which address listens on which port at which time, and the conditions that say so. Must not know:
//! how a listener accepts, and how the table of the guard is written.
//!
//! Without the guard there is one listener at each address, on the port of SDKs. With it, another process may
//! have that port: an older agent until it ends, or an ingress. Then the agent listens on a guard port
//! meanwhile, and the table leads connections there.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::Services;
use super::listener_names::{ListenerNames, is_first_of_family};
use crate::config::{Config, Guard};
use crate::lifecycle::condition_name::ConditionName;
use crate::lifecycle::readiness::Condition;
use crate::lifecycle::shutdown::Shutdown;
use crate::node::guard::{AFTER_TURNING, Places, State, Switch, TableStatus};
use crate::node::listening::Listening as Sockets;
use crate::node::self_probe::{ProbeKey, is_another_agents};
use crate::server::door::accept::Acceptor;
use crate::server::door::bind::{Again, BindError, bind_first_free, show};
use crate::server::pages::credentials::Endpoint;

/// How often it is asked who has the port of SDKs, while this agent has it not.
const HOLDER_POLL: Duration = Duration::from_secs(1);
/// The longest time between two of these, while it is no agent that has it.
const LONGEST_HOLDER_POLL: Duration = Duration::from_secs(16);

/// How long a guard port waits for the port of SDKs to be bound. The two are started together.
const OWN_PORT_FIRST: Duration = Duration::from_millis(1);

/// Why a guard port is no way to the agent.
const NOT_LED: &str = "the nftables table does not lead here";

/// What every listener is given.
#[derive(Clone)]
struct Ways {
    door: Acceptor<Endpoint>,
    places: Places,
    switch: Switch,
    probe_key: ProbeKey,
    shutdown: Shutdown,
    port: u16,
}

/// One way to the agent.
struct Listening {
    host: IpAddr,
    bound: Condition,
}

impl Services {
    /// Starts the listeners, and returns their tasks. Readiness waits for the first address of each family: a
    /// cluster's pods use one family only, and the agent cannot know which. On a node without IPv6 that
    /// condition does not apply.
    pub(super) fn listen(
        &self,
        config: &Config,
        door: &Acceptor<Endpoint>,
        places: &Places,
        switch: &Switch,
        probe_key: &ProbeKey,
    ) -> Vec<JoinHandle<()>> {
        let ways = Ways {
            door: door.clone(),
            places: places.clone(),
            switch: switch.clone(),
            probe_key: probe_key.clone(),
            shutdown: self.shutdown.clone(),
            port: config.listen.port,
        };
        let mut names = ListenerNames::default();
        let mut tasks = Vec::new();
        let mut listening = Vec::new();
        // The guard's listeners first: the names of conditions go by order.
        if let Some(guard) = config.node_network.guard {
            for host in guarded(config) {
                let bound = self.start_guard_listener(config, &mut names, &ways, guard, host, &mut tasks);
                listening.push(Listening { host, bound });
                tasks.push(self.start_covering(&ways, host));
            }
        }
        let is_shared = config.node_network.guard.is_some_and(|guard| guard.shares_port);
        for host in config.listen.hosts.iter().copied().filter(|host| !is_shared || host.is_loopback()) {
            let bound = self.start_own_listener(config, &mut names, &ways, host, &mut tasks);
            listening.push(Listening { host, bound });
        }
        if config.node_network.guard.is_some() {
            self.wait_until_reached(config, &listening);
        }
        tasks
    }

    fn start_own_listener(
        &self,
        config: &Config,
        names: &mut ListenerNames,
        ways: &Ways,
        host: IpAddr,
        tasks: &mut Vec<JoinHandle<()>>,
    ) -> Condition {
        let name = names.next(config, host, config.listen.port);
        let is_reached = config.node_network.guard.is_none() && is_first_of_family(config, &host);
        let bound = if is_reached { self.readiness.condition(name) } else { self.readiness.advisory(name) };
        let serving = serve_own_port(ways.clone(), host, bound.clone());
        tasks.push(self.start_listener(name, &bound, serving));
        bound
    }

    fn start_guard_listener(
        &self,
        config: &Config,
        names: &mut ListenerNames,
        ways: &Ways,
        guard: Guard,
        host: IpAddr,
        tasks: &mut Vec<JoinHandle<()>>,
    ) -> Condition {
        let name = names.next(config, host, guard.port);
        let bound = self.readiness.advisory(name);
        let serving = serve_guard_ports(ways.clone(), host, guard, bound.clone());
        tasks.push(self.start_listener(name, &bound, serving));
        bound
    }

    fn start_covering(&self, ways: &Ways, host: IpAddr) -> JoinHandle<()> {
        self.tasks.spawn("cover", cover(ways.clone(), host))
    }

    /// Behind a guard pods reach the agent by either of two ways, and one suffices: the port of SDKs, or a
    /// guard port once the table has been seen to lead there. Another process may have the one; without the
    /// table, nobody comes to the other. The table itself is waited for until it leads to this agent or
    /// cannot be written: a pod with hostPort 80 may receive what is sent to the port of SDKs before.
    fn wait_until_reached(&self, config: &Config, listening: &[Listening]) {
        for host in config.listen.hosts.iter().filter(|host| is_first_of_family(config, host)) {
            let reached = self.readiness.condition(match host {
                IpAddr::V4(_) => ConditionName::ListenerIpv4,
                IpAddr::V6(_) => ConditionName::ListenerIpv6,
            });
            let ways: Vec<Vec<&Condition>> = listening
                .iter()
                .filter(|listening| listening.host == *host)
                .map(|listening| vec![&listening.bound])
                .collect();
            let ways: Vec<&[&Condition]> = ways.iter().map(Vec::as_slice).collect();
            self.readiness.follows_from(&reached, &ways);
        }
    }
}

/// The addresses that the guard redirects to the agent. Nothing on loopback is redirected.
pub(super) fn guarded(config: &Config) -> impl Iterator<Item = IpAddr> + '_ {
    config.listen.hosts.iter().copied().filter(|host| !host.is_loopback())
}

/// The port of SDKs: waits for it, and keeps it to the end.
async fn serve_own_port(ways: Ways, host: IpAddr, bound: Condition) {
    let is_another_agents = AtomicBool::new(false);
    let ports = [ways.port];
    let binding = bind_first_free(host, &ports, |tried| match tried {
        Err(BindError { address, .. }) if is_another_agents.load(Ordering::Relaxed) => {
            bound.met_by(format!("on standby: another agent of this node has {address} until it ends"));
            Again::Soon
        }
        tried => show(&bound, tried),
    });
    let listener = tokio::select! {
        biased;
        listener = binding => listener,
        () = watch_holder(&ways, host, &is_another_agents) => return,
        () = ways.shutdown.wait_for_draining() => return,
    };
    ways.places.change(host, |place| place.has_own_port = true);
    ways.door.serve(listener).await;
}

/// Sees who has the port, without end. An ingress may have it for good, and have so many connections that the
/// list of the node's sockets takes a tenth of a second (20,000: 86 ms, measured).
async fn watch_holder(ways: &Ways, host: IpAddr, is_another_agents: &AtomicBool) {
    let target = SocketAddr::new(host, ways.port);
    let mut pause = HOLDER_POLL;
    loop {
        // An answer alone says who is reached by the table, and with port 80 it may be somebody else's.
        let is_listened_on = Sockets::on(target.port()).await.exactly(target.ip());
        let found = is_listened_on && is_another_agents_at(&ways.probe_key, target).await;
        is_another_agents.store(found, Ordering::Relaxed);
        sleep(pause).await;
        pause = if found { HOLDER_POLL } else { (pause * 2).min(LONGEST_HOLDER_POLL) };
    }
}

async fn is_another_agents_at(key: &ProbeKey, target: SocketAddr) -> bool {
    // No agent serves on a port that the kernel chooses.
    target.port() != 0 && is_another_agents(key, target).await
}

/// A guard port, for as long as the port of SDKs is somebody else's, and a little longer.
async fn serve_guard_ports(ways: Ways, host: IpAddr, guard: Guard, bound: Condition) {
    while ways.shutdown.is_running() {
        // The listener on the port of SDKs tries first, and needs a moment for that.
        sleep(OWN_PORT_FIRST).await;
        if ways.places.at(host).has_own_port {
            bound.not_applicable(format!("port {} is the agent's own", ways.port));
            return;
        }
        let ports = guard.ports();
        let listener = tokio::select! {
            biased;
            () = ways.shutdown.wait_for_draining() => return,
            listener = bind_first_free(host, &ports, |tried| show_without_table(&bound, tried)) => listener,
            () = ways.places.until(host, |place| place.has_own_port) => continue,
        };
        let port = listener.local_addr().port();
        ways.places.change(host, |place| place.guard_port = Some(port));
        let serving = ways.door.serve_until(listener, ways.led_elsewhere(host, port));
        let accepted = tokio::select! {
            accepted = serving => accepted,
            () = show_whether_led(&ways.switch, host, &bound) => return,
        };
        ways.places.change(host, |place| place.guard_port = None);
        ways.door.finish(accepted).await;
    }
}

/// A port alone is no way to the agent.
fn show_without_table(bound: &Condition, tried: Result<(), BindError>) -> Again {
    match tried {
        Ok(()) => bound.unmet(NOT_LED),
        Err(error) => return show(bound, Err(error)),
    }
    Again::Later
}

/// Shows whether the table leads to this agent at this address, without end.
async fn show_whether_led(switch: &Switch, host: IpAddr, bound: &Condition) {
    loop {
        switch.until(Duration::ZERO, |state| state.leads_here.contains(&host)).await;
        bound.met();
        switch.until(Duration::ZERO, |state| !state.leads_here.contains(&host)).await;
        bound.unmet(NOT_LED);
    }
}

/// The guard port of another agent that the table redirects to, if that agent ends: a pod that comes there
/// finds this one, until the table leads to this one's own ports again. Another agent is also the one that
/// this container was before it was started again.
async fn cover(ways: Ways, host: IpAddr) {
    while ways.shutdown.is_running() {
        let port = tokio::select! {
            port = ways.another_agents_port(host) => port,
            () = ways.shutdown.wait_for_draining() => return,
        };
        let ports = [port];
        let is_it = |state: &State| state.guard_port_of(host) == Some(port);
        let listener = tokio::select! {
            biased;
            () = ways.shutdown.wait_for_draining() => return,
            listener = bind_first_free(host, &ports, |_tried| Again::Soon) => listener,
            () = ways.switch.until(Duration::ZERO, |state| !is_it(state)) => continue,
        };
        ways.places.change(host, |place| place.covered_port = Some(port));
        let over = ways.switch.until(AFTER_TURNING, |state| !is_it(state));
        let accepted = ways.door.serve_until(listener, over).await;
        ways.places.change(host, |place| place.covered_port = None);
        ways.door.finish(accepted).await;
    }
}

impl Ways {
    /// The agent has the port of SDKs, and the table has led nowhere else for long enough.
    async fn led_elsewhere(&self, host: IpAddr, port: u16) {
        self.places.until(host, |place| place.has_own_port).await;
        self.switch.until(AFTER_TURNING, |state| state.guard_port_of(host) != Some(port)).await;
    }

    async fn another_agents_port(&self, host: IpAddr) -> u16 {
        loop {
            let is_anothers =
                |state: &State| state.status != TableStatus::Owner && state.guard_port_of(host).is_some();
            self.switch.until(Duration::ZERO, is_anothers).await;
            let own = self.places.at(host).guard_port;
            match self.switch.state().guard_port_of(host).filter(|port| Some(*port) != own) {
                Some(port) => return port,
                None => sleep(HOLDER_POLL).await,
            }
        }
    }
}
