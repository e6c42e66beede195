//! What the agent learns from the Kubernetes API.
//!
//! Owns: which of it is asked, and who is given it. Must not know: how it is asked (`kubernetes`), or what
//! follows.

use std::sync::Arc;

use super::Services;
use crate::config::Config;
use crate::events::{Events, Names, Problem};
use crate::identity::keys::{IssuerDocuments, KeySource, TokenKeys};
use crate::kubernetes::api::Api;
use crate::kubernetes::events::EventWriter;
use crate::kubernetes::issuer::{Issuer, IssuerReader};
use crate::kubernetes::pods::PodWatch;
use crate::lifecycle::condition_name::ConditionName;
use crate::pods::{LivePod, Pods, missed};
use crate::rng::Rng;

/// The cluster, as far as the agent asks about it.
pub(super) struct Cluster {
    /// `None`: nobody is asked.
    pub(super) api: Option<Api>,
    /// Who lives on this node. Nobody is reported where nobody watches.
    pub(super) pods: Pods,
    /// Where problems of pods are reported. Nobody is interested where Events are off.
    pub(super) events: Events,
}

impl Services {
    /// Begins to follow the pods of this node, where there is an API server to ask and the node has a name.
    pub(super) fn join_cluster(&self, config: &Config) -> Cluster {
        let api = config.api_server.clone().map(Api::new);
        let (pods, questions) = Pods::new();
        let events = self.write_events(config, api.as_ref(), &pods);
        if let (Some(api), Some(node), true) = (&api, &config.node.name, config.watch_pods) {
            let (clock, rng) = (self.clock.clone(), Rng::from_entropy());
            let watch = PodWatch::new(api.clone(), node, pods.clone(), questions, clock, rng);
            // Shown and never waited for: without it both checks only count, and nothing ends before its
            // time.
            let known = self.readiness.advisory(ConditionName::Pods);
            self.until_stopped("pods", watch.keep(known));
            let reports = missed::report_each(pods.clone(), self.clock.clone(), tell_missed(events.clone()));
            self.until_stopped("missed-pods", reports);
        }
        Cluster { api, pods, events }
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
                self.until_stopped("events", writer.keep());
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
