//! A node-level agent that gives Kubernetes pods their AWS credentials.
//!
//! One request walks through these folders in this order; each knows only the nouns of [`workload`] and those
//! to its left:
//!
//! ```text
//! server       door: accept, limits per peer, HTTP/1. pages: method, host, token
//! identity     who asks: what the token claims, and the verdict on it
//! association  which route: the source for a token of this audience
//! credentials  what is handed out: policy, cached set or flight, limits, source (AWS), store, renewal
//! server       answer: JSON, one metric, one access event
//! ```
//!
//! Under `credentials` is [`aws`]: the SDK's HTTP client, AWS's time, the agent's own identity. Under it and
//! under `identity` is [`outgoing`]: the connections that the agent opens. Beside the walk are
//! [`node`], which gives the node the addresses and keeps them; [`kubernetes`], which asks the API server,
//! [`pods`], what it says of this node's pods, and [`events`], what is reported about them; [`lifecycle`]
//! (readiness, shutdown, tasks), [`telemetry`] (logs, metrics), [`status`] (what `status` and `doctor` show),
//! [`config`] and [`cli`]; [`clock`], [`rng`],
//! [`backoff`], [`watched_file`], [`words`] and [`secret`]; and [`app`], which alone knows every part.

pub mod app;
pub mod association;
pub mod aws;
pub mod backoff;
pub mod cli;
pub mod clock;
pub mod command;
pub mod config;
pub mod credentials;
pub mod events;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod identity;
pub mod kubernetes;
pub mod lifecycle;
pub mod node;
pub mod outgoing;
pub mod pods;
pub mod rng;
pub mod secret;
pub mod server;
pub mod status;
pub mod telemetry;
pub mod watched_file;
pub mod words;
pub mod workload;
