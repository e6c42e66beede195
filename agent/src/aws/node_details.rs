//! The details of this node for `--send-node-details`.
//!
//! Owns: the three optional members of the request (`eksNodeName`, `instanceId`, `zone`: EKS Auth model of
//! 2026) and where their values come from. Must not know: how AWS uses them. That is not documented
//! (docs/design/facts.md#not-known), so they are sent only if the flag is set.

use std::sync::{Arc, OnceLock};

use crate::aws::own_identity::imds::InstanceRole;
use crate::config::NodeDetails;

/// What is sent with each call; clones share it. Unknown values are left out.
#[derive(Clone, Debug, Default)]
pub struct SentDetails {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    node_name: Option<String>,
    instance: OnceLock<Instance>,
}

/// The details of the instance that IMDS returns.
#[derive(Debug)]
struct Instance {
    id: Option<String>,
    zone_id: Option<String>,
}

impl SentDetails {
    /// Nothing is sent unless the configuration says so.
    pub fn from_config(config: &NodeDetails) -> Self {
        let node_name = config.name.clone().filter(|_| config.send);
        Self { shared: Arc::new(Shared { node_name, instance: OnceLock::new() }) }
    }

    /// Requests the details from IMDS, once. Values that it does not return are left out.
    pub async fn learn(&self, imds: &mut InstanceRole) {
        let id = imds.value("/latest/meta-data/instance-id").await.ok();
        // The zone's id (use1-az1) is the same in every account; its name is not.
        let zone_id = imds.value("/latest/meta-data/placement/availability-zone-id").await.ok();
        tracing::info!(instance.id = id, zone.id = zone_id, "node details are sent to EKS Auth");
        // A second call would set the same values.
        let _already_known = self.shared.instance.set(Instance { id, zone_id });
    }

    /// The name of the node, if it is sent.
    pub fn node_name(&self) -> Option<String> {
        self.shared.node_name.clone()
    }

    /// The id of the instance, once it is known.
    pub fn instance_id(&self) -> Option<String> {
        self.shared.instance.get()?.id.clone()
    }

    /// The id of the zone, once it is known.
    pub fn zone_id(&self) -> Option<String> {
        self.shared.instance.get()?.zone_id.clone()
    }
}
