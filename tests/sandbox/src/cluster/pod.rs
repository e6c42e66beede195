//! A pod as far as identity goes: names, uids and the token file the kubelet keeps for it.
//!
//! Owns: the file's place and its rotation. Must not know: what a token looks like inside, nor who reads it.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::projected_volume;
use super::token::{self, Subject, TokenSpec};
use crate::sandbox::SandboxError;
use crate::world::World;

/// Name of the volume and of the file in it (docs/design/facts.md#pod-environment).
const TOKEN: &str = "eks-pod-identity-token";

/// Names a pod and whom it runs as.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PodSpec {
    /// Its namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
    /// Its name.
    pub pod: String,
}

impl Default for PodSpec {
    fn default() -> Self {
        Self::new("default", "app", "app-0")
    }
}

impl PodSpec {
    /// The pod `pod`, running as `service_account` of `namespace`.
    #[must_use]
    pub fn new(namespace: &str, service_account: &str, pod: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
            pod: pod.to_owned(),
        }
    }
}

/// A pod on the sandbox's node.
#[derive(Debug)]
pub struct Pod {
    /// Its names.
    pub spec: PodSpec,
    /// Its uid.
    pub uid: String,
    /// The uid of its service account: the same for all pods of one.
    pub service_account_uid: String,
    /// The node it runs on.
    pub node_name: String,
    /// That node's uid.
    pub node_uid: String,
    /// What its AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE names.
    pub token_file: PathBuf,
    /// The token in that file.
    pub token: String,
    /// What that token is for.
    audience: String,
    world: Arc<World>,
}

impl Pod {
    /// A new pod with a token file of its own.
    pub(crate) fn create(world: &Arc<World>, spec: PodSpec, audience: &str) -> Result<Self, SandboxError> {
        let subject = world.subject(&spec);
        let mut pod = Self {
            uid: subject.pod_uid,
            service_account_uid: subject.service_account_uid,
            node_name: subject.node_name,
            node_uid: subject.node_uid,
            token_file: PathBuf::new(),
            token: String::new(),
            audience: audience.to_owned(),
            world: Arc::clone(world),
            spec,
        };
        pod.rotate_token()?;
        Ok(pod)
    }

    /// Writes a new token into the file, as the kubelet does at 80 % of the old one's life. The old one stays
    /// valid.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn rotate_token(&mut self) -> Result<(), SandboxError> {
        let token = self.another_token()?;
        self.token_file = projected_volume::write(&self.volume(), TOKEN, &token)
            .map_err(|source| SandboxError::Files { path: self.volume(), source })?;
        self.token = token;
        Ok(())
    }

    /// A token for this pod that is in no file.
    ///
    /// # Errors
    /// If the key will not sign.
    pub fn another_token(&self) -> Result<String, SandboxError> {
        let lifetime = self.world.options.token_lifetime;
        let spec = TokenSpec::new(self.spec.clone()).audiences(&[&self.audience]);
        self.token_as(&TokenSpec { lifetime, ..spec })
    }

    /// A token that is wrong as `spec` says, with this pod's uids. Names in `spec` win over this pod's.
    ///
    /// # Errors
    /// If the key will not sign.
    pub fn token_as(&self, spec: &TokenSpec) -> Result<String, SandboxError> {
        let subject = Subject {
            pod_uid: self.uid.clone(),
            service_account_uid: self.service_account_uid.clone(),
            node_name: self.node_name.clone(),
            node_uid: self.node_uid.clone(),
        };
        Ok(token::issue(spec, &subject, &self.world.issuer, &self.world.keys, self.world.clock.now())?)
    }

    /// Removes the pod's files, as the kubelet does when a pod is gone.
    ///
    /// # Errors
    /// If they cannot be removed.
    pub fn delete(self) -> Result<(), SandboxError> {
        let path = self.directory();
        fs::remove_dir_all(&path).map_err(|source| SandboxError::Files { path, source })
    }

    /// The kubelet's directory of the pod.
    fn directory(&self) -> PathBuf {
        self.world.dir.join("pods").join(&self.uid)
    }

    fn volume(&self) -> PathBuf {
        self.directory().join("volumes/kubernetes.io~projected").join(TOKEN)
    }
}
