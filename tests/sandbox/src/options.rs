//! What a sandbox is made of, and the switches for what nobody outside AWS knows for certain.
//!
//! Owns: the settings and their defaults. Must not know: who acts on them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::aws::associations::Association;
use crate::aws::issued::AwsCredentials;

/// How a sandbox is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of the EKS cluster.
    pub cluster_name: String,
    /// AWS region of everything.
    pub region: String,
    /// Account of the cluster and its node role.
    pub account: String,
    /// The associations, unless `associations_file` is given. The default is one: default/app to `role/app`.
    pub associations: Vec<Association>,
    /// A YAML file of associations, read again whenever it changes; a broken one keeps the last good.
    pub associations_file: Option<PathBuf>,
    /// The address all services listen on, each on a free port.
    pub address: IpAddr,
    /// Where IMDS listens instead: on its real address where there is a network of the test's own.
    pub imds: Option<SocketAddr>,
    /// Tokens are signed by the API server of a real cluster: our key is written to `service-account.key` for
    /// it, and goes by the name that Kubernetes gives it.
    pub cluster_signs: bool,
    /// Seconds by which AWS and the cluster's control plane are ahead of this machine's clock; negative is
    /// behind it.
    pub clock_ahead: i64,
    /// Let moto play IAM and S3, on this Python that has it (`tests/sandbox/moto/prepare.sh` makes one).
    /// Roles, trust policies and identity providers are then moto's, and one URL takes the calls of all
    /// services. The roles of the associations at the start are created there, without permissions.
    pub moto: Option<PathBuf>,
    /// Where token files, the CA and the like are written. `None` makes a temporary directory and removes it
    /// at the end.
    pub dir: Option<PathBuf>,
    /// Lifetime of what EKS Auth hands out, where the association does not say. 6 h is what EKS is commonly
    /// seen to give.
    pub credential_lifetime: Duration,
    /// Lifetime of service account tokens; 86,400 s is what EKS asks for
    /// (docs/design/facts.md#pod-environment).
    pub token_lifetime: Duration,
    /// Lifetime of the node's credentials from IMDS.
    pub node_credential_lifetime: Duration,
    /// A node credential honoured from the start, beside those of IMDS: for agents that read theirs from a
    /// file.
    pub static_node_credentials: Option<AwsCredentials>,
    /// Offer EKS Auth, STS and the issuer over https as well, with a CA made at start.
    pub tls: bool,
    /// Offer https with TLS 1.2 only, whose handshake takes a round trip more than that of 1.3: what an
    /// inspection of TLS may speak.
    pub tls_1_2_only: bool,
    /// Behaviours of AWS that we are not certain of.
    pub switches: Switches,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cluster_name: "sandbox".to_owned(),
            region: "us-west-2".to_owned(),
            account: "111122223333".to_owned(),
            associations: vec![Association::new("default", "app", "arn:aws:iam::111122223333:role/app")],
            associations_file: None,
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            imds: None,
            cluster_signs: false,
            clock_ahead: 0,
            moto: None,
            dir: None,
            credential_lifetime: Duration::from_hours(6),
            token_lifetime: Duration::from_hours(24),
            node_credential_lifetime: Duration::from_hours(6),
            static_node_credentials: None,
            tls: false,
            tls_1_2_only: false,
            switches: Switches::default(),
        }
    }
}

/// Behaviours of AWS that can go either way; each is a row of `ASSUMPTIONS.md`. May be changed while running.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Switches {
    /// What a service account without association is told.
    pub missing_association: MissingAssociation,
    /// Give `credentials.expiration` a fraction of a second.
    pub fractional_expiration: bool,
    /// Where EKS Auth writes an error's code.
    pub error_code_place: ErrorCodePlace,
    /// Send the optional `workloadIdentityProviderArn`.
    pub workload_identity_provider: bool,
    /// Take away the node role's permission: every call is AccessDeniedException with 403.
    pub node_role_denied: bool,
    /// Milliseconds for which EKS Auth does not see a change of an association that was made by EKS's API.
    pub association_delay_ms: u64,
    /// STS is switched off in this region for the account: AssumeRoleWithWebIdentity is
    /// RegionDisabledException.
    pub sts_region_disabled: bool,
    /// Seconds until a change of roles or identity providers is seen by STS and EKS Auth.
    pub iam_delay_seconds: u64,
}

/// The answer to a service account that has no association.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MissingAssociation {
    /// 404 ResourceNotFoundException.
    #[default]
    ResourceNotFound,
    /// 400 AccessDeniedException.
    AccessDenied,
}

/// The places where an SDK looks for an error's code, in its order (docs/design/facts.md#eks-auth-errors).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCodePlace {
    /// Header `x-amzn-errortype`.
    #[default]
    Header,
    /// Body member `code`.
    BodyCode,
    /// Body member `__type`.
    BodyType,
}
