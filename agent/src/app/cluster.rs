//! What the agent learns from the Kubernetes API, and what it writes there.
//!
//! Owns: which of it is asked, and who is given it. Must not know: how it is asked (`kubernetes`), or what
//! follows.

use std::sync::Arc;

use super::Services;
use crate::association::Associations;
use crate::association::annotations::{FoundAccount, NotRead};
use crate::config::{Config, VerificationMode};
use crate::events::{Events, Names, Problem};
use crate::identity::keys::{IssuerDocuments, KeySource, TokenKeys};
use crate::identity::review::{Answer, NoAnswer, ReviewedUser, Reviews};
use crate::kubernetes;
use crate::kubernetes::api::Api;
use crate::kubernetes::events::EventWriter;
use crate::kubernetes::issuer::{Issuer, IssuerReader};
use crate::kubernetes::pods::PodWatch;
use crate::kubernetes::review::{ReviewError, Reviewed, TokenReviewer};
use crate::kubernetes::service_accounts::{ReadAccount, ReadAccountError, ServiceAccountReader};
use crate::lifecycle::condition_name::ConditionName;
use crate::lifecycle::readiness::Condition;
use crate::pods::{LivePod, Pods, Questions, missed};
use crate::rng::Rng;
use crate::workload::{BearerToken, ServiceAccountName};

/// The cluster, as far as the agent asks about it.
pub(super) struct Cluster {
    /// `None`: nobody is asked.
    pub(super) api: Option<Api>,
    /// Who lives on this node. Nobody is reported where nobody watches.
    pub(super) pods: Pods,
    /// What it says of tokens that no key proves. `None`: it is not shown any.
    pub(super) reviews: Option<Reviews>,
    /// Where problems of pods are reported. Nobody is interested where Events are off.
    pub(super) events: Events,
    /// By which route pods get credentials.
    pub(super) associations: Associations,
}

impl Services {
    /// Begins to ask the API server, where there is one. Its keys are a source among others.
    pub(super) fn join_cluster(&self, config: &Config) -> Cluster {
        let api = config.kubernetes.api_server.clone().map(Api::new);
        let (pods, questions) = Pods::new();
        let reviews = self.review_tokens(config, api.as_ref());
        let events = self.write_events(config, api.as_ref(), &pods);
        self.follow_pods(config, api.as_ref(), &pods, questions, events.clone());
        let associations = self.give_roles(config, api.as_ref());
        Cluster { api, pods, reviews, events, associations }
    }

    /// Begins to read which roles the cluster gives, where it gives any.
    fn give_roles(&self, config: &Config, api: Option<&Api>) -> Associations {
        let associations = Associations::new(config.web_identity.clone(), Rng::from_entropy());
        let Some(roles) = &config.web_identity else { return associations };
        if roles.role_map.is_some() || roles.role_limits.is_some() {
            let known = self.readiness.condition(ConditionName::RoleFiles);
            let tell = required_once(known);
            let files = associations.clone().keep_files(self.clock.clone(), tell);
            self.until_stopped("role-files", files);
        }
        if let Some(api) = api.filter(|_| roles.reads_annotations) {
            let reader = ServiceAccountReader::new(api.clone());
            let read = move |account: ServiceAccountName| {
                let reader = reader.clone();
                async move { account_of(reader.read(&account.namespace, &account.name).await) }
            };
            // Shown and never waited for: what was known still counts, and the API server may be away.
            let known = self.readiness.advisory(ConditionName::RoleAnnotations);
            // Nothing has been read, and nothing has failed.
            known.met();
            let annotations =
                associations.clone().keep_annotations(self.clock.clone(), read, shown_by(known));
            self.until_stopped("role-annotations", annotations);
        }
        associations
    }

    /// Begins to follow the pods of this node, where the node has a name.
    fn follow_pods(
        &self,
        config: &Config,
        api: Option<&Api>,
        pods: &Pods,
        questions: Questions,
        events: Events,
    ) {
        let (Some(api), Some(node), Some(timeout)) = (api, &config.node.name, config.kubernetes.watch_pods)
        else {
            return;
        };
        let (clock, rng) = (self.clock.clone(), Rng::from_entropy());
        let watch = PodWatch::new(api.clone(), node, timeout, pods.clone(), questions, clock, rng);
        // Shown and never waited for: without it both checks only count, and nothing ends before its time.
        let known = self.readiness.advisory(ConditionName::Pods);
        self.until_stopped("pods", watch.keep(known));
        let reports = missed::report_each(pods.clone(), self.clock.clone(), tell_missed(events));
        self.beside("missed-pods", reports);
    }

    /// Begins to write Events about pods, where they are asked for and the pods of this node are watched: an
    /// Event is about a pod that the cluster has named.
    fn write_events(&self, config: &Config, api: Option<&Api>, pods: &Pods) -> Events {
        let (Some(api), Some(node), true) = (api, &config.node.name, config.writes_events()) else {
            return Events::off();
        };
        let metrics = &self.metrics.events;
        let (events, reports) = Events::new(pods.clone(), Arc::clone(metrics));
        let names = Names { cluster: config.cluster_name.as_str().into(), node: node.as_str().into() };
        let (api, clock) = (api.clone(), self.clock.clone());
        match EventWriter::new(api, names, pods.clone(), clock, Arc::clone(metrics), reports) {
            Some(writer) => {
                self.beside("events", writer.keep());
                events
            }
            None => {
                tracing::warn!(
                    node,
                    "no Events are written: Kubernetes takes none from a node with so long a name"
                );
                Events::off()
            }
        }
    }

    /// Begins to show tokens to the API server, where tokens are verified.
    fn review_tokens(&self, config: &Config, api: Option<&Api>) -> Option<Reviews> {
        let are_verified = config.verification.mode != VerificationMode::Off;
        let api = api.filter(|_| config.kubernetes.reviews_tokens && are_verified)?;
        let reviews = Reviews::new(Arc::clone(&self.metrics.token_reviews), Rng::from_entropy());
        let reviewer = TokenReviewer::new(api.clone());
        let ask = move |token: BearerToken, audience: Arc<str>| {
            let reviewer = reviewer.clone();
            async move { answer_of(reviewer.review(token.reveal(), &audience).await) }
        };
        self.beside("token-reviews", reviews.clone().keep(self.clock.clone(), ask));
        Some(reviews)
    }
}

fn answer_of(reviewed: Result<Reviewed, ReviewError>) -> Result<Answer, NoAnswer> {
    match reviewed {
        Ok(Reviewed::Authenticated { audiences, user }) => {
            let kubernetes::review::ReviewedUser { name, uid, pod, pod_uid, node } = user;
            Ok(Answer::Authenticated(ReviewedUser { name, uid, audiences, pod, pod_uid, node }))
        }
        Ok(Reviewed::Denied(said)) => Ok(Answer::Denied(said)),
        Err(ReviewError::Forbidden(said)) => Err(NoAnswer::Forbidden(said)),
        Err(error @ (ReviewError::Api(_) | ReviewError::Unreadable)) => {
            Err(NoAnswer::Failed(Box::new(error)))
        }
    }
}

fn account_of(read: Result<Option<ReadAccount>, ReadAccountError>) -> Result<Option<FoundAccount>, NotRead> {
    match read {
        Ok(found) => Ok(found.map(|ReadAccount { uid, annotations }| FoundAccount { uid, annotations })),
        Err(ReadAccountError::Forbidden(said)) => Err(NotRead::Forbidden(said)),
        Err(error @ ReadAccountError::Api(_)) => Err(NotRead::Failed(Box::new(error))),
    }
}

/// The same of what a process must have had once: without a file that can be used it would take the roles
/// away that its predecessor, which has the last good one, still gives. Once it had one, a bad edit changes
/// nothing, and takes readiness from nobody.
fn required_once(known: Condition) -> impl Fn(Result<(), String>) + Send {
    move |read| match read {
        Ok(()) => {
            known.met();
            known.no_longer_required();
        }
        Err(why) => known.unmet(why),
    }
}

/// Shows whether something is known, and why not.
fn shown_by(known: Condition) -> impl Fn(Result<(), String>) + Send {
    move |read| match read {
        Ok(()) => known.met(),
        Err(why) => known.unmet(why),
    }
}

/// For the admin in the log, for the pod's owner as an Event.
fn tell_missed(events: Events) -> impl Fn(&LivePod) {
    move |pod| {
        missed::warn(pod);
        let service_account = pod.service_account.name.clone();
        events.tell(pod.name.clone(), Problem::NotInjected { service_account });
    }
}

/// The keys of the cluster's issuer, which the API server names.
pub(super) fn keys_of_issuer(api: &Api, keys: TokenKeys) -> KeySource {
    let reader = IssuerReader::new(api.clone());
    KeySource::read_elsewhere(format!("the API server at {}", api.url()), 0, keys, true, move || {
        let reader = reader.clone();
        async move {
            let Issuer { name, keys } = reader.read().await?;
            Ok(IssuerDocuments { issuer: Some(name), keys })
        }
    })
}
