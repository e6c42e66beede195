//! The pods that have asked, and what each was given. Pure.
//!
//! Owns: how many are remembered. Must not know: why a pod was given something.
//!
//! A pod keeps what it was given until that ends, though a new pod of the same account is given something
//! else; and a pod that asks for the first time is given what the annotation says from then on.

use std::collections::HashMap;
use std::sync::Arc;

use super::settings::RoleSettings;
use crate::clock::BootTime;
use crate::workload::{ServiceAccount, WebIdentity};

/// Eight times the pods of a usual node (110), and more than any has. At the bound the one is forgotten that
/// has asked longest ago; it is a new pod when it asks again. One takes about 300 bytes.
const MOST: usize = 1_024;

/// The pods, by their UID.
#[derive(Debug, Default)]
pub(super) struct SeenPods {
    pods: HashMap<Box<str>, SeenPod>,
}

/// A pod that has asked.
#[derive(Debug)]
pub(super) struct SeenPod {
    account: ServiceAccount,
    last_asked: BootTime,
    /// When it asked for the first time.
    pub(super) first_asked: BootTime,
    /// What it was given.
    pub(super) given: Option<Given>,
    /// What it was given last was withdrawn.
    pub(super) has_lost: bool,
    /// What the limits did not let it have, and which limits these were.
    pub(super) denied: Option<(Arc<RoleSettings>, u64)>,
}

/// What a pod was given.
#[derive(Clone, Debug)]
pub(super) struct Given {
    /// By these settings.
    pub(super) settings: Arc<RoleSettings>,
    /// What STS is asked for.
    pub(super) route: Arc<WebIdentity>,
}

impl SeenPods {
    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.pods.len()
    }

    /// A pod asks that has asked before.
    pub(super) fn ask(&mut self, uid: &str, now: BootTime) -> Option<&mut SeenPod> {
        let pod = self.pods.get_mut(uid)?;
        pod.last_asked = now;
        Some(pod)
    }

    /// A pod that has asked.
    pub(super) fn find(&mut self, uid: &str) -> Option<&mut SeenPod> {
        self.pods.get_mut(uid)
    }

    /// A pod asks for the first time.
    pub(super) fn enter(&mut self, uid: &str, account: &ServiceAccount, now: BootTime) {
        if self.pods.len() >= MOST {
            let oldest = self.pods.iter().min_by_key(|(_, pod)| pod.last_asked).map(|(uid, _)| uid.clone());
            oldest.and_then(|oldest| self.pods.remove(&oldest));
        }
        let account = account.clone();
        let pod = SeenPod {
            account,
            last_asked: now,
            first_asked: now,
            given: None,
            has_lost: false,
            denied: None,
        };
        self.pods.insert(uid.into(), pod);
    }

    /// This was withdrawn from the pods of an account.
    pub(super) fn take_back(&mut self, account: &ServiceAccount, settings: &RoleSettings) {
        for pod in self.pods.values_mut().filter(|pod| pod.account == *account) {
            pod.has_lost |= pod.given.take_if(|given| *given.settings == *settings).is_some();
        }
    }

    /// Nothing is known of the pods of an account any more; they have lost nothing by that.
    pub(super) fn forget(&mut self, account: &ServiceAccount) {
        self.pods.retain(|_, pod| pod.account != *account);
    }

    /// The account of these that has asked longest ago, by its pods.
    pub(super) fn least_recent<'a>(
        &self,
        accounts: impl Iterator<Item = &'a ServiceAccount>,
    ) -> Option<&'a ServiceAccount> {
        let mut last_asked = HashMap::new();
        for pod in self.pods.values() {
            let last = last_asked.entry(&pod.account).or_insert(pod.last_asked);
            *last = pod.last_asked.max(*last);
        }
        accounts.min_by_key(|account| last_asked.get(account).copied())
    }
}
