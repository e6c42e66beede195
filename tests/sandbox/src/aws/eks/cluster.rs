//! The one cluster.
//!
//! Owns: what DescribeCluster and ListClusters say. Must not know: who asks.

use serde_json::{Value, json};

use super::page::page;
use super::query::Query;
use super::refusal::{Code, Refused};
use super::{Eks, timestamp, without_nulls};

/// What the cluster says it runs. The tokens of a real cluster's API server work as well.
const VERSION: &str = "1.36";

impl Eks {
    pub(super) fn list_clusters(&self, query: &Query, region: &str) -> Result<Value, Refused> {
        let options = &self.world.options;
        let name = Some(&options.cluster_name).filter(|_| region == options.region);
        let all = name.map(|name| (name.clone(), name.clone())).into_iter().collect();
        let (clusters, next) = page(query, all)?;
        Ok(without_nulls(json!({ "clusters": clusters, "nextToken": next })))
    }

    pub(super) fn describe_cluster(&self) -> Value {
        let (options, issuer) = (&self.world.options, &self.world.issuer);
        let (account, region, name) = (&options.account, &options.region, &options.cluster_name);
        // Nothing listens there: the API server of a cluster that has one is not the sandbox's to name.
        let id = issuer.rsplit('/').next().unwrap_or_default();
        json!({ "cluster": {
            "name": name,
            "arn": self.arn("cluster", name),
            "createdAt": timestamp(self.records.lock().since),
            "version": VERSION,
            "platformVersion": "eks.1",
            "endpoint": format!("https://{id}.gr7.{region}.eks.amazonaws.com"),
            "certificateAuthority": { "data": "" },
            "roleArn": format!("arn:aws:iam::{account}:role/{name}-cluster"),
            "resourcesVpcConfig": {
                "subnetIds": [], "securityGroupIds": [], "publicAccessCidrs": ["0.0.0.0/0"],
                "endpointPublicAccess": true, "endpointPrivateAccess": true,
            },
            "kubernetesNetworkConfig": { "serviceIpv4Cidr": "10.100.0.0/16", "ipFamily": "ipv4" },
            "logging": { "clusterLogging": [] },
            "identity": { "oidc": { "issuer": issuer } },
            "status": "ACTIVE",
            "tags": {},
        } })
    }

    pub(super) fn describe_update(&self, id: &str) -> Result<Value, Refused> {
        let missing = || Refused::new(Code::ResourceNotFound, format!("No update found for ID: {id}"));
        Ok(json!({ "update": self.records.lock().known_update(id).ok_or_else(missing)? }))
    }
}
