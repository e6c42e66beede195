//! What all servers of one sandbox share.
//!
//! Owns: the settings in force, the keys, the credentials issued, the node. Must not know: HTTP.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::Mutex;

use crate::aws::associations::Associations;
use crate::aws::iam::oidc_provider::OidcProvider;
use crate::aws::iam::registry::Iam;
use crate::aws::issued::{AwsCredentials, Bearer, Holder, IssuedCredentials};
use crate::aws::session::Session;
use crate::clock::Clock;
use crate::cluster::issuer::new_issuer;
use crate::cluster::keys::{Keys, Naming};
use crate::cluster::pod::PodSpec;
use crate::cluster::token::{Subject, WEB_IDENTITY_AUDIENCE};
use crate::options::{Options, Switches};
use crate::random;
use crate::sandbox::SandboxError;

/// Name of the account's administrator.
pub(crate) const ADMIN: &str = "admin";

/// The one node.
#[derive(Debug)]
pub(crate) struct Node {
    /// In a VPC with a DNS domain of its own: long names are what makes real tokens long.
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) instance_id: String,
    pub(crate) zone_id: String,
    /// Name of its IAM role.
    pub(crate) role: String,
}

impl Node {
    fn new(region: &str) -> Self {
        let instance_id = format!("i-0{}", random::hex(&random::bytes(8)));
        Self {
            name: format!("{instance_id}.blue-nodes.production.{region}.workloads.example.internal"),
            uid: random::uuid(),
            instance_id,
            zone_id: zone_id(region),
            role: "sandbox-node".to_owned(),
        }
    }
}

/// `us-west-2` is `usw2-az1`: the way AWS abbreviates its own regions, as far as a sandbox needs it.
fn zone_id(region: &str) -> String {
    let short = |part: &str| match part {
        "northeast" => "ne".to_owned(),
        "northwest" => "nw".to_owned(),
        "southeast" => "se".to_owned(),
        "southwest" => "sw".to_owned(),
        "north" | "south" | "east" | "west" | "central" => part.chars().take(1).collect(),
        other => other.to_owned(),
    };
    format!("{}-az1", region.split('-').map(short).collect::<String>())
}

/// The shared state.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) clock: Clock,
    pub(crate) dir: PathBuf,
    pub(crate) issuer: String,
    pub(crate) keys: Keys,
    pub(crate) node: Node,
    pub(crate) associations: Associations,
    pub(crate) iam: Iam,
    pub(crate) issued: IssuedCredentials,
    /// Of the account's administrator, who calls EKS's API.
    pub(crate) admin: AwsCredentials,
    pub(crate) switches: Mutex<Switches>,
    pub(crate) node_credential_lifetime: Mutex<Duration>,
    /// IMDS gives what it gave before, although AWS no longer honours it.
    pub(crate) imds_is_behind: AtomicBool,
    /// What IMDS says of the region instead of the truth.
    pub(crate) imds_region: Mutex<Option<String>>,
    /// Uids of service accounts, by namespace and name.
    service_accounts: Mutex<HashMap<(String, String), String>>,
}

impl World {
    pub(crate) fn new(options: Options, dir: PathBuf) -> Result<Self, SandboxError> {
        let associations = match &options.associations_file {
            Some(path) => Associations::from_file(path)?,
            None => Associations::given(options.associations.clone())?,
        };
        let clock = Clock::ahead_by(options.clock_ahead);
        let issuer = new_issuer(&options.region);
        let provider = OidcProvider::new(&options.account, &issuer, &[WEB_IDENTITY_AUDIENCE]);
        let world = Self {
            issuer,
            iam: Iam::held(clock.clone(), provider),
            keys: Keys::generate(if options.cluster_signs { Naming::Kubernetes } else { Naming::Eks })?,
            node: Node::new(&options.region),
            associations,
            issued: IssuedCredentials::by(clock.clone()),
            clock,
            admin: AwsCredentials::lasting(),
            switches: Mutex::new(options.switches.clone()),
            node_credential_lifetime: Mutex::new(options.node_credential_lifetime),
            imds_is_behind: AtomicBool::new(false),
            imds_region: Mutex::default(),
            service_accounts: Mutex::default(),
            options,
            dir,
        };
        if let Some(credentials) = &world.options.static_node_credentials {
            world.issued.honour(credentials.clone(), world.node_role());
        }
        world.issued.honour(world.admin.clone(), world.admin_user());
        Ok(world)
    }

    /// Uids for a new pod of that name.
    pub(crate) fn subject(&self, pod: &PodSpec) -> Subject {
        let service_account = (pod.namespace.clone(), pod.service_account.clone());
        let mut uids = self.service_accounts.lock();
        Subject {
            pod_uid: random::uuid(),
            service_account_uid: uids.entry(service_account).or_insert_with(random::uuid).clone(),
            node_name: self.node.name.clone(),
            node_uid: self.node.uid.clone(),
        }
    }

    /// New credentials of the node's role.
    pub(crate) fn mint_node_credentials(&self, lifetime: Duration) -> AwsCredentials {
        self.issued.mint(self.node_role(), lifetime)
    }

    /// How long a change of IAM takes to be seen, at present.
    pub(crate) fn iam_delay(&self) -> Duration {
        Duration::from_secs(self.switches.lock().iam_delay_seconds)
    }

    fn admin_user(&self) -> Holder {
        let account = &self.options.account;
        let role_arn = format!("arn:aws:iam::{account}:user/{ADMIN}");
        let session = Session { role_arn, name: ADMIN.to_owned(), tags: [].into(), policy: None };
        Holder { bearer: Bearer::Administrator, session }
    }

    fn node_role(&self) -> Holder {
        let (account, Node { role, instance_id, .. }) = (&self.options.account, &self.node);
        let role_arn = format!("arn:aws:iam::{account}:role/{role}");
        let session = Session { role_arn, name: instance_id.clone(), tags: [].into(), policy: None };
        Holder { bearer: Bearer::Node, session }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn zone_ids_are_abbreviated_as_aws_does() {
        for (region, id) in
            [("us-west-2", "usw2-az1"), ("ap-southeast-1", "apse1-az1"), ("eu-central-1", "euc1-az1")]
        {
            assert_eq!(super::zone_id(region), id);
        }
    }
}
