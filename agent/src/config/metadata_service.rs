//! Where the instance metadata service (IMDS) is.
//!
//! Owns: the three variables of the AWS SDKs that say so. Must not know: what is read there.

use super::boolean::aws_bool;
use super::environment::Environment;
use super::problem::{Problem, Problems};
use super::url::Url;

/// Where the instance metadata service (IMDS) is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetadataService {
    /// An http URL that replaces the well-known address.
    pub endpoint: Option<String>,
    /// Whether it is asked over IPv6.
    pub ipv6: bool,
}

/// Whether `AWS_EC2_METADATA_DISABLED` forbids it. `None`: that says neither.
pub(super) fn is_disabled(environment: &Environment, problems: &mut Problems) -> Option<bool> {
    problems.take(aws_bool("AWS_EC2_METADATA_DISABLED", environment.imds_disabled.as_deref()))
}

/// Its address. What is wrong is noted.
pub(super) fn read(environment: &Environment, problems: &mut Problems) -> Option<MetadataService> {
    let endpoint = match environment.imds_endpoint.as_deref() {
        Some(text) => problems.take(checked(text)).map(Some),
        None => Some(None),
    };
    let ipv6 = problems.take(mode(environment.imds_mode.as_deref()));
    Some(MetadataService { endpoint: endpoint?, ipv6: ipv6? })
}

fn checked(text: &str) -> Result<String, Problem> {
    const SETTING: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
    let url = Url::read(SETTING, text)?;
    if url.scheme() == "http" {
        Ok(text.to_owned())
    } else {
        Err(Problem::with_value(SETTING, "must begin with http://, because IMDS has no TLS", text))
    }
}

/// `IPv4` or `IPv6` in any case, as in the AWS SDKs.
fn mode(value: Option<&str>) -> Result<bool, Problem> {
    match value {
        None => Ok(false),
        Some(value) if value.eq_ignore_ascii_case("ipv4") => Ok(false),
        Some(value) if value.eq_ignore_ascii_case("ipv6") => Ok(true),
        Some(value) => {
            Err(Problem::with_value("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "must be IPv4 or IPv6", value))
        }
    }
}
