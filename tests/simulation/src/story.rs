//! One story: a node, its pods, its AWS, for so many hours.
//!
//! Owns: beginning, middle and end of a run, and what all parts of it share. Must not know: what is a breach.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use eks_auth_wire::Answers;
use parking_lot::Mutex;
use pod_identity_agent::clock::Simulated;
use pod_identity_agent::credentials::assemble::Sizes;
use pod_identity_agent::lifecycle::tasks::Tasks;
use tokio::time::Instant;

use crate::annotations;
use crate::aws::Aws;
use crate::bug::{self, Bug};
use crate::imds::Imds;
use crate::issuer::{Issuer, KeyState};
use crate::journal::{Event, Journal, What};
use crate::kind::{Bend, Kind, Lie};
use crate::ledger::{Ledger, TO_TIDY, TOLERATED_SKEW, Token};
use crate::life::Life;
use crate::node::{Around, Document, Node, ReadAccount, Reading};
use crate::pod;
use crate::shape::Shape;
use crate::source::Source;
use crate::thief;
use crate::watch::{Found, Invariant, Shown, Watch};
use crate::weather::Weather;

/// The memory of the node is looked at this often.
const LOOK: Duration = Duration::from_secs(600);
/// A flight lives for half of this at most: what the agent knew so long ago, it knew when the flight began.
const FLIGHT: Duration = Duration::from_secs(60);
/// Checks that are void stay in line until it is their turn, or they are the greater part of so many.
const VOID_CHECKS: u64 = 1_024;
const TOLERATED_MS: u64 = TOLERATED_SKEW.as_secs() * 1_000;

/// Which story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Story {
    /// Of which kind.
    pub kind: Kind,
    /// What decides everything.
    pub seed: u64,
    /// How long pods come and go.
    pub length: Duration,
    /// The length for which the weather was drawn; a story that is cut short keeps it.
    pub drawn_for: Duration,
    /// The slots in which pods live.
    pub slots: Vec<u32>,
    /// The bug that is planted, if one is.
    pub bug: Option<Bug>,
}

/// How a story went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The story.
    pub story: Story,
    /// The first breach and when it was seen.
    pub found: Option<(Duration, Found)>,
    /// The slots of the pods involved.
    pub involved: Vec<u32>,
    /// The last events of these and of the node.
    pub events: Vec<Event>,
    /// A digest over all events.
    pub digest: u64,
    /// How many events there were.
    pub count: u64,
    /// How many pods lived, how many sets were issued, how many calls AWS had.
    pub totals: (usize, usize, u64),
    /// How many sets STS issued, and for how many other roles than the first of a pod.
    pub of_roles: (usize, usize),
}

/// What all parts of a story share.
pub struct World {
    /// Which story.
    pub story: Story,
    /// How AWS is when.
    pub weather: Weather,
    /// What happened.
    pub journal: Journal,
    /// What AWS remembers.
    pub ledger: Mutex<Ledger>,
    /// Who issues the pods' tokens.
    pub issuer: Issuer,
    /// The invariants.
    pub watch: Watch,
    /// Numbers AWS's answers.
    pub answers: Answers,
    lies: Mutex<Vec<Lie>>,
    began: Instant,
    clocks: Arc<Simulated>,
    /// The agents that live.
    nodes: Mutex<Vec<Node>>,
}

impl Story {
    /// So many hours with so many pods at a time.
    pub fn new(seed: u64, hours: u64, pods: u32) -> Self {
        let length = Duration::from_secs(hours * 3600);
        Self { kind: Kind::Days, seed, length, drawn_for: length, slots: (0..pods).collect(), bug: None }
    }

    /// A short story of this kind.
    pub fn short(kind: Kind, seed: u64) -> Self {
        let length = kind.length().unwrap_or_default();
        Self { kind, seed, length, drawn_for: length, slots: (0..kind.pods()).collect(), bug: None }
    }

    /// The same with another seed.
    #[must_use]
    pub fn of_seed(&self, seed: u64) -> Self {
        Self { seed, ..self.clone() }
    }

    /// What the seed draws for it.
    pub fn weather(&self) -> Weather {
        Weather::of(self.kind, self.seed, self.drawn_for)
    }

    /// The same with a bug.
    #[must_use]
    pub fn with(self, bug: Bug) -> Self {
        Self { bug: Some(bug), ..self }
    }

    /// Runs it. The bug is planted on this thread meanwhile.
    ///
    /// # Errors
    /// When the runtime cannot be built.
    pub fn run(&self) -> std::io::Result<Outcome> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
        bug::plant(self.bug);
        // The AWS SDK's own chance, the pauses before it asks the metadata service again.
        fastrand::seed(self.seed);
        let outcome = runtime.block_on(self.clone().play());
        drop(runtime);
        bug::plant(None);
        Ok(outcome)
    }

    async fn play(self) -> Outcome {
        let world = World::new(self);
        let tasks = Tasks::new();
        for number in 0..u64::from(world.weather.shape.nodes) {
            world.start_agent(number, &tasks);
        }
        let mut running = vec![tasks.spawn("nature", nature(Arc::clone(&world), tasks.clone()))];
        running.push(tasks.spawn("thief", thief::steal(Arc::clone(&world))));
        running.extend(
            world
                .story
                .slots
                .iter()
                .map(|slot| tasks.spawn("slot", pod::live_in_slot(Arc::clone(&world), tasks.clone(), *slot))),
        );
        tokio::select! {
            biased;
            () = world.watch.noticed.notified() => {}
            () = world.keep_looking(world.story.length) => {}
        }
        for task in running {
            task.abort();
            if task.await.is_err_and(|error| error.is_panic()) {
                world.breach(Invariant::Panic, "a task of the simulation panicked");
            }
        }
        if world.watch.first().is_none() && !world.story.kind.aftermath().is_zero() {
            world.aftermath(&tasks).await;
        }
        // The world holds the nodes, which hold the world.
        world.nodes.lock().clear();
        world.outcome()
    }
}

impl World {
    /// The wall time at which every story begins: 2027-01-15.
    pub const BEGINNING: Duration = Duration::from_secs(1_800_000_000);

    fn new(story: Story) -> Arc<Self> {
        let weather = story.weather();
        let issuer = Issuer::default();
        if let Some((_, keys)) = weather.keys.first() {
            issuer.set(*keys, Duration::ZERO);
        }
        Arc::new(Self {
            lies: Mutex::new(weather.lies.clone()),
            issuer,
            weather,
            story,
            journal: Journal::default(),
            ledger: Mutex::default(),
            watch: Watch::default(),
            began: Instant::now(),
            answers: Answers::default(),
            clocks: Simulated::starting_at(UNIX_EPOCH + Self::BEGINNING),
            nodes: Mutex::default(),
        })
    }

    /// Time since the beginning, by AWS's own clock.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// The wall time by AWS's own clock.
    pub fn true_wall(&self) -> SystemTime {
        UNIX_EPOCH + Self::BEGINNING + self.now()
    }

    fn start_agent(self: &Arc<Self>, number: u64, tasks: &Tasks) {
        let life = Life::new();
        let around = Around {
            aws: Aws::http_client(self, Source::EksAuth, life.clone()),
            sts: Aws::http_client(self, Source::Sts, life.clone()),
            annotations: self.annotations(),
            imds: Imds::http_client(self, life.clone()),
            keys: self.document(),
            clocks: Arc::clone(&self.clocks),
            life,
        };
        let seed = self.story.seed + 1_000 * number;
        let node = Node::start(seed, &self.weather.shape, around, tasks);
        self.nodes.lock().push(node);
    }

    /// The agent is killed, and another one is started at once.
    fn restart_agent(self: &Arc<Self>, tasks: &Tasks) {
        let killed = self.nodes.lock().pop();
        if let Some(node) = killed {
            node.kill();
        }
        self.ledger.lock().restarted();
        self.issuer.forget_reader();
        self.watch.restarted(self.now());
        self.start_agent(self.now().as_secs(), tasks);
    }

    /// The agent that a slot's pod asks.
    pub fn node_of(&self, slot: u32) -> Option<Node> {
        let nodes = self.nodes.lock();
        let number = usize::try_from(slot).unwrap_or_default();
        number.checked_rem(nodes.len()).and_then(|number| nodes.get(number)).cloned()
    }

    /// The slot of a pod.
    pub fn slot_of(&self, pod: usize) -> u32 {
        self.ledger.lock().pods.get(pod).map_or(u32::MAX, |pod| pod.slot)
    }

    /// Notes an event of a pod.
    pub fn note(&self, pod: usize, what: What) {
        self.journal.note(self.now(), Some(self.slot_of(pod)), what);
    }

    /// Whether the agent's idea of AWS's time is wrong or not confirmed now. Once two answers have come since
    /// the clocks were last bent it must be right.
    pub fn is_in_doubt(&self) -> bool {
        let now = self.now();
        let Some(node) = self.node_of(0) else { return false };
        let (agent, aws) = (node.time(), self.true_wall());
        let boot = UNIX_EPOCH + Self::BEGINNING + Duration::from_nanos(self.clocks.boot().as_nanos());
        let wall = self.clocks.wall();
        let shown = Shown { wall_ahead_ms: ms_between(wall, aws), ahead_of_boot_ms: ms_between(wall, boot) };
        let found = self.watch.see(now, &agent, aws, shown, self.weather.all_clear_for(now));
        self.watch.report(now, found);
        ms_between(agent.wall, aws).unsigned_abs() > TOLERATED_MS || !agent.is_confirmed()
    }

    /// By how many seconds the `Date` of the next answer is off, if it is.
    pub fn lie(&self) -> Option<i64> {
        let now = self.now();
        let mut lies = self.lies.lock();
        let lie = lies.iter_mut().find(|lie| lie.at <= now && lie.answers > 0)?;
        lie.answers -= 1;
        let what = What::WrongDates(lie.off, lie.answers);
        self.journal.note(now, None, what);
        Some(lie.off)
    }

    /// Whether a set that is issued for this token now is kept under the name of its pod for sure.
    pub fn is_surely_the_pods(&self, token: Token) -> bool {
        let now_known = self.ledger.lock().token_now(token.number);
        let is_verified = now_known.is_some_and(|token| token.is_verified && !token.has_its_own);
        let now = self.now();
        is_verified
            && self.issuer.known_since(token.key).is_some_and(|since| since + FLIGHT < now)
            && !self.watch.was_in_doubt_since(now.saturating_sub(FLIGHT))
    }

    /// The document of token keys for the agent, if it is given one.
    fn document(self: &Arc<Self>) -> Option<Document> {
        if self.weather.keys.is_empty() {
            return None;
        }
        let world = Arc::clone(self);
        Some(Box::new(move || {
            let document = world.issuer.read(world.now());
            world.ledger.lock().withdrawn(|key| world.issuer.known_since(key).is_some());
            document
        }))
    }

    /// The annotations of service accounts, if some of them have roles.
    fn annotations(self: &Arc<Self>) -> Option<ReadAccount> {
        let world = Arc::clone(self);
        let read = move |account| -> Reading { Box::pin(annotations::read(Arc::clone(&world), account)) };
        (self.weather.shape.percent_of_roles > 0).then(|| Box::new(read) as ReadAccount)
    }

    fn breach(&self, invariant: Invariant, what: impl Into<String>) {
        self.watch.report(self.now(), Some(Found::new(invariant, what, Vec::new())));
    }

    /// Looks at the node's memory until the story is over.
    async fn keep_looking(&self, length: Duration) {
        let all_served = self.story.kind.all_served_by();
        let look = all_served.map_or(LOOK, |(by, _)| by);
        while self.now() < length {
            tokio::time::sleep(look.min(length.saturating_sub(self.now()))).await;
            self.look_at_memory();
            if let Some((_, calls)) = all_served.filter(|(by, _)| self.now() == *by) {
                self.look_at_the_served(calls);
            }
        }
    }

    /// How much of what is kept is there, over all agents. Nobody tidies for the look.
    fn look_at_memory(&self) {
        if self.is_in_doubt() {
            // What has expired is kept until AWS has said what time it is.
            return;
        }
        let held = self.remains();
        let ledger = self.ledger.lock();
        let living = u64::try_from(ledger.living(self.now(), TO_TIDY)).unwrap_or(u64::MAX);
        drop(ledger);
        let shape = self.weather.shape;
        // Verified pods have room of their own, and tokens that nobody verifies as much again.
        let room = 2 * u64::try_from(shape.most_identities).unwrap_or(u64::MAX);
        let most = living.min(room);
        let checks = u64::try_from(held.checks).unwrap_or(u64::MAX);
        let links = u64::try_from(held.links).unwrap_or(u64::MAX);
        if held.records > most || links > living || checks > VOID_CHECKS + 4 * held.records {
            self.breach(Invariant::Gone, format!("{held:?}, and {living} sets live, with room for {room}"));
        }
    }

    fn remains(&self) -> Sizes {
        let nodes = self.nodes.lock();
        nodes.iter().map(Node::remains).fold(Sizes::default(), Sizes::and)
    }

    /// By now everybody must have been served, and AWS called so often for each at most.
    fn look_at_the_served(&self, calls_for_each: u64) {
        let ledger = self.ledger.lock();
        let pods: std::collections::BTreeSet<usize> = ledger.sets.iter().map(|set| set.pod).collect();
        let (served, living, calls) = (pods.len(), ledger.pods.len(), ledger.calls);
        drop(ledger);
        let most = calls_for_each * u64::try_from(living).unwrap_or(u64::MAX);
        if served < living || calls > most {
            self.breach(
                Invariant::Budget,
                format!("{served} of {living} pods are served, with {calls} calls"),
            );
        }
    }

    /// Everybody has left: after a while nothing remains of them.
    async fn aftermath(&self, tasks: &Tasks) {
        let now = self.now();
        for pod in &mut self.ledger.lock().pods {
            pod.gone_at.get_or_insert(now);
        }
        self.keep_looking(now + self.story.kind.aftermath()).await;
        let held = self.remains();
        if held.records > 0 || held.links > 0 || held.flights > 0 || held.peers > 0 || held.checks > 0 {
            self.breach(Invariant::Gone, format!("everybody left, and this remains: {held:?}"));
        }
        if !tasks.alive().contains(&"renewals") {
            self.breach(Invariant::Panic, "the renewal worker is gone");
        }
    }

    fn outcome(&self) -> Outcome {
        let found = self.watch.first();
        let pods = found.as_ref().map(|(_, found)| found.pods.clone()).unwrap_or_default();
        let involved: Vec<u32> = pods.into_iter().map(|pod| self.slot_of(pod)).collect();
        let (digest, count) = self.journal.digest();
        let ledger = self.ledger.lock();
        Outcome {
            story: self.story.clone(),
            found,
            events: self.journal.recent(&involved),
            involved,
            digest,
            count,
            totals: (ledger.pods.len(), ledger.sets.len(), ledger.calls),
            of_roles: ledger.of_roles(),
        }
    }
}

fn named(bend: Bend) -> What {
    match bend {
        Bend::Wall(error) => What::ClockOff(error / 1000),
        Bend::Pause(pause) => What::Paused(pause.as_secs()),
        Bend::Quartz(quartz) => What::Quartz(quartz.fast_ppm),
    }
}

/// What changes around the node.
#[derive(Clone, Copy, Debug)]
enum Change {
    Bend(Bend),
    Keys(KeyState),
    Restart,
}

/// Tells the journal of the weather, changes the keys, and bends the node's clock.
async fn nature(world: Arc<World>, tasks: Tasks) {
    let skies =
        world.weather.changes().into_iter().map(|(at, source, name)| (at, What::Weather(source, name), None));
    let bends = world.weather.bends.iter().map(|(at, bend)| (*at, named(*bend), Some(Change::Bend(*bend))));
    let keys = world.weather.keys.iter().map(|&(at, keys)| {
        let KeyState { signer, published } = keys;
        (at, What::Keys(signer, published), Some(Change::Keys(keys)))
    });
    let restarts = world.weather.restarts.iter().map(|at| (*at, What::Restarted, Some(Change::Restart)));
    let mut events: Vec<(Duration, What, Option<Change>)> =
        skies.chain(bends).chain(keys).chain(restarts).collect();
    events.sort_by_key(|(at, _, _)| *at);
    for (at, what, bend) in events {
        tokio::time::sleep_until(world.began + at).await;
        // What was in doubt may have been confirmed since anybody looked; it is another doubt from here on.
        world.is_in_doubt();
        match bend {
            None => {}
            Some(Change::Keys(keys)) => world.issuer.set(keys, world.now()),
            Some(Change::Restart) => world.restart_agent(&tasks),
            Some(Change::Bend(Bend::Wall(error))) => {
                world.clocks.set_wall_error_ms(error);
                world.watch.clock_set();
            }
            Some(Change::Bend(Bend::Pause(pause))) => {
                world.watch.paused(world.now() + pause);
                world.clocks.stand_still(pause);
                tokio::time::advance(pause).await;
            }
            Some(Change::Bend(Bend::Quartz(quartz))) => world.clocks.run_with(quartz),
        }
        world.journal.note(world.now(), None, what);
        world.is_in_doubt();
    }
}

/// `later` less `earlier`.
fn ms_between(later: SystemTime, earlier: SystemTime) -> i64 {
    let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    later.duration_since(earlier).map_or_else(|behind| -ms(behind.duration()), ms)
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (pods, sets, calls) = self.totals;
        let hours = self.story.length.as_secs_f64() / 3600.0;
        let Some((at, found)) = &self.found else {
            return writeln!(
                f,
                "seed {}: {hours} h, {pods} pods, {sets} sets, {calls} calls, {} events, digest {:016x}: no breach",
                self.story.seed, self.count, self.digest
            );
        };
        let (seed, kind, digest) = (self.story.seed, self.story.kind, self.digest);
        writeln!(f, "seed {seed} ({kind:?}), digest {digest:016x}, breaks {}", found.invariant)?;
        let shape = self.story.weather().shape;
        if shape != Shape::USUAL {
            writeln!(f, "  with {shape:?}")?;
        }
        writeln!(f, "  {} (slots {:?}) after {:.4} h", found.what, self.involved, at.as_secs_f64() / 3600.0)?;
        writeln!(f, "  the last events, with {} of the pods' slots in the story:", self.story.slots.len())?;
        self.events.iter().try_for_each(|event| writeln!(f, "  {event}"))
    }
}
