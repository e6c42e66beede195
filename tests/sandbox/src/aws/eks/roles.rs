//! Which roles EKS takes for an association.
//!
//! Owns: what EKS asks of a role when it is handed one: its account, that it exists, and that its trust
//! policy names EKS Pod Identity. Must not know: whether the conditions of the policy are met, which EKS Auth
//! judges for each pod.

use super::Eks;
use super::input::check_own_role;
use super::refusal::{Code, Refused};
use crate::aws::iam::role::POD_IDENTITY;

/// What EKS Pod Identity does to a role. EKS asks for both, also where an association disables session tags.
const ACTIONS: [&str; 2] = ["sts:AssumeRole", "sts:TagSession"];

impl Eks {
    /// Whether EKS takes it. A role that is not known is one of a test that has made none, unless an emulator
    /// of IAM knows all there are.
    pub(super) fn check_role(&self, arn: &str) -> Result<(), Refused> {
        check_own_role(arn, &self.world.options.account)?;
        let role = self.world.iam.role(arn).map_err(|error| Refused::new(Code::Server, error.to_string()))?;
        match role {
            Some(role) if role.names(POD_IDENTITY, &ACTIONS) => Ok(()),
            Some(_) => Err(Refused::invalid("Trust policy of the role provided is invalid.")),
            None if self.world.iam.is_elsewhere() => {
                Err(Refused::invalid("Role provided in the request does not exist."))
            }
            None => Ok(()),
        }
    }
}
