//! Which route a caller takes to its credentials, and which role it is given on the way.
//!
//! Owns: the choice of the source by the audience that a token was issued for, and of the role by the role
//! map or the annotation of the service account. Must not know: how a source is asked or what it answers, or
//! how the API server is asked (`app` gives a closure).
//!
//! The map's entry wins over an annotation: it is the admin's own file, it needs no API server, and who may
//! annotate a service account is often somebody else. The role limits bind both.

pub mod annotations;
mod content;
mod files;
mod grants;
mod json;
mod no_route;
mod problems;
#[cfg(any(test, fuzzing))]
pub(crate) mod properties;
mod role_limits;
mod role_map;
mod seen_pods;
mod session_name;
mod settings;
mod state;
#[cfg(test)]
mod testing;
mod unserved;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use self::state::{Chosen, State};
use crate::clock::Now;
use crate::config::WebIdentity;
use crate::rng::Rng;
use crate::workload::{self, Audience, Caller, Pod, RoleArn, Route, RouteStatus, ServiceAccount};

pub use self::no_route::{NoRoute, OtherAudience};

/// One who waits looks again after this time, though nothing has changed: by then an old answer may count.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What is to be done for a caller.
#[derive(Debug)]
pub enum Choice {
    /// It takes this route.
    Route(Route),
    /// What it has by this route is served until it expires; nothing is fetched, for this reason.
    Former(Route, NoRoute),
    /// There is none.
    Refused(NoRoute),
    /// Somebody has to be asked first: [`Associations::ask`].
    Ask(Question),
}

/// Which role a pod has.
#[derive(Clone, Debug)]
pub struct Question {
    pod: Arc<Pod>,
    audience: Arc<str>,
    token_life: Option<Duration>,
}

/// An entitlement that has ended: by the annotation, the role map or the role limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withdrawn {
    /// The service account that may use the role no more.
    pub service_account: ServiceAccount,
    /// The role.
    pub role: RoleArn,
}

/// The associations of the process; clones share them.
#[derive(Clone)]
pub struct Associations {
    shared: Arc<Shared>,
}

struct Shared {
    /// `None`: nobody is given a role.
    roles: Option<Roles>,
}

struct Roles {
    state: Mutex<State>,
    map: Option<PathBuf>,
    limits: Option<PathBuf>,
    rng: Rng,
    /// Notified when a service account is to be read.
    wanted: Notify,
    /// Notified when something has become known, or will not.
    learned: Notify,
    /// Notified when an entitlement has ended.
    withdrawn: Notify,
}

/// Entitlements that have ended, each given to one reader once.
pub struct Withdrawals {
    associations: Associations,
}

impl Question {
    /// The same of a pod with a token that lives so long: the log says if its account is annotated otherwise.
    #[must_use]
    pub fn with_token_life(self, token_life: Option<Duration>) -> Self {
        Self { token_life, ..self }
    }
}

impl Associations {
    /// Roles come from there; `None`: nobody is given one. Nothing is known, and nothing is read until
    /// [`Associations::keep_files`] and [`Associations::keep_annotations`] run.
    pub fn new(roles: Option<WebIdentity>, rng: Rng) -> Self {
        let roles = roles.map(|roles| Roles {
            state: Mutex::new(State::new(&roles)),
            map: roles.role_map,
            limits: roles.role_limits,
            rng,
            wanted: Notify::new(),
            learned: Notify::new(),
            withdrawn: Notify::new(),
        });
        Self { shared: Arc::new(Shared { roles }) }
    }

    /// What is to be done for a caller with a token for that audience. Waits for nothing.
    pub fn choose(&self, caller: &Caller, audience: &Audience, now: Now) -> Choice {
        match audience {
            Audience::PodIdentity => Choice::Route(Route::EksAuth),
            Audience::WebIdentity(audience) => {
                let Some(roles) = &self.shared.roles else { return Choice::Refused(NoRoute::NoRole) };
                let Caller::Verified(pod) = caller else { return Choice::Refused(NoRoute::Unverified) };
                roles.choose(pod, audience, now)
            }
        }
    }

    /// The answer to a question, however long that takes: one who asks has a deadline. Cancel-safe: what was
    /// begun for it goes on for others.
    ///
    /// # Errors
    /// [`NoRoute`], when there is none.
    pub async fn ask(&self, question: Question, now: Now) -> Result<Route, NoRoute> {
        match &self.shared.roles {
            Some(roles) => roles.ask(question, now).await,
            None => Err(NoRoute::NoRole),
        }
    }

    /// What the cluster says today of a route that a caller took, asked at each renewal of its credentials.
    /// Where that is not known, it is given still. What is known is renewed by that in the background.
    pub fn status(&self, caller: &Caller, route: &Route) -> RouteStatus {
        let (Route::WebIdentity(wanted), Some(roles)) = (route, &self.shared.roles) else {
            return RouteStatus::Given;
        };
        caller.verified().map_or(RouteStatus::Given, |pod| roles.status(pod, wanted))
    }

    /// A pod is gone. Service accounts without a pod that has asked are read no more; where nobody says that
    /// pods are gone, two hours after the last one asked or was renewed.
    pub fn forget_pod(&self, uid: &str) {
        if let Some(roles) = &self.shared.roles {
            roles.state.lock().forget_pod(uid);
        }
    }

    /// The entitlements that end from now on, and those that ended and nobody was given yet.
    pub fn withdrawals(&self) -> Withdrawals {
        Withdrawals { associations: self.clone() }
    }
}

impl Roles {
    fn choose(&self, pod: &Arc<Pod>, audience: &Arc<str>, now: Now) -> Choice {
        let mut state = self.state.lock();
        let chosen = state.choose(pod, audience, now.boot);
        let (has_wish, has_ended) = (state.has_new_wish(), state.has_withdrawn());
        drop(state);
        if has_wish {
            self.wanted.notify_one();
        }
        if has_ended {
            self.withdrawn.notify_one();
        }
        match chosen {
            Chosen::Route(route) => Choice::Route(Route::WebIdentity(route)),
            Chosen::Former(route, why) => Choice::Former(Route::WebIdentity(route), why),
            Chosen::Refused(why) => Choice::Refused(why),
            Chosen::Unknown => {
                let (pod, audience) = (Arc::clone(pod), Arc::clone(audience));
                Choice::Ask(Question { pod, audience, token_life: None })
            }
        }
    }

    fn status(&self, pod: &Pod, wanted: &workload::WebIdentity) -> RouteStatus {
        let mut state = self.state.lock();
        let status = state.status(pod, wanted);
        let has_wish = state.has_new_wish();
        drop(state);
        if has_wish {
            self.wanted.notify_one();
        }
        status
    }

    async fn ask(&self, question: Question, now: Now) -> Result<Route, NoRoute> {
        let Question { pod, audience, token_life } = question;
        let (asked_at, began) = (now.boot, Instant::now());
        loop {
            // First the notice, then the look: an answer in between is not missed.
            let learned = self.learned.notified();
            let chosen = {
                let now = asked_at.plus(began.elapsed());
                self.state.lock().choose_waiting(&pod, &audience, asked_at, now)
            };
            match chosen {
                Chosen::Route(route) => {
                    self.note_token_life(&pod, token_life);
                    return Ok(Route::WebIdentity(route));
                }
                // One who waits has no credentials that could be served to their end.
                Chosen::Refused(why) | Chosen::Former(_, why) => return Err(why),
                Chosen::Unknown => {}
            }
            self.wanted.notify_one();
            let _or_later = tokio::time::timeout(LOOK_AGAIN, learned).await;
        }
    }

    /// Who annotates an account expects tokens of that life, and nothing else shows that the agent did not
    /// make them.
    fn note_token_life(&self, pod: &Pod, life: Option<Duration>) {
        let Some(life) = life else { return };
        let Some(annotated) = self.state.lock().note_token_life(pod, life) else { return };
        let ServiceAccount { namespace, name, uid: _ } = &pod.service_account;
        tracing::info!(
            %namespace,
            service_account = %name,
            annotated_seconds = annotated.as_secs(),
            token_seconds = life.as_secs(),
            "a pod's token lives longer than the annotation eks.amazonaws.com/token-expiration says: its \
             volume decides"
        );
    }

    /// Something was learned under the lock: those who wait look again.
    fn tell(&self, has_ended: bool) {
        self.learned.notify_waiters();
        if has_ended {
            self.withdrawn.notify_one();
        }
    }
}

impl Withdrawals {
    /// The next one, however long that takes. Cancel-safe.
    pub async fn next(&mut self) -> Withdrawn {
        let Some(roles) = &self.associations.shared.roles else { return std::future::pending().await };
        loop {
            let withdrawn = roles.withdrawn.notified();
            let next = roles.state.lock().next_withdrawn();
            match next {
                Some(next) => return next,
                None => withdrawn.await,
            }
        }
    }
}

impl fmt::Debug for Associations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Associations").finish_non_exhaustive()
    }
}
