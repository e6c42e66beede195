//! The folder `credentials`, with what it needs from outside.
//!
//! Owns: which source it asks, and who signs. Must not know: how its parts fit together
//! (`credentials::assemble`).

use std::sync::Arc;

use super::Services;
use super::cluster::Cluster;
use crate::association::{Associations, Withdrawn};
use crate::aws::http_client;
use crate::aws::node_details::SentDetails;
use crate::aws::own_identity::OwnIdentity;
use crate::aws::own_identity::imds::InstanceRole;
use crate::aws::reach::{Reach, Reached};
use crate::aws::region::AwsRegion;
use crate::config::{Config, OwnCredentials};
use crate::credentials::assemble::{Credentials, Needs, RouteStatusOf};
use crate::credentials::audit_log::AuditLog;
use crate::credentials::flight::final_answers::Granted;
use crate::credentials::source::eks_auth::{EksAuth, Parts};
use crate::credentials::source::web_identity::{self, StsWebIdentity};
use crate::credentials::source::{OfEach, Sources};
use crate::credentials::trial::TrialState;
use crate::identity::own_token;
use crate::lifecycle::condition_name::ConditionName;
use crate::outgoing::Client;
use crate::rng::Rng;

/// Who calls AWS, and where.
pub(super) struct Signing {
    pub(super) own: OwnIdentity,
    pub(super) region: AwsRegion,
    pub(super) details: SentDetails,
}

impl Services {
    pub(super) fn assemble_credentials(
        &self,
        config: &Config,
        to_aws: &Client,
        signing: Signing,
        cluster: &Cluster,
    ) -> Credentials {
        let Signing { own, region, details } = signing;
        let answer_log = own.answer_log().clone();
        let (upstream, clock) = (&config.upstream, &self.clock);
        let http_client = http_client::for_aws(to_aws.clone());
        let web_identity = config.web_identity.as_ref().map(|web_identity| {
            StsWebIdentity::new(web_identity::Parts {
                region: region.clone(),
                sts: &web_identity.sts,
                upstream,
                answer_log: answer_log.clone(),
                http_client: http_client.clone(),
                clock,
            })
        });
        let cluster_name = &config.cluster_name;
        let eks_auth = config.pod_identity.then(|| {
            let cluster = cluster_name;
            let region = region.clone();
            EksAuth::new(Parts { cluster, region, upstream, own, details, http_client, clock })
        });
        let sources = Sources { eks_auth, web_identity, answer_log, region };
        sources.present().into_iter().for_each(|source| self.metrics.upstream.may_call(source));
        Credentials::assemble(Needs {
            clock: self.clock.clone(),
            rng: Rng::from_entropy(),
            sources,
            retention: &config.retention,
            max_service_qps: config.max_service_qps,
            max_stale_after_refusal: config.max_stale_after_refusal,
            limits: self.limits.clone(),
            metrics: Arc::clone(&self.metrics.upstream),
            tasks: self.tasks.clone(),
            audit_log: audit_log(config),
            pods: cluster.pods.clone(),
            events: cluster.events.clone(),
            route_status: route_status(cluster.associations.clone()),
        })
    }

    pub(super) fn learn_node_details(&self, config: &Config, details: SentDetails) {
        let OwnCredentials::Imds(service) = &config.own_credentials else { return };
        if config.node.send && config.pod_identity {
            let mut imds = InstanceRole::new(service, &self.clock);
            self.tasks.spawn("node-details", async move { details.learn(&mut imds).await });
        }
    }

    /// Shown and never waited for: the pods of a node may be the only ones that were given no role, and an
    /// outage of AWS must not make every node unready.
    pub(super) fn watch_answers(&self, credentials: &Credentials) {
        let grants = self.readiness.advisory(ConditionName::UpstreamGrants);
        let reporting = credentials.answers.clone().report(move |granted| match granted {
            Granted::Something => grants.met(),
            Granted::Nothing(why) => grants.unmet(why),
        });
        self.until_stopped("aws-answers", reporting);
        let OfEach { eks_auth, web_identity } = &credentials.reaches;
        self.watch_reach(ConditionName::UpstreamReachable, eks_auth.as_ref());
        self.watch_reach(ConditionName::StsReachable, web_identity.as_ref());
    }

    /// Readiness waits for it, so that an update that cannot work stops at the first node. Once it is over,
    /// nothing asks again in this process: what AWS says later must not make every node unready at once.
    pub(super) fn make_trial_call(&self, config: &Config, credentials: &Credentials) {
        let Some((file, trial)) = config.trial_token_file.clone().zip(credentials.trial()) else { return };
        let condition = self.readiness.condition(ConditionName::TrialCall);
        self.until_stopped("trial-call", async move {
            let read_token = || {
                let file = file.clone();
                async move {
                    let read = own_token::read(&file).await;
                    read.map_err(|error| format!("{}: {error}", file.display()))
                }
            };
            let report = move |state| match state {
                TrialState::Waiting => condition.unmet(
                    "EKS Auth was not asked yet: the agent waits for its region or its own credentials",
                ),
                TrialState::Passed => condition.met(),
                TrialState::Open(why) => condition.met_by(why),
                TrialState::Failing(why) => condition.unmet(why),
            };
            trial.run(read_token, report).await;
        });
    }

    /// Whether a source answers, where it is asked.
    fn watch_reach(&self, name: ConditionName, reach: Option<&Reach>) {
        let Some(reach) = reach.cloned() else { return };
        let reachable = self.readiness.advisory(name);
        let reporting = reach.report(move |reached| match reached {
            Reached::Yes => reachable.met(),
            Reached::No(why) => reachable.unmet(why),
        });
        self.until_stopped("aws-reach", reporting);
    }

    pub(super) fn renew_credentials(&self, credentials: &Credentials, cluster: &Cluster) {
        if let Some(renewals) = credentials.renewals() {
            self.until_stopped("renewals", renewals.run());
        }
        let associations = cluster.associations.clone();
        let forget = move |pod_uid: &str| associations.forget_pod(pod_uid);
        self.until_stopped("revocations", credentials.revocations().run(forget));
        let (mut withdrawals, store) = (cluster.associations.withdrawals(), credentials.store.clone());
        self.until_stopped("withdrawals", async move {
            loop {
                let Withdrawn { service_account, role } = withdrawals.next().await;
                store.remove_role(&service_account, &role);
            }
        });
    }
}

fn route_status(associations: Associations) -> RouteStatusOf {
    Arc::new(move |principal| associations.status(&principal.caller, &principal.route))
}

fn audit_log(config: &Config) -> Option<AuditLog> {
    config.log.audit.then(|| AuditLog::new(&config.cluster_name, config.node.name.as_deref()))
}
