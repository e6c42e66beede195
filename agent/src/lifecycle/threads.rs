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
/// Beside the event loop are files, name lookups that nobody can cancel, and the node's list of sockets: one
/// or two at a time. As threads do not end, this is what a bad hour may leave.
const MAX_BESIDE: usize = 32;
/// In which something is always done.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// One that runs tasks, and one beside.
const LEAST: usize = 2;
/// A process that has no threads to start with waits so long. Ending would cost more: after some ends the
/// kubelet waits minutes before the next start.
const PATIENCE: u32 = 60;
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The runtime of the agent, with as many threads as there are processors, and fewer where no more can be
/// started. Where not even two can, it waits for a minute.
///
/// # Errors
/// What the operating system says.
pub fn start_runtime() -> io::Result<Runtime> {
    for _ in 1..PATIENCE {
        match try_start() {
            Err(error) => {
                tracing::warn!(
                    err = %error,
                    "no threads can be started: the limit of processes of this pod or node may be reached; \
                     trying again"
                );
                thread::sleep(RETRY_INTERVAL);
            }
            started => return started,
        }
    }
    try_start()
}

fn try_start() -> io::Result<Runtime> {
    let wanted = available_parallelism().map_or(1, |cores| cores.get().min(MAX_WORKERS));
    let workers = to_be_had(wanted + 1)?.saturating_sub(1).max(1);
    if workers < wanted {
        tracing::warn!(
            workers,
            wanted,
            "fewer threads than processors can be started: the limit of processes of this pod or node may be \
             reached"
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

    use super::{start_runtime, to_be_had};
    use crate::lifecycle::tasks::beside_the_event_loop;

    #[test]
    fn as_many_threads_run_at_once_as_are_wanted() {
        assert_eq!(to_be_had(5).unwrap(), 5);
    }

    #[test]
    fn there_is_a_thread_beside_the_event_loop_from_the_start_and_it_stays() {
        let runtime = start_runtime().unwrap();
        let asked = || runtime.block_on(beside_the_event_loop(|| std::thread::current().id()));
        let first = asked().unwrap();
        // Tokio's own patience with a thread that has nothing to do is 10 s.
        std::thread::sleep(Duration::from_secs(11));
        assert_eq!(asked(), Some(first));
    }
}
