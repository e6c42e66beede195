//! Whether the Kubernetes API is asked, what for, and what is written there.
//!
//! Owns: `--kubernetes`, `--token-review`, `--kubernetes-events`, and what makes a process one in a cluster.
//! Must not know: how it is asked.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Environment;
use super::boolean::go_bool;
use super::pods::{self, PodChecks};
use super::problem::{Problem, Problems};
use crate::cli::ServerArgs;

/// What the agent has to do with the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubernetes {
    /// Where there is one to ask.
    pub api_server: Option<ApiServer>,
    /// Whether it is shown tokens that no key proves.
    pub reviews_tokens: bool,
    /// How long each watch of the pods of this node lasts at it; `None`: they are not watched.
    pub watch_pods: Option<Duration>,
    /// What follows from what it says of a caller's pod.
    pub pod_checks: PodChecks,
    /// Whether Events about pods are written at it, as far as `--kubernetes-events` says.
    pub events: bool,
}

/// The API server, and the folder with what the agent shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiServer {
    /// Its https URL.
    pub url: String,
    /// The agent's own token, which the kubelet renews.
    pub token_file: PathBuf,
    /// The certificates that vouch for the API server.
    pub ca_file: PathBuf,
}

pub(super) fn read(
    args: &ServerArgs,
    api_server: Option<Option<ApiServer>>,
    problems: &mut Problems,
) -> Option<Kubernetes> {
    let reviews = problems.take(reviews(&args.token_review));
    let pods = pods::read(args, problems);
    let events = problems.take(go_bool("--kubernetes-events", &args.kubernetes_events));
    let (watch_pods, pod_checks) = pods?;
    Some(Kubernetes {
        api_server: api_server?,
        reviews_tokens: reviews?,
        watch_pods,
        pod_checks,
        events: events?,
    })
}

/// `None` in the outer option: there are problems. In the inner one: there is no API server to ask.
pub(super) fn api_server(
    args: &ServerArgs,
    environment: &Environment,
    problems: &mut Problems,
) -> Option<Option<ApiServer>> {
    match args.kubernetes.as_str() {
        "off" => Some(None),
        "auto" => Some(in_cluster(Path::new(&args.kubernetes_credentials), environment)),
        other => {
            problems.note(Problem::with_value("--kubernetes", "must be auto or off", other));
            None
        }
    }
}

/// Whether the API server is shown tokens that no key proves, where it is asked.
fn reviews(text: &str) -> Result<bool, Problem> {
    match text {
        "auto" => Ok(true),
        "off" => Ok(false),
        other => Err(Problem::with_value("--token-review", "must be auto or off", other)),
    }
}

/// As every client of Kubernetes finds it: two variables that the kubelet sets, and a token that is mounted.
/// The chart mounts one; where there is none, the agent has nothing to show and does not ask.
fn in_cluster(folder: &Path, environment: &Environment) -> Option<ApiServer> {
    let host = environment.kubernetes_host.as_deref()?;
    let port = environment.kubernetes_port.as_deref().unwrap_or("443");
    let host = match host.parse() {
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        Ok(IpAddr::V4(_)) | Err(_) => host.to_owned(),
    };
    let token_file = folder.join("token");
    let url = format!("https://{host}:{port}");
    token_file.exists().then(|| ApiServer { url, token_file, ca_file: folder.join("ca.crt") })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{ApiServer, api_server, reviews};
    use crate::cli::ServerArgs;
    use crate::config::Environment;
    use crate::config::problem::Problems;

    fn reads(arguments: &[&str], host: Option<&str>) -> Option<Option<ApiServer>> {
        let host = host.map(|host| ("KUBERNETES_SERVICE_HOST", host));
        let variables: Vec<_> = host.into_iter().chain([("KUBERNETES_SERVICE_PORT", "6443")]).collect();
        let environment = Environment::of(&variables);
        api_server(&ServerArgs::of(arguments), &environment, &mut Problems::default())
    }

    /// A folder as the kubelet mounts it.
    fn mounted(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("pod-identity-agent-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("token"), "t").unwrap();
        folder
    }

    #[test]
    fn tokens_are_reviewed_unless_switched_off() {
        assert_eq!(ServerArgs::of(&[]).token_review, "auto");
        assert_eq!((reviews("auto").unwrap(), reviews("off").unwrap()), (true, false));
        assert_eq!(reviews("true").unwrap_err().setting(), "--token-review");
    }

    #[test]
    fn the_api_server_is_asked_where_a_token_is_mounted() {
        let folder = mounted("config-kubernetes");
        let flag = format!("--kubernetes-credentials={}", folder.display());
        let found = reads(&[&flag], Some("10.0.0.1")).unwrap().unwrap();
        assert_eq!(found.url, "https://10.0.0.1:6443");
        assert_eq!((found.token_file, found.ca_file), (folder.join("token"), folder.join("ca.crt")));
        assert_eq!(reads(&[&flag], Some("fd00::1")).unwrap().unwrap().url, "https://[fd00::1]:6443");
        assert_eq!(reads(&[&flag], None), Some(None), "not in a cluster");
        assert_eq!(reads(&["--kubernetes-credentials=/none"], Some("10.0.0.1")), Some(None));
        assert_eq!(reads(&[&flag, "--kubernetes=off"], Some("10.0.0.1")), Some(None));
        assert_eq!(reads(&[&flag, "--kubernetes=on"], Some("10.0.0.1")), None);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
