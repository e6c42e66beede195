//! Whether a pod has the variables by which SDKs find this agent, and as what it is counted.
//!
//! Owns: the states of pods. Must not know: how a pod's variables are read (`kubernetes::pods`), or how it is
//! known that a service account has an association (`associations`).

use super::LivePod;

/// Whether the variables of EKS Pod Identity were injected into a pod. A pod's variables never change: they
/// are set when it is created, or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Injection {
    /// A container of it has them.
    Injected,
    /// None has them, and it is meant so: it finds credentials elsewhere, or has opted out.
    NotWanted,
    /// None has them. That is as it should be only if its service account has no association.
    Missing,
}

/// How many pods of this node are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodStates {
    /// They have asked for credentials with a token that a key has verified, since the agent started.
    pub asked: usize,
    /// They have the variables, and have not asked.
    pub silent: usize,
    /// They lack the variables, though their service accounts have associations.
    pub missed: usize,
    /// All others: nothing was to be injected, or they have finished.
    pub other: usize,
}

impl PodStates {
    /// Counts one more. `is_missed`: it lacks variables that it should have.
    pub(super) fn count(&mut self, pod: &LivePod, is_missed: bool) {
        let state = match (pod.is_finished, pod.has_asked(), pod.injection) {
            (true, _, _) => &mut self.other,
            (false, true, _) => &mut self.asked,
            (false, false, Injection::Injected) => &mut self.silent,
            (false, false, Injection::Missing) if is_missed => &mut self.missed,
            (false, false, Injection::NotWanted | Injection::Missing) => &mut self.other,
        };
        *state += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::Injection::{self, Injected, Missing, NotWanted};
    use super::PodStates;
    use crate::pods::testing::pod;

    const NONE: PodStates = PodStates { asked: 0, silent: 0, missed: 0, other: 0 };
    const ASKED: PodStates = PodStates { asked: 1, ..NONE };
    const SILENT: PodStates = PodStates { silent: 1, ..NONE };
    const MISSED: PodStates = PodStates { missed: 1, ..NONE };
    const OTHER: PodStates = PodStates { other: 1, ..NONE };

    #[test]
    fn each_pod_is_in_one_state() {
        let cases: [(Injection, bool, bool, bool, PodStates); 9] = [
            // Injection, finished, asked, missed.
            (Injected, false, false, false, SILENT),
            (Injected, false, true, false, ASKED),
            (Injected, true, false, false, OTHER),
            (Injected, true, true, false, OTHER),
            (NotWanted, false, false, false, OTHER),
            (NotWanted, false, true, false, ASKED),
            (Missing, false, false, true, MISSED),
            (Missing, false, false, false, OTHER),
            (Missing, false, true, true, ASKED),
        ];
        for (injection, is_finished, has_asked, is_missed, expected) in cases {
            let mut pod = pod("a");
            (pod.injection, pod.is_finished) = (injection, is_finished);
            if has_asked {
                pod.asked.note();
            }
            let mut states = NONE;
            states.count(&pod, is_missed);
            assert_eq!(states, expected, "{injection:?} {is_finished} {has_asked} {is_missed}");
        }
    }
}
