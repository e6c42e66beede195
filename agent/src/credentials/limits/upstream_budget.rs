//! How many calls to AWS may be under way, and which is next.
//!
//! Owns: the adaptive limit and the queues of docs/design/decisions.md#upstream. Must not know: what is
//! called. The limit grows by one with each five successes and halves when AWS throttles, because nobody
//! publishes what EKS Auth allows an account (docs/design/facts.md#not-known), and the agents of all nodes
//! share it.
//!
//! A call that takes long keeps nobody waiting who has no credentials: it holds its place against renewals
//! only. Eight calls that hang would otherwise close the way to AWS for as long as the longest limit, also
//! when AWS is back; and with an AWS that is merely slow each place would serve a pod in so many seconds.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::clock::{BootTime, Clock};
use crate::credentials::policy::freshness::Urgency;
use crate::telemetry::metrics::BudgetNumbers;

/// Calls under way at the start.
const FIRST_LIMIT: u32 = 8;
/// Never more than this, calls that take long included.
const HIGHEST_LIMIT: u32 = 50;
/// A call that takes longer takes long.
pub const PUNCTUAL: Duration = Duration::from_millis(1200);
/// Never fewer than this, so that recovery is noticed.
const LOWEST_LIMIT: u32 = 1;
/// Successes for one more call at a time. 5: 2,000 pods that start together, with calls of 100 ms, are served
/// in 4.7 s, and so within the three tries of boto3.
const SUCCESSES_PER_STEP: u32 = 5;
/// Throttling halves the limit at most once in this time: one burst of 429 is one signal.
const HALVING_REST: Duration = Duration::from_secs(2);

/// Of so many calls one is an urgent renewal, if one waits: however many come without credentials, a set
/// does not end for want of a turn.
const ONE_IS_URGENT: u32 = 4;

/// Which call goes first, in this order: who waits without credentials comes before every renewal
/// (invariant 5), but for one call in four.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// A verified pod that waits without credentials.
    VerifiedWaiting,
    /// An unverified token that waits without credentials.
    UnverifiedWaiting,
    /// A renewal with little life left.
    UrgentRenewal,
    /// A renewal in good time.
    Renewal,
    /// Refused a moment ago, asking again.
    RecentlyRefused,
}

impl Urgency {
    /// The priority of such a renewal.
    pub const fn priority(self) -> Priority {
        match self {
            Self::Routine => Priority::Renewal,
            Self::Pressing => Priority::UrgentRenewal,
        }
    }
}

impl Priority {
    /// A label for metrics; a closed set.
    const fn label(self) -> &'static str {
        match self {
            Self::VerifiedWaiting => "verified_waiting",
            Self::UrgentRenewal => "urgent_renewal",
            Self::UnverifiedWaiting => "unverified_waiting",
            Self::Renewal => "renewal",
            Self::RecentlyRefused => "recently_refused",
        }
    }
}

/// All queues, in order; their number bounds every array here.
const PRIORITIES: [Priority; 5] = [
    Priority::VerifiedWaiting,
    Priority::UnverifiedWaiting,
    Priority::UrgentRenewal,
    Priority::Renewal,
    Priority::RecentlyRefused,
];

/// Those for whom a call that takes long holds no place.
const WITHOUT_CREDENTIALS: [Priority; 2] = [Priority::VerifiedWaiting, Priority::UnverifiedWaiting];

/// Where in a priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// Behind all who wait.
    End,
    /// Before all who wait.
    Head,
}

/// The share of AWS that all calls of this agent may take together.
#[derive(Clone)]
pub struct UpstreamBudget {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    clock: Clock,
}

struct State {
    limit: u32,
    in_flight: u32,
    /// Those of them that take long.
    overdue: u32,
    successes: u32,
    halved_at: Option<BootTime>,
    /// Calls let in since the last urgent renewal.
    since_urgent: u32,
    queues: [VecDeque<Arc<Waiter>>; PRIORITIES.len()],
}

/// Somebody who waits. It may stand in several queues after its priority was raised; the first to be reached
/// is used.
struct Waiter {
    call: Mutex<Option<oneshot::Sender<Permit>>>,
}

/// A place in the queue, to be waited on. Dropping it leaves the queue.
pub struct Ticket {
    shared: Arc<Shared>,
    waiter: Arc<Waiter>,
    admitted: oneshot::Receiver<Permit>,
}

/// The right to one call. Dropping it gives the right on to the next in line.
pub struct Permit {
    shared: Arc<Shared>,
    is_overdue: AtomicBool,
}

impl UpstreamBudget {
    /// A budget at its first limit.
    pub fn new(clock: Clock) -> Self {
        let state = State {
            limit: FIRST_LIMIT,
            in_flight: 0,
            overdue: 0,
            successes: 0,
            halved_at: None,
            since_urgent: 0,
            queues: std::array::from_fn(|_| VecDeque::new()),
        };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), clock }) }
    }

    /// Joins the queue of a priority: at its end, or at its head after a turn that was throttled.
    pub fn queue(&self, priority: Priority, position: Position) -> Ticket {
        let (call, admitted) = oneshot::channel();
        let waiter = Arc::new(Waiter { call: Mutex::new(Some(call)) });
        self.shared.enqueue(priority, position, Arc::clone(&waiter));
        self.shared.admit();
        Ticket { shared: Arc::clone(&self.shared), waiter, admitted }
    }

    /// The numbers for metrics.
    pub fn numbers(&self) -> BudgetNumbers {
        let state = self.shared.state.lock();
        let mut waiting = PRIORITIES.map(|priority| (priority.label(), 0));
        for ((_, number), waiters) in waiting.iter_mut().zip(&state.queues) {
            *number = waiters.iter().filter(|waiter| waiter.is_waiting()).count();
        }
        BudgetNumbers { limit: state.limit, in_flight: state.in_flight, waiting }
    }
}

impl Ticket {
    /// Moves to a better priority.
    pub fn raise_to(&self, priority: Priority) {
        self.shared.enqueue(priority, Position::End, Arc::clone(&self.waiter));
        self.shared.admit();
    }

    /// Waits for the turn. `None` cannot happen while the budget lives.
    pub async fn admitted(&mut self) -> Option<Permit> {
        (&mut self.admitted).await.ok()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // A permit that was sent but not yet taken is dropped with the receiver, and goes to the next in
        // line.
        self.waiter.call.lock().take();
    }
}

impl Permit {
    /// AWS answered as it should: after five of these, one more call at a time.
    pub fn succeeded(&self) {
        let mut state = self.shared.state.lock();
        state.successes += 1;
        if state.successes >= SUCCESSES_PER_STEP {
            state.successes = 0;
            state.limit = (state.limit + 1).min(HIGHEST_LIMIT);
        }
    }

    /// The call that the permit is for. Once it takes longer than [`PUNCTUAL`], its place is held against
    /// renewals only.
    pub async fn during<T>(&self, call: impl Future<Output = T>) -> T {
        let mut call = pin!(call);
        tokio::select! {
            // In this order: an answer that is there is not passed over.
            biased;
            done = &mut call => return done,
            () = tokio::time::sleep(PUNCTUAL) => self.is_overdue(),
        }
        call.await
    }

    fn is_overdue(&self) {
        if !self.is_overdue.swap(true, Ordering::Relaxed) {
            self.shared.state.lock().overdue += 1;
            self.shared.admit();
        }
    }

    /// AWS throttled: half as many at a time. The permit stays taken until it is dropped: held over the
    /// pause, it keeps the next in line from being throttled at once.
    pub fn throttled(&self) {
        let now = self.shared.clock.now().boot;
        let mut state = self.shared.state.lock();
        state.successes = 0;
        if self.is_overdue.swap(false, Ordering::Relaxed) {
            state.overdue = state.overdue.saturating_sub(1);
        }
        if state.halved_at.is_none_or(|halved_at| now.since(halved_at) >= HALVING_REST) {
            state.halved_at = Some(now);
            state.limit = (state.limit / 2).max(LOWEST_LIMIT);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.in_flight = state.in_flight.saturating_sub(1);
        if self.is_overdue.swap(false, Ordering::Relaxed) {
            state.overdue = state.overdue.saturating_sub(1);
        }
        drop(state);
        self.shared.admit();
    }
}

impl Shared {
    fn enqueue(&self, priority: Priority, position: Position, waiter: Arc<Waiter>) {
        let mut state = self.state.lock();
        let Some(queue) = state.queues.get_mut(priority as usize) else { return };
        // Waiters that left stay in the queue until they are reached. Where that never happens they would
        // pile up.
        if queue.len() >= 64 && queue.len() >= 2 * queue.iter().filter(|waiter| waiter.is_waiting()).count() {
            queue.retain(|waiter| waiter.is_waiting());
        }
        match position {
            Position::End => queue.push_back(waiter),
            Position::Head => queue.push_front(waiter),
        }
    }

    /// Lets in as many as there is room for.
    fn admit(self: &Arc<Self>) {
        while let Some(call) = self.next_in_line() {
            // If the waiter has left, the permit comes back with the error, and its drop makes room again.
            drop(call.send(Permit { shared: Arc::clone(self), is_overdue: AtomicBool::new(false) }));
        }
    }

    /// Takes room for the next in line, if there is room and somebody waits.
    fn next_in_line(&self) -> Option<oneshot::Sender<Permit>> {
        let mut state = self.state.lock();
        let who = state.admissible();
        if who.is_empty() {
            return None;
        }
        let urgent = who.contains(&Priority::UrgentRenewal).then(|| state.urgent_turn()).flatten();
        let call = urgent.or_else(|| who.iter().find_map(|of| state.first(*of)))?;
        state.in_flight += 1;
        Some(call)
    }
}

impl State {
    /// The priorities that there is room for, in their order.
    fn admissible(&self) -> &'static [Priority] {
        let punctual = self.in_flight.saturating_sub(self.overdue);
        if self.in_flight < self.limit {
            &PRIORITIES
        } else if punctual < self.limit && self.in_flight < HIGHEST_LIMIT {
            &WITHOUT_CREDENTIALS
        } else {
            &[]
        }
    }

    /// An urgent renewal, if it is its turn and one waits.
    fn urgent_turn(&mut self) -> Option<oneshot::Sender<Permit>> {
        let is_its_turn = self.since_urgent + 1 >= ONE_IS_URGENT;
        is_its_turn.then(|| self.first(Priority::UrgentRenewal)).flatten()
    }

    /// The first of a priority that still waits.
    fn first(&mut self, priority: Priority) -> Option<oneshot::Sender<Permit>> {
        let queue = self.queues.get_mut(priority as usize)?;
        let call = std::iter::from_fn(|| queue.pop_front()).find_map(|waiter| waiter.call.lock().take())?;
        self.since_urgent = match priority {
            Priority::UrgentRenewal => 0,
            Priority::VerifiedWaiting
            | Priority::UnverifiedWaiting
            | Priority::Renewal
            | Priority::RecentlyRefused => self.since_urgent.saturating_add(1),
        };
        Some(call)
    }
}

impl Waiter {
    fn is_waiting(&self) -> bool {
        self.call.lock().is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use tokio::time::{Instant, sleep};

    use super::{Permit, Position, Priority, Ticket, UpstreamBudget};
    use crate::clock::{Clock, Simulated};

    fn budget() -> UpstreamBudget {
        UpstreamBudget::new(Clock::simulated(Simulated::starting_at(SystemTime::UNIX_EPOCH)))
    }

    async fn taken(budget: &UpstreamBudget, count: usize) -> Vec<Permit> {
        let mut permits = Vec::new();
        for _ in 0..count {
            permits.push(budget.queue(Priority::Renewal, Position::End).admitted().await.unwrap());
        }
        permits
    }

    async fn is_admitted(ticket: &mut Ticket) -> Option<Permit> {
        tokio::time::timeout(Duration::from_millis(1), ticket.admitted()).await.ok().flatten()
    }

    #[tokio::test(start_paused = true)]
    async fn eight_calls_at_first_and_the_ninth_waits() {
        let budget = budget();
        let mut permits = taken(&budget, 8).await;
        let mut ninth = budget.queue(Priority::UrgentRenewal, Position::End);
        assert!(is_admitted(&mut ninth).await.is_none());
        permits.pop();
        assert!(is_admitted(&mut ninth).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_held_against_those_without_credentials_for_1200_ms_and_then_goes_on() {
        let budget = budget();
        let permits = taken(&budget, 8).await;
        let began = Instant::now();
        let call = permits[0].during(sleep(Duration::from_secs(4)));
        let admitted = async {
            let permit = budget.queue(Priority::VerifiedWaiting, Position::End).admitted().await;
            (permit.is_some(), began.elapsed())
        };
        let ((), admitted) = tokio::join!(call, admitted);
        assert_eq!(admitted, (true, super::PUNCTUAL));
        assert_eq!(began.elapsed(), Duration::from_secs(4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_takes_long_holds_its_place_against_renewals_only_and_fifty_is_the_end() {
        let budget = budget();
        let mut permits = taken(&budget, 8).await;
        let queue = |priority| budget.queue(priority, Position::End);
        let (mut refused, mut renewal) = (queue(Priority::RecentlyRefused), queue(Priority::Renewal));
        let mut first = queue(Priority::UnverifiedWaiting);
        assert!(is_admitted(&mut first).await.is_none());
        permits.iter().for_each(Permit::is_overdue);
        permits.push(is_admitted(&mut first).await.expect("it has no credentials"));
        let mut urgent = queue(Priority::UrgentRenewal);
        for ticket in [&mut refused, &mut renewal, &mut urgent] {
            assert!(is_admitted(ticket).await.is_none());
        }
        while let Some(permit) = is_admitted(&mut queue(Priority::VerifiedWaiting)).await {
            permit.is_overdue();
            permit.is_overdue();
            permits.push(permit);
        }
        assert_eq!(permits.len(), 50);
        assert!(
            is_admitted(&mut urgent).await.is_none(),
            "one in four is urgent of those that renewals may have"
        );
        drop((permits, refused, renewal, urgent));
        let state = budget.shared.state.lock();
        assert_eq!((state.in_flight, state.overdue), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_answer_that_throttles_holds_its_place_over_the_pause() {
        let budget = budget();
        let permits = taken(&budget, 8).await;
        permits.iter().for_each(Permit::is_overdue);
        permits.iter().for_each(Permit::throttled);
        assert!(is_admitted(&mut budget.queue(Priority::VerifiedWaiting, Position::End)).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_grows_by_one_in_five_successes_and_stops_at_fifty() {
        let budget = budget();
        for _ in 0..5 {
            taken(&budget, 1).await.pop().unwrap().succeeded();
        }
        assert_eq!(budget.numbers().limit, 9);
        for _ in 0..1000 {
            taken(&budget, 1).await.pop().unwrap().succeeded();
        }
        assert_eq!(budget.numbers().limit, 50);
    }

    #[tokio::test(start_paused = true)]
    async fn two_thousand_calls_of_a_tenth_of_a_second_take_less_than_five_seconds() {
        let budget = budget();
        let started = Instant::now();
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..2_000 {
            let mut ticket = budget.queue(Priority::VerifiedWaiting, Position::End);
            calls.spawn(async move {
                let permit = ticket.admitted().await.unwrap();
                sleep(Duration::from_millis(100)).await;
                permit.succeeded();
            });
        }
        calls.join_all().await;
        let took = started.elapsed();
        assert!((4_500..4_900).contains(&took.as_millis()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn throttling_halves_at_most_once_in_two_seconds_and_never_below_one() {
        let budget = budget();
        let throttle = async || taken(&budget, 1).await.pop().unwrap().throttled();
        throttle().await;
        throttle().await;
        assert_eq!(budget.numbers().limit, 4);
        for _ in 0..5 {
            tokio::time::advance(Duration::from_secs(2)).await;
            throttle().await;
        }
        assert_eq!(budget.numbers().limit, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn better_queues_go_first_and_a_rise_counts() {
        let budget = budget();
        let mut permits = taken(&budget, 7).await;
        permits.push(budget.queue(Priority::UrgentRenewal, Position::End).admitted().await.unwrap());
        let mut refused = budget.queue(Priority::RecentlyRefused, Position::End);
        let mut raised = budget.queue(Priority::RecentlyRefused, Position::End);
        let mut renewal = budget.queue(Priority::Renewal, Position::End);
        let mut unverified = budget.queue(Priority::UnverifiedWaiting, Position::End);
        let mut verified = budget.queue(Priority::VerifiedWaiting, Position::End);
        raised.raise_to(Priority::UrgentRenewal);
        for ticket in [&mut verified, &mut unverified, &mut raised, &mut renewal, &mut refused] {
            permits.pop();
            permits.push(is_admitted(ticket).await.expect("this one is next"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_fourth_permit_goes_to_an_urgent_renewal_if_one_waits() {
        let budget = budget();
        let mut permits = taken(&budget, 7).await;
        permits.push(budget.queue(Priority::UrgentRenewal, Position::End).admitted().await.unwrap());
        let queue = |priority, count| -> Vec<Ticket> {
            (0..count).map(|_| budget.queue(priority, Position::End)).collect()
        };
        let waiting = queue(Priority::VerifiedWaiting, 5).into_iter();
        let mut waiting = waiting.chain(queue(Priority::UnverifiedWaiting, 10));
        let mut urgent = queue(Priority::UrgentRenewal, 3).into_iter();
        for turn in 1..=18 {
            let next = if turn <= 12 && turn % 4 == 0 { urgent.next() } else { waiting.next() };
            permits.pop();
            permits.push(is_admitted(&mut next.unwrap()).await.expect("this one is next"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_the_queue_leaves_no_hole() {
        let budget = budget();
        let permits = taken(&budget, 8).await;
        for _ in 0..1000 {
            drop(budget.queue(Priority::Renewal, Position::End));
        }
        assert!(budget.shared.state.lock().queues.iter().all(|priority| priority.len() <= 64));
        let mut last = budget.queue(Priority::Renewal, Position::End);
        drop(permits);
        assert!(is_admitted(&mut last).await.is_some());
        assert_eq!(budget.numbers().in_flight, 0);
    }
}
