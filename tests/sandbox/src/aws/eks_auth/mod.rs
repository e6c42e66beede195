//! EKS Auth: `AssumeRoleForPodIdentity`, its only operation.
//!
//! Owns: the order of its judgement: signature, permission, body, token, cluster, association, role. Must not
//! know: how each of them is proved.

mod refusal;
mod request;
mod role;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use self::refusal::{Code, Refused};
use self::request::{Arguments, NODE_DETAILS};
use self::role::{Assumed, ProvedPod};
use super::associations::{Association, Refusal};
use super::issued::{AwsCredentials, Bearer, Holder};
use super::sigv4::Scope;
use crate::clock;
use crate::cluster::pod::PodSpec;
use crate::cluster::token::{self, AUDIENCE};
use crate::faults::Service;
use crate::http::message::{REQUEST_ID, Received, Reply};
use crate::http::server::Answer;
use crate::options::MissingAssociation;
use crate::random;
use crate::world::World;

/// What the switch adds to an expiration: three digits, exact in a double.
const FRACTION: Duration = Duration::from_millis(125);

/// The service.
pub(crate) struct EksAuth(pub(crate) Arc<World>);

impl Answer for EksAuth {
    fn service(&self) -> Option<Service> {
        Some(Service::EksAuth)
    }

    fn operation(&self, request: &Received) -> String {
        match cluster_of(request) {
            Some(_) => "AssumeRoleForPodIdentity".to_owned(),
            None => format!("{} {}", request.method, request.path()),
        }
    }

    fn pod(&self, request: &Received) -> Option<PodSpec> {
        let body: Value = serde_json::from_slice(&request.body).ok()?;
        token::parse(body.get("token")?.as_str()?)?.claims.pod()
    }

    fn node_details(&self, request: &Received) -> BTreeMap<String, String> {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let detail = |name: &str| Some((name.to_owned(), body.get(name)?.as_str()?.to_owned()));
        NODE_DETAILS.into_iter().filter_map(detail).collect()
    }

    fn answer(&self, request: &Received) -> Reply {
        let place = self.0.switches.lock().error_code_place;
        let reply = match self.assume(request) {
            Ok(body) => Reply::json(&body),
            Err(refused) => refused.reply(place),
        };
        reply.header(REQUEST_ID, &random::uuid())
    }

    fn error(&self, status: StatusCode, code: &str, message: &str) -> Reply {
        let reply = refusal::reply(status, code, message, self.0.switches.lock().error_code_place);
        reply.header(REQUEST_ID, &random::uuid())
    }
}

/// The cluster named in the operation's path, decoded.
fn cluster_of(request: &Received) -> Option<String> {
    let name = request.path().strip_prefix("/clusters/")?.strip_suffix("/assume-role-for-pod-identity")?;
    let is_it = request.method == Method::POST && !name.contains('/');
    is_it.then(|| percent_encoding::percent_decode_str(name).decode_utf8_lossy().into_owned())
}

impl EksAuth {
    fn assume(&self, request: &Received) -> Result<Value, Refused> {
        let cluster = cluster_of(request)
            .ok_or_else(|| Refused::new(Code::UnknownOperation, "There is no such operation."))?;
        self.check_caller(request, &cluster)?;
        let arguments = Arguments::parse(&request.body)?;
        request::check_cluster_name(&cluster)?;
        let pod = self.judge(&arguments.token)?;
        if cluster != self.0.options.cluster_name {
            let text = format!("No cluster found for name: {cluster}.");
            return Err(Refused::new(Code::ResourceNotFound, text));
        }
        let association = self
            .0
            .associations
            .find(&pod.names.namespace, &pod.names.service_account, self.0.clock.now())
            .ok_or_else(|| self.no_association(&pod.names))?;
        match association.refuse {
            Some(Refusal::AccessDenied) => Err(role::refused()),
            None => {
                let assumed = role::assume(&self.0, &pod, &association)?;
                Ok(self.grant(pod.names, &association, assumed))
            }
        }
    }

    /// The node: its signature, and its permission to call at all.
    fn check_caller(&self, request: &Received, cluster: &str) -> Result<(), Refused> {
        let options = &self.0.options;
        let scope = Scope { region: &options.region, service: "eks-auth", now: self.0.clock.now() };
        let caller = self.0.issued.signer(request, scope)?;
        // A pod's role could be given the permission, but in this account it is not.
        if !caller.is_node() || self.0.switches.lock().node_role_denied {
            let (arn, account, region) = (caller.arn(), &options.account, &options.region);
            let text = format!(
                "User: {arn} is not authorized to perform: eks-auth:AssumeRoleForPodIdentity on resource: \
                 arn:aws:eks:{region}:{account}:cluster/{cluster}"
            );
            return Err(Refused::new(Code::NotAuthorized, text));
        }
        Ok(())
    }

    /// The token: proves the pod, or says what is wrong with it.
    fn judge(&self, token: &str) -> Result<ProvedPod, Refused> {
        let invalid = |why: &str| Refused::new(Code::InvalidToken, format!("The token is not valid: {why}."));
        let parsed = token::parse(token).ok_or_else(|| invalid("it is not a service account token"))?;
        if !parsed.signed_by_one_of(&self.0.keys) {
            return Err(invalid("its signature does not match any key of the cluster"));
        }
        let claims = &parsed.claims;
        if claims.iss != self.0.issuer {
            return Err(invalid("its issuer is not the cluster's"));
        }
        if claims.aud != [AUDIENCE] {
            return Err(invalid("its audience is not pods.eks.amazonaws.com"));
        }
        let now = self.0.clock.now();
        if claims.expired_at(now) {
            return Err(Refused::new(Code::ExpiredToken, "The token has expired."));
        }
        if !claims.valid_yet_at(now) {
            return Err(invalid("it is not valid yet"));
        }
        let names = claims.pod().ok_or_else(|| invalid("it is not bound to a pod"))?;
        Ok(ProvedPod { names, uid: claims.pod_uid().unwrap_or_default().to_owned() })
    }

    fn no_association(&self, pod: &PodSpec) -> Refused {
        let code = match self.0.switches.lock().missing_association {
            MissingAssociation::ResourceNotFound => Code::ResourceNotFound,
            MissingAssociation::AccessDenied => Code::AccessDenied,
        };
        let PodSpec { namespace, service_account, .. } = pod;
        let cluster = &self.0.options.cluster_name;
        let text = format!(
            "No association found for service account {service_account} of namespace {namespace} in cluster {cluster}."
        );
        Refused::new(code, text)
    }

    fn grant(&self, pod: PodSpec, association: &Association, assumed: Assumed) -> Value {
        let options = &self.0.options;
        let Assumed { session, lifetime } = assumed;
        let (arn, user_id) = (session.arn(), session.user_id());
        let subject = json!({ "namespace": pod.namespace, "serviceAccount": pod.service_account });
        let credentials = self.0.issued.mint(Holder { bearer: Bearer::Pod(pod), session }, lifetime);
        let id = association.id();
        let (region, own_account, cluster) = (&options.region, &options.account, &options.cluster_name);
        let mut body = json!({
            "subject": subject,
            "audience": AUDIENCE,
            "podIdentityAssociation": {
                "associationArn": format!("arn:aws:eks:{region}:{own_account}:podidentityassociation/{cluster}/{id}"),
                "associationId": id,
            },
            "assumedRoleUser": { "arn": arn, "assumeRoleId": user_id },
            "credentials": self.credentials(&credentials),
        });
        if let (true, Some(body)) = (self.0.switches.lock().workload_identity_provider, body.as_object_mut())
        {
            let arn = format!("arn:aws:eks:{region}:{own_account}:workload-identity-provider/{cluster}");
            body.insert("workloadIdentityProviderArn".to_owned(), arn.into());
        }
        body
    }

    fn credentials(&self, credentials: &AwsCredentials) -> Value {
        let whole = credentials.expires_at.map_or(0, clock::unix_seconds);
        // rest-json writes a timestamp as a number; a whole one stays an integer.
        let expiration: Value = if self.0.switches.lock().fractional_expiration {
            let time = Duration::from_secs(u64::try_from(whole).unwrap_or_default()) + FRACTION;
            time.as_secs_f64().into()
        } else {
            whole.into()
        };
        json!({
            "sessionToken": credentials.session_token,
            "secretAccessKey": credentials.secret_access_key,
            "accessKeyId": credentials.access_key_id,
            "expiration": expiration,
        })
    }
}
