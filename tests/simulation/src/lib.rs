//! A busy node for simulated days in seconds.
//!
//! The agent's real identity, decide, flight, budget, store and renewal code runs on simulated time and
//! seeded chance; above it are pods with the habits of SDKs, below it an AWS that is scripted by chance.
//! After each answer and each call the invariants of docs/design/invariants.md are checked. One seed is one
//! story, the same each time.
//!
//! ```text
//! story ── pod (habits, tokens) ── node (the agent's code) ── aws (weather, ledger), imds (own), issuer
//! (keys)
//!   └───── watch: the invariants      journal: the last events, for the story of a failure      shrink
//!
//! source, annotations: pods with roles of STS beside those of EKS Auth
//!
//! weather, shape: what a seed draws      throttling: the bounds of invariant 5 as AWS sees them
//!
//! suite: the stories that every change must pass      bug: bugs that must be found, in a copy of the tree
//! ```

pub mod annotations;
pub mod aws;
pub mod bug;
pub mod imds;
pub mod issuer;
pub mod journal;
pub mod kind;
pub mod ledger;
pub mod life;
pub mod node;
pub mod own;
pub mod pod;
pub mod rng;
pub mod shape;
pub mod shrink;
pub mod side_by_side;
pub mod source;
pub mod story;
pub mod suite;
pub mod thief;
pub mod throttling;
pub mod token;
pub mod watch;
pub mod weather;
