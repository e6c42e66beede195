//! IMDSv2: the node's metadata, and the node role's credentials.
//!
//! Owns: the session token of IMDSv2 and the few paths that agents and SDKs ask for. Version 1, without a
//! token, is switched off as EKS nodes have it. Must not know: what the credentials are used for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use http::{Method, StatusCode};
use parking_lot::Mutex;
use serde_json::json;

use super::issued::AwsCredentials;
use crate::faults::Service;
use crate::http::message::{Received, Reply};
use crate::http::server::Answer;
use crate::world::World;
use crate::{clock, random};

/// Longest life of a session token: six hours.
const MAX_TTL: u64 = 21_600;
const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";
const CREDENTIALS: &str = "/latest/meta-data/iam/security-credentials";
/// IMDS has new credentials at least five minutes before the old ones end.
const AHEAD: Duration = Duration::from_mins(5);

/// The service.
#[derive(Debug)]
pub(crate) struct Imds {
    world: Arc<World>,
    sessions: Mutex<Vec<(String, SystemTime)>>,
    current: Mutex<Option<(AwsCredentials, SystemTime)>>,
}

impl Imds {
    pub(crate) fn new(world: Arc<World>) -> Self {
        Self { world, sessions: Mutex::default(), current: Mutex::default() }
    }

    /// The session tokens it has given out.
    pub(crate) fn session_tokens(&self) -> Vec<String> {
        self.sessions.lock().iter().map(|(token, _)| token.clone()).collect()
    }

    fn open_session(&self, request: &Received) -> Reply {
        let ttl = request.header(TTL_HEADER).and_then(|ttl| ttl.parse::<u64>().ok());
        let Some(ttl) = ttl.filter(|ttl| (1..=MAX_TTL).contains(ttl)) else {
            return self.error(StatusCode::BAD_REQUEST, "BadRequest", "Bad Request");
        };
        let token = random::base64(42);
        let now = self.world.clock.now();
        let mut sessions = self.sessions.lock();
        sessions.retain(|(_, ends)| *ends > now);
        sessions.push((token.clone(), now + Duration::from_secs(ttl)));
        Reply::text(StatusCode::OK, token).header(TTL_HEADER, &ttl.to_string())
    }

    fn in_session(&self, request: &Received) -> bool {
        let now = self.world.clock.now();
        let given = request.header(TOKEN_HEADER);
        self.sessions.lock().iter().any(|(token, ends)| Some(token.as_str()) == given && *ends > now)
    }

    fn credentials(&self) -> Reply {
        let now = self.world.clock.now();
        let lifetime = *self.world.node_credential_lifetime.lock();
        let mut current = self.current.lock();
        // Lives too short to be renewed five minutes ahead are renewed at half.
        let usable = |end: SystemTime| end > now + AHEAD.min(lifetime / 2);
        let is_behind = self.world.imds_is_behind.load(Ordering::Relaxed);
        let still = |(held, _): &&(AwsCredentials, SystemTime)| {
            is_behind || (held.expires_at.is_some_and(usable) && self.world.issued.lives(held, now))
        };
        let (held, since) = match current.as_ref().filter(still) {
            Some(current) => current.clone(),
            None => (self.world.mint_node_credentials(lifetime), now),
        };
        *current = Some((held.clone(), since));
        Reply::json(&json!({
            "Code": "Success",
            "LastUpdated": clock::rfc3339(since),
            "Type": "AWS-HMAC",
            "AccessKeyId": held.access_key_id,
            "SecretAccessKey": held.secret_access_key,
            "Token": held.session_token,
            "Expiration": held.expires_at.map(clock::rfc3339),
        }))
    }

    fn metadata(&self, path: &str) -> Reply {
        let world = &self.world;
        let region = &world.options.region;
        let text = |text: &str| Reply::text(StatusCode::OK, text.to_owned());
        let role = path.strip_prefix(CREDENTIALS).map(|role| role.trim_start_matches('/'));
        match (role, path) {
            (Some(""), _) => text(&world.node.role),
            (Some(role), _) if role == world.node.role => self.credentials(),
            (_, "/latest/meta-data/placement/region") => {
                text(world.imds_region.lock().as_deref().unwrap_or(region))
            }
            (_, "/latest/meta-data/placement/availability-zone") => text(&format!("{region}a")),
            (_, "/latest/meta-data/placement/availability-zone-id") => text(&world.node.zone_id),
            (_, "/latest/meta-data/instance-id") => text(&world.node.instance_id),
            (_, "/latest/meta-data/local-hostname") => text(&world.node.name),
            _ => self.error(StatusCode::NOT_FOUND, "NotFound", "Not Found"),
        }
    }
}

impl Answer for Imds {
    fn service(&self) -> Option<Service> {
        Some(Service::Imds)
    }

    fn answer(&self, request: &Received) -> Reply {
        match (&request.method, request.path()) {
            (&Method::PUT, "/latest/api/token") => self.open_session(request),
            (&Method::GET, path) if self.in_session(request) => self.metadata(path),
            (&Method::GET, _) => self.error(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized"),
            _ => self.error(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "Method Not Allowed"),
        }
    }
}
