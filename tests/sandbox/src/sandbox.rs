//! The sandbox: starts everything, tells where it is, stops everything.
//!
//! Owns: listeners, the runtime its servers live on, the directory. Must not know: what the servers answer.

mod iam;

use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use thiserror::Error;
use tokio::runtime::Runtime;

use crate::aws::associations::{Association, AssociationsError};
use crate::aws::eks::Eks;
use crate::aws::eks_auth::EksAuth;
use crate::aws::gateway::{Gateway, Upstreams};
use crate::aws::iam::registry::IamError;
use crate::aws::imds::Imds;
use crate::aws::issued::AwsCredentials;
use crate::aws::moto::{Moto, MotoError};
use crate::aws::session::Session;
use crate::aws::sts::Sts;
use crate::calls::{Call, Calls, Concurrency};
use crate::cluster::issuer::{self, Issuer};
use crate::cluster::keys::{KeyError, KeyKind};
use crate::cluster::pod::{Pod, PodSpec};
use crate::cluster::token::{self, AUDIENCE, TokenSpec};
use crate::control::{Control, Places};
use crate::faults::{Faults, Service};
use crate::http::server::Answer;
use crate::options::{Options, Switches};
use crate::starter::{Starter, bind, url};
use crate::tls::{self, TlsError};
use crate::world::World;

/// Longest wait for the servers' tasks when the sandbox is dropped.
const STOP: Duration = Duration::from_millis(500);
/// Name of the file that `cluster_signs` asks for.
const SIGNING_KEY: &str = "service-account.key";
/// Name of the file with the key that was published for the next rotation.
const NEXT_SIGNING_KEY: &str = "service-account-next.key";

/// The sandbox could not be started or extended.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// No thread, no event loop.
    #[error("the sandbox's runtime could not be started")]
    Runtime(#[source] io::Error),
    /// No port on the address it was given.
    #[error("no port could be bound")]
    Bind(#[source] io::Error),
    /// Its directory cannot be written or removed.
    #[error("{path} cannot be written")]
    Files {
        /// What could not be written.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No signing key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Associations that EKS would not take.
    #[error(transparent)]
    Associations(#[from] AssociationsError),
    /// Roles or identity providers that IAM would not take.
    #[error(transparent)]
    Iam(#[from] IamError),
    /// No moto.
    #[error(transparent)]
    Moto(#[from] MotoError),
    /// No certificate.
    #[error("https could not be set up")]
    Tls(#[from] TlsError),
}

/// A running sandbox. It lives on threads of its own, so a test that blocks does not stop it; dropping it
/// stops it.
#[derive(Debug)]
pub struct Sandbox {
    world: Arc<World>,
    faults: Faults,
    calls: Calls,
    places: Places,
    imds: Arc<Imds>,
    /// `None` only while being dropped.
    runtime: Option<Runtime>,
    /// After the runtime: the servers ask it.
    _moto: Option<Moto>,
    /// Removes the directory, if it is a temporary one. After the runtime: the servers write into it.
    _temporary: Option<TempDir>,
}

impl Sandbox {
    /// Starts everything. When it returns, all listeners accept.
    ///
    /// # Errors
    /// If a port, the directory, a key or the associations cannot be had.
    pub fn start(options: Options) -> Result<Self, SandboxError> {
        let (dir, temporary) = directory(&options)?;
        let tls = if options.tls { Some(tls::acceptor(&options)?) } else { None };
        let (address, imds_at) = (options.address, options.imds);
        let bind = || bind(SocketAddr::new(address, 0));
        let world = Arc::new(World::new(options, dir)?);
        if world.options.cluster_signs {
            write_private(&world.dir.join(SIGNING_KEY), &world.keys.current().pem()?)?;
        }
        let runtime = runtime().map_err(SandboxError::Runtime)?;
        let mut starter = Starter::new(&runtime, world.clock.clone());
        let eks_auth: Arc<dyn Answer> = Arc::new(EksAuth(Arc::clone(&world)));
        let issuer_listener = bind()?;
        let issuer_url = url(&issuer_listener)?;
        let issuer: Arc<dyn Answer> =
            Arc::new(Issuer { world: Arc::clone(&world), base_url: issuer_url.clone() });
        let sts: Arc<dyn Answer> = Arc::new(Sts(Arc::clone(&world)));
        let (eks_auth_tls, sts_tls, issuer_tls) = match tls {
            None => (None, None, None),
            Some((acceptor, ca)) => {
                write(&world.dir.join("ca.pem"), &ca)?;
                let mut https = |service: &Arc<dyn Answer>| {
                    let address = starter.start(Arc::clone(service), bind()?, Some(acceptor.clone()))?;
                    Ok::<_, SandboxError>(format!("https://{address}"))
                };
                (Some(https(&eks_auth)?), Some(https(&sts)?), Some(https(&issuer)?))
            }
        };
        let control_listener = bind()?;
        let imds = Arc::new(Imds::new(Arc::clone(&world)));
        let imds_listener = imds_at.map_or_else(&bind, crate::starter::bind)?;
        let mut places = Places {
            eks_auth: starter.http(eks_auth, bind()?)?,
            eks_auth_tls,
            eks: starter.http(Arc::new(Eks::new(Arc::clone(&world))), bind()?)?,
            sts: starter.http(sts, bind()?)?,
            sts_tls,
            imds: starter.http(Arc::clone(&imds) as Arc<dyn Answer>, imds_listener)?,
            issuer: issuer_url,
            issuer_tls,
            gateway: None,
            moto: None,
            control: url(&control_listener)?,
        };
        let moto = local_eks(&world, &mut starter, &mut places)?;
        starter.start(issuer, issuer_listener, None)?;
        let (faults, calls) = (starter.faults.clone(), starter.calls.clone());
        let control = Control::new(&world, faults.clone(), calls.clone(), places.clone());
        starter.start(Arc::new(control), control_listener, None)?;
        tracing::debug!(dir = %world.dir.display(), "sandbox started");
        Ok(Self {
            world,
            faults,
            calls,
            places,
            imds,
            runtime: Some(runtime),
            _moto: moto,
            _temporary: temporary,
        })
    }

    /// EKS Auth over http.
    #[must_use]
    pub fn eks_auth_url(&self) -> &str {
        &self.places.eks_auth
    }

    /// EKS Auth over https, if the options ask for it.
    #[must_use]
    pub fn eks_auth_tls_url(&self) -> Option<&str> {
        self.places.eks_auth_tls.as_deref()
    }

    /// The CA to trust for https, in PEM; exists if the options ask for TLS.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.world.dir.join("ca.pem")
    }

    /// STS over http.
    #[must_use]
    pub fn sts_url(&self) -> &str {
        &self.places.sts
    }

    /// EKS's own API.
    #[must_use]
    pub fn eks_url(&self) -> &str {
        &self.places.eks
    }

    /// One URL for EKS, STS, IAM and S3, for AWS_ENDPOINT_URL; where the options ask for moto.
    #[must_use]
    pub fn gateway_url(&self) -> Option<&str> {
        self.places.gateway.as_deref()
    }

    /// The credentials of the account's administrator, for EKS's API and for IAM and S3 where they are there.
    #[must_use]
    pub fn admin_credentials(&self) -> &AwsCredentials {
        &self.world.admin
    }

    /// STS over https, if the options ask for it.
    #[must_use]
    pub fn sts_tls_url(&self) -> Option<&str> {
        self.places.sts_tls.as_deref()
    }

    /// The node's metadata service, for AWS_EC2_METADATA_SERVICE_ENDPOINT.
    #[must_use]
    pub fn imds_url(&self) -> &str {
        &self.places.imds
    }

    /// The issuer's name as it stands in tokens. It is not where the documents are: that is
    /// [`Self::discovery_url`].
    #[must_use]
    pub fn issuer_url(&self) -> &str {
        &self.world.issuer
    }

    /// The issuer's discovery document, over http.
    #[must_use]
    pub fn discovery_url(&self) -> String {
        let path = issuer::path_of(&self.world.issuer);
        format!("{}{path}/.well-known/openid-configuration", self.places.issuer)
    }

    /// The issuer's keys, over http.
    #[must_use]
    pub fn jwks_url(&self) -> String {
        format!("{}{}/keys", self.places.issuer, issuer::path_of(&self.world.issuer))
    }

    /// The issuer's keys, over https, if the options ask for it.
    #[must_use]
    pub fn jwks_tls_url(&self) -> Option<String> {
        let base = self.places.issuer_tls.as_ref()?;
        Some(format!("{base}{}/keys", issuer::path_of(&self.world.issuer)))
    }

    /// The key that signs tokens, in PEM; exists if the options say that a cluster signs.
    #[must_use]
    pub fn signing_key_file(&self) -> PathBuf {
        self.world.dir.join(SIGNING_KEY)
    }

    /// The key that was published for the next rotation, in PEM; exists once there is one, if the options say
    /// that a cluster signs.
    #[must_use]
    pub fn next_signing_key_file(&self) -> PathBuf {
        self.world.dir.join(NEXT_SIGNING_KEY)
    }

    /// The control port.
    #[must_use]
    pub fn control_url(&self) -> &str {
        &self.places.control
    }

    /// Where it writes: token files, the CA, credentials files.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.world.dir
    }

    /// The options it was started with.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.world.options
    }

    /// Name of the node all pods run on.
    #[must_use]
    pub fn node_name(&self) -> &str {
        &self.world.node.name
    }

    /// A new pod with its token file. A second one of the same name is another pod: it has a uid of its own.
    ///
    /// # Errors
    /// If its file cannot be written.
    pub fn pod(&self, spec: PodSpec) -> Result<Pod, SandboxError> {
        self.pod_for(spec, AUDIENCE)
    }

    /// The same, with a token for another audience in its file, such as `sts.amazonaws.com`.
    ///
    /// # Errors
    /// If its file cannot be written.
    pub fn pod_for(&self, spec: PodSpec, audience: &str) -> Result<Pod, SandboxError> {
        Pod::create(&self.world, spec, audience)
    }

    /// A token that belongs to no file, good or bad; for one with the uids of a pod see [`Pod::token_as`].
    ///
    /// # Errors
    /// If the key will not sign.
    pub fn token(&self, spec: &TokenSpec) -> Result<String, SandboxError> {
        let subject = self.world.subject(&spec.pod);
        Ok(token::issue(spec, &subject, &self.world.issuer, &self.world.keys, self.now())?)
    }

    /// Publishes the key that the next rotation signs with, as an issuer does some time ahead of it. Returns
    /// its id.
    ///
    /// # Errors
    /// If no key can be made or written.
    pub fn publish_next_key(&self, kind: KeyKind) -> Result<String, SandboxError> {
        let id = self.world.keys.publish_next(kind)?;
        if let (true, Some(next)) = (self.world.options.cluster_signs, self.world.keys.published(&id)) {
            write_private(&self.next_signing_key_file(), &next.pem()?)?;
        }
        Ok(id)
    }

    /// Publishes members of a key document that no token here is signed with, before the issuer's own.
    pub fn publish_beside(&self, others: Vec<serde_json::Value>) {
        self.world.keys.publish_beside(others);
    }

    /// Signs with the key that was published for it from now on, or with a new one. The old one stays
    /// published, or all old ones are withdrawn. Returns the new key's id.
    ///
    /// # Errors
    /// If no key can be made.
    pub fn rotate_keys(&self, withdraw_old: bool) -> Result<String, SandboxError> {
        Ok(self.world.keys.rotate(withdraw_old)?)
    }

    /// The associations in force.
    #[must_use]
    pub fn associations(&self) -> Vec<Association> {
        self.world.associations.list()
    }

    /// Replaces the associations; a file, if there was one, is no longer looked at.
    ///
    /// # Errors
    /// If EKS would not take them.
    pub fn set_associations(&self, associations: Vec<Association>) -> Result<(), SandboxError> {
        Ok(self.world.associations.set(associations)?)
    }

    /// Changes behaviours that we are not certain of.
    pub fn set_switches(&self, switches: Switches) {
        *self.world.switches.lock() = switches;
    }

    /// New credentials of the node's role, as a hybrid node would be given.
    #[must_use]
    pub fn node_credentials(&self, lifetime: Duration) -> AwsCredentials {
        self.world.mint_node_credentials(lifetime)
    }

    /// Writes a credentials file with these in its default profile, in one step, and returns its path.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn credentials_file(&self, credentials: &AwsCredentials) -> Result<PathBuf, SandboxError> {
        let path = self.world.dir.join("node-credentials");
        let next = self.world.dir.join("node-credentials.next");
        write(&next, &credentials.as_file())?;
        fs::rename(&next, &path).map_err(|source| SandboxError::Files { path: path.clone(), source })?;
        Ok(path)
    }

    /// Ends the life of all node credentials now; IMDS has new ones at once, of that lifetime.
    pub fn expire_node_credentials(&self, next_lifetime: Duration) {
        *self.world.node_credential_lifetime.lock() = next_lifetime;
        self.world.issued.expire_nodes();
    }

    /// Ends the life of all node credentials now, and IMDS goes on giving the set it gave last, until
    /// [`Self::imds_catches_up`]: as after an administrator revoked the role's sessions.
    pub fn revoke_node_credentials(&self) {
        self.world.imds_is_behind.store(true, Ordering::Relaxed);
        self.world.issued.expire_nodes();
    }

    /// IMDS goes on giving the set it gave last, also when it has lapsed, until [`Self::imds_catches_up`].
    pub fn imds_falls_behind(&self) {
        self.world.imds_is_behind.store(true, Ordering::Relaxed);
    }

    /// IMDS gives credentials that AWS honours again.
    pub fn imds_catches_up(&self) {
        self.world.imds_is_behind.store(false, Ordering::Relaxed);
    }

    /// IMDS says this of the region, whatever it is; `None`: the truth again.
    pub fn imds_says_of_region(&self, text: Option<&str>) {
        *self.world.imds_region.lock() = text.map(str::to_owned);
    }

    /// What time it is at AWS and in the cluster's control plane.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        self.world.clock.now()
    }

    /// From now on AWS and the control plane are so many seconds ahead of this machine's clock, or behind it:
    /// signatures, tokens, lives, `Date` and the metadata service alike. For a caller that runs already it is
    /// as if its machine had stood still, both clocks of it.
    pub fn set_clock_ahead(&self, seconds: i64) {
        self.world.clock.set_ahead(seconds);
    }

    /// What goes wrong, to be set and cleared.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// All calls of EKS Auth, STS, IMDS and the issuer, oldest first.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.calls.list()
    }

    /// The calls of one service.
    #[must_use]
    pub fn calls_of(&self, service: Service) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.service == service).collect()
    }

    /// The calls on behalf of one pod, by its names.
    #[must_use]
    pub fn calls_for(&self, pod: &Pod) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.pod.as_ref() == Some(&pod.spec)).collect()
    }

    /// The names of the pod that an access key was issued to; none if it is the node's, or unknown.
    #[must_use]
    pub fn holder_of(&self, access_key_id: &str) -> Option<PodSpec> {
        self.world.issued.holder(access_key_id)?.pod()
    }

    /// The session that an access key belongs to; none if it is unknown.
    #[must_use]
    pub fn session_of(&self, access_key_id: &str) -> Option<Session> {
        Some(self.world.issued.holder(access_key_id)?.session)
    }

    /// The versions of TLS that callers and services have agreed on so far, each once, such as `TLSv1_3`.
    #[must_use]
    pub fn tls_versions(&self) -> Vec<String> {
        self.calls.tls_versions()
    }

    /// Calls of EKS Auth in flight, now and at most since the last reset.
    #[must_use]
    pub fn concurrency(&self) -> Concurrency {
        self.calls.concurrency(Service::EksAuth)
    }

    /// Calls of any service in flight, now and at most since the last reset.
    #[must_use]
    pub fn concurrency_of(&self, service: Service) -> Concurrency {
        self.calls.concurrency(service)
    }

    /// Every secret that AWS has given out so far, each with what it is: what a test must find nowhere.
    #[must_use]
    pub fn secrets(&self) -> Vec<(String, String)> {
        let sessions =
            self.imds.session_tokens().into_iter().map(|token| ("imds session token".to_owned(), token));
        sessions.chain(self.world.issued.secrets()).collect()
    }

    /// Forgets all calls.
    pub fn reset_calls(&self) {
        self.calls.reset();
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        // Waiting is not allowed on a thread that drives another runtime, which is where tests drop a
        // sandbox.
        let stopped = std::thread::spawn(move || runtime.shutdown_timeout(STOP)).join();
        if stopped.is_err() {
            tracing::warn!("the sandbox's servers did not stop in order");
        }
    }
}

fn runtime() -> io::Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).thread_name("sandbox").enable_all().build()
}

/// moto and the one URL for all, where the options ask for it.
fn local_eks(
    world: &World,
    starter: &mut Starter<'_>,
    places: &mut Places,
) -> Result<Option<Moto>, SandboxError> {
    let Some(python) = &world.options.moto else { return Ok(None) };
    let runtime = starter.runtime.handle();
    let moto = Moto::start(python, world, runtime.clone())?;
    let address = |url: &str| url.trim_start_matches("http://").to_owned();
    let upstreams = Upstreams {
        eks: address(&places.eks),
        eks_auth: address(&places.eks_auth),
        sts: address(&places.sts),
        moto: moto.address().to_owned(),
    };
    let gateway = Arc::new(Gateway::new(upstreams, runtime.clone()));
    places.gateway = Some(starter.http(gateway, bind(SocketAddr::new(world.options.address, 0))?)?);
    places.moto = Some(format!("http://{}", moto.address()));
    Ok(Some(moto))
}

fn directory(options: &Options) -> Result<(PathBuf, Option<TempDir>), SandboxError> {
    match &options.dir {
        Some(path) => {
            let failed = |source| SandboxError::Files { path: path.clone(), source };
            fs::create_dir_all(path).map_err(failed)?;
            Ok((path.clone(), None))
        }
        None => {
            let failed = |source| SandboxError::Files { path: std::env::temp_dir(), source };
            let temporary = tempfile::Builder::new().prefix("sandbox-").tempdir().map_err(failed)?;
            Ok((temporary.path().to_owned(), Some(temporary)))
        }
    }
}

fn write_private(path: &Path, content: &str) -> Result<(), SandboxError> {
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(content.as_bytes()))
        .map_err(|source| SandboxError::Files { path: path.to_owned(), source })
}

fn write(path: &Path, content: &str) -> Result<(), SandboxError> {
    fs::write(path, content).map_err(|source| SandboxError::Files { path: path.to_owned(), source })
}
