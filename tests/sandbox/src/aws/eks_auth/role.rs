//! From a pod and its association to a session of a role.
//!
//! Owns: session name, session tags, the trust of both roles, how long a session lives. Must not know: the
//! request. Roles that IAM does not know are taken to trust EKS, so that a test needs no role to have an
//! association; where IAM is an emulator there is no such role.

use std::collections::BTreeMap;
use std::time::Duration;

use super::refusal::{Code, Refused};
use crate::aws::associations::Association;
use crate::aws::iam::arn::RoleArn;
use crate::aws::iam::context::Context;
use crate::aws::iam::role::POD_IDENTITY;
use crate::aws::iam::trust::Principal;
use crate::aws::session::Session;
use crate::cluster::pod::PodSpec;
use crate::options::Options;
use crate::random;
use crate::world::World;

/// STS takes no longer session name.
const MAX_SESSION_NAME: usize = 64;
/// How long a session of a target role lives: role chaining ends after an hour, and EKS stays below it.
const CHAINED_LIFETIME: Duration = Duration::from_mins(59);

/// A pod as a token proves it.
pub(super) struct ProvedPod {
    pub(super) names: PodSpec,
    pub(super) uid: String,
}

/// A session that may begin.
pub(super) struct Assumed {
    pub(super) session: Session,
    pub(super) lifetime: Duration,
}

/// Assumes the association's role for the pod, and its target role after that.
pub(super) fn assume(world: &World, pod: &ProvedPod, association: &Association) -> Result<Assumed, Refused> {
    let options = &world.options;
    let lifetime = association.lifetime_seconds.map_or(options.credential_lifetime, Duration::from_secs);
    let tags = if association.disable_session_tags { BTreeMap::new() } else { session_tags(options, pod) };
    let first = Session {
        role_arn: association.role_arn.clone(),
        name: session_name(&options.cluster_name, &pod.names.pod),
        tags,
        // With a target role the policy is for that one alone (botocore's model of EKS).
        policy: association.policy.clone().filter(|_| association.target_role_arn.is_none()),
    };
    check_service(world, &first)?;
    let Some(target) = &association.target_role_arn else {
        return Ok(Assumed { session: first, lifetime });
    };
    check_target(world, &first, target, &association.external_id(options))?;
    let (role_arn, policy) = (target.clone(), association.policy.clone());
    // All tags of EKS are transitive: the chained session has them too.
    let session = Session { role_arn, policy, ..first };
    Ok(Assumed { session, lifetime: lifetime.min(CHAINED_LIFETIME) })
}

/// Whether the first role lets EKS assume it, and tag the session if it has tags.
fn check_service(world: &World, session: &Session) -> Result<(), Refused> {
    let Some(role) = world.iam.role(&session.role_arn)? else { return unknown(world) };
    let Options { account, region, cluster_name, .. } = &world.options;
    let context = Context::default()
        .with_request_tags(&session.tags)
        .with("sts:RoleSessionName", &session.name)
        .with("aws:SourceAccount", account)
        .with("aws:SourceArn", cluster_arn(account, region, cluster_name));
    let actions: &[&str] =
        if session.tags.is_empty() { &["sts:AssumeRole"] } else { &["sts:AssumeRole", "sts:TagSession"] };
    if role.trusts(Principal::Service(POD_IDENTITY), actions, &context) { Ok(()) } else { Err(refused()) }
}

/// Whether the target role lets the first one assume it.
fn check_target(world: &World, first: &Session, target: &str, external_id: &str) -> Result<(), Refused> {
    let Some(role) = world.iam.role(target)? else { return unknown(world) };
    let first_role = RoleArn::parse(&first.role_arn).ok_or_else(refused)?;
    let context = Context::default()
        .with_principal_tags(&first.tags)
        .with("sts:RoleSessionName", &first.name)
        .with("sts:ExternalId", external_id)
        .with("aws:PrincipalArn", &first.role_arn)
        .with("aws:PrincipalAccount", first_role.account);
    let session_arn = first.arn();
    let principal =
        Principal::Session { role: first_role, role_arn: &first.role_arn, session_arn: &session_arn };
    if role.trusts(principal, &["sts:AssumeRole"], &context) { Ok(()) } else { Err(refused()) }
}

/// A role that IAM does not know: an emulator knows all there are.
fn unknown(world: &World) -> Result<(), Refused> {
    if world.iam.is_elsewhere() { Err(refused()) } else { Ok(()) }
}

/// What an association says whose role does not trust EKS.
pub(super) fn refused() -> Refused {
    let text = "Unauthorized Exception! EKS does not have permissions to assume the associated role.";
    Refused::new(Code::AccessDenied, text)
}

/// The six tags of EKS Pod Identity (EKS guide, pod-id-abac).
fn session_tags(options: &Options, pod: &ProvedPod) -> BTreeMap<String, String> {
    let Options { account, region, cluster_name, .. } = options;
    let PodSpec { namespace, service_account, pod: name } = &pod.names;
    let tags = [
        ("eks-cluster-arn", &cluster_arn(account, region, cluster_name)),
        ("eks-cluster-name", cluster_name),
        ("kubernetes-namespace", namespace),
        ("kubernetes-service-account", service_account),
        ("kubernetes-pod-name", name),
        ("kubernetes-pod-uid", &pod.uid),
    ];
    tags.map(|(name, value)| (name.to_owned(), value.clone())).into()
}

fn cluster_arn(account: &str, region: &str, cluster: &str) -> String {
    format!("arn:aws:eks:{region}:{account}:cluster/{cluster}")
}

/// `eks-<cluster>-<pod>-<uuid>`, the names cut so that the whole fits.
fn session_name(cluster: &str, pod: &str) -> String {
    let uuid = random::uuid();
    let names = format!("eks-{cluster}-{pod}");
    let kept: String = names.chars().take(MAX_SESSION_NAME - 1 - uuid.len()).collect();
    format!("{kept}-{uuid}")
}
