//! How tokens are verified: mode, issuers, locations of the keys.
//!
//! Owns: the rules for these settings. Must not know: what a key document looks like, or how one is fetched.

use std::path::PathBuf;

use super::ApiServer;
use super::problem::{Problem, Problems};
use super::url::Url;
use crate::cli::ServerArgs;

/// More than any cluster needs: one of the API server, one of the issuer, and those of a migration between
/// two issuers.
const MAX_SOURCES: usize = 8;

/// The value of `--jwks` that stands for the API server, which is asked wherever there is one.
const AUTO: &str = "auto";

/// How tokens are verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenVerification {
    /// What to do with tokens that no configured key can verify.
    pub mode: VerificationMode,
    /// The accepted issuers, beside those that sources name themselves.
    pub issuers: Vec<String>,
    /// The API server, which has keys and names their issuer.
    pub api_server: Option<ApiServer>,
    /// Where else the cluster's keys are. There is some source if `mode` is `Required`.
    pub keys: Vec<KeyLocation>,
}

/// What to do with tokens that no configured key can verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerificationMode {
    /// EKS Auth verifies them.
    Auto,
    /// They are not served.
    Required,
    /// No token is verified locally; EKS Auth verifies all.
    Off,
}

/// Where a document with token keys is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyLocation {
    /// An https URL, or an http one that stays on this node.
    Url(String),
    /// A file, read again whenever it changes. It may be created later.
    File(PathBuf),
}

impl TokenVerification {
    /// Of each source of keys, the API server first, the one issuer that its keys verify. `None`: those of
    /// every issuer.
    pub fn issuers_of_keys(&self) -> impl Iterator<Item = Option<&str>> {
        let of_api_server = self.api_server.iter().map(|_| None);
        of_api_server.chain(self.keys.iter().map(|location| location.issuer_among(&self.issuers)))
    }

    /// The number of sources.
    pub fn sources(&self) -> usize {
        self.keys.len() + usize::from(self.api_server.is_some())
    }

    /// Sources of keys that verify tokens of several issuers, because nothing says which of them they are of.
    pub(super) fn shared_keys(&self) -> impl Iterator<Item = String> {
        let unbound = self.keys.iter().filter(|location| location.issuer_among(&self.issuers).is_none());
        unbound.filter(|_| self.issuers.len() > 1).map(|location| match location {
            KeyLocation::Url(url) => url.clone(),
            KeyLocation::File(path) => path.display().to_string(),
        })
    }
}

impl KeyLocation {
    /// The issuer that these keys are of: the one that the URL is below, as in EKS
    /// (docs/design/facts.md#issuer-and-keys). A file, or a URL elsewhere, may be of any.
    fn issuer_among<'a>(&self, issuers: &'a [String]) -> Option<&'a str> {
        let Self::Url(url) = self else { return None };
        let is_below = |issuer: &&String| {
            url.strip_prefix(issuer.trim_end_matches('/')).is_some_and(|rest| rest.starts_with('/'))
        };
        issuers.iter().filter(is_below).max_by_key(|issuer| issuer.len()).map(String::as_str)
    }
}

/// Reads all three settings and notes every problem.
pub(super) fn read(
    args: &ServerArgs,
    api_server: Option<&ApiServer>,
    problems: &mut Problems,
) -> Option<TokenVerification> {
    let mode = problems.take(mode(&args.token_verification));
    let explicit = args.jwks.iter().filter(|text| *text != AUTO);
    let keys: Vec<_> = explicit.map(|text| problems.take(location(text))).collect();
    let issuers: Vec<_> = args.issuer.iter().map(|text| problems.take(issuer(text))).collect();
    if keys.len() > MAX_SOURCES {
        let rule = format!("must not be given more than {MAX_SOURCES} times");
        problems.note(Problem::without_value("--jwks", rule));
    }
    if !keys.is_empty() && issuers.is_empty() {
        let rule = "is required with a URL or file of --jwks: the issuer of the tokens that the keys verify";
        problems.note(Problem::without_value("--issuer", rule));
    }
    if mode == Some(VerificationMode::Required) && keys.is_empty() && api_server.is_none() {
        let rule = "is required with --token-verification=required where no API server is asked (no token of \
                    the agent's own is mounted, or --kubernetes=off): without keys no pod would be served";
        problems.note(Problem::without_value("--jwks", rule));
    }
    let keys = keys.into_iter().collect::<Option<_>>();
    let issuers = issuers.into_iter().collect::<Option<_>>();
    Some(TokenVerification { mode: mode?, issuers: issuers?, api_server: api_server.cloned(), keys: keys? })
}

fn mode(text: &str) -> Result<VerificationMode, Problem> {
    match text {
        "auto" => Ok(VerificationMode::Auto),
        "required" => Ok(VerificationMode::Required),
        "off" => Ok(VerificationMode::Off),
        _ => Err(Problem::with_value("--token-verification", "must be auto, required or off", text)),
    }
}

fn location(text: &str) -> Result<KeyLocation, Problem> {
    const SETTING: &str = "--jwks";
    if !text.contains("://") {
        return if text.is_empty() {
            Err(Problem::with_value(SETTING, "must be a URL or a file path", text))
        } else {
            Ok(KeyLocation::File(PathBuf::from(text)))
        };
    }
    let url = Url::read(SETTING, text)?;
    if url.scheme() == "http" && !url.is_local() {
        // An attacker who can change the document in transit could impersonate any pod.
        let rule = "must be https unless the host is loopback or link-local";
        return Err(Problem::with_value(SETTING, rule, text));
    }
    Ok(KeyLocation::Url(text.to_owned()))
}

/// An issuer is compared character by character (OpenID Connect Core 3.1.3.7), so only values that no issuer
/// can have are refused here.
fn issuer(text: &str) -> Result<String, Problem> {
    let is_good = !text.is_empty() && !text.contains(|letter: char| letter.is_whitespace());
    let rule =
        "must be the cluster's issuer, without spaces, such as https://oidc.eks.us-west-2.amazonaws.com/id/…";
    is_good.then(|| text.to_owned()).ok_or_else(|| Problem::with_value("--issuer", rule, text))
}

#[cfg(test)]
mod tests {
    use super::{KeyLocation, TokenVerification, VerificationMode, read};
    use crate::cli::ServerArgs;
    use crate::config::ApiServer;
    use crate::config::problem::Problems;

    fn reads(arguments: &[&str]) -> Result<TokenVerification, String> {
        let mut problems = Problems::default();
        let read = read(&ServerArgs::of(arguments), None, &mut problems);
        problems.finish(read).map_err(|error| {
            error.problems().iter().map(|problem| problem.setting().to_owned()).collect::<Vec<_>>().join(" ")
        })
    }

    #[test]
    fn without_flags_there_are_no_keys_and_eks_auth_verifies() {
        let read = reads(&[]).unwrap();
        let (issuers, api_server, keys) = (vec![], None, vec![]);
        assert_eq!(read, TokenVerification { mode: VerificationMode::Auto, issuers, api_server, keys });
    }

    #[test]
    fn the_api_server_is_one_more_source_and_enough_where_verification_is_required() {
        let api_server = ApiServer {
            url: "https://10.0.0.1:443".to_owned(),
            token_file: "/token".into(),
            ca_file: "/ca.crt".into(),
        };
        let reads = |arguments: &[&str]| {
            let mut problems = Problems::default();
            let read = read(&ServerArgs::of(arguments), Some(&api_server), &mut problems);
            problems.finish(read).unwrap()
        };
        assert_eq!(reads(&["--token-verification=required"]).api_server, Some(api_server.clone()));
        assert_eq!(reads(&["--jwks=auto"]).sources(), 1);
        let both = reads(&["--jwks=auto", "--jwks=/k", "--issuer=x", "--issuer=y"]);
        assert_eq!((both.sources(), &both.keys[..]), (2, &[KeyLocation::File("/k".into())][..]));
        assert_eq!(both.shared_keys().collect::<Vec<_>>(), ["/k"]);
        assert_eq!(reads(&["--issuer=x"]).issuers, ["x"], "another issuer of the same keys");
    }

    #[test]
    fn keys_come_from_urls_and_files_together_with_their_issuer() {
        let read =
            reads(&["--jwks", "https://a/keys", "--jwks=/etc/keys.json", "--issuer", "https://a"]).unwrap();
        let keys =
            [KeyLocation::Url("https://a/keys".to_owned()), KeyLocation::File("/etc/keys.json".into())];
        assert_eq!(read.keys, keys);
        assert_eq!(read.issuers, ["https://a"]);
        assert!(reads(&["--jwks", "http://127.0.0.1:1/k", "--issuer", "x"]).is_ok());
    }

    #[test]
    fn keys_are_of_the_issuer_that_their_url_is_below() {
        let arguments = [
            ["--jwks", "https://oidc.example/id/A/keys"],
            ["--jwks", "https://oidc.example/id/AB/keys"],
            ["--jwks", "https://oidc.example/id/A/deep/keys"],
            ["--jwks", "https://elsewhere.example/keys"],
            ["--jwks", "/id/A/keys"],
            ["--issuer", "https://oidc.example/id/A"],
            ["--issuer", "https://oidc.example/id/A/deep/"],
        ];
        let read = reads(arguments.as_flattened()).unwrap();
        let found: Vec<_> = read.issuers_of_keys().map(Option::unwrap_or_default).collect();
        assert_eq!(found, [&read.issuers[0][..], "", &read.issuers[1], "", ""]);
        assert_eq!(read.shared_keys().count(), 3);
        let one = reads(&["--jwks", "/keys", "--issuer", "https://a"]).unwrap();
        assert_eq!(one.shared_keys().count(), 0, "there is only one that they can be of");
    }

    #[test]
    fn settings_that_verify_nothing_or_trust_the_network_are_refused() {
        assert_eq!(reads(&["--jwks", "/k"]).unwrap_err(), "--issuer");
        assert_eq!(reads(&["--token-verification", "required"]).unwrap_err(), "--jwks");
        assert_eq!(reads(&["--token-verification", "on"]).unwrap_err(), "--token-verification");
        for bad in ["http://keys.example/k", "ftp://127.0.0.1/k", "https://user:planted@host/k", ""] {
            assert_eq!(reads(&["--jwks", bad, "--issuer", "x"]).unwrap_err(), "--jwks", "{bad}");
        }
        assert_eq!(reads(&["--jwks", "/k", "--issuer", ""]).unwrap_err(), "--issuer");
        let many = ["--jwks=/k"; 9].into_iter().chain(["--issuer=x"]).collect::<Vec<_>>();
        assert_eq!(reads(&many).unwrap_err(), "--jwks");
    }
}
