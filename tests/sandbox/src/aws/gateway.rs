//! One URL for all services: what `AWS_ENDPOINT_URL` is set to.
//!
//! Owns: which service a request is for, by the scope of its signature. Must not know: what the services
//! answer; they are asked over their own listeners, with their own faults and logs of calls.

use http::StatusCode;
use serde_json::json;
use tokio::runtime::Handle;

use super::sts::element;
use crate::http::client;
use crate::http::message::{Received, Reply};
use crate::http::server::Answer;

/// The largest body: an object that a test puts into S3. The AWS CLI sends parts of 8 MiB.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// Addresses of the services, `host:port`.
#[derive(Clone, Debug)]
pub(crate) struct Upstreams {
    pub(crate) eks: String,
    pub(crate) eks_auth: String,
    pub(crate) sts: String,
    pub(crate) moto: String,
}

/// The router.
pub(crate) struct Gateway {
    upstreams: Upstreams,
    runtime: Handle,
}

impl Gateway {
    pub(crate) fn new(upstreams: Upstreams, runtime: Handle) -> Self {
        Self { upstreams, runtime }
    }

    fn upstream(&self, request: &Received) -> Result<&str, String> {
        let Upstreams { eks, eks_auth, sts, moto } = &self.upstreams;
        match signed_for(request) {
            Some("eks") => Ok(eks),
            Some("eks-auth") => Ok(eks_auth),
            Some("sts") => Ok(sts),
            Some("iam" | "s3") => Ok(moto),
            Some(other) => {
                Err(format!("The local EKS has no service '{other}': eks, sts, iam and s3 are there."))
            }
            // The call of a web identity is a form and has no signature; what else has none, moto refuses.
            None if is_form(request) => Ok(sts),
            None => Ok(moto),
        }
    }
}

/// The service in the scope of the signature.
fn signed_for(request: &Received) -> Option<&str> {
    let credential = request.header("authorization")?.split_once("Credential=")?.1;
    credential.split(',').next()?.split('/').nth(3)
}

fn is_form(request: &Received) -> bool {
    let kind = request.header("content-type").unwrap_or_default();
    kind.starts_with("application/x-www-form-urlencoded")
}

fn is_page(reply: &Reply) -> bool {
    let kind = reply.headers.get("content-type").and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("text/html"))
}

/// The operation that a form names, or else method and path.
fn request_for(request: &Received) -> String {
    let action = form_urlencoded::parse(&request.body).find(|(name, _)| name == "Action");
    let action = action.filter(|_| is_form(request)).map(|(_, action)| action.into_owned());
    action.unwrap_or_else(|| format!("{} {}", request.method, request.path()))
}

fn in_json(code: &str, message: &str) -> Reply {
    Reply::json(&json!({ "__type": code, "message": message })).header("x-amzn-errortype", code)
}

/// As EC2 writes it, which callers of all services with forms read.
fn in_xml(code: &str, message: &str) -> Reply {
    let error = element("Code", code) + &element("Message", message);
    Reply::xml(format!("<Response><Errors><Error>{error}</Error></Errors></Response>"))
}

impl Answer for Gateway {
    fn max_body(&self) -> usize {
        MAX_BODY
    }

    fn answer(&self, request: &Received) -> Reply {
        let failed = |status, code: &str, message: String| {
            let reply = if is_form(request) { in_xml(code, &message) } else { in_json(code, &message) };
            reply.status(status).code(code)
        };
        let upstream = match self.upstream(request) {
            Ok(upstream) => upstream,
            Err(message) => return failed(StatusCode::BAD_REQUEST, "UnknownServiceException", message),
        };
        let answer =
            tokio::task::block_in_place(|| self.runtime.block_on(client::forward(upstream, request)));
        match answer {
            // A page of its web server: an operation that it does not have, or a fault of its own.
            Ok(reply) if reply.status == StatusCode::INTERNAL_SERVER_ERROR && is_page(&reply) => {
                let what = request_for(request);
                let text = format!("moto, which plays this service, does not know {what}, or failed at it.");
                failed(StatusCode::NOT_IMPLEMENTED, "NotImplemented", text)
            }
            Ok(reply) => reply,
            Err(error) => failed(StatusCode::BAD_GATEWAY, "ServiceUnavailableException", error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn request(name: &'static str, value: &str) -> Received {
        let request = Request::post("/").header(name, value).body(()).unwrap();
        Received::new(request.into_parts().0, "".into())
    }

    #[tokio::test]
    async fn the_scope_of_the_signature_chooses_the_service() {
        let name = |name: &str| name.to_owned();
        let upstreams = Upstreams { eks: name("1"), eks_auth: name("2"), sts: name("3"), moto: name("4") };
        let gateway = Gateway::new(upstreams, Handle::current());
        let signed = |service: &str| {
            let credential = format!("AKIA/20261127/us-west-2/{service}/aws4_request");
            let header = format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=0");
            gateway.upstream(&request("authorization", &header)).map(str::to_owned)
        };
        let found = ["eks", "eks-auth", "sts", "iam", "s3"].map(|service| signed(service).unwrap());
        assert_eq!(found, ["1", "2", "3", "4", "4"]);
        assert!(signed("dynamodb").unwrap_err().contains("dynamodb"));
        let unknown = gateway.answer(&request(
            "authorization",
            "AWS4-HMAC-SHA256 Credential=AKIA/20261127/us-west-2/dynamodb/aws4_request",
        ));
        assert_eq!(
            (unknown.status, unknown.code.as_deref()),
            (StatusCode::BAD_REQUEST, Some("UnknownServiceException"))
        );
        let form = request("content-type", "application/x-www-form-urlencoded; charset=utf-8");
        assert_eq!(gateway.upstream(&form).unwrap(), "3");
    }
}
