//! A node with more work than processors. Here, because it must not disturb other tests.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::ONE_AT_A_TIME;
use crate::harness::{Namespace, binary};

/// Keeps all processors busy, until dropped.
struct Busy(Arc<AtomicBool>);

impl Busy {
    fn start() -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        for _ in 0..6 {
            let is_over = Arc::clone(&is_over);
            std::thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(is_over)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The kernel answers on an IPv6 address a moment after it was added. On a busy machine that moment is long
/// enough to be seen: one in fifteen was said to have no IPv6.
#[test]
fn initialize_waits_until_the_kernel_answers_on_both_addresses() {
    let _alone = ONE_AT_A_TIME.blocking_lock();
    let _busy = Busy::start();
    for _ in 0..10 {
        let nodes: Vec<Namespace> = (0..8).map(|_| Namespace::new()).collect();
        let start = |node: &Namespace| {
            let mut command = node.program(binary());
            command.arg("initialize").stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().expect("the agent runs")
        };
        let running: Vec<_> = nodes.iter().map(start).collect();
        for child in running {
            let output = child.wait_with_output().expect("it ends");
            let said = String::from_utf8_lossy(&output.stdout);
            assert_eq!(said, "the node has 169.254.170.23 and fd00:ec2::23\n", "{output:?}");
        }
    }
}
