//! What a node full of pods costs in memory, and how much of it is Kubernetes' part.
//!
//! Owns: the node: 250 pods, of which each has credentials, in a cluster of 10,000. Must not know: how memory
//! is read.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sandbox::Sandbox;
use serde_json::Value;

use crate::api_server::{ApiServer, ClusterPod};
use crate::process::Agent;
use crate::{Outcome, load};

/// Pods on the node: what EKS allows on its larger instances.
const ON_NODE: usize = 250;
/// Pods in the API.
const IN_CLUSTER: usize = 10_000;
/// Pods that ask for the first time at once: the kubelet pulls five images a second (registryPullQPS).
const AT_ONCE: usize = 5;
/// Until the allocator has given back what the list needed while it was read.
const SETTLED: Duration = Duration::from_secs(3);

/// Resident memory, in MiB.
pub(crate) struct FullNode {
    /// With everything on.
    pub(crate) all: f64,
    /// Without the Kubernetes API.
    pub(crate) without_kubernetes: f64,
}

pub(crate) async fn measure(sandbox: &Sandbox, tokens: &[String]) -> Outcome<FullNode> {
    let tokens = tokens.get(..ON_NODE).ok_or("too few tokens")?;
    let here = sandbox.node_name();
    let pods = (0..IN_CLUSTER).map(|number| pod(number, tokens.get(number).map(String::as_str), here));
    let api_server = ApiServer::start(sandbox, pods.collect::<Outcome<_>>()?).await?;
    let without_kubernetes = full(&Agent::start(sandbox).await?, tokens).await?;
    let agent = Agent::start_in_cluster(sandbox, &api_server).await?;
    agent.until_pods_are_known().await?;
    let all = full(&agent, tokens).await?;
    Ok(FullNode { all, without_kubernetes })
}

/// With credentials of each of its pods.
async fn full(agent: &Agent, tokens: &[String]) -> Outcome<f64> {
    load::fetch_all(agent.address(), tokens, AT_ONCE).await?;
    let held = agent.identities().await?;
    if held != tokens.len() {
        return Err(format!("the agent has {held} identities: their memory says nothing").into());
    }
    tokio::time::sleep(SETTLED).await;
    agent.rss_mib()
}

/// A pod that shows this token, or one on another node.
fn pod(number: usize, token: Option<&str>, here: &str) -> Outcome<ClusterPod> {
    let name = format!("app-{number}");
    match token {
        Some(token) => Ok(ClusterPod { name, uid: uid_in(token)?, node: here.to_owned() }),
        None => {
            let (uid, node) =
                (format!("00000000-0000-4000-8000-{number:012}"), format!("node-{}", number / ON_NODE));
            Ok(ClusterPod { name, uid, node })
        }
    }
}

fn uid_in(token: &str) -> Outcome<String> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).ok_or("not a token")?)?;
    let claims: Value = serde_json::from_slice(&claims)?;
    let uid = claims.pointer("/kubernetes.io/pod/uid").and_then(Value::as_str);
    Ok(uid.ok_or("not a pod's token")?.to_owned())
}
