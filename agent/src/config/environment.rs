//! The environment variables, read once and in one place.
//!
//! Owns: which variables the agent reads, and which count as set (empty ones do not, as in the AWS SDKs and
//! in Go's proxy rules). Must not know: what the values mean; the rules are next to the settings they belong
//! to.

use std::ffi::OsString;
use std::fmt;

use super::problem::Problem;
use crate::secret::Secret;

/// Variables that make a library print secrets at any log level: `LOG_SENSITIVE_BODIES` makes the AWS SDK log
/// response bodies (aws-smithy-runtime, `orchestrator/http.rs`), `SSLKEYLOGFILE` makes rustls write session
/// keys to a file.
pub(crate) const PRINTING_SECRETS: [&str; 2] = ["LOG_SENSITIVE_BODIES", "SSLKEYLOGFILE"];

/// The two names of a setting, as Amazon's agent reads them (aws-sdk-go-v2, `config/env_config.go`): the
/// first counts if it is set. Scripts of the first SDKs use the second.
pub(super) const ACCESS_KEY_ID: [&str; 2] = ["AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY"];
pub(super) const SECRET_ACCESS_KEY: [&str; 2] = ["AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY"];
pub(super) const PROFILE: [&str; 2] = ["AWS_PROFILE", "AWS_DEFAULT_PROFILE"];
pub(super) const SESSION_TOKEN: &str = "AWS_SESSION_TOKEN";
pub(super) const CREDENTIALS_FILE: &str = "AWS_SHARED_CREDENTIALS_FILE";
pub(super) const CONFIG_FILE: &str = "AWS_CONFIG_FILE";

/// Variables by which the AWS SDKs find credentials. The last three are ways that the agent does not go: a
/// web identity of its own, and the container provider, which is the agent itself.
const CREDENTIALS: [&str; 12] = [
    ACCESS_KEY_ID[0],
    ACCESS_KEY_ID[1],
    SECRET_ACCESS_KEY[0],
    SECRET_ACCESS_KEY[1],
    SESSION_TOKEN,
    CREDENTIALS_FILE,
    CONFIG_FILE,
    PROFILE[0],
    PROFILE[1],
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];

/// Those of [`PRINTING_SECRETS`] that are set in this process, to any value.
#[expect(clippy::disallowed_methods, reason = "the environment is read in this file")]
pub(crate) fn variables_printing_secrets() -> Vec<&'static str> {
    PRINTING_SECRETS.into_iter().filter(|name| std::env::var_os(name).is_some()).collect()
}

/// The variables that the agent reads.
#[derive(Clone, Default)]
pub struct Environment {
    pub(super) aws_region: Option<String>,
    pub(super) aws_default_region: Option<String>,
    pub(super) ca_bundle: Option<String>,
    pub(super) use_fips: Option<String>,
    pub(super) endpoint_eks_auth: Option<String>,
    pub(super) endpoint_sts: Option<String>,
    pub(super) endpoint_any: Option<String>,
    pub(super) use_dual_stack: Option<String>,
    pub(super) ignore_endpoints: Option<String>,
    pub(super) imds_endpoint: Option<String>,
    pub(super) imds_mode: Option<String>,
    pub(super) imds_disabled: Option<String>,
    pub(super) access_key_id: Option<String>,
    pub(super) secret_access_key: Option<Secret>,
    pub(super) session_token: Option<Secret>,
    pub(super) credentials_file: Option<String>,
    pub(super) config_file: Option<String>,
    /// Those of [`CREDENTIALS`] that are set.
    pub(super) credentials: Vec<&'static str>,
    pub(super) profile: Option<String>,
    pub(super) home: Option<String>,
    pub(super) http_proxy: Option<Secret>,
    pub(super) https_proxy: Option<Secret>,
    pub(super) no_proxy: Option<String>,
    pub(super) node_name: Option<String>,
    pub(super) kubernetes_host: Option<String>,
    pub(super) kubernetes_port: Option<String>,
    /// Variables with a value that is not UTF-8.
    pub(super) unreadable: Vec<Problem>,
}

impl Environment {
    /// The environment of this process.
    #[expect(clippy::disallowed_methods, reason = "the environment is read here and nowhere else")]
    pub fn of_process() -> Self {
        Self::read(|name| std::env::var_os(name))
    }

    /// An environment of only these variables.
    #[cfg(test)]
    pub(crate) fn of(variables: &[(&str, &str)]) -> Self {
        Self::read(|name| {
            variables.iter().find(|(set, _)| *set == name).map(|(_, value)| OsString::from(value))
        })
    }

    fn read(source: impl Fn(&str) -> Option<OsString>) -> Self {
        let is_set = |name: &str| source(name).is_some_and(|value| !value.is_empty());
        let mut unreadable = Vec::new();
        let mut text = |name: &str| match source(name)?.into_string() {
            Ok(value) => Some(value).filter(|value| !value.is_empty()),
            Err(_) => {
                unreadable.push(Problem::without_value(name, "must be UTF-8 text"));
                None
            }
        };
        Self {
            aws_region: text("AWS_REGION"),
            aws_default_region: text("AWS_DEFAULT_REGION"),
            ca_bundle: text("AWS_CA_BUNDLE"),
            use_fips: text("AWS_USE_FIPS_ENDPOINT"),
            endpoint_eks_auth: text("AWS_ENDPOINT_URL_EKS_AUTH"),
            endpoint_sts: text("AWS_ENDPOINT_URL_STS"),
            endpoint_any: text("AWS_ENDPOINT_URL"),
            use_dual_stack: text("AWS_USE_DUALSTACK_ENDPOINT"),
            ignore_endpoints: text("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"),
            imds_endpoint: text("AWS_EC2_METADATA_SERVICE_ENDPOINT"),
            imds_mode: text("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE"),
            imds_disabled: text("AWS_EC2_METADATA_DISABLED"),
            access_key_id: ACCESS_KEY_ID.into_iter().find_map(&mut text),
            secret_access_key: SECRET_ACCESS_KEY.into_iter().find_map(&mut text).map(Secret::new),
            session_token: text(SESSION_TOKEN).map(Secret::new),
            credentials_file: text(CREDENTIALS_FILE),
            config_file: text(CONFIG_FILE),
            credentials: CREDENTIALS.into_iter().filter(|name| is_set(name)).collect(),
            profile: PROFILE.into_iter().find_map(&mut text),
            home: text("HOME"),
            // Upper case first, as in Go's net/http and so in Amazon's agent.
            http_proxy: text("HTTP_PROXY").or_else(|| text("http_proxy")).map(Secret::new),
            https_proxy: text("HTTPS_PROXY").or_else(|| text("https_proxy")).map(Secret::new),
            no_proxy: text("NO_PROXY").or_else(|| text("no_proxy")),
            node_name: text("NODE_NAME"),
            kubernetes_host: text("KUBERNETES_SERVICE_HOST"),
            kubernetes_port: text("KUBERNETES_SERVICE_PORT"),
            unreadable,
        }
    }
}

impl fmt::Debug for Environment {
    /// Shows no value: an endpoint URL may contain a password, which is refused only later.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use super::Environment;

    #[test]
    fn an_empty_variable_is_not_set() {
        let environment = Environment::of(&[("AWS_REGION", ""), ("AWS_DEFAULT_REGION", "us-west-2")]);
        assert_eq!(environment.aws_region, None);
        assert_eq!(environment.aws_default_region.as_deref(), Some("us-west-2"));
    }

    #[test]
    fn the_upper_case_proxy_variable_wins_over_the_lower_case_one() {
        let both =
            Environment::of(&[("http_proxy", "http://low"), ("HTTP_PROXY", "http://up"), ("no_proxy", "x")]);
        assert_eq!(both.http_proxy.unwrap().reveal(), "http://up");
        assert_eq!(both.no_proxy.as_deref(), Some("x"));
        let empty = Environment::of(&[("HTTPS_PROXY", ""), ("https_proxy", "http://low")]);
        assert_eq!(empty.https_proxy.unwrap().reveal(), "http://low");
    }

    #[test]
    fn a_variable_that_is_not_utf_8_is_a_problem() {
        let environment =
            Environment::read(|name| (name == "NODE_NAME").then(|| OsString::from_vec(vec![b'n', 0xff])));
        assert_eq!(environment.node_name, None);
        assert_eq!(environment.unreadable.first().unwrap().setting(), "NODE_NAME");
    }

    #[test]
    fn an_environment_prints_no_value() {
        let environment = Environment::of(&[("AWS_ENDPOINT_URL", "https://user:planted@host")]);
        assert!(!format!("{environment:?}").contains("planted"));
    }
}
