//! Pods: they come and go, rotate their tokens, and have processes with the habits of SDKs.
//!
//! Owns: who asks when, and what it does with the answer
//! (docs/design/client-contract.md#reaching-the-endpoint and docs/design/client-contract.md#refresh). Must
//! not know: how answers come about.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pod_identity_agent::lifecycle::tasks::Tasks;
use pod_identity_agent::workload::BearerToken;

use crate::journal::What;
use crate::kind::Kind;
use crate::ledger::{self, ACCESS_DENIED, Life, NO_ROLE, Spell, Token};
use crate::node::Answer;
use crate::rng::Rng;
use crate::shape::Shape;
use crate::source::Source;
use crate::story::World;
use crate::token::{Claims, mint};
use crate::watch::{Asked, Clocks, Found, Invariant};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// After trouble AWS is in good health again for who asks anew.
const GOOD_FOR: Duration = Duration::from_secs(2 * 60);
/// Asking at least once in this time is asking all the time.
const ALL_THE_TIME: Duration = Duration::from_secs(2 * 60);

/// The habit of an SDK.
#[derive(Clone, Copy, Debug)]
struct Habit {
    name: &'static str,
    /// Asks at a use with less than this left; `None`: at each use, whatever is left.
    threshold: Option<Duration>,
    /// Attempts and the pause between them.
    attempts: u32,
    pause: Duration,
    /// Hangs up after this.
    patience: Duration,
    /// How often it signs something, on average.
    uses: Duration,
    /// Whether it does so nearly as by the clock.
    is_regular: bool,
}

const BOTO3: Habit = habit("boto3", Some(15 * 60), 3, 2, 90);
const GO: Habit = habit("Go", Some(5 * 60), 3, 30, 45);
const RUBY: Habit = habit("Ruby", Some(5 * 60), 1, 1, 120);
const JAVA: Habit = habit("Java", Some(60 * 60), 6, 1, 600);
const CPP: Habit = habit("C++", None, 2, 1, 300);
const CLI: Habit = habit("the CLI", None, 3, 2, 900);
const RARE: Habit = habit("a cron job", None, 3, 5, 5 * 3600);

const fn habit(name: &'static str, threshold: Option<u64>, attempts: u32, patience: u64, uses: u64) -> Habit {
    let threshold = match threshold {
        Some(seconds) => Some(Duration::from_secs(seconds)),
        None => None,
    };
    let (pause, uses) = (Duration::from_secs(1), Duration::from_secs(uses));
    Habit {
        name,
        threshold,
        attempts,
        pause,
        patience: Duration::from_secs(patience),
        uses,
        is_regular: false,
    }
}

/// Asks all the time, whatever it has.
const STEADY: Habit = habit("one that asks on", None, 1, 5, 20);
/// Waits as the Rust SDK does, and never gives up.
const PATIENT: Habit = habit("a patient one", Some(5 * 60), 100, 5, 300);
/// Late in the life of a set of 30 minutes that was renewed at 12 to 15, and before its end.
const SLEEPER: Habit = Habit { is_regular: true, ..habit("a sleeper", None, 1, 5, 38 * 60) };

impl Habit {
    fn pause_between_uses(&self, chance: &mut Rng) -> Duration {
        if self.is_regular {
            chance.between(self.uses, self.uses.mul_f64(1.05))
        } else {
            chance.about(self.uses)
        }
    }
}

/// A pod as its processes see it.
struct Pod {
    world: Arc<World>,
    source: Source,
    slot: u32,
    number: usize,
    token: Mutex<Option<BearerToken>>,
    /// When it asked last, and since when without a longer break than that of one who asks all the time.
    asked: Mutex<(Duration, Duration)>,
}

/// Lets one pod after the other live in a slot, for ever; cancel by dropping.
pub async fn live_in_slot(world: Arc<World>, tasks: Tasks, slot: u32) {
    let mut chance = Rng::stream(world.story.seed, u64::from(slot), 0);
    if world.story.kind != Kind::Days {
        let (at, life) = world.story.kind.arrival(slot);
        tokio::time::sleep(at + chance.between(Duration::ZERO, world.story.kind.start())).await;
        let fate = Fate::of(world.story.kind, slot, life);
        live(&world, &tasks, (slot, 0), fate).await;
        return;
    }
    // Most pods are there when the agent starts, and ask at once.
    if chance.percent(30) {
        tokio::time::sleep(chance.about(2 * HOUR)).await;
    }
    for generation in 0.. {
        let mut chance = Rng::stream(world.story.seed, u64::from(slot), u64::from(generation) + 1);
        let fate = Fate::drawn(&mut chance, world.now());
        live(&world, &tasks, (slot, generation), fate).await;
        tokio::time::sleep(Duration::from_secs(2) + chance.about(20 * MINUTE)).await;
    }
}

async fn live(world: &Arc<World>, tasks: &Tasks, who: (u32, u32), fate: Fate) {
    let (slot, generation) = who;
    let Fate { stay, life, spells, moves, token_life, processes, habit } = fate;
    let source = Source::of_slot(world.story.seed, slot, &world.weather.shape);
    let spells = if source == Source::Sts { spells.into_iter().map(of_role).collect() } else { spells };
    let (gone_at, noticed_at) = (None, None);
    let newcomer = ledger::Pod { source, slot, generation, life, spells, moves, gone_at, noticed_at };
    let number = world.ledger.lock().add_pod(newcomer);
    world.note(number, What::Born(generation));
    let (token, asked) = (Mutex::new(None), Mutex::default());
    let pod = Arc::new(Pod { world: Arc::clone(world), source, slot, number, token, asked });
    pod.rotate(slot, generation, token_life);
    let processes = Processes(
        (0..processes)
            .map(|process| {
                let chance = Rng::stream(
                    world.story.seed,
                    u64::from(slot) << 32 | u64::from(generation),
                    u64::from(process) + 7,
                );
                tasks.spawn("process", process_of(Arc::clone(&pod), habit, chance))
            })
            .collect(),
    );
    let _stay = tokio::time::timeout(stay, async {
        loop {
            // The kubelet writes a new token at 80 % of the life of the old one.
            tokio::time::sleep(token_life.mul_f64(0.8)).await;
            pod.rotate(slot, generation, token_life);
        }
    })
    .await;
    drop(processes);
    if let Some(pod) = world.ledger.lock().pods.get_mut(number) {
        pod.gone_at = Some(world.now());
    }
    world.note(number, What::Gone(generation));
}

/// What is settled about a pod when it is born.
struct Fate {
    stay: Duration,
    /// The life of the sets that its role gives.
    life: Life,
    spells: Vec<Spell>,
    /// When its association moves to another role.
    moves: Vec<Duration>,
    token_life: Duration,
    processes: u32,
    /// The habit of all its processes, if they have the same.
    habit: Option<Habit>,
}

impl Fate {
    fn drawn(chance: &mut Rng, now: Duration) -> Self {
        let stay = chance.one_of(20 * HOUR, &[20 * HOUR, 5 * HOUR, 30 * MINUTE]);
        Self {
            stay: MINUTE + chance.about(stay),
            life: match chance.below(10) {
                0..=2 => Life::Drawn,
                3 => Life::Shrinking,
                _ => {
                    Life::Steady(chance.one_of(
                        HOUR,
                        &[15 * MINUTE, 15 * MINUTE, 30 * MINUTE, 6 * HOUR, 6 * HOUR, 12 * HOUR],
                    ))
                }
            },
            spells: spells(chance, now),
            moves: if chance.percent(10) { vec![now + chance.about(3 * HOUR)] } else { Vec::new() },
            token_life: chance.one_of(24 * HOUR, &[24 * HOUR, 12 * HOUR, 2 * HOUR, HOUR]),
            processes: 1 + chance.below(3),
            habit: None,
        }
    }

    fn of(kind: Kind, slot: u32, life: Duration) -> Self {
        let (processes, habit) = match kind {
            Kind::Days | Kind::Crowd => (3, None),
            Kind::Sleepers => (1, Some(SLEEPER)),
            Kind::WrongClock | Kind::Steps | Kind::Pause | Kind::PauseInOutage | Kind::WrongDates => {
                (3, Some(CPP))
            }
            Kind::Keys | Kind::KeysRequired | Kind::OwnCredentials | Kind::Tight => (2, Some(CPP)),
            Kind::Slow => (1, Some(BOTO3)),
            Kind::Gone => (2, Some(STEADY)),
            Kind::Rates => (1, Some(PATIENT)),
        };
        let (spells, moves, life) = (kind.spells(slot), kind.moves(slot), Life::Steady(life));
        Self { stay: 24 * HOUR, life, spells, moves, token_life: kind.token_life(slot), processes, habit }
    }
}

/// One pod in four gets into trouble with its association or role.
fn spells(chance: &mut Rng, now: Duration) -> Vec<Spell> {
    if !chance.percent(25) {
        return Vec::new();
    }
    let from = now + chance.about(2 * HOUR);
    let most = chance.one_of(5 * MINUTE, &[2 * HOUR]);
    let until = from + chance.between(10 * Duration::from_secs(1), most);
    vec![(from, until, chance.one_of("AccessDeniedException", &["ResourceNotFoundException"]))]
}

/// What is the matter with an association, as it is with a role: it cannot be assumed, or nobody gives it.
const fn of_role((from, to, code): Spell) -> Spell {
    (from, to, if matches!(code.as_bytes(), b"AccessDeniedException") { ACCESS_DENIED } else { NO_ROLE })
}

/// Processes that end with their pod, in the middle of whatever they do.
struct Processes(Vec<tokio::task::JoinHandle<()>>);

impl Drop for Processes {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

async fn process_of(pod: Arc<Pod>, habit: Option<Habit>, mut chance: Rng) {
    let habit = habit.unwrap_or_else(|| chance.one_of(BOTO3, &[GO, RUBY, JAVA, CPP, CLI, RARE]));
    let mut good_until = Duration::ZERO;
    loop {
        let now = pod.world.now();
        if habit.threshold.is_none_or(|threshold| good_until.saturating_sub(now) < threshold) {
            match pod.load(&habit).await {
                Some(until) => good_until = until,
                // A pod that fails is started again ever later (CrashLoopBackOff); five minutes at most.
                None => tokio::time::sleep(chance.about(5 * MINUTE)).await,
            }
        }
        // Uses that need nothing new are of no interest: the next that matters is the first after the
        // threshold.
        let quiet = habit.threshold.map_or(Duration::ZERO, |threshold| {
            good_until.saturating_sub(pod.world.now()).saturating_sub(threshold)
        });
        tokio::time::sleep(quiet + Duration::from_secs(1) + habit.pause_between_uses(&mut chance)).await;
    }
}

impl Pod {
    fn rotate(&self, slot: u32, generation: u32, life: Duration) {
        let (issued_at, now) = (self.world.true_wall(), self.world.now());
        let key = self.world.issuer.signer();
        let mut ledger = self.world.ledger.lock();
        let (number, source) = (ledger.tokens.len(), self.source);
        let text =
            mint(&self.world.issuer, &Claims { slot, generation, number, issued_at, life, key, source });
        *self.token.lock() = BearerToken::from_header(text.as_bytes()).ok();
        ledger.add_token(text, Token::new(self.number, number, key, now, now + life));
        drop(ledger);
        self.world.note(self.number, What::Token(number));
    }

    /// Loads credentials as this SDK does; until when they are good.
    async fn load(&self, habit: &Habit) -> Option<Duration> {
        let began = self.world.now();
        let loaded = self.try_to_load(habit).await;
        let now = self.world.now();
        if loaded.is_none() && habit.name == BOTO3.name && self.must_be_served(began, now) {
            let what = "AWS answers well, and boto3 got nothing in its three tries of 2 s";
            let found = Found::new(Invariant::HeldIsServed, what, vec![self.number]);
            self.world.watch.report(now, Some(found));
        }
        loaded
    }

    /// Whether AWS, slow or not, would have given it credentials all the time.
    fn must_be_served(&self, began: Duration, now: Duration) -> bool {
        let world = &*self.world;
        // At the bound a set may be served and not kept, and then each try is another call.
        let has_room = !world.weather.shape.is_tight();
        let good_for = world.weather.good_for(self.source, now);
        let is_good = good_for >= GOOD_FOR || good_for == now;
        // Of a new account the role is read first, at two a second, and the key must be known.
        let needs_more = world.weather.shape.is_required || self.source == Source::Sts;
        let has_spell =
            world.ledger.lock().pods.get(self.number).is_none_or(|pod| {
                pod.spells.iter().any(|(from, to, _)| *from <= now && began < *to + GOOD_FOR)
            });
        let was_interrupted = world.watch.was_interrupted_since(began.saturating_sub(GOOD_FOR));
        let has_turn = !world.ledger.lock().was_crowd_since(self.source, began);
        is_good && has_room && has_turn && !has_spell && !was_interrupted && !needs_more
    }

    async fn try_to_load(&self, habit: &Habit) -> Option<Duration> {
        for attempt in 0..habit.attempts {
            if attempt > 0 {
                tokio::time::sleep(habit.pause).await;
            }
            let answer = tokio::time::timeout(habit.patience, self.ask(habit)).await;
            if let Ok(Some(good_until)) = answer {
                return Some(good_until);
            }
        }
        None
    }

    async fn ask(&self, habit: &Habit) -> Option<Duration> {
        let token = self.token.lock().clone()?;
        let known = self.world.ledger.lock().token(token.reveal())?;
        let node = self.world.node_of(self.slot)?;
        self.world.is_in_doubt();
        self.world.note(self.number, What::Asks(habit.name));
        let before = self.world.now();
        let (clocks, asking_since) = (self.world.watch.clocks(), self.asks_now(before));
        let was_known_since = self.world.issuer.known_since(known.key);
        let is_answered = false;
        let mut asking =
            Asking { pod: self, token: known, before, clocks, was_known_since, asking_since, is_answered };
        let judged = |is_verified| self.world.ledger.lock().judged(known.number, is_verified, before);
        self.world.ledger.lock().waits(self.number, before);
        let answer = node.ask(node.address_of(self.slot), &token, judged).await;
        asking.is_answered = true;
        self.world.is_in_doubt();
        self.take(&asking.asked(), &answer)
    }

    /// Since when it has been asking all the time.
    fn asks_now(&self, now: Duration) -> Duration {
        let mut asked = self.asked.lock();
        if asked.0 + ALL_THE_TIME < now {
            asked.1 = now;
        }
        asked.0 = now;
        asked.1
    }

    fn take(&self, asked: &Asked, answer: &Answer) -> Option<Duration> {
        let world = &*self.world;
        let (set, found, expires) = {
            let mut ledger = world.ledger.lock();
            let (set, found) = world.watch.judge(&ledger, asked, answer);
            if let Some(set) =
                set.filter(|set| ledger.sets.get(*set).is_some_and(|set| set.came < asked.before))
            {
                ledger.served_from_memory(set);
            }
            (set, found, set.and_then(|set| ledger.sets.get(set)).map(|set| set.expires))
        };
        let what = match (answer, set, expires) {
            (Answer::Served(_), set, expires) => What::Served(
                set.unwrap_or(usize::MAX),
                expires.unwrap_or_default().saturating_sub(asked.after).as_secs(),
            ),
            (Answer::RefusedByAgent(cause) | Answer::RefusedByAws(cause) | Answer::Trouble(cause), _, _) => {
                What::Failed(cause)
            }
        };
        world.note(self.number, what);
        world.watch.report(asked.after, found);
        expires
    }
}

/// A request under way. Dropped without an answer, the process hung up.
struct Asking<'a> {
    pod: &'a Pod,
    token: Token,
    before: Duration,
    /// What the agent could make of its clocks when it was asked.
    clocks: Clocks,
    was_known_since: Option<Duration>,
    asking_since: Duration,
    is_answered: bool,
}

impl Asking<'_> {
    fn asked(&self) -> Asked {
        let world = &*self.pod.world;
        let after = world.now();
        let of_all = world.weather.shape;
        // A role is given to nobody whom no key proves.
        let shape = Shape { is_required: of_all.is_required || self.pod.source == Source::Sts, ..of_all };
        let ledger = world.ledger.lock();
        let (without, pods) = ledger.without_association(after);
        let crowded_at = ledger.crowded_at(self.pod.slot / shape.pods_per_address);
        drop(ledger);
        Asked {
            token: self.token,
            before: self.before,
            after,
            clear_for: world.weather.clear_for(self.pod.source, after),
            known_since: world.issuer.known_since(self.token.key),
            was_known_since: self.was_known_since,
            published_since: world.issuer.published_since(self.token.key),
            clocks: self.clocks.and(world.watch.clocks()),
            is_everybody_without: pods > 1 && without == pods,
            crowded_at,
            shape,
            asking_since: self.asking_since,
        }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let world = &*self.pod.world;
        world.ledger.lock().waits_no_more(self.pod.number);
        if self.is_answered {
            return;
        }
        let asked = self.asked();
        let found = world.watch.judge_hang_up(&world.ledger.lock(), &asked);
        world.note(self.pod.number, What::HungUp);
        world.watch.report(asked.after, found);
    }
}
