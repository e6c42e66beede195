//! The Kubernetes API, as far as the agent asks it.
//!
//! Owns: the connection, with the agent's own service account token, and what is read and written over it.
//! Must not know: what follows from that; `app` gives it to those who need it. Nothing of it gates listening,
//! readiness or the first answer: the network of the cluster may depend on this agent.
//!
//! The only place that names kube.

pub mod api;
pub mod error;
pub mod events;
pub mod issuer;
pub mod pods;
pub mod review;
mod said;
pub mod service_accounts;

use std::time::Duration;

/// The time for a request, from the connection to the last byte.
const DEADLINE: Duration = Duration::from_secs(5);
