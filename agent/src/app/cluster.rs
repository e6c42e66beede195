//! What the agent learns from the Kubernetes API.
//!
//! Owns: which of it is asked, and who is given it. Must not know: how it is asked (`kubernetes`), or what
//! follows.

use super::Services;
use crate::config::Config;
use crate::identity::keys::{IssuerDocuments, KeySource, TokenKeys};
use crate::kubernetes::api::Api;
use crate::kubernetes::issuer::{Issuer, IssuerReader};
use crate::kubernetes::pods::PodWatch;
use crate::lifecycle::condition_name::ConditionName;
use crate::pods::Pods;
use crate::rng::Rng;

/// The cluster, as far as the agent asks about it.
pub(super) struct Cluster {
    /// `None`: nobody is asked.
    pub(super) api: Option<Api>,
    /// Who lives on this node. Nobody is reported where nobody watches.
    pub(super) pods: Pods,
}

impl Services {
    /// Begins to follow the pods of this node, where there is an API server to ask and the node has a name.
    pub(super) fn join_cluster(&self, config: &Config) -> Cluster {
        let api = config.api_server.clone().map(Api::new);
        let (pods, questions) = Pods::new();
        if let (Some(api), Some(node), Some(timeout)) = (&api, &config.node.name, config.watch_pods) {
            let (clock, rng) = (self.clock.clone(), Rng::from_entropy());
            let watch = PodWatch::new(api.clone(), node, timeout, pods.clone(), questions, clock, rng);
            // Shown and never waited for: without it both checks only count, and nothing ends before its
            // time.
            let known = self.readiness.advisory(ConditionName::Pods);
            self.until_stopped("pods", watch.keep(known));
        }
        Cluster { api, pods }
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
