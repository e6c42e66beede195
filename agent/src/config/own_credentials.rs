//! The agent's own AWS credentials: which source, and the settings it needs.
//!
//! Owns: the choice of one source. Must not know: how credentials are loaded. The choice is made once, in the
//! order of the AWS SDKs, and nothing falls back to another source later. The container provider is never
//! used: an agent that asks itself, or takes a role meant for pods, signs with the wrong identity.

use std::path::PathBuf;

use super::environment::Environment;
use super::problem::{Problem, Problems};
use super::{MetadataService, OwnCredentials, ProfileFile, metadata_service};

const SETTING: &str = "--own-credentials";
/// The profile that all AWS tools use when none is set.
const DEFAULT_PROFILE: &str = "default";

/// The flags that choose the source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flags<'a> {
    /// `auto`, `imds`, `file` or `environment`.
    pub(super) source: &'a str,
    /// The path of the file, if the flag is set.
    pub(super) file: Option<&'a str>,
    /// The flag of Amazon's agent for hybrid nodes: the credentials file changes and is read again.
    pub(super) rotate: bool,
}

impl Flags<'_> {
    /// Whether the path is that of the flag; an empty one is not set.
    pub(super) fn names_a_file(&self) -> bool {
        self.file.is_some_and(|path| !path.is_empty())
    }
}

/// The same where something is signed. Where nothing is, nothing that is wrong with them matters.
pub(super) fn read_if(
    are_needed: bool,
    flags: Flags<'_>,
    environment: &Environment,
    problems: &mut Problems,
) -> Option<OwnCredentials> {
    match are_needed {
        true => read(flags, environment, problems),
        false => Some(OwnCredentials::Imds(MetadataService::default())),
    }
}

/// Chooses the source, reads its settings and notes every problem.
fn read(flags: Flags<'_>, environment: &Environment, problems: &mut Problems) -> Option<OwnCredentials> {
    match flags.source {
        "file" => problems.take(file(flags.file, environment)),
        "environment" => from_environment(environment, problems),
        "imds" => imds(environment, problems),
        "auto" if flags.rotate || flags.file.is_some() => problems.take(file(flags.file, environment)),
        "auto" if environment.access_key_id.is_some() => from_environment(environment, problems),
        "auto" if names_a_file(environment) => problems.take(file(flags.file, environment)),
        "auto" => imds(environment, problems),
        other => {
            problems.note(Problem::with_value(SETTING, "must be auto, imds, file or environment", other));
            None
        }
    }
}

/// Whether a variable names a file or a profile. The AWS SDKs, and so Amazon's agent, look there before they
/// ask IMDS. A file that no variable names is not looked for.
const fn names_a_file(environment: &Environment) -> bool {
    environment.credentials_file.is_some()
        || environment.config_file.is_some()
        || environment.profile.is_some()
}

/// The file need not exist yet: a hybrid node gets it when it is registered, and readiness waits for it. One
/// file is read: the credentials file, or the config file if a variable names that one alone.
fn file(flag: Option<&str>, environment: &Environment) -> Result<OwnCredentials, Problem> {
    let in_home = || environment.home.as_ref().map(|home| PathBuf::from(home).join(".aws/credentials"));
    let credentials = flag
        .filter(|path| !path.is_empty())
        .or(environment.credentials_file.as_deref())
        .map(|path| (PathBuf::from(path), ProfileFile::Credentials));
    let config = || environment.config_file.as_ref().map(|path| (PathBuf::from(path), ProfileFile::Config));
    let (path, kind) = credentials
        .or_else(config)
        .or_else(|| in_home().map(|path| (path, ProfileFile::Credentials)))
        .ok_or_else(|| {
            let rule =
                "is required; set this flag, AWS_SHARED_CREDENTIALS_FILE, or HOME for $HOME/.aws/credentials";
            Problem::without_value("--own-credentials-file", rule)
        })?;
    let profile = environment.profile.clone().unwrap_or_else(|| DEFAULT_PROFILE.to_owned());
    Ok(OwnCredentials::File { path, kind, profile })
}

fn from_environment(environment: &Environment, problems: &mut Problems) -> Option<OwnCredentials> {
    let mut required = |name: &str| {
        problems.note(Problem::without_value(name, "is required with --own-credentials=environment"))
    };
    if environment.access_key_id.is_none() {
        required("AWS_ACCESS_KEY_ID");
    }
    if environment.secret_access_key.is_none() {
        required("AWS_SECRET_ACCESS_KEY");
    }
    Some(OwnCredentials::Environment {
        access_key_id: environment.access_key_id.clone()?,
        secret_access_key: environment.secret_access_key.clone()?,
        session_token: environment.session_token.clone(),
    })
}

fn imds(environment: &Environment, problems: &mut Problems) -> Option<OwnCredentials> {
    if metadata_service::is_disabled(environment, problems) == Some(true) {
        let rule = "must not be true while the agent's own credentials come from IMDS; see --own-credentials";
        problems.note(Problem::without_value("AWS_EC2_METADATA_DISABLED", rule));
    }
    metadata_service::read(environment, problems).map(OwnCredentials::Imds)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Environment, Flags, MetadataService, OwnCredentials, Problems, read};

    const AUTO: Flags<'static> = Flags { source: "auto", file: None, rotate: false };
    const ACCESS_KEY: (&str, &str) = ("AWS_ACCESS_KEY_ID", "AKIAPLANTED");
    const SECRET_KEY: (&str, &str) = ("AWS_SECRET_ACCESS_KEY", "planted");

    fn own(flags: Flags<'_>, variables: &[(&str, &str)]) -> Result<OwnCredentials, String> {
        let mut problems = Problems::default();
        let own = read(flags, &Environment::of(variables), &mut problems);
        problems
            .finish(own)
            .map_err(|error| error.problems().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn auto_prefers_rotation_then_the_environment_then_imds() {
        let home = ("HOME", "/home/agent");
        let all = [home, ACCESS_KEY, SECRET_KEY];
        assert!(matches!(own(Flags { rotate: true, ..AUTO }, &all), Ok(OwnCredentials::File { .. })));
        assert!(matches!(own(AUTO, &all), Ok(OwnCredentials::Environment { .. })));
        assert!(matches!(
            own(AUTO, &[home]),
            Ok(OwnCredentials::Imds(MetadataService { endpoint: None, ipv6: false }))
        ));
        assert!(matches!(own(Flags { source: "imds", ..AUTO }, &all), Ok(OwnCredentials::Imds(_))));
    }

    #[test]
    fn the_container_provider_is_never_a_source() {
        let variables = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1/credentials")];
        assert!(matches!(own(AUTO, &variables), Ok(OwnCredentials::Imds(_))));
        assert!(own(Flags { source: "container", ..AUTO }, &[]).unwrap_err().contains("must be auto"));
    }

    #[test]
    fn the_file_is_found_by_flag_variable_or_home() {
        let path = |flags, variables: &[(&str, &str)]| match own(flags, variables) {
            Ok(OwnCredentials::File { path, profile, .. }) => format!("{} {profile}", path.display()),
            other => format!("{other:?}"),
        };
        let flags = Flags { source: "file", ..AUTO };
        let variables = [("AWS_SHARED_CREDENTIALS_FILE", "/b"), ("HOME", "/c"), ("AWS_PROFILE", "hybrid")];
        assert_eq!(path(Flags { file: Some("/a"), ..flags }, &variables), "/a hybrid");
        assert_eq!(path(flags, &variables), "/b hybrid");
        assert_eq!(
            path(flags, &[("HOME", "/c")]),
            format!("{} default", Path::new("/c/.aws/credentials").display())
        );
        assert!(own(flags, &[]).unwrap_err().contains("--own-credentials-file: is required"));
    }

    #[test]
    fn auto_uses_a_file_that_a_variable_names_after_the_environment_and_before_imds() {
        let path = |variables: &[(&str, &str)]| match own(AUTO, variables) {
            Ok(OwnCredentials::File { path, kind, profile }) => {
                format!("{kind:?} {} {profile}", path.display())
            }
            other => format!("{other:?}"),
        };
        let home = ("HOME", "/c");
        let (credentials, config) = (("AWS_SHARED_CREDENTIALS_FILE", "/b"), ("AWS_CONFIG_FILE", "/d"));
        assert_eq!(path(&[home, credentials]), "Credentials /b default");
        assert_eq!(path(&[home, ("AWS_PROFILE", "hybrid")]), "Credentials /c/.aws/credentials hybrid");
        assert_eq!(path(&[home, config, ("AWS_PROFILE", "hybrid")]), "Config /d hybrid");
        assert_eq!(path(&[home, credentials, config]), "Credentials /b default");
        let keys = [credentials, ACCESS_KEY, SECRET_KEY];
        assert!(matches!(own(AUTO, &keys), Ok(OwnCredentials::Environment { .. })));
        assert!(matches!(own(Flags { source: "imds", ..AUTO }, &[credentials]), Ok(OwnCredentials::Imds(_))));
    }

    #[test]
    fn the_aliases_of_go_are_read_after_the_usual_names() {
        let (key, secret) = (("AWS_ACCESS_KEY", "AKIAALIAS"), ("AWS_SECRET_KEY", "alias"));
        let signs_with = |variables: &[(&str, &str)]| match own(AUTO, variables) {
            Ok(OwnCredentials::Environment { access_key_id, secret_access_key, .. }) => {
                format!("{access_key_id} {}", secret_access_key.reveal())
            }
            other => format!("{other:?}"),
        };
        assert_eq!(signs_with(&[key, secret]), "AKIAALIAS alias");
        assert_eq!(signs_with(&[key, secret, ACCESS_KEY, SECRET_KEY]), "AKIAPLANTED planted");
        // Each by itself, and an empty one is not set.
        assert_eq!(signs_with(&[ACCESS_KEY, secret]), "AKIAPLANTED alias");
        assert_eq!(signs_with(&[key, secret, ("AWS_ACCESS_KEY_ID", "")]), "AKIAALIAS alias");
        let profile_of = |variables: &[(&str, &str)]| match own(AUTO, variables) {
            Ok(OwnCredentials::File { path, profile, .. }) => format!("{} {profile}", path.display()),
            other => format!("{other:?}"),
        };
        let (home, default) = (("HOME", "/c"), ("AWS_DEFAULT_PROFILE", "hybrid"));
        assert_eq!(profile_of(&[home, default]), "/c/.aws/credentials hybrid");
        assert_eq!(profile_of(&[home, default, ("AWS_PROFILE", "first")]), "/c/.aws/credentials first");
    }

    #[test]
    fn half_a_key_is_a_problem_and_its_secret_is_not_shown() {
        let missing = own(Flags { source: "environment", ..AUTO }, &[]).unwrap_err();
        assert!(
            missing.contains("AWS_ACCESS_KEY_ID") && missing.contains("AWS_SECRET_ACCESS_KEY"),
            "{missing}"
        );
        assert!(own(AUTO, &[ACCESS_KEY]).unwrap_err().starts_with("AWS_SECRET_ACCESS_KEY"));
        let shown =
            format!("{:?}", own(AUTO, &[ACCESS_KEY, SECRET_KEY, ("AWS_SESSION_TOKEN", "planted")]).unwrap());
        assert!(!shown.contains("planted"), "{shown}");
    }

    #[test]
    fn imds_is_checked_only_when_it_is_used() {
        let bad = [
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "https://imds"),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "IPv5"),
        ];
        assert_eq!(own(AUTO, &bad).unwrap_err().lines().count(), 3);
        assert!(own(Flags { file: Some("/a"), ..AUTO }, &bad).is_ok());
        let good = [
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1"),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "ipv6"),
        ];
        assert!(matches!(
            own(AUTO, &good),
            Ok(OwnCredentials::Imds(MetadataService { endpoint: Some(_), ipv6: true }))
        ));
    }
}
