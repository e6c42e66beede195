//! Tasks that run beside the requests.
//!
//! Owns: what it means for the agent when one of them panics. Must not know: what they do.

use super::Services;
use crate::lifecycle::shutdown::Shutdown;

impl Services {
    /// A task that works until there is nothing left to answer. The agent is not ready without it.
    pub(super) fn until_stopped(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_essential(name, self.running.clone(), until(self.shutdown.clone(), work));
    }

    /// The same for one that no pod's credentials depend on: where it panics, that is logged, and the agent
    /// stays ready.
    pub(super) fn beside(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(name, until(self.shutdown.clone(), work));
    }
}

async fn until(shutdown: Shutdown, work: impl Future<Output = ()> + Send) {
    tokio::select! {
        () = work => {}
        () = shutdown.wait_for_stopped() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::Services;

    #[tokio::test]
    async fn a_panic_of_a_task_beside_the_others_leaves_the_agent_ready() {
        for (is_essential, is_ready) in [(false, true), (true, false)] {
            let services = Services::new();
            services.running.met();
            assert!(services.readiness.is_ready());
            let panics = async { panic!("scripted") };
            if is_essential {
                services.until_stopped("test", panics);
            } else {
                services.beside("test", panics);
            }
            while services.tasks.alive().contains(&"test") {
                tokio::task::yield_now().await;
            }
            assert_eq!(services.readiness.is_ready(), is_ready);
        }
    }
}
