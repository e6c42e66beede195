//! The pods that have asked, and what each was given. Pure.
//!
//! Owns: how many are remembered. Must not know: why a pod was given something.
//!
//! A pod keeps what it was given until that ends, though a new pod of the same account is given something
//! else, or the same role by another endpoint: its credentials are kept by that route. And a pod that asks
//! for the first time is given what the annotation says from then on.

use std::collections::HashMap;
use std::sync::Arc;

use super::settings::RoleSettings;
use crate::clock::BootTime;
use crate::workload::{Pod, RoleArn, ServiceAccount, WebIdentity};

/// Eight times the pods of a usual node (110), and more than any has. At the bound the one is forgotten that
/// has asked longest ago; it is a new pod when it asks again. One takes about 300 bytes.
const MOST: usize = 1_024;

/// The pods, by their account and UID: a service account that was made again has another UID, and the same
/// pod then asks as another one.
#[derive(Debug, Default)]
pub(super) struct SeenPods {
    accounts: HashMap<ServiceAccount, HashMap<Box<str>, SeenPod>>,
}

/// A pod that has asked.
#[derive(Debug)]
pub(super) struct SeenPod {
    last_asked: BootTime,
    /// Its credentials were renewed since then.
    is_renewed: bool,
    /// When it asked for the first time.
    pub(super) first_asked: BootTime,
    /// What it was given, one route for each audience of its tokens: no more than the agent serves.
    given: Vec<Arc<WebIdentity>>,
    /// What it was given last was withdrawn.
    pub(super) has_lost: bool,
    /// What the limits did not let it have, and which limits these were.
    pub(super) denied: Option<(Arc<RoleSettings>, u64)>,
}

impl SeenPod {
    /// What it was given for tokens of this audience.
    pub(super) fn given_for(&self, audience: &str) -> Option<&Arc<WebIdentity>> {
        self.given.iter().find(|route| *route.audience == *audience)
    }

    /// It is given this.
    pub(super) fn give(&mut self, route: Arc<WebIdentity>) {
        self.given.retain(|given| given.audience != route.audience);
        self.given.push(route);
        self.has_lost = false;
    }
}

impl SeenPods {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.accounts.values().map(HashMap::len).sum()
    }

    /// A pod asks that has asked before.
    pub(super) fn ask(&mut self, pod: &Pod, now: BootTime) -> Option<&mut SeenPod> {
        let seen = self.find(pod)?;
        seen.last_asked = now;
        Some(seen)
    }

    /// A pod that has asked.
    pub(super) fn find(&mut self, pod: &Pod) -> Option<&mut SeenPod> {
        self.accounts.get_mut(&pod.service_account)?.get_mut(&pod.uid)
    }

    /// A pod asks for the first time.
    pub(super) fn enter(&mut self, pod: &Pod, now: BootTime) {
        if self.len() >= MOST {
            self.forget_one(now);
        }
        let seen = SeenPod {
            last_asked: now,
            is_renewed: false,
            first_asked: now,
            given: Vec::new(),
            has_lost: false,
            denied: None,
        };
        self.accounts.entry(pod.service_account.clone()).or_default().insert(pod.uid.clone(), seen);
    }

    /// Credentials of a pod are renewed.
    pub(super) fn note_renewal(&mut self, pod: &Pod) {
        if let Some(seen) = self.find(pod) {
            seen.is_renewed = true;
        }
    }

    /// The one that has asked longest ago, and has no credentials that were renewed since the last time.
    fn forget_one(&mut self, now: BootTime) {
        let all = self.accounts.values_mut().flat_map(HashMap::values_mut);
        for seen in all.filter(|seen| seen.is_renewed) {
            (seen.last_asked, seen.is_renewed) = (now, false);
        }
        let all = self.accounts.iter().flat_map(|(account, pods)| pods.iter().map(move |pod| (account, pod)));
        let oldest = all.min_by_key(|(_, (_, seen))| seen.last_asked);
        let Some((account, uid)) = oldest.map(|(account, (uid, _))| (account.clone(), uid.clone())) else {
            return;
        };
        if let Some(pods) = self.accounts.get_mut(&account) {
            pods.remove(&uid);
        }
        self.accounts.retain(|_, pods| !pods.is_empty());
    }

    /// Whether a pod of an account has this.
    pub(super) fn hold(&self, account: &ServiceAccount, role: &RoleArn, audience: &str) -> bool {
        let pods = self.accounts.get(account).into_iter().flat_map(HashMap::values);
        pods.filter_map(|pod| pod.given_for(audience)).any(|route| route.role == *role)
    }

    /// This was withdrawn from the pods of an account.
    pub(super) fn take_back(&mut self, account: &ServiceAccount, role: &RoleArn, audience: &str) {
        for pod in self.accounts.get_mut(account).into_iter().flat_map(HashMap::values_mut) {
            let had = pod.given.len();
            pod.given.retain(|route| route.role != *role || *route.audience != *audience);
            pod.has_lost |= pod.given.len() < had;
        }
    }

    /// Nothing is known of the pods of an account any more; they have lost nothing by that.
    pub(super) fn forget(&mut self, account: &ServiceAccount) {
        self.accounts.remove(account);
    }

    /// A pod is gone. Returns the accounts that have none left by that.
    pub(super) fn forget_pod(&mut self, uid: &str) -> Vec<ServiceAccount> {
        let without_it = |_: &ServiceAccount, pods: &mut HashMap<Box<str>, SeenPod>| {
            pods.remove(uid).is_some() && pods.is_empty()
        };
        self.accounts.extract_if(without_it).map(|(account, _)| account).collect()
    }

    /// The account of these that has asked longest ago, by its pods.
    pub(super) fn least_recent<'a>(
        &self,
        accounts: impl Iterator<Item = &'a ServiceAccount>,
    ) -> Option<&'a ServiceAccount> {
        let last_asked =
            |account: &ServiceAccount| self.accounts.get(account)?.values().map(|pod| pod.last_asked).max();
        accounts.min_by_key(|account| last_asked(account))
    }
}
