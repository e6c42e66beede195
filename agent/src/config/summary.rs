//! The effective configuration as one line.
//!
//! Owns: which settings are shown. Must not know: secrets; it shows at most that one is set.

use std::fmt;

use super::{Config, MetadataService, OwnCredentials, RegionSource, Retention};

/// Shows a configuration as `name=value` pairs in one line.
#[derive(Debug)]
pub struct Summary<'a>(&'a Config);

impl Config {
    /// The effective configuration for the log, without secrets.
    pub fn summary(&self) -> Summary<'_> {
        Summary(self)
    }
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config { cluster_name, listen, probe_port, metrics, upstream, node, .. } = self.0;
        write!(f, "cluster={cluster_name} region=")?;
        match &self.0.region {
            RegionSource::Given(name) => f.write_str(name)?,
            RegionSource::Instance(service) => write!(f, "from-the-instance {}", place(service))?,
            RegionSource::Nowhere => f.write_str("unknown")?,
        }
        f.write_str(" listen=")?;
        for (index, host) in listen.hosts.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}", std::net::SocketAddr::new(*host, listen.port))?;
        }
        write!(f, " probe_port={probe_port} metrics={metrics}")?;
        match &self.0.retention {
            Retention::Off => f.write_str(" retention=off")?,
            Retention::Keep { renew_after, max_identities } => {
                write!(f, " retention={renew_after:?} max_identities={max_identities}")?;
            }
        }
        if let Some(max) = self.0.max_stale_after_refusal {
            write!(f, " max_stale_after_refusal={max:?}")?;
        }
        write!(f, " max_service_qps={}", self.0.max_service_qps)?;
        match self.0.pod_request_rate {
            Some(rate) => write!(f, " pod_request_rate={rate}")?,
            None => f.write_str(" pod_request_rate=unlimited")?,
        }
        write!(f, " endpoint={}", upstream.endpoint.as_deref().unwrap_or("regional"))?;
        let proxy = if upstream.proxy.is_some() { "set" } else { "none" };
        write!(f, " fips={} proxy={proxy}", upstream.use_fips)?;
        match &upstream.ca_bundle {
            Some(path) => write!(f, " ca_bundle={}", path.display())?,
            None => f.write_str(" ca_bundle=system")?,
        }
        match &self.0.own_credentials {
            OwnCredentials::Imds(service) => write!(f, " own_credentials=imds {}", place(service))?,
            OwnCredentials::File { path, profile, .. } => {
                write!(f, " own_credentials=file path={} profile={profile}", path.display())?;
            }
            OwnCredentials::Environment { .. } => f.write_str(" own_credentials=environment")?,
        }
        write!(f, " node={} send_node_details={}", node.name.as_deref().unwrap_or("unknown"), node.send)?;
        write!(f, " {}", self.0.node_network)?;
        let verification = &self.0.verification;
        write!(f, " token_verification={:?} key_sources={}", verification.mode, verification.sources())?;
        let api_server = verification.api_server.as_ref().map_or("not asked", |server| &server.url);
        write!(f, " api_server={api_server:?}")?;
        let (reviews, events) = (self.0.kubernetes.reviews_tokens, self.0.writes_events());
        write!(f, " token_review={reviews} events={events}")?;
        write!(f, " issuers={}", verification.issuers.join(","))?;
        write!(f, " jwks_refresh_interval={:?}", self.0.jwks_refresh_interval)?;
        match self.0.kubernetes.watch_pods {
            Some(timeout) => write!(f, " watch_timeout={timeout:?}")?,
            None => f.write_str(" watch_pods=off")?,
        }
        let log = &self.0.log;
        write!(f, " state_dir={:?} {}", self.0.state_dir, self.0.shutdown)?;
        write!(f, " trial_token_file={:?}", self.0.trial_token_file)?;
        write!(f, " level={:?} audit_log={}", log.level, log.audit)
    }
}

fn place(service: &MetadataService) -> String {
    let MetadataService { endpoint, ipv6 } = service;
    format!("imds={} ipv6={ipv6}", endpoint.as_deref().unwrap_or("well-known"))
}
