//! EKS's own API, as far as roles of pods go: pod identity associations, add-ons with associations, and what
//! an administrator looks up on the way.
//!
//! ```text
//! route          which operation        input, query   what it is asked with
//! associations, addons, cluster         what it does   catalog: the add-ons there are
//! roles          which of them it takes
//! records        what EKS remembers     page           lists in pages
//! refusal        what it answers when it refuses
//! ```
//!
//! Owns: who may call, and the order of the judgement: path, signature, permission, cluster, request. Must
//! not know: how a role is assumed (EKS Auth).

mod addons;
mod associations;
mod catalog;
mod cluster;
mod input;
mod page;
mod query;
mod records;
mod refusal;
mod roles;
mod route;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use parking_lot::Mutex;
use serde_json::{Value, json};

use self::query::Query;
use self::records::Records;
use self::refusal::{Code, Refused};
use self::route::{Operation, Route};
use crate::aws::associations::Association;
use crate::aws::sigv4::{self, Scope};
use crate::clock;
use crate::faults::Service;
use crate::http::message::{REQUEST_ID, Received, Reply};
use crate::http::server::Answer;
use crate::random;
use crate::world::World;

/// The service.
pub(crate) struct Eks {
    world: Arc<World>,
    /// One change at a time: a list of associations is read, changed and put back.
    records: Mutex<Records>,
}

impl Answer for Eks {
    fn service(&self) -> Option<Service> {
        Some(Service::Eks)
    }

    fn operation(&self, request: &Received) -> String {
        match Route::of(request) {
            Some(route) => format!("{:?}", route.operation),
            None => format!("{} {}", request.method, request.path()),
        }
    }

    fn answer(&self, request: &Received) -> Reply {
        let route = Route::of(request);
        let cluster = route.as_ref().and_then(|route| route.cluster.clone());
        let reply = match self.judge(request, route) {
            Ok(body) => Reply::json(&body),
            Err(refused) => refused.reply(cluster.as_deref()),
        };
        reply.header(REQUEST_ID, &random::uuid())
    }

    fn error(&self, status: StatusCode, code: &str, message: &str) -> Reply {
        let reply = refusal::reply(status, code, &json!({ "message": message }));
        reply.header(REQUEST_ID, &random::uuid())
    }
}

impl Eks {
    /// The API of that world's cluster.
    pub(crate) fn new(world: Arc<World>) -> Self {
        let records = Mutex::new(Records::new(world.clock.now()));
        Self { world, records }
    }

    fn judge(&self, request: &Received, route: Option<Route>) -> Result<Value, Refused> {
        let unknown = || Refused::new(Code::UnknownOperation, "There is no such operation here.");
        let route = route.ok_or_else(unknown)?;
        let region = sigv4::region(request).unwrap_or(&self.world.options.region);
        self.check_caller(request, &route, region)?;
        self.check_cluster(&route, region)?;
        let query = Query::parse(request.query());
        let (name, body) = (route.name.as_str(), &request.body[..]);
        match route.operation {
            Operation::ListClusters => self.list_clusters(&query, region),
            Operation::DescribeCluster => Ok(self.describe_cluster()),
            Operation::DescribeUpdate => self.describe_update(name),
            Operation::CreatePodIdentityAssociation => self.create_association(&input::parse(body)?),
            Operation::ListPodIdentityAssociations => self.list_associations(&query),
            Operation::DescribePodIdentityAssociation => self.describe_association(name),
            Operation::UpdatePodIdentityAssociation => self.update_association(name, &input::parse(body)?),
            Operation::DeletePodIdentityAssociation => self.delete_association(name),
            Operation::CreateAddon => self.create_addon(&input::parse(body)?),
            Operation::ListAddons => self.list_addons(&query),
            Operation::DescribeAddon => self.describe_addon(name),
            Operation::UpdateAddon => self.update_addon(name, &input::parse(body)?),
            Operation::DeleteAddon => self.delete_addon(name, query.is_on("preserve")),
            Operation::DescribeAddonVersions => catalog::describe_versions(&query),
            Operation::DescribeAddonConfiguration => catalog::describe_configuration(&query),
        }
    }

    /// Whose request it is: the administrator may do all, a node may look at its cluster, a pod may nothing.
    fn check_caller(&self, request: &Received, route: &Route, region: &str) -> Result<(), Refused> {
        let scope = Scope { region, service: "eks", now: self.world.clock.now() };
        let caller = self.world.issued.signer(request, scope)?;
        if caller.is_administrator() || (caller.is_node() && route.operation == Operation::DescribeCluster) {
            return Ok(());
        }
        let (arn, operation) = (caller.arn(), route.operation);
        let on =
            route.cluster.as_deref().map_or_else(|| "*".to_owned(), |cluster| self.arn("cluster", cluster));
        let text = format!("User: {arn} is not authorized to perform: eks:{operation:?} on resource: {on}");
        Err(Refused::new(Code::NotAuthorized, text))
    }

    /// EKS is in every region, and the cluster in one of them.
    fn check_cluster(&self, route: &Route, region: &str) -> Result<(), Refused> {
        let options = &self.world.options;
        match &route.cluster {
            Some(cluster) if *cluster != options.cluster_name || region != options.region => {
                let text = format!("No cluster found for name: {cluster}.");
                Err(Refused::new(Code::ResourceNotFound, text))
            }
            _ => Ok(()),
        }
    }

    /// The ARN of something of EKS's.
    fn arn(&self, kind: &str, rest: &str) -> String {
        let options = &self.world.options;
        format!("arn:aws:eks:{}:{}:{kind}/{rest}", options.region, options.account)
    }

    /// Puts the associations in force; EKS Auth sees it when the switch says so.
    fn put_associations(&self, list: Vec<Association>, now: SystemTime) -> Result<(), Refused> {
        let delay = Duration::from_millis(self.world.switches.lock().association_delay_ms);
        let put = self.world.associations.change(list, now, delay);
        put.map_err(|error| Refused::invalid(error.to_string()))
    }
}

/// A time in an answer: rest-json writes it as a number of seconds.
fn timestamp(time: SystemTime) -> Value {
    clock::unix_seconds(time).into()
}

/// An object without the members that are null: AWS leaves them away, and botocore's parser does not mind.
fn without_nulls(mut value: Value) -> Value {
    if let Some(object) = value.as_object_mut() {
        object.retain(|_, member| !member.is_null());
    }
    value
}
