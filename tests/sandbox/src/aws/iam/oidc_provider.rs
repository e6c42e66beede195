//! An identity provider of an account: an issuer of tokens that its roles may trust.
//!
//! Owns: its ARN, which is its issuer's name. Must not know: keys and tokens.

use serde::{Deserialize, Serialize};

use super::arn::RoleArn;
use super::registry::IamError;

const KIND: &str = ":oidc-provider/";

/// An OpenID Connect provider, as IAM keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OidcProvider {
    /// `arn:aws:iam::<account>:oidc-provider/<issuer without https://>`.
    pub arn: String,
    /// The audiences it takes: `ClientIDList`.
    pub client_ids: Vec<String>,
}

impl OidcProvider {
    /// The provider of an issuer, `https://…`, in an account of the partition `aws`.
    #[must_use]
    pub fn new(account: &str, issuer: &str, client_ids: &[&str]) -> Self {
        Self {
            arn: format!("arn:aws:iam::{account}{KIND}{}", Self::without_scheme(issuer)),
            client_ids: client_ids.iter().map(|&id| id.to_owned()).collect(),
        }
    }

    /// The ARN that the provider of `issuer` has in the account of `role`.
    pub(crate) fn arn_beside(role: &RoleArn<'_>, issuer: &str) -> String {
        let RoleArn { partition, account, .. } = role;
        format!("arn:{partition}:iam::{account}{KIND}{}", Self::without_scheme(issuer))
    }

    /// An issuer's name as it stands in ARNs and in the keys of conditions.
    pub(crate) fn without_scheme(issuer: &str) -> &str {
        issuer.strip_prefix("https://").unwrap_or(issuer)
    }

    pub(super) fn check(&self) -> Result<(), IamError> {
        let issuer = self.arn.split_once(KIND).map_or("", |(_, issuer)| issuer);
        if self.arn.starts_with("arn:") && !issuer.is_empty() && !issuer.contains("://") {
            Ok(())
        } else {
            Err(IamError::ProviderArn(self.arn.clone()))
        }
    }
}
