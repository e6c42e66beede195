//! One story: a node, its pods, its AWS, for so many hours.
//!
//! Owns: beginning, middle and end of a run, and what all parts of it share. Must not know: what is a breach.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use pod_identity_agent::lifecycle::tasks::Tasks;
use tokio::time::Instant;

use crate::aws::Aws;
use crate::bug::{self, Bug};
use crate::imds::Imds;
use crate::issuer::{Issuer, KeyState};
use crate::journal::{Event, Journal, What};
use crate::kind::{Bend, Kind, Lie};
use crate::ledger::{Ledger, TOLERATED_SKEW, Token};
use crate::node::{Around, Document, Node};
use crate::pod;
use crate::thief;
use crate::watch::{Found, Invariant, Watch};
use crate::weather::Weather;

/// The memory of the node is looked at this often.
const LOOK: Duration = Duration::from_secs(600);
/// Expired sets are gone after this: the worker rests 30 s at most, and clocks may differ by a little.
const TO_TIDY: Duration = Duration::from_secs(60);
/// A flight lives for half of this at most: what the agent knew so long ago, it knew when the flight began.
const FLIGHT: Duration = Duration::from_secs(60);
/// After everybody has left: the longest life of a set, a renewal at most 3 h after it came, and its
/// successor's life.
const AFTERMATH: Duration = Duration::from_secs(28 * 3600);

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
    lies: Mutex<Vec<Lie>>,
    began: Instant,
    wall: Mutex<Option<Node>>,
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
        let around =
            Around { aws: Aws::http_client(&world), imds: Imds::http_client(&world), keys: world.document() };
        let node = Node::start(world.story.seed, world.true_wall(), around, &tasks);
        *world.wall.lock() = Some(node.clone());
        let mut running = vec![tasks.spawn("nature", nature(Arc::clone(&world), node.clone()))];
        running.push(tasks.spawn("thief", thief::steal(Arc::clone(&world), node.clone())));
        running.extend(world.story.slots.iter().map(|slot| {
            tasks.spawn("slot", pod::live_in_slot(Arc::clone(&world), node.clone(), tasks.clone(), *slot))
        }));
        tokio::select! {
            biased;
            () = world.watch.noticed.notified() => {}
            () = world.keep_looking(&node, world.story.length) => {}
        }
        for task in running {
            task.abort();
            if task.await.is_err_and(|error| error.is_panic()) {
                world.breach(Invariant::Panic, "a task of the simulation panicked");
            }
        }
        if world.watch.first().is_none() {
            world.aftermath(&node, &tasks).await;
        }
        // The world holds the node, which holds the world.
        world.wall.lock().take();
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
            issuer.set(*keys);
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
            wall: Mutex::new(None),
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
        let Some(node) = &*self.wall.lock() else { return false };
        let (agent, aws) = (node.time(), self.true_wall());
        let skew = agent.wall.duration_since(aws).unwrap_or_else(|earlier| earlier.duration());
        let is_wrong = skew > TOLERATED_SKEW;
        if is_wrong && self.watch.may_know_the_time(now) {
            self.breach(Invariant::Time, format!("two answers have come, and the time is {skew:?} off"));
        }
        let found = self.watch.see(now, &agent, is_wrong, self.weather.clear_for(now));
        self.watch.report(now, found);
        is_wrong || !agent.is_confirmed()
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

    fn breach(&self, invariant: Invariant, what: impl Into<String>) {
        self.watch.report(self.now(), Some(Found::new(invariant, what, Vec::new())));
    }

    /// Looks at the node's memory until the story is over.
    async fn keep_looking(&self, node: &Node, length: Duration) {
        while self.now() < length {
            tokio::time::sleep(LOOK.min(length.saturating_sub(self.now()))).await;
            self.look_at_memory(node);
        }
    }

    fn look_at_memory(&self, node: &Node) {
        if self.is_in_doubt() {
            // What has expired is kept until AWS has said what time it is.
            return;
        }
        let (held, _) = node.remains();
        let living = u64::try_from(self.ledger.lock().living(self.now(), TO_TIDY)).unwrap_or(u64::MAX);
        if held > living {
            self.breach(Invariant::Gone, format!("{held} sets are held, of which {living} live"));
        }
    }

    /// Everybody has left: after a while nothing remains of them.
    async fn aftermath(&self, node: &Node, tasks: &Tasks) {
        let now = self.now();
        node.set_wall_error_ms(0);
        for pod in &mut self.ledger.lock().pods {
            pod.gone_at.get_or_insert(now);
        }
        self.keep_looking(node, now + AFTERMATH).await;
        let (held, flights) = node.remains();
        if held > 0 || flights > 0 {
            self.breach(
                Invariant::Gone,
                format!("everybody left, and {held} sets and {flights} flights remain"),
            );
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
        }
    }
}

fn named(bend: Bend) -> What {
    match bend {
        Bend::Wall(error) => What::ClockOff(error / 1000),
        Bend::Pause(pause) => What::Paused(pause.as_secs()),
    }
}

/// What changes around the node.
#[derive(Clone, Copy, Debug)]
enum Change {
    Bend(Bend),
    Keys(KeyState),
}

/// Tells the journal of the weather, changes the keys, and bends the node's clock.
async fn nature(world: Arc<World>, node: Node) {
    let skies = world.weather.changes().into_iter().map(|(at, name)| (at, What::Weather(name), None));
    let bends = world.weather.bends.iter().map(|(at, bend)| (*at, named(*bend), Some(Change::Bend(*bend))));
    let keys = world.weather.keys.iter().map(|&(at, keys)| {
        let KeyState { signer, published } = keys;
        (at, What::Keys(signer, published), Some(Change::Keys(keys)))
    });
    let mut events: Vec<(Duration, What, Option<Change>)> = skies.chain(bends).chain(keys).collect();
    events.sort_by_key(|(at, _, _)| *at);
    for (at, what, bend) in events {
        tokio::time::sleep_until(world.began + at).await;
        // What was in doubt may have been confirmed since anybody looked; it is another doubt from here on.
        world.is_in_doubt();
        match bend {
            None => {}
            Some(Change::Keys(keys)) => world.issuer.set(keys),
            Some(Change::Bend(Bend::Wall(error))) => {
                node.set_wall_error_ms(error);
                world.watch.clock_set(error);
            }
            Some(Change::Bend(Bend::Pause(pause))) => {
                world.watch.paused(pause);
                node.pause(pause).await;
            }
        }
        world.journal.note(world.now(), None, what);
        world.is_in_doubt();
    }
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
        writeln!(f, "seed {} ({:?}) breaks {}", self.story.seed, self.story.kind, found.invariant)?;
        writeln!(f, "  {} (slots {:?}) after {:.4} h", found.what, self.involved, at.as_secs_f64() / 3600.0)?;
        writeln!(f, "  the last events, with {} of the pods' slots in the story:", self.story.slots.len())?;
        self.events.iter().try_for_each(|event| writeln!(f, "  {event}"))
    }
}
