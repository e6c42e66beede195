//! A running agent at one moment.
//!
//! Owns: the names of the fields, which are an interface: `status --output json` prints them, and
//! docs/status.md explains them. Must not know: how they are shown to people. Moments are UTC as
//! `2026-11-26T10:00:00Z`.

use serde::{Deserialize, Serialize};

/// A moment as `2026-11-26T10:00:00Z`.
pub type Utc = String;

/// All that is known of a running agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The process.
    pub agent: Agent,
    /// The conditions that this agent reports, in the order of `/readyz`.
    pub conditions: Vec<ReportedCondition>,
    /// The credentials that the agent signs with. `None`: it signs nothing (`--pod-identity=false`).
    pub own_credentials: Option<OwnCredentials>,
    /// The sources that are asked.
    pub sources: Vec<AskedSource>,
    /// The connections to AWS so far: each server, the proxy on the way to it, and addresses.
    pub connections_to_aws: Vec<ConnectionToAws>,
    /// The time.
    pub clock: ClockState,
    /// What there is of what is bounded.
    pub counts: Counts,
    /// Identities, sorted by namespace, service account and pod.
    pub identities: Vec<Identity>,
    /// How many more there are than `identities` has.
    pub identities_left_out: usize,
}

/// The process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Agent {
    /// Its version.
    pub version: String,
    /// The EKS cluster that it asks for.
    pub cluster: String,
    /// The AWS region, once it is known.
    pub region: Option<String>,
    /// Whether it is read from the instance, because the configuration does not give it.
    pub region_from_instance: bool,
    /// The node, if its name is known.
    pub node: Option<String>,
    /// Since when it runs.
    pub started: Option<Utc>,
    /// For how many seconds it has been running.
    pub uptime_seconds: u64,
    /// Whether every required condition is met.
    pub ready: bool,
}

/// A condition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReportedCondition {
    /// Its name.
    pub name: String,
    /// Whether it is met.
    pub met: bool,
    /// Whether the agent is unready without it.
    pub required: bool,
    /// Why it is not met or does not apply, else empty.
    pub reason: String,
}

/// The credentials that the agent signs with. Of the credentials themselves there is nothing here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OwnCredentials {
    /// Where they come from: the role of the instance, or a profile and its file. `None`: there are none.
    pub source: Option<String>,
    /// When they expire. `None`: there are none, or they do not.
    pub expires: Option<Utc>,
}

/// A source of credentials.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AskedSource {
    /// `eks-auth` or `web-identity`, which is STS.
    pub name: String,
    /// The URL that was configured. `None`: that of the region.
    pub endpoint: Option<String>,
    /// Calls under way.
    pub calls_in_flight: u32,
    /// Calls that may be under way at once.
    pub calls_limit: u32,
    /// Calls that wait for their turn.
    pub calls_waiting: usize,
    /// The calls since the last answer. `None`: the last call was answered, or there was none.
    pub unanswered: Option<Unanswered>,
}

/// Calls without an answer of AWS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Unanswered {
    /// How many.
    pub calls: u32,
    /// When the first of them failed.
    pub since: Option<Utc>,
    /// What was in the way of the last one: name lookup, TCP, proxy, TLS, or no answer.
    pub last_cause: String,
}

/// A way to AWS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConnectionToAws {
    /// The server, and the proxy on the way to it.
    pub to: String,
    /// The addresses of the server, or of the proxy, as the resolver of the node gave them last.
    pub addresses: Vec<String>,
}

/// The time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClockState {
    /// How far AWS's time is known: `unknown`, `unconfirmed` or `confirmed`.
    pub aws_time: String,
    /// By how many seconds AWS's clock is ahead of the node's; 0 while they are close.
    pub offset_seconds: f64,
}

/// What there is of what is bounded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// Identities with credentials that the agent verified itself.
    pub verified_identities: u64,
    /// The same that only AWS has verified.
    pub unverified_identities: u64,
    /// Keys that tokens are verified with.
    pub token_keys: usize,
    /// Open connections of pods.
    pub connections_open: u64,
    /// Connections that pods may have at once.
    pub connections_limit: usize,
    /// Descriptors that the process may have. `None`: the kernel does not say.
    pub descriptors_limit: Option<u64>,
    /// Pods of this node that are known. `None`: they are not followed.
    pub pods: Option<usize>,
}

/// What an identity has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Holding {
    /// Credentials, which are served.
    #[default]
    Credentials,
    /// Nothing: AWS refused it in the last minutes.
    Refused,
    /// Nothing yet: AWS is being asked.
    Waiting,
}

/// Somebody who has credentials, or wants them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// Its namespace; with `verified` false it is what the token claims. Empty: it claims nothing.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
    /// Its pod. `None`: the token names none.
    pub pod: Option<String>,
    /// Whether a key of the cluster has proven who it is.
    pub verified: bool,
    /// What it has.
    pub holding: Holding,
    /// `eks-auth` or `web-identity`.
    pub source: String,
    /// The id of the association that gave the role.
    pub association: Option<String>,
    /// The ARN of the role that an annotation or the role map gives.
    pub configured_role: Option<String>,
    /// The role of the credentials, as STS names it, without the session.
    pub role: Option<String>,
    /// When the credentials end.
    pub valid_until: Option<Utc>,
    /// When they are renewed next. `None`: when somebody asks for them again.
    pub next_renewal: Option<Utc>,
    /// Renewals that failed in a row.
    pub failed_renewals: u32,
    /// Why the last call to AWS failed. `None`: it did not.
    pub last_error: Option<LastError>,
}

/// Why a call to AWS failed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LastError {
    /// AWS's code, or the agent's own word, such as `timeout`.
    pub code: String,
    /// AWS's sentence, or the agent's own.
    pub message: String,
    /// When. `None`: a moment ago, the call is under way still.
    pub at: Option<Utc>,
}

/// Some identities, and how many more there are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    /// The first of them.
    pub identities: Vec<Identity>,
    /// How many more there are.
    pub left_out: usize,
}
