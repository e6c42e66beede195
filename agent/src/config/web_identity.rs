//! Roles that the cluster gives: by annotations of service accounts and by a map.
//!
//! Owns: the rules for these settings. Must not know: what is in the files, or how STS is asked.

use std::path::PathBuf;

use super::boolean::{aws_bool, go_bool};
use super::environment::Environment;
use super::kubernetes::Kubernetes;
use super::problem::{Problem, Problems};
use super::upstream::{checked_endpoint, choose_endpoint};
use super::verification::{TokenVerification, VerificationMode};
use crate::cli::ServerArgs;
use crate::workload::WEB_IDENTITY_AUDIENCE;

/// More than anybody needs: one for each way in which tokens were requested over the years.
const MAX_AUDIENCES: usize = 8;
/// STS takes 2 to 64 of these (botocore model, sts 2011-06-15, `roleSessionNameType`).
const SESSION_NAME_LENGTH: std::ops::RangeInclusive<usize> = 2..=64;

/// How pods get roles that the cluster gives them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebIdentity {
    /// Audiences of the tokens that are exchanged at STS; at least one, the default first.
    pub audiences: Vec<String>,
    /// Whether annotations of service accounts are read at the Kubernetes API.
    pub reads_annotations: bool,
    /// A file with roles of service accounts.
    pub role_map: Option<PathBuf>,
    /// A file with the roles that a namespace may have.
    pub role_limits: Option<PathBuf>,
    /// How sessions are named.
    pub session_name: SessionName,
    /// Which STS is asked.
    pub sts: Sts,
}

/// How the sessions of roles are named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionName {
    /// By namespace and pod.
    Pod,
    /// By namespace and service account: the same for all pods of it.
    ServiceAccount,
    /// All alike.
    Fixed(String),
}

/// Which STS is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sts {
    /// A URL that replaces the region's endpoint; http only on this node.
    pub endpoint: Option<String>,
    /// Whether the endpoint is the one that has IPv6 too.
    pub use_dual_stack: bool,
}

/// Which sources there are: whether tokens for EKS Pod Identity are served, and how the cluster gives roles.
pub(super) fn sources(
    args: &ServerArgs,
    environment: &Environment,
    verification: Option<&TokenVerification>,
    kubernetes: Option<&Kubernetes>,
    problems: &mut Problems,
) -> Option<(bool, Option<WebIdentity>)> {
    let web_identity = read(args, environment, verification, kubernetes, problems);
    let pod_identity = problems.take(go_bool("--pod-identity", &args.pod_identity));
    if let (Some(false), Some(None)) = (pod_identity, &web_identity) {
        let rule = "must be true unless --service-account-roles or --role-map gives roles: nobody would be \
                    served";
        problems.note(Problem::without_value("--pod-identity", rule));
    }
    Some((pod_identity?, web_identity?))
}

/// `None` in the inner option: the cluster gives no roles.
fn read(
    args: &ServerArgs,
    environment: &Environment,
    verification: Option<&TokenVerification>,
    kubernetes: Option<&Kubernetes>,
    problems: &mut Problems,
) -> Option<Option<WebIdentity>> {
    let reads_annotations = problems.take(go_bool("--service-account-roles", &args.service_account_roles));
    let session_name = problems.take(session_name(&args.session_name));
    let audiences: Option<Vec<_>> =
        args.web_identity_audience.iter().map(|text| problems.take(audience(text))).collect();
    if args.web_identity_audience.len() > MAX_AUDIENCES {
        let rule = format!("must not be given more than {MAX_AUDIENCES} times");
        problems.note(Problem::without_value("--web-identity-audience", rule));
    }
    let role_map = args.role_map.as_deref().filter(|path| !path.is_empty()).map(PathBuf::from);
    let role_limits = problems.take(role_limits(args.role_limits.as_deref()));
    let (reads_annotations, role_limits) = (reads_annotations?, role_limits?);
    if !reads_annotations && role_map.is_none() {
        if role_limits.is_some() {
            let rule = "needs --service-account-roles or --role-map: there are no roles to limit";
            problems.note(Problem::without_value("--role-limits", rule));
        }
        return Some(None);
    }
    // Only now: what is set for other programs must not stop an agent that does not ask STS.
    let sts = sts(args, environment, problems);
    let setting = if role_map.is_some() { "--role-map" } else { "--service-account-roles" };
    if verification
        .is_some_and(|verification| verification.mode == VerificationMode::Off || verification.sources() == 0)
    {
        let rule = "needs keys that verify tokens (--jwks or an API server that is asked, and not \
                    --token-verification=off): nobody gets a role by what a token only claims";
        problems.note(Problem::without_value(setting, rule));
    }
    if reads_annotations && kubernetes.is_some_and(|kubernetes| kubernetes.api_server.is_none()) {
        let rule = "needs an API server that is asked: no token of the agent's own is mounted, or \
                    --kubernetes=off";
        problems.note(Problem::without_value("--service-account-roles", rule));
    }
    let (audiences, session_name, sts) = (audiences?, session_name?, sts?);
    Some(Some(WebIdentity { audiences, reads_annotations, role_map, role_limits, session_name, sts }))
}

/// An empty path is a mistake, such as a variable that is not set. Without the file every role is allowed, so
/// that must not be what it means.
fn role_limits(path: Option<&str>) -> Result<Option<PathBuf>, Problem> {
    match path {
        Some("") => {
            let rule = "must name a file; leave the flag out if any role is to be allowed";
            Err(Problem::with_value("--role-limits", rule, ""))
        }
        path => Ok(path.map(PathBuf::from)),
    }
}

fn sts(args: &ServerArgs, environment: &Environment, problems: &mut Problems) -> Option<Sts> {
    let of_service = environment.endpoint_sts.as_deref().map(|url| ("AWS_ENDPOINT_URL_STS", url));
    let flag = args.sts_endpoint.as_deref().map(|url| ("--sts-endpoint", url));
    let chosen = problems.take(choose_endpoint(flag, of_service, environment));
    let use_fips = aws_bool("AWS_USE_FIPS_ENDPOINT", environment.use_fips.as_deref()) == Ok(true);
    if let (Some(Some((setting, _))), true) = (chosen, use_fips) {
        // The endpoint rules of STS fail when both are set.
        let rule = "must not be combined with AWS_USE_FIPS_ENDPOINT=true";
        problems.note(Problem::without_value(setting, rule));
    }
    let endpoint = chosen.and_then(|chosen| match chosen {
        Some((setting, text)) => problems.take(checked_endpoint(setting, text)).map(Some),
        None => Some(None),
    });
    let dual_stack = aws_bool("AWS_USE_DUALSTACK_ENDPOINT", environment.use_dual_stack.as_deref());
    let (endpoint, wants_dual_stack) = (endpoint?, problems.take(dual_stack)?);
    // The same rules take both for a mistake; the endpoint is what was asked for.
    let use_dual_stack = wants_dual_stack && endpoint.is_none();
    Some(Sts { endpoint, use_dual_stack })
}

fn audience(text: &str) -> Result<String, Problem> {
    let is_one = !text.is_empty() && text.chars().all(|c| !c.is_whitespace() && !c.is_control());
    if is_one && text != "pods.eks.amazonaws.com" {
        return Ok(text.to_owned());
    }
    let rule = format!(
        "must be an audience of tokens for STS, such as {WEB_IDENTITY_AUDIENCE}; that of EKS Pod Identity \
         has its own source"
    );
    Err(Problem::with_value("--web-identity-audience", rule, text))
}

fn session_name(text: &str) -> Result<SessionName, Problem> {
    const SETTING: &str = "--session-name";
    match (text, text.strip_prefix("fixed:")) {
        ("pod", _) => Ok(SessionName::Pod),
        ("service-account", _) => Ok(SessionName::ServiceAccount),
        (_, Some(name)) if is_session_name(name) => Ok(SessionName::Fixed(name.to_owned())),
        (_, Some(_)) => {
            let rule = "must be fixed:NAME with a NAME of 2 to 64 letters, digits and _+=,.@-";
            Err(Problem::with_value(SETTING, rule, text))
        }
        (_, None) => Err(Problem::with_value(SETTING, "must be pod, service-account or fixed:NAME", text)),
    }
}

fn is_session_name(name: &str) -> bool {
    let may_be_in_it = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
    SESSION_NAME_LENGTH.contains(&name.len()) && name.bytes().all(may_be_in_it)
}

#[cfg(test)]
mod tests {
    use super::{SessionName, WebIdentity, read, session_name};
    use crate::cli::ServerArgs;
    use crate::config::problem::Problems;
    use crate::config::{Environment, TokenVerification, VerificationMode};

    fn verified_by(mode: VerificationMode, keys: usize) -> TokenVerification {
        let file = || crate::config::KeyLocation::File("/keys".into());
        TokenVerification {
            mode,
            issuers: Vec::new(),
            api_server: None,
            keys: std::iter::repeat_with(file).take(keys).collect(),
        }
    }

    /// With keys, and no API server.
    fn reads(flags: &[&str], variables: &[(&str, &str)]) -> Result<Option<WebIdentity>, Vec<String>> {
        let verification = verified_by(VerificationMode::Auto, 1);
        reads_verified(flags, variables, &verification)
    }

    fn reads_verified(
        flags: &[&str],
        variables: &[(&str, &str)],
        verification: &TokenVerification,
    ) -> Result<Option<WebIdentity>, Vec<String>> {
        let (args, environment) = (ServerArgs::of(flags), Environment::of(variables));
        let mut problems = Problems::default();
        let read = read(&args, &environment, Some(verification), None, &mut problems);
        problems.finish(read).map_err(|error| error.problems().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_cluster_gives_no_roles_unless_a_source_of_them_is_named() {
        assert_eq!(reads(&[], &[]), Ok(None));
        let map = reads(&["--role-map=/map"], &[]).unwrap().unwrap();
        assert_eq!(map.audiences, ["sts.amazonaws.com"]);
        assert_eq!((map.session_name, map.reads_annotations), (SessionName::Pod, false));
        assert!(reads(&["--service-account-roles"], &[]).unwrap().unwrap().reads_annotations);
        assert!(reads(&["--role-limits=/limits"], &[]).unwrap_err().concat().contains("no roles to limit"));
    }

    #[test]
    fn an_empty_path_takes_no_limits_away() {
        for roles in [&["--role-map=/map"][..], &[]] {
            let flags: Vec<_> = roles.iter().copied().chain(["--role-limits="]).collect();
            let problems = reads(&flags, &[]).unwrap_err().concat();
            assert!(problems.starts_with("--role-limits: must name a file"), "{problems}");
        }
        assert_eq!(reads(&["--role-map="], &[]), Ok(None), "fewer roles, not more");
    }

    #[test]
    fn nobody_gets_a_role_by_what_a_token_only_claims() {
        for verification in [verified_by(VerificationMode::Off, 1), verified_by(VerificationMode::Auto, 0)] {
            let problems = reads_verified(&["--role-map=/map"], &[], &verification).unwrap_err().concat();
            assert!(problems.starts_with("--role-map: needs keys that verify tokens"), "{problems}");
        }
    }

    #[test]
    fn a_session_name_that_sts_does_not_take_stops_the_start() {
        for (text, expected) in [
            ("pod", Some(SessionName::Pod)),
            ("service-account", Some(SessionName::ServiceAccount)),
            ("fixed:kafka-client@prod", Some(SessionName::Fixed("kafka-client@prod".to_owned()))),
            ("fixed:x", None),
            ("fixed:", None),
            ("fixed:a b", None),
            ("fixed:team/kafka", None),
            ("fixed", None),
            ("", None),
        ] {
            assert_eq!(session_name(text).ok(), expected, "{text}");
        }
        assert!(session_name(&format!("fixed:{}", "n".repeat(64))).is_ok());
        assert!(session_name(&format!("fixed:{}", "n".repeat(65))).is_err());
    }

    #[test]
    fn sts_has_an_endpoint_of_its_own_and_shares_the_general_one() {
        let endpoint = |flags: &[&str], variables: &[(&str, &str)]| {
            let flags: Vec<_> = flags.iter().copied().chain(["--role-map=/map"]).collect();
            reads(&flags, variables).map(|read| read.unwrap().sts.endpoint)
        };
        let both = [("AWS_ENDPOINT_URL_STS", "https://two"), ("AWS_ENDPOINT_URL", "https://three")];
        assert_eq!(endpoint(&["--sts-endpoint=https://one"], &both).unwrap().unwrap(), "https://one");
        assert_eq!(endpoint(&[], &both).unwrap().unwrap(), "https://two");
        assert_eq!(endpoint(&[], &both[1..]).unwrap().unwrap(), "https://three");
        assert_eq!(endpoint(&["--endpoint=https://eks-auth"], &[]).unwrap(), None);
        let http = endpoint(&["--sts-endpoint=http://sts.example"], &[]).unwrap_err().concat();
        assert!(http.contains("must be https"), "{http}");
    }

    #[test]
    fn fips_and_dual_stack_are_of_the_regional_endpoint_and_stop_nobody_who_does_not_ask_sts() {
        let (dual, fips) = (("AWS_USE_DUALSTACK_ENDPOINT", "true"), ("AWS_USE_FIPS_ENDPOINT", "true"));
        let sts = |flags: &[&str], variables: &[(&str, &str)]| {
            reads(flags, variables).map(|read| read.map(|read| read.sts))
        };
        let (map, endpoint) = ("--role-map=/map", "--sts-endpoint=https://vpce.example");
        assert!(sts(&[map], &[dual]).unwrap().unwrap().use_dual_stack);
        assert!(!sts(&[map, endpoint], &[dual]).unwrap().unwrap().use_dual_stack);
        assert!(sts(&[map], &[fips]).is_ok());
        let both = sts(&[map, endpoint], &[fips]).unwrap_err().concat();
        assert!(both.starts_with("--sts-endpoint: must not be combined with"), "{both}");
        assert_eq!(sts(&[], &[("AWS_USE_DUALSTACK_ENDPOINT", "1")]), Ok(None));
        assert_eq!(sts(&["--sts-endpoint=http://sts.example"], &[]), Ok(None));
    }

    #[test]
    fn the_audience_of_pod_identity_is_none_of_sts() {
        let named =
            |audience: &str| reads(&["--role-map=/map", &format!("--web-identity-audience={audience}")], &[]);
        assert_eq!(named("https://mine.example").unwrap().unwrap().audiences, ["https://mine.example"]);
        for audience in ["", "a b", "pods.eks.amazonaws.com"] {
            assert!(named(audience).is_err(), "{audience}");
        }
    }
}
