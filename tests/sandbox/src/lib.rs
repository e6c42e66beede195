//! A Kubernetes cluster and its AWS in one process: what the agent talks to, as strict as the real thing.
//!
//! ```text
//! cluster/   who asks:      signing keys, tokens, the files a kubelet would write, the issuer's two documents
//! aws/       who answers:   EKS Auth, STS and IMDS, IAM's roles and trust, signatures, credentials issued
//! http/      how they meet: listeners on 127.0.0.1, and the faults put in their way
//! control    the same settings over HTTP, for other processes
//! ```
//!
//! It must not know the agent: what shares code shares mistakes. `ASSUMPTIONS.md` beside this crate lists
//! every behaviour of AWS it models, from where we know it, and the switch where we do not.
//!
//! ```no_run
//! use sandbox::{Effect, Fault, Options, PodSpec, Sandbox, Service};
//!
//! # fn main() -> Result<(), sandbox::SandboxError> {
//! let sandbox = Sandbox::start(Options::default())?;
//! let pod = sandbox.pod(PodSpec::default())?;
//! sandbox.faults().set([Fault::new(Service::EksAuth, Effect::Hang).times(3)]);
//! // … point an agent at sandbox.eks_auth_url(), send it pod.token, then ask what it did:
//! assert!(sandbox.calls_for(&pod).is_empty());
//! # Ok(())
//! # }
//! ```

mod aws;
mod calls;
mod clock;
mod cluster;
mod control;
mod eventually;
mod faults;
mod http;
mod options;
mod random;
mod sandbox;
mod starter;
mod tls;
mod world;

pub use aws::associations::{Association, AssociationsError, Refusal};
pub use aws::iam::oidc_provider::OidcProvider;
pub use aws::iam::registry::{IamElsewhere, IamError};
pub use aws::iam::role::Role;
pub use aws::iam::trust::MalformedPolicy;
pub use aws::issued::AwsCredentials;
pub use aws::moto::MotoError;
pub use aws::session::Session;
pub use calls::{Call, Concurrency};
pub use cluster::keys::KeyKind;
pub use cluster::pod::{Pod, PodSpec};
pub use cluster::token::{TokenKey, TokenSpec};
pub use faults::{Effect, Fault, FaultError, Faults, Match, Service};
pub use options::{ErrorCodePlace, MissingAssociation, Options, Switches};
pub use sandbox::{Sandbox, SandboxError};
