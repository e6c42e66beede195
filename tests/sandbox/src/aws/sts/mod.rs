//! STS: `GetCallerIdentity`, by which a pod finds out who it is, and `AssumeRoleWithWebIdentity`, by which a
//! token becomes a role.
//!
//! Owns: which operation is asked for. Must not know: how either of them judges.

mod identity;
mod query;
mod web_identity;

use std::sync::Arc;

use http::StatusCode;

use super::sigv4::Scope;
use crate::calls::Wanted;
use crate::cluster::pod::PodSpec;
use crate::faults::Service;
use crate::http::message::{Received, Reply};
use crate::http::server::Answer;
use crate::world::World;

pub(crate) use self::query::element;

const CALLER_IDENTITY: &str = "GetCallerIdentity";
const WEB_IDENTITY: &str = "AssumeRoleWithWebIdentity";

/// The service.
pub(crate) struct Sts(pub(crate) Arc<World>);

impl Answer for Sts {
    fn service(&self) -> Option<Service> {
        Some(Service::Sts)
    }

    fn operation(&self, request: &Received) -> String {
        query::parameter(request, "Action")
            .unwrap_or_else(|| format!("{} {}", request.method, request.path()))
    }

    fn pod(&self, request: &Received) -> Option<PodSpec> {
        if query::asks_for(request, WEB_IDENTITY) {
            return web_identity::pod(request);
        }
        let credential = request.header("authorization")?.split_once("Credential=")?.1;
        self.0.issued.holder(credential.split('/').next()?)?.pod()
    }

    fn wanted(&self, request: &Received) -> Option<Wanted> {
        let parameter = |name| query::parameter(request, name).unwrap_or_default();
        query::asks_for(request, WEB_IDENTITY)
            .then(|| Wanted { role_arn: parameter("RoleArn"), session_name: parameter("RoleSessionName") })
    }

    fn answer(&self, request: &Received) -> Reply {
        // The one operation here that is not signed: the token is its proof.
        if query::asks_for(request, WEB_IDENTITY) {
            return web_identity::answer(&self.0, request);
        }
        let scope = Scope { region: &self.0.options.region, service: "sts", now: self.0.clock.now() };
        let holder = match self.0.issued.signer(request, scope) {
            Ok(holder) => holder,
            Err(error) => {
                return query::error(StatusCode::FORBIDDEN, query::code_of(&error), &error.to_string());
            }
        };
        if query::asks_for(request, CALLER_IDENTITY) {
            return identity::reply(&holder);
        }
        let parameter = |name| query::parameter(request, name).unwrap_or_default();
        let (action, version) = (parameter("Action"), parameter("Version"));
        let text = format!("Could not find operation {action} for version {version}");
        query::error(StatusCode::BAD_REQUEST, "InvalidAction", &text)
    }

    fn error(&self, status: StatusCode, code: &str, message: &str) -> Reply {
        query::error(status, code, message)
    }

    fn throttled(&self) -> Reply {
        query::error(StatusCode::BAD_REQUEST, "Throttling", "Rate exceeded")
    }
}
