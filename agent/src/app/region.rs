//! The AWS region: that readiness waits for it, and the task that reads it.
//!
//! Owns: what an admin reads who has to give it. Must not know: how it is read (`aws::region`).

use super::Services;
use crate::aws::own_identity::imds::InstanceRole;
use crate::aws::region::{AwsRegion, RegionState};
use crate::config::{Config, RegionSource};
use crate::lifecycle::condition_name::ConditionName;
use crate::rng::Rng;

/// What to do where no instance knows it, as on hybrid nodes.
const GIVE_IT: &str = "give --region or AWS_REGION (env.AWS_REGION of the chart)";

impl Services {
    /// Without a region no pod is given credentials, so readiness waits for it. Nothing else does: those who
    /// ask meanwhile are held, and answered that they should ask again.
    pub(super) fn learn_region(&self, config: &Config, region: AwsRegion) {
        let condition = self.readiness.condition(ConditionName::Region);
        let service = match &config.region {
            RegionSource::Given(_) => return condition.met(),
            RegionSource::Nowhere => {
                return condition.unmet(format!("AWS_EC2_METADATA_DISABLED is true, so {GIVE_IT}"));
            }
            RegionSource::Instance(service) => service,
        };
        let instance = InstanceRole::new(service, &self.clock);
        let report = move |state| match state {
            RegionState::Known => condition.met(),
            RegionState::Unknown(why) => {
                condition.unmet(format!("{why}; where there is no such service, {GIVE_IT}"));
            }
        };
        let learning = region.learn(instance, self.clock.clone(), Rng::from_entropy(), report);
        self.until_stopped("region", learning);
    }
}
