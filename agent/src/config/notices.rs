//! Settings that are valid but suspicious.
//!
//! Owns: these notices, logged as warnings once at start. Must not know: rules that make a setting invalid;
//! those are problems.

use super::boolean::go_bool;
use super::{Config, OwnCredentials, ProfileFile, Retention, UnusedVariable};
use crate::cli::ServerArgs;

impl Config {
    /// What an operator should know about a valid configuration.
    pub fn notices(&self, args: &ServerArgs) -> Vec<String> {
        let mut notices = args.unknown_flags.clone();
        for stray in &args.stray {
            notices.push(format!(
                "the argument {stray} is ignored, as in Amazon's agent: a boolean flag takes its value after \
                 an equals sign, such as --rotate-credentials={stray}"
            ));
        }
        let is_file = matches!(self.own_credentials, OwnCredentials::File { .. });
        if !is_file && go_bool("--rotate-credentials", &args.rotate_credentials) == Ok(true) {
            notices.push(
                "--rotate-credentials has no effect: --own-credentials selects another source".to_owned(),
            );
        }
        for UnusedVariable { name, instead } in &self.unused_own_credentials {
            notices.push(match instead {
                Some(used) => format!("{name} is not used: {used} is set"),
                None => format!(
                    "{name} is not used: the agent's own credentials come from {}; see --own-credentials",
                    source_of(&self.own_credentials)
                ),
            });
        }
        if let OwnCredentials::File { kind: ProfileFile::Config, path, .. } = &self.own_credentials {
            notices.push(format!(
                "the agent's own credentials are read from {} because AWS_CONFIG_FILE is set; if it has no \
                 access key, choose --own-credentials=imds",
                path.display()
            ));
        }
        if self.node.send && self.node.name.is_none() {
            notices
                .push("--send-node-details cannot send the node's name: --node-name is not set".to_owned());
        }
        if self.verification.sources() == 0 && !self.verification.issuers.is_empty() {
            notices.push(
                "--issuer has no effect without keys: set --jwks, or let the agent ask the API server"
                    .to_owned(),
            );
        }
        if self.kubernetes.events && !self.writes_events() {
            notices.push(
                "--kubernetes-events has no effect: Events are about pods of this node, which takes the \
                 Kubernetes API (--kubernetes), --node-name and --watch-pods"
                    .to_owned(),
            );
        }
        if let Ok(zero_or_less @ ..=0) = args.max_service_qps.parse::<i64>() {
            notices.push(format!(
                "--max-service-qps={zero_or_less} means {}, as in Amazon's agent",
                self.max_service_qps
            ));
        }
        notices.extend(self.verification.shared_keys().map(|keys| {
            format!(
                "keys of {keys} verify tokens of every --issuer: only keys of a URL below an issuer are \
                 known to be of that issuer"
            )
        }));
        notices.extend(self.retention_notice());
        notices
    }

    /// The rule of Amazon's agent for these three flags: every cached set must be renewed within one
    /// retention period.
    fn retention_notice(&self) -> Option<String> {
        match &self.retention {
            Retention::Off => {
                Some("credentials are not cached: an outage of AWS reaches the pods at once".to_owned())
            }
            Retention::Keep { renew_after, max_identities } => {
                let renewals = u64::from(self.max_service_qps).saturating_mul(renew_after.as_secs());
                (renewals < u64::try_from(max_identities.get()).unwrap_or(u64::MAX)).then(|| {
                    format!(
                        "a full cache cannot be renewed in time: {max_identities} identities need more than \
                         the {renewals} renewals that --max-service-qps allows within \
                         --max-credential-retention-before-renewal"
                    )
                })
            }
        }
    }
}

fn source_of(own: &OwnCredentials) -> String {
    match own {
        OwnCredentials::Imds(_) => "the instance metadata service".to_owned(),
        OwnCredentials::File { path, .. } => path.display().to_string(),
        OwnCredentials::Environment { .. } => "the environment".to_owned(),
    }
}
