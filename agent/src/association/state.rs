//! All that is known about roles, and what a pod is given by it. Pure.
//!
//! Owns: the choice of a pod's role, and which grants an answer or a file ends. Must not know: how anything
//! is read, or who waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::annotations::{Annotated, Answer, Known, MOST_ACCOUNTS, Next, Register};
use super::content::Content;
use super::grants::{Grant, Grants, Support};
use super::role_limits::RoleLimits;
use super::role_map::RoleMap;
use super::seen_pods::SeenPods;
use super::session_name::session_name;
use super::settings::RoleSettings;
use super::unserved::UnservedAudiences;
use super::{NoRoute, OtherAudience, Withdrawn};
use crate::clock::BootTime;
use crate::config;
use crate::config::SessionName;
use crate::rng::Rng;
use crate::workload::{Pod, RoleArn, RouteStatus, ServiceAccount, WebIdentity};

/// So long a new pod waits for an API server that answers nobody, where its account's role is known already.
const SILENCE: Duration = Duration::from_secs(1);
/// And so long for its turn, where the API server answers others. Clients give up after 4.5 s.
const LONGEST_TURN: Duration = Duration::from_secs(3);
/// Entitlements that have ended and were not asked for yet; at the bound the first ones are lost, and the
/// log says so.
const MOST_WITHDRAWN: usize = 8 * MOST_ACCOUNTS;

/// What is chosen for a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Chosen {
    /// This.
    Route(Arc<WebIdentity>),
    /// What it has by this route until that expires, and then nothing, for this reason.
    Former(Arc<WebIdentity>, NoRoute),
    /// Nothing.
    Refused(NoRoute),
    /// A file or the API server has not said yet.
    Unknown,
}

/// What an account would be given now, and by what.
enum Role {
    ByMap(Arc<RoleSettings>),
    ByAnnotation(Arc<RoleSettings>),
}

/// For how long somebody waits.
#[derive(Clone, Copy)]
struct Wait {
    since: BootTime,
}

/// All that is known.
pub(super) struct State {
    session_name: SessionName,
    map: Content<RoleMap>,
    limits: Content<RoleLimits>,
    /// Counts the limits that were read, so that a refusal by the last ones is found again.
    limits_version: u64,
    /// `None`: annotations are not read.
    register: Option<Register>,
    pods: SeenPods,
    grants: Grants,
    unserved: UnservedAudiences,
    withdrawn: VecDeque<Withdrawn>,
}

impl State {
    /// Nothing is known.
    pub(super) fn new(roles: &config::WebIdentity) -> Self {
        Self {
            session_name: roles.session_name.clone(),
            map: Content::at_start(roles.role_map.is_some()),
            limits: Content::at_start(roles.role_limits.is_some()),
            limits_version: 0,
            register: roles.reads_annotations.then(Register::default),
            pods: SeenPods::default(),
            grants: Grants::default(),
            unserved: UnservedAudiences::new(roles.audiences.iter().map(String::as_str)),
            withdrawn: VecDeque::new(),
        }
    }

    /// What a pod is given.
    pub(super) fn choose(&mut self, pod: &Pod, audience: &Arc<str>, now: BootTime) -> Chosen {
        self.decide(pod, audience, None, now)
    }

    /// The same for one who has waited since then, and goes on waiting if nothing is known.
    pub(super) fn choose_waiting(
        &mut self,
        pod: &Pod,
        audience: &Arc<str>,
        since: BootTime,
        now: BootTime,
    ) -> Chosen {
        let chosen = self.decide(pod, audience, Some(Wait { since }), now);
        if let (Chosen::Unknown, Some(register)) = (&chosen, &mut self.register) {
            register.wait_for(&pod.service_account, now);
        }
        chosen
    }

    fn decide(&mut self, pod: &Pod, audience: &Arc<str>, wait: Option<Wait>, now: BootTime) -> Chosen {
        let account = &pod.service_account;
        if let Some(register) = &mut self.register {
            register.ask(account, now);
        }
        let first_asked = match self.pods.ask(pod, now) {
            Some(seen) => {
                let first_asked = seen.first_asked;
                if let Some(given) = seen.given_for(audience).map(Arc::clone) {
                    return match self.other_audience(account, &given) {
                        None => Chosen::Route(given),
                        Some(other) => Chosen::Former(given, NoRoute::OtherAudience(other)),
                    };
                }
                first_asked
            }
            None => {
                self.pods.enter(pod, now);
                now
            }
        };
        let role = match self.role_of(account, first_asked, wait, now) {
            Ok(role) => role,
            Err(other) => return other,
        };
        let settings = role.settings();
        if let Some(of_role) = settings.audience.as_ref().filter(|of_role| *of_role != audience) {
            let (of_role, of_token) = (Arc::clone(of_role), Arc::clone(audience));
            let (is_served, has_changed) = (self.unserved.is_served(&of_role), false);
            let other = OtherAudience { of_role, of_token, is_served, has_changed };
            return Chosen::Refused(NoRoute::OtherAudience(other));
        }
        match self.is_allowed(pod, settings) {
            Ok(true) => self.give(pod, &role, audience),
            Ok(false) => Chosen::Refused(NoRoute::NotAllowed),
            Err(other) => other,
        }
    }

    /// The audience of an account's role, where that has changed since a pod was given this.
    fn other_audience(&self, account: &ServiceAccount, given: &WebIdentity) -> Option<OtherAudience> {
        let grant = self.grants.find(account, &given.role, &given.audience);
        let of_role = Arc::clone(grant?.audience_instead()?);
        let (of_token, is_served) = (Arc::clone(&given.audience), self.unserved.is_served(&of_role));
        Some(OtherAudience { of_role, of_token, is_served, has_changed: true })
    }

    /// Whether a pod is still given what it was, asked at each renewal: for a pod that has credentials
    /// and asks seldom or never, that is what has its annotation read. What nobody remembers, nobody has
    /// ended.
    pub(super) fn status(&mut self, pod: &Pod, wanted: &WebIdentity) -> RouteStatus {
        if let Some(register) = &mut self.register {
            register.note_renewal(&pod.service_account);
        }
        self.pods.note_renewal(pod);
        let Some(seen) = self.pods.find(pod) else { return RouteStatus::Given };
        match seen.given_for(&wanted.audience).map(|given| given.role == wanted.role) {
            Some(false) => RouteStatus::Ended,
            // A pod that asks anew, after it was forgotten, has lost nothing by that.
            None if seen.has_lost => RouteStatus::Ended,
            Some(true) if self.other_audience(&pod.service_account, wanted).is_some() => {
                RouteStatus::ToExpiry
            }
            Some(true) | None => RouteStatus::Given,
        }
    }

    /// A pod is gone; and with the last one of an account what is known of that, and its reads.
    pub(super) fn forget_pod(&mut self, uid: &str) {
        for account in self.pods.forget_pod(uid) {
            self.grants.forget(&account);
            if let Some(register) = &mut self.register {
                register.forget(&account);
            }
        }
    }

    /// What an account is given by what is known, for a pod that asked first at that time.
    fn role_of(
        &mut self,
        account: &ServiceAccount,
        first_asked: BootTime,
        wait: Option<Wait>,
        now: BootTime,
    ) -> Result<Role, Chosen> {
        self.map.known().ok_or(Chosen::Unknown)?;
        if let Some(settings) = self.entry_of(account) {
            return Ok(Role::ByMap(settings));
        }
        let Some(register) = &mut self.register else { return Err(Chosen::Refused(NoRoute::NoRole)) };
        if let Some(forgotten) = register.enter(account, now) {
            self.grants.forget(&forgotten);
            self.pods.forget(&forgotten);
        }
        let known = register.known(account);
        let is_of_now = |known: &&Known| {
            let counts = matches!(known.annotated, Annotated::Role(_))
                || now.since(known.began) < known.no_role_counts;
            known.began >= first_asked && counts
        };
        let old_role = || known?.annotated.role().map(|settings| Role::ByAnnotation(Arc::clone(settings)));
        if let Some(known) = known.filter(is_of_now) {
            return match &known.annotated {
                Annotated::Role(settings) => Ok(Role::ByAnnotation(Arc::clone(settings))),
                Annotated::None => Err(Chosen::Refused(NoRoute::NoRole)),
                Annotated::Invalid(said) => Err(Chosen::Refused(NoRoute::InvalidRole(Arc::clone(said)))),
            };
        }
        if register.is_forbidden(account, now) {
            return old_role().ok_or(Chosen::Unknown);
        }
        let is_over = |wait: Wait| {
            let waited = now.since(wait.since);
            waited >= LONGEST_TURN || (waited >= SILENCE && !register.has_answered_since(wait.since))
        };
        let old_counts = wait.is_some_and(is_over);
        old_role().filter(|_| old_counts).ok_or(Chosen::Unknown)
    }

    /// Whether the limits let this pod have that. Remembered, because a pod that may not can ask often.
    fn is_allowed(&mut self, pod: &Pod, settings: &Arc<RoleSettings>) -> Result<bool, Chosen> {
        let Some(limits) = self.limits.known().ok_or(Chosen::Unknown)? else { return Ok(true) };
        let version = self.limits_version;
        let Some(seen) = self.pods.find(pod) else { return Err(Chosen::Unknown) };
        if seen.denied.as_ref().is_some_and(|(denied, by)| denied == settings && *by == version) {
            return Ok(false);
        }
        let is_allowed = limits.allow(&pod.service_account.namespace, settings.role.as_str());
        seen.denied = (!is_allowed).then(|| (Arc::clone(settings), version));
        Ok(is_allowed)
    }

    fn give(&mut self, pod: &Pod, role: &Role, audience: &Arc<str>) -> Chosen {
        let (account, settings) = (&pod.service_account, role.settings());
        let if_any = |is_any: bool| if is_any { Support::Unknown } else { Support::Gone };
        let (map, annotation) = match role {
            Role::ByMap(_) => (Support::Given, if_any(self.register.is_some())),
            Role::ByAnnotation(_) => (Support::Gone, Support::Given),
        };
        let (no_other_entry, limits, tokens) = (Support::Given, Support::Given, Support::Given);
        let (role, audience) = (settings.role.clone(), Arc::clone(audience));
        let grant =
            Grant { role, audience, map, no_other_entry, annotation, limits, tokens, other_audience: None };
        if !self.grants.has(account) && self.grants.accounts().len() >= MOST_ACCOUNTS {
            let least = self.pods.least_recent(self.grants.accounts()).cloned();
            least.iter().for_each(|least| {
                self.grants.forget(least);
                self.pods.forget(least);
            });
        }
        let route = Arc::new(WebIdentity {
            role: grant.role.clone(),
            audience: Arc::clone(&grant.audience),
            session_name: session_name(&self.session_name, pod),
            endpoint: settings.endpoint,
        });
        let is_held = |grant: &Grant| self.pods.hold(account, &grant.role, &grant.audience);
        if let Some(ended) = self.grants.give(account, grant, is_held) {
            self.end(vec![(account.clone(), ended)]);
        }
        if let Some(seen) = self.pods.find(pod) {
            seen.give(Arc::clone(&route));
        }
        Chosen::Route(route)
    }

    /// A pod has a token with this life. If the annotation of its account says less, what it says; once.
    pub(super) fn note_token_life(&mut self, pod: &Pod, life: Duration) -> Option<Duration> {
        self.register.as_mut()?.note_token_life(&pod.service_account, life)
    }

    /// A service account was read. Returns whether that is the first failure in a row, or the first answer
    /// after one.
    pub(super) fn note_read(
        &mut self,
        account: &ServiceAccount,
        answer: &Answer,
        now: BootTime,
        rng: &Rng,
    ) -> bool {
        let has_entry = self.entry_of(account).is_some();
        let Some(register) = &mut self.register else { return false };
        let is_change = register.note(account, answer, now, rng);
        if let Answer::Annotated(annotated) = answer
            && let Some(began) = register.known(account).map(|known| known.began)
        {
            let settings = annotated.role();
            let ended = self.grants.update(Some(account), |_, grant| {
                grant.annotation.read(settings.is_some_and(|settings| grant.is_given_by(settings)), began);
                if let Some(settings) = settings.filter(|_| !has_entry) {
                    grant.note_audience(settings, began);
                }
            });
            let name = format!("{}/{}", account.namespace, account.name);
            let unserved = self.unserved.of_account(&name, settings.map(|settings| &**settings));
            if let Some(unserved) = unserved {
                tracing::warn!(unserved, "a role can be given to nobody");
            }
            if let Some(at) = self.grants.annotation_decides_at(account) {
                register.read_at(account, at);
            }
            self.end(ended);
        } else {
            let ended = self.grants.update(Some(account), |_, grant| grant.note_time(now));
            self.end(ended);
        }
        is_change
    }

    /// The role map was read; `None`: it says what it said.
    pub(super) fn note_map(&mut self, map: Option<RoleMap>, now: BootTime) {
        if let Some(map) = map {
            for unserved in self.unserved.of_map(map.entries()) {
                tracing::warn!(unserved, "a role can be given to nobody");
            }
            self.map = Content::Known(Arc::new(map));
        }
        let Some(Some(map)) = self.map.known() else { return };
        let ended = self.grants.update(None, |account, grant| {
            let entry = map.find(&account.namespace, &account.name);
            grant.map.read(entry.is_some_and(|settings| grant.is_given_by(settings)), now);
            grant.no_other_entry.read(entry.is_none_or(|settings| grant.is_given_by(settings)), now);
            if let Some(settings) = entry {
                grant.note_audience(settings, now);
            }
            grant.note_time(now);
        });
        self.end(ended);
        if let Some(register) = &mut self.register {
            for account in self.grants.in_need_of_annotation() {
                if let Some(forgotten) = register.enter(&account, now) {
                    self.grants.forget(&forgotten);
                    self.pods.forget(&forgotten);
                }
                register.read_at(&account, now);
            }
        }
    }

    /// The role limits were read; `None`: they say what they said.
    pub(super) fn note_limits(&mut self, limits: Option<RoleLimits>, now: BootTime) {
        let are_new = limits.is_some();
        if let Some(limits) = limits {
            self.limits = Content::Known(Arc::new(limits));
            self.limits_version += 1;
        }
        let Some(Some(limits)) = self.limits.known() else { return };
        let ended = self.grants.update(None, |account, grant| {
            // Limits can be long, and what they allow does not change while they do not.
            if are_new || matches!(grant.limits, Support::Doubted(_)) {
                grant.limits.read(limits.allow(&account.namespace, grant.role.as_str()), now);
            }
        });
        self.end(ended);
    }

    fn end(&mut self, ended: Vec<(ServiceAccount, Grant)>) {
        for (account, grant) in ended {
            self.pods.take_back(&account, &grant.role, &grant.audience);
            // For tokens of another audience: what pods have by these is theirs.
            if self.grants.give_role(&account, &grant.role) || self.names(&account, &grant.role) {
                continue;
            }
            let (namespace, name, role) = (&account.namespace, &account.name, &grant.role);
            tracing::info!(%namespace, service_account = %name, %role, "a service account has lost its role");
            if self.withdrawn.len() >= MOST_WITHDRAWN {
                tracing::error!(
                    "too many roles were lost at once; credentials of some are kept to their end"
                );
                self.withdrawn.pop_front();
            }
            self.withdrawn.push_back(Withdrawn { service_account: account, role: grant.role });
        }
    }

    /// Whether the account has this role by what is known, for tokens of whatever audience.
    fn names(&self, account: &ServiceAccount, role: &RoleArn) -> bool {
        let Some(limits) = self.limits.known() else { return false };
        self.settings_of(account).is_some_and(|settings| settings.role == *role)
            && limits.is_none_or(|limits| limits.allow(&account.namespace, role.as_str()))
    }

    /// What the account has by what is known.
    fn settings_of(&self, account: &ServiceAccount) -> Option<Arc<RoleSettings>> {
        let of_map = self.map.known().map(|_| self.entry_of(account))?;
        let annotated = || self.register.as_ref()?.known(account)?.annotated.role().map(Arc::clone);
        of_map.or_else(annotated)
    }

    /// The entry of the role map that counts for the account, by the last good read.
    fn entry_of(&self, account: &ServiceAccount) -> Option<Arc<RoleSettings>> {
        let map = self.map.known()??;
        map.find(&account.namespace, &account.name).map(Arc::clone)
    }

    /// The next entitlement that has ended.
    pub(super) fn next_withdrawn(&mut self) -> Option<Withdrawn> {
        self.withdrawn.pop_front()
    }

    /// Whether there is one.
    pub(super) fn has_withdrawn(&self) -> bool {
        !self.withdrawn.is_empty()
    }

    /// Whether an account is to be read that nobody knew of.
    pub(super) fn has_new_wish(&mut self) -> bool {
        self.register.as_mut().is_some_and(Register::take_new_wish)
    }

    /// Which account is read next.
    pub(super) fn next_read(&mut self, now: BootTime) -> Next {
        self.register.as_mut().map_or(Next::Idle, |register| register.next(now))
    }

    /// Of how many namespaces the agent may not read service accounts.
    pub(super) fn unreadable_namespaces(&self) -> usize {
        self.register.as_ref().map_or(0, Register::forbidden_namespaces)
    }
}

impl Role {
    const fn settings(&self) -> &Arc<RoleSettings> {
        match self {
            Self::ByMap(settings) | Self::ByAnnotation(settings) => settings,
        }
    }
}

#[cfg(test)]
mod tests;
