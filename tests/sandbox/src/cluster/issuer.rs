//! The issuer: its name, and the two documents by which others verify its tokens
//! (docs/design/facts.md#issuer-and-keys).
//!
//! Owns: the paths of EKS's public issuer and of the API server. Must not know: tokens.

use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::json;

use crate::faults::Service;
use crate::http::message::{Received, Reply};
use crate::http::server::Answer;
use crate::random;
use crate::world::World;

/// An issuer as EKS names them: `https://oidc.eks.<region>.amazonaws.com/id/<32 hex digits>`.
pub(crate) fn new_issuer(region: &str) -> String {
    let id = random::hex(&random::bytes(16)).to_uppercase();
    format!("https://oidc.eks.{region}.amazonaws.com/id/{id}")
}

/// The part of the issuer's URL behind the host: `/id/<32 hex digits>`.
pub(crate) fn path_of(issuer: &str) -> &str {
    issuer.find("/id/").and_then(|start| issuer.get(start..)).unwrap_or_default()
}

/// Answers as the public issuer does, and on the API server's own paths too.
pub(crate) struct Issuer {
    pub(crate) world: Arc<World>,
    /// Where this server listens: `http://127.0.0.1:port`.
    pub(crate) base_url: String,
}

impl Issuer {
    fn discovery(&self) -> Reply {
        let issuer = &self.world.issuer;
        Reply::json(&json!({
            "issuer": issuer,
            // The real document names the issuer's host, which a sandbox must never send anybody to.
            "jwks_uri": format!("{}{}/keys", self.base_url, path_of(issuer)),
            "authorization_endpoint": "urn:kubernetes:programmatic_authorization",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": self.world.keys.algorithms(),
            "claims_supported": ["sub", "iss"],
        }))
    }
}

impl Answer for Issuer {
    fn service(&self) -> Option<Service> {
        Some(Service::Issuer)
    }

    fn answer(&self, request: &Received) -> Reply {
        let path = request.path();
        let under = path.strip_prefix(path_of(&self.world.issuer)).unwrap_or(path);
        if request.method != Method::GET {
            return Reply::text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed");
        }
        let reply = match under {
            "/.well-known/openid-configuration" => self.discovery(),
            "/keys" | "/openid/v1/jwks" => Reply::json(&self.world.keys.document()),
            _ => return Reply::text(StatusCode::NOT_FOUND, "not found"),
        };
        // The max-age of the API server for keys from a file (docs/design/facts.md#issuer-and-keys).
        reply.header("cache-control", "public, max-age=3600")
    }

    /// A Status, as the API server has it.
    fn error(&self, status: StatusCode, code: &str, message: &str) -> Reply {
        let of_kubernetes = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "message": message,
            "reason": code,
            "code": status.as_u16(),
        });
        Reply::json(&of_kubernetes).status(status).code(code)
    }
}
