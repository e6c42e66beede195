//! Which node this is, for `--send-node-details`.
//!
//! Owns: the three optional members of the request (`eksNodeName`, `instanceId`, `zone`: EKS Auth model of 2026) and how
//! they are learnt. Must not know: what AWS makes of them; nobody has published it (facts 8), which is why they are sent
//! on request only.

use std::sync::{Arc, OnceLock};

use crate::aws::own_identity::imds::InstanceRole;
use crate::config::NodeDetails;

/// What is sent with each call; clones share it. What is not known is left out.
#[derive(Clone, Debug, Default)]
pub struct SentDetails {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    node_name: Option<String>,
    instance: OnceLock<Instance>,
}

/// What IMDS tells of the instance.
#[derive(Debug)]
struct Instance {
    id: Option<String>,
    zone_id: Option<String>,
}

impl SentDetails {
    /// Nothing, unless the configuration asks for it.
    pub fn from_config(config: &NodeDetails) -> Self {
        let node_name = config.name.clone().filter(|_| config.send);
        Self { shared: Arc::new(Shared { node_name, instance: OnceLock::new() }) }
    }

    /// Asks IMDS, once; what it does not tell stays out.
    pub async fn learn(&self, imds: &InstanceRole) {
        let id = imds.metadata("/latest/meta-data/instance-id").await;
        // The zone's id (use1-az1), which is the same in every account; its name is not.
        let zone_id = imds.metadata("/latest/meta-data/placement/availability-zone-id").await;
        tracing::info!(instance.id = id, zone.id = zone_id, "node details are sent to EKS Auth");
        // Learnt twice is the same.
        let _already_known = self.shared.instance.set(Instance { id, zone_id });
    }

    /// The name of the node, if it is to be sent.
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
