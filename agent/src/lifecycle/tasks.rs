//! Named, owned tasks: every task of the agent has a name that can be logged at shutdown.
//!
//! Owns: starting tasks, noticing that one panicked, waiting for all of them. Must not know: what a task
//! does. This is the only file that starts tokio tasks.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::readiness::Condition;

/// All tasks of the process. Clones share them.
#[derive(Clone, Default)]
pub struct Tasks {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    tracker: TaskTracker,
    /// How many tasks of each name are running. A name is removed with its last task, so the map has no more
    /// entries than there are tasks.
    alive: Mutex<BTreeMap<&'static str, usize>>,
}

impl Tasks {
    /// No tasks yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task. A panic ends only this task, and is logged.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.start(name, None, future)
    }

    /// Starts a task that the agent cannot work without: if it panics, `condition` is unmet from then on.
    pub fn spawn_essential<F>(
        &self,
        name: &'static str,
        condition: Condition,
        future: F,
    ) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.start(name, Some(condition), future)
    }

    /// Waits until every task has ended, at most for `deadline`, and returns the names of those that have
    /// not.
    pub async fn close_and_wait(&self, deadline: Duration) -> Vec<&'static str> {
        self.shared.tracker.close();
        let _in_time = tokio::time::timeout(deadline, self.shared.tracker.wait()).await;
        self.alive()
    }

    /// The names of the running tasks, each once.
    pub fn alive(&self) -> Vec<&'static str> {
        self.shared.alive.lock().keys().copied().collect()
    }

    fn start<F>(&self, name: &'static str, essential: Option<Condition>, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let entry = Entry::new(Arc::clone(&self.shared), name, essential);
        // An `async` block keeps what it awaits twice, as captured and as awaited: a connection that waits
        // would cost a kilobyte more.
        let future = Box::pin(future);
        self.shared.tracker.spawn(async move {
            let _entry = entry;
            future.await
        })
    }
}

/// Starts a task that no shutdown waits for or names: an idle connection, a lookup that nobody can cancel. It
/// ends with the runtime. A panic ends only this task, and is logged.
#[expect(clippy::disallowed_methods, reason = "tasks are started in this file")]
pub fn spawn_detached(name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(async move {
        let _logged = PanicLogged(name);
        future.await;
    });
}

/// Does work that takes a while, and waits for nothing, on a thread of its own. `None`: it panicked, which is
/// logged.
pub async fn beside_the_event_loop<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

struct PanicLogged(&'static str);

impl Drop for PanicLogged {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(task = self.0, "task panicked");
        }
    }
}

/// The entry of a running task; dropped with the task, however it ends.
struct Entry {
    shared: Arc<Shared>,
    name: &'static str,
    essential: Option<Condition>,
}

impl Entry {
    fn new(shared: Arc<Shared>, name: &'static str, essential: Option<Condition>) -> Self {
        *shared.alive.lock().entry(name).or_default() += 1;
        Self { shared, name, essential }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        {
            let mut alive = self.shared.alive.lock();
            let left = alive.get(self.name).copied().unwrap_or_default().saturating_sub(1);
            if left == 0 {
                alive.remove(self.name);
            } else {
                alive.insert(self.name, left);
            }
        }
        // The entry is a local of the future and is dropped while a panic unwinds it, so this is the task's
        // own panic. Its message may contain anything, a secret too, so it is not logged.
        if !std::thread::panicking() {
            tracing::debug!(task = self.name, "task ended");
            return;
        }
        tracing::error!(task = self.name, "task panicked");
        if let Some(condition) = &self.essential {
            condition.unmet(format!("task {} panicked; restart the agent on this node", self.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Duration;

    use super::Tasks;
    use crate::lifecycle::condition_name::ConditionName;
    use crate::lifecycle::readiness::Readiness;

    #[tokio::test(start_paused = true)]
    async fn tasks_still_running_at_the_deadline_are_named() {
        let tasks = Tasks::new();
        tasks.spawn("quick", async {});
        tasks.spawn("stuck", pending::<()>());
        tasks.spawn("stuck", pending::<()>());
        assert_eq!(tasks.close_and_wait(Duration::from_secs(1)).await, vec!["stuck"]);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_the_last_task_and_no_later() {
        let tasks = Tasks::new();
        tasks.spawn("nap", tokio::time::sleep(Duration::from_secs(2)));
        let start = tokio::time::Instant::now();
        assert!(tasks.close_and_wait(Duration::from_secs(60)).await.is_empty());
        assert_eq!(start.elapsed().as_secs(), 2);
    }

    #[tokio::test]
    async fn a_panic_ends_one_task_and_takes_readiness_only_if_essential() {
        let readiness = Readiness::new();
        let condition = readiness.condition(ConditionName::Running);
        condition.met();
        let tasks = Tasks::new();
        assert!(tasks.spawn("optional", async { panic!("boom") }).await.is_err());
        assert!(readiness.is_ready());
        assert!(tasks.spawn_essential("worker", condition, async { panic!("boom") }).await.is_err());
        assert!(!readiness.is_ready());
        assert_eq!(readiness.report()[0].reason, "task worker panicked; restart the agent on this node");
        assert_eq!(tasks.spawn("next", async { 7 }).await.unwrap(), 7);
        assert!(tasks.alive().is_empty());
    }
}
