//! The agent's threads, and what happens where no more can be started.
//!
//! Owns: how many there are, and how long they live. Must not know: what they do.
//!
//! A limit of processes counts threads too: the kubelet's `podPidsLimit`, a cgroup's `pids.max`, the node's
//! own `pid_max`, which a neighbour may have used up. While there is no thread for work beside the event
//! loop, tokio panics in the task that wants it done, and that task is over for good. So the first such
//! thread is started before any task, and lives as long as the agent: where no other can be started, work
//! waits for this one.

use std::io;
use std::thread::{self, available_parallelism};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};

use super::tasks::beside_the_event_loop;

/// The agent has as little work on a node with 192 cores as on one with four, but every worker needs a stack
/// and an allocator arena of its own.
const MAX_WORKERS: usize = 4;
/// Beside the event loop are files, the node's list of sockets, and name lookups that nobody can cancel, one
/// of each name: one or two at a time. As these threads do not end, this is what a bad hour may leave.
const MAX_BESIDE: usize = 16;
/// In which something is always done.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// One that runs tasks, and one beside.
const LEAST: usize = 2;
/// Left over, if there are so many: for `nft`, and for what the kubelet runs in the pod to probe it.
const SPARE: usize = 2;
/// A process that has no threads to start with tries so often. Ending would cost more: after some ends the
/// kubelet waits minutes before the next start.
const TRIES: u32 = 60;
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The runtime of the agent, with as many threads as there are processors, and fewer where no more can be
/// started. Where not even two can, it waits for a minute.
///
/// # Errors
/// What the operating system says.
pub fn start_runtime() -> io::Result<Runtime> {
    for _ in 1..TRIES {
        match try_start() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tracing::warn!(
                    err = %error,
                    "no threads can be started: the limit of processes of this pod or node may be reached; \
                     trying again"
                );
                thread::sleep(RETRY_INTERVAL);
            }
            ended => return ended,
        }
    }
    try_start()
}

fn try_start() -> io::Result<Runtime> {
    let wanted = available_parallelism().map_or(1, |cores| cores.get().min(MAX_WORKERS));
    let found = to_be_had(wanted + 1 + SPARE)?;
    let workers = workers_of(found).min(wanted);
    if found < wanted + 1 + SPARE {
        tracing::warn!(
            workers,
            wanted,
            "few threads can be started: the limit of processes of this pod or node may be reached"
        );
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(workers)
        .max_blocking_threads(MAX_BESIDE)
        .thread_keep_alive(FOR_EVER)
        .thread_name("agent")
        .enable_all()
        .build()?;
    runtime.block_on(beside_the_event_loop(|| ()));
    Ok(runtime)
}

/// How many of so many threads are to run tasks.
fn workers_of(threads: usize) -> usize {
    threads.saturating_sub(1 + SPARE).max(1)
}

/// How many of so many threads can run at the same time. Tokio, which panics without, is not asked before.
fn to_be_had(wanted: usize) -> io::Result<usize> {
    let before = of_this_process();
    let found = try_at_once(wanted);
    // Of a thread that was joined the kernel keeps the number for a moment, and that counts.
    for _ in 0..1_000 {
        if of_this_process() <= before {
            break;
        }
        thread::sleep(Duration::from_millis(1));
    }
    found
}

fn of_this_process() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

fn try_at_once(wanted: usize) -> io::Result<usize> {
    let gate = Mutex::new(());
    thread::scope(|scope| {
        let _closed = gate.lock();
        for count in 0..wanted {
            match thread::Builder::new().spawn_scoped(scope, || drop(gate.lock())) {
                Ok(_waits) => {}
                Err(error) if count < LEAST => return Err(error),
                Err(_) => return Ok(count),
            }
        }
        Ok(wanted)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{start_runtime, to_be_had, workers_of};
    use crate::lifecycle::tasks::beside_the_event_loop;

    #[test]
    fn as_many_threads_run_at_once_as_are_wanted() {
        assert_eq!(to_be_had(5).unwrap(), 5);
    }

    #[test]
    fn of_few_threads_one_runs_tasks_and_of_more_some_are_left_for_others() {
        assert_eq!([2, 3, 4, 5, 7].map(workers_of), [1, 1, 1, 2, 4]);
    }

    #[test]
    fn there_is_a_thread_beside_the_event_loop_from_the_start_and_it_stays() {
        let runtime = start_runtime().unwrap();
        let asked = || runtime.block_on(beside_the_event_loop(|| std::thread::current().id()));
        // It is done with its first work a moment after that is known.
        std::thread::sleep(Duration::from_millis(200));
        let first = asked().unwrap();
        // Tokio's own patience with a thread that has nothing to do is 10 s.
        std::thread::sleep(Duration::from_secs(11));
        assert_eq!(asked(), Some(first));
    }
}
