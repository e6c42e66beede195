//! The sandbox's IAM, as tests change it.
//!
//! Owns: the methods for roles and identity providers. Must not know: how trust is judged.

use super::{Sandbox, SandboxError};
use crate::aws::iam::oidc_provider::OidcProvider;
use crate::aws::iam::registry::IamElsewhere;
use crate::aws::iam::role::Role;
use crate::cluster::token::WEB_IDENTITY_AUDIENCE;

impl Sandbox {
    /// Adds a role or replaces the one of its ARN.
    ///
    /// # Errors
    /// If IAM would not take it, or is asked elsewhere.
    pub fn set_role(&self, role: Role) -> Result<(), SandboxError> {
        Ok(self.world.iam.set_role(role, self.world.iam_delay())?)
    }

    /// Removes a role; says whether there was one.
    ///
    /// # Errors
    /// If IAM is asked elsewhere.
    pub fn remove_role(&self, arn: &str) -> Result<bool, SandboxError> {
        Ok(self.world.iam.remove_role(arn, self.world.iam_delay())?)
    }

    /// The roles that were set.
    #[must_use]
    pub fn roles(&self) -> Vec<Role> {
        self.world.iam.roles()
    }

    /// Registers an identity provider with an account, or replaces it. The one of the sandbox's own issuer is
    /// there from the start, with client id `sts.amazonaws.com`.
    ///
    /// # Errors
    /// If IAM would not take it, or is asked elsewhere.
    pub fn set_oidc_provider(&self, provider: OidcProvider) -> Result<(), SandboxError> {
        Ok(self.world.iam.set_oidc_provider(provider, self.world.iam_delay())?)
    }

    /// Removes an identity provider; says whether there was one.
    ///
    /// # Errors
    /// If IAM is asked elsewhere.
    pub fn remove_oidc_provider(&self, arn: &str) -> Result<bool, SandboxError> {
        Ok(self.world.iam.remove_oidc_provider(arn, self.world.iam_delay())?)
    }

    /// The identity provider of the sandbox's issuer in the cluster's account, as it is at the start.
    #[must_use]
    pub fn oidc_provider(&self) -> OidcProvider {
        OidcProvider::new(&self.world.options.account, &self.world.issuer, &[WEB_IDENTITY_AUDIENCE])
    }

    /// From now on roles and identity providers are those that `elsewhere` knows.
    pub fn ask_iam_elsewhere(&self, elsewhere: IamElsewhere) {
        self.world.iam.ask_elsewhere(elsewhere);
    }
}
