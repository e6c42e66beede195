//! The nouns that all folders share: who asks, with which token, by which route, and under which key
//! credentials are kept.
//!
//! Owns: names and identifiers. Must not know: HTTP, AWS SDKs, Kubernetes clients, or where any of this came
//! from.

mod addresses;
mod audience;
mod caller;
mod key;
mod name;
mod peer;
mod pod;
mod principal;
mod role;
mod route;
pub(crate) mod token;

pub use addresses::{INSTANCE_METADATA, WELL_KNOWN};
pub use audience::{Audience, ForeignAudience, ServedAudiences, WEB_IDENTITY_AUDIENCE};
pub use caller::Caller;
pub use key::{CredentialKey, VerifiedKey};
pub use name::is_name;
pub use peer::PeerKey;
pub use pod::{ClaimedPod, Pod, ServiceAccount, ServiceAccountName};
pub use principal::Principal;
pub use role::{NotARoleArn, RoleArn};
pub use route::{Route, RouteStatus, Source, StsEndpoint, WebIdentity};
pub use token::{BearerToken, MalformedToken, PresentedToken, TokenDigest};
