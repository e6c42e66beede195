//! moto, which plays IAM and S3 where the options ask for it.
//!
//! ```text
//! process   the child: started by its Python, ended with the sandbox
//! iam       what is asked of its IAM: roles, identity providers
//! ```
//!
//! Owns: what both sides know of each other: moto knows the sandbox's administrator and the sessions of pods,
//! the sandbox asks moto's IAM for trust policies. Must not know: who assumes roles.

mod iam;
mod process;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode, Uri};
use serde_json::{Value, json};
use tokio::runtime::Handle;

pub use self::process::MotoError;
use self::process::Process;
use super::iam::registry::IamElsewhere;
use super::issued::{AwsCredentials, Told};
use super::session::Session;
use super::sigv4;
use crate::clock::{Clock, amz_date};
use crate::http::client;
use crate::http::message::{Received, Reply};
use crate::random;
use crate::world::{ADMIN, World};

/// The launcher's one route.
const SESSIONS: &str = "/_sandbox/sessions";

/// A running moto.
#[derive(Debug)]
pub(crate) struct Moto {
    client: Arc<Client>,
    _process: Process,
}

/// Speaks to it.
#[derive(Debug)]
struct Client {
    runtime: Handle,
    clock: Clock,
    /// `127.0.0.1:<port>`
    address: String,
    admin: AwsCredentials,
    region: String,
    /// By which the launcher knows us.
    secret: String,
}

impl Moto {
    /// Starts it, and makes it the IAM of this world.
    pub(crate) fn start(python: &Path, world: &World, runtime: Handle) -> Result<Self, MotoError> {
        let secret = random::base64(30);
        let setup = json!({
            "account": world.options.account,
            "region": world.options.region,
            "secret": secret,
            "admin": {
                "name": ADMIN,
                "access_key_id": world.admin.access_key_id,
                "secret_access_key": world.admin.secret_access_key,
            },
        });
        let (process, port) = Process::start(python, &world.dir, &setup)?;
        let client = Arc::new(Client {
            runtime,
            clock: world.clock.clone(),
            address: format!("127.0.0.1:{port}"),
            admin: world.admin.clone(),
            region: world.options.region.clone(),
            secret,
        });
        let associations = world.associations.list();
        let named = associations.iter().filter(|association| association.refuse.is_none());
        let roles: Vec<_> = named.map(|association| association.role_arn.as_str()).collect();
        client.create_roles(&roles, &world.options.account)?;
        let (roles, providers) = (Arc::clone(&client), Arc::clone(&client));
        let elsewhere =
            IamElsewhere::new(move |arn| roles.role(arn), move |arn| providers.oidc_provider(arn));
        world.iam.ask_elsewhere(elsewhere);
        let told = Arc::clone(&client);
        world.issued.tell(Told::by(move |credentials, session, lifetime| {
            told.tell(credentials, session, lifetime);
        }));
        Ok(Self { client, _process: process })
    }

    /// Where it listens, `host:port`.
    pub(crate) fn address(&self) -> &str {
        &self.client.address
    }
}

impl Client {
    /// Tells of a session, before its holder has it.
    fn tell(&self, credentials: &AwsCredentials, session: &Session, lifetime: Duration) {
        let body = json!({
            "accessKeyId": credentials.access_key_id,
            "secretAccessKey": credentials.secret_access_key,
            "sessionToken": credentials.session_token,
            "roleArn": session.role_arn,
            "sessionName": session.name,
            "lifetimeSeconds": lifetime.as_secs_f64(),
            "policy": session.policy,
        });
        let request = self.request(SESSIONS, &body.to_string(), Some(&self.secret));
        match self.send(&request) {
            Ok(reply) if reply.status == StatusCode::NO_CONTENT => {}
            Ok(reply) => tracing::warn!(status = %reply.status, "moto was not told of a session"),
            Err(error) => tracing::warn!(%error, "moto was not told of a session"),
        }
    }

    /// A call of IAM, signed by the administrator.
    fn call_iam(&self, parameters: &[(&str, &str)]) -> Result<Reply, String> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("Version", "2010-05-08").extend_pairs(parameters);
        let mut request = self.request("/", &form.finish(), None);
        let key = (self.admin.access_key_id.as_str(), self.admin.secret_access_key.as_str());
        let signed = sigv4::authorization(&request, key, [&self.region, "iam"]);
        insert(&mut request.headers, "authorization", &signed);
        insert(&mut request.headers, "content-type", "application/x-www-form-urlencoded");
        self.send(&request)
    }

    fn request(&self, path: &'static str, body: &str, authorization: Option<&str>) -> Received {
        let mut headers = HeaderMap::new();
        insert(&mut headers, "host", &self.address);
        insert(&mut headers, "x-amz-date", &amz_date(self.clock.now()));
        if let Some(authorization) = authorization {
            insert(&mut headers, "authorization", authorization);
        }
        let body = body.to_owned().into();
        Received { method: Method::POST, uri: Uri::from_static(path), headers, body }
    }

    /// Blocks; in a server of the sandbox its other requests go on meanwhile.
    fn send(&self, request: &Received) -> Result<Reply, String> {
        let send = || self.runtime.block_on(client::forward(&self.address, request));
        tokio::task::block_in_place(send).map_err(|error| error.to_string())
    }
}

/// A value that HTTP cannot carry is left away; none here is.
fn insert(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = value.parse() {
        headers.insert(name, value);
    }
}

/// The trust policy that roles of the start have.
fn trusting_pod_identity() -> Value {
    super::iam::role::Role::trusting_pod_identity("").trust_policy
}
