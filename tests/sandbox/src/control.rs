//! The control port: what tests in this process do by calling the library, other processes do over HTTP.
//!
//! ```text
//! GET    /               where everything is
//! GET    /admin          {"accessKeyId", "secretAccessKey"} of the account's administrator
//! GET    /faults         the faults in force, a list
//! PUT    /faults         replace them: one fault or a list of them
//! POST   /faults         add one
//! DELETE /faults         remove all
//! GET    /calls          {"calls": [...], "eksAuthConcurrency": {"now": 0, "max": 3}}
//! DELETE /calls          forget them
//! POST   /pods           {"namespace", "serviceAccount", "pod", "audience"} -> {..., "uid", "tokenFile"};
//!                        the same pod again for the same four
//! POST   /keys/rotate    {"withdrawOld": false} -> {"kid"}
//! GET    /roles          the roles of IAM, a list
//! PUT    /roles          add or replace one: {"arn", "trustPolicy", "maxSessionDuration"}
//! DELETE /roles/<ARN>    remove one -> {"removed": true}
//! GET    /oidc-providers the identity providers of IAM, a list
//! PUT    /oidc-providers add or replace one: {"arn", "clientIds"}
//! DELETE /oidc-providers/<ARN>  remove one -> {"removed": true}
//! GET    /switches       behaviours of AWS that can go either way
//! PUT    /switches       change them; what is not named gets its default
//! ```
//!
//! Owns: paths, JSON, and a sentence for every mistake. Must not know: how anything is done.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{Method, StatusCode};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::calls::Calls;
use crate::cluster::pod::{Pod, PodSpec};
use crate::cluster::token::AUDIENCE;
use crate::faults::{Fault, Faults, Service};
use crate::http::message::{Received, Reply};
use crate::http::server::Answer;
use crate::options::Switches;
use crate::world::World;

/// The kubelet renews a token at four fifths of its life (docs/design/facts.md#token-files).
const RENEW_AT: f64 = 0.8;

/// Base URLs of everything that listens.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Places {
    pub(crate) eks_auth: String,
    pub(crate) eks_auth_tls: Option<String>,
    pub(crate) eks: String,
    pub(crate) sts: String,
    pub(crate) sts_tls: Option<String>,
    pub(crate) imds: String,
    pub(crate) issuer: String,
    pub(crate) issuer_tls: Option<String>,
    /// One URL for all services, and moto's own; where moto is there.
    pub(crate) gateway: Option<String>,
    pub(crate) moto: Option<String>,
    pub(crate) control: String,
}

/// The control port's service.
pub(crate) struct Control {
    world: Arc<World>,
    faults: Faults,
    calls: Calls,
    places: Places,
    /// Pods made here, with the time of their token.
    pods: Mutex<HashMap<PodRequest, (Pod, SystemTime)>>,
}

/// A mistake of the caller, as a sentence.
struct Mistake(String);

impl<E: std::error::Error> From<E> for Mistake {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    Many(Vec<Value>),
    One(Value),
}

/// A pod by its names, and what its token is for. What is not given is that of the sample pod.
#[derive(Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct PodRequest {
    namespace: String,
    service_account: String,
    pod: String,
    audience: String,
}

impl Default for PodRequest {
    fn default() -> Self {
        let PodSpec { namespace, service_account, pod } = PodSpec::default();
        Self { namespace, service_account, pod, audience: AUDIENCE.to_owned() }
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Rotation {
    withdraw_old: bool,
}

impl Control {
    pub(crate) fn new(world: &Arc<World>, faults: Faults, calls: Calls, places: Places) -> Self {
        Self { world: Arc::clone(world), faults, calls, places, pods: Mutex::default() }
    }

    fn route(&self, request: &Received) -> Result<Value, Mistake> {
        match (request.method.as_str(), request.path()) {
            ("GET", "/") => Ok(self.overview()),
            ("GET", "/admin") => {
                let admin = &self.world.admin;
                Ok(json!({ "accessKeyId": admin.access_key_id, "secretAccessKey": admin.secret_access_key }))
            }
            ("GET", "/faults") => Ok(json!(self.faults.list())),
            ("PUT", "/faults") => self.replace_faults(&request.body),
            ("POST", "/faults") => {
                self.faults.add(parse::<Fault>(&request.body)?)?;
                Ok(json!(self.faults.list()))
            }
            ("DELETE", "/faults") => {
                self.faults.clear();
                Ok(json!([]))
            }
            ("GET", "/calls") => {
                let concurrency = self.calls.concurrency(Service::EksAuth);
                Ok(json!({ "calls": self.calls.list(), "eksAuthConcurrency": concurrency }))
            }
            ("DELETE", "/calls") => {
                self.calls.reset();
                Ok(json!({}))
            }
            ("POST", "/pods") => self.pod(parse(&request.body)?),
            ("POST", "/keys/rotate") => {
                let rotation: Rotation = parse(&request.body)?;
                Ok(json!({ "kid": self.world.keys.rotate(rotation.withdraw_old)? }))
            }
            (method, path) if path.starts_with("/roles") || path.starts_with("/oidc-providers") => {
                self.iam(method, path, &request.body)
            }
            ("GET", "/switches") => Ok(json!(*self.world.switches.lock())),
            ("PUT", "/switches") => {
                let switches: Switches = parse(&request.body)?;
                *self.world.switches.lock() = switches.clone();
                Ok(json!(switches))
            }
            (method, path) => Err(unknown(method, path)),
        }
    }

    fn iam(&self, method: &str, path: &str, body: &[u8]) -> Result<Value, Mistake> {
        let (iam, delay) = (&self.world.iam, self.world.iam_delay());
        match (method, path) {
            ("GET", "/roles") => Ok(json!(iam.roles())),
            ("PUT", "/roles") => {
                iam.set_role(parse(body)?, delay)?;
                Ok(json!(iam.roles()))
            }
            ("GET", "/oidc-providers") => Ok(json!(iam.oidc_providers())),
            ("PUT", "/oidc-providers") => {
                iam.set_oidc_provider(parse(body)?, delay)?;
                Ok(json!(iam.oidc_providers()))
            }
            ("DELETE", path) => {
                let removed = if let Some(arn) = path.strip_prefix("/roles/") {
                    iam.remove_role(&decoded(arn), delay)?
                } else if let Some(arn) = path.strip_prefix("/oidc-providers/") {
                    iam.remove_oidc_provider(&decoded(arn), delay)?
                } else {
                    return Err(unknown(method, path));
                };
                Ok(json!({ "removed": removed }))
            }
            (method, path) => Err(unknown(method, path)),
        }
    }

    fn overview(&self) -> Value {
        let options = &self.world.options;
        json!({
            "cluster": options.cluster_name,
            "region": options.region,
            "account": options.account,
            "issuer": self.world.issuer,
            "node": self.world.node.name,
            "dir": self.world.dir,
            "urls": self.places,
        })
    }

    fn replace_faults(&self, body: &[u8]) -> Result<Value, Mistake> {
        let values = match parse::<OneOrMany>(body)? {
            OneOrMany::Many(values) => values,
            OneOrMany::One(value) => vec![value],
        };
        let faults =
            values.into_iter().map(serde_json::from_value::<Fault>).collect::<Result<Vec<_>, _>>()?;
        self.faults.try_set(faults)?;
        Ok(json!(self.faults.list()))
    }

    /// The pod of those names, made if there is none, its token renewed if a kubelet would have done so.
    fn pod(&self, asked: PodRequest) -> Result<Value, Mistake> {
        let now = self.world.clock.now();
        let mut pods = self.pods.lock();
        let due = self.world.options.token_lifetime.mul_f64(RENEW_AT);
        let (pod, written) = match pods.remove(&asked) {
            None => {
                let spec = PodSpec::new(&asked.namespace, &asked.service_account, &asked.pod);
                (Pod::create(&self.world, spec, &asked.audience)?, now)
            }
            Some((mut pod, written)) if now.duration_since(written).unwrap_or(Duration::ZERO) >= due => {
                pod.rotate_token()?;
                (pod, now)
            }
            Some(held) => held,
        };
        let mut view = json!(pod.spec);
        if let Some(view) = view.as_object_mut() {
            view.insert("uid".to_owned(), json!(pod.uid));
            view.insert("tokenFile".to_owned(), json!(pod.token_file));
        }
        pods.insert(asked, (pod, written));
        Ok(view)
    }
}

fn unknown(method: &str, path: &str) -> Mistake {
    Mistake(format!("there is no {method} {path} on the control port"))
}

/// An ARN at the end of a path: its colons and slashes may be escaped.
fn decoded(arn: &str) -> String {
    percent_encoding::percent_decode_str(arn).decode_utf8_lossy().into_owned()
}

/// Reads a body; none is as good as an empty object.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Mistake> {
    let body: &[u8] = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body)
        .map_err(|error| Mistake(format!("the body is not what is expected here: {error}")))
}

impl Answer for Control {
    fn answer(&self, request: &Received) -> Reply {
        // A page in a browser may reach this port, but cannot leave the Origin header away on what changes
        // something.
        if request.method != Method::GET && request.header("origin").is_some() {
            let sentence = json!({ "message": "the control port is not for web pages" });
            return Reply::json(&sentence).status(StatusCode::FORBIDDEN);
        }
        match self.route(request) {
            Ok(body) => Reply::json(&body),
            Err(Mistake(sentence)) => {
                Reply::json(&json!({ "message": sentence })).status(StatusCode::BAD_REQUEST)
            }
        }
    }
}
