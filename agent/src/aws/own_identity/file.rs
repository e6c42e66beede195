//! A shared credentials file that another program rewrites (hybrid nodes, `--rotate-credentials`).
//!
//! Owns: what is read from the file, and that it is complete. Must not know: who writes it. If the writer
//! does not replace the file by renaming, the file contains half a secret for a moment: it parses and signs,
//! and AWS rejects it. So a change is read only once the file is the same at two checks in a row.

#[cfg(any(test, fuzzing))]
pub(crate) mod properties;

use std::path::PathBuf;
use std::sync::Arc;

use aws_config::profile;
use aws_credential_types::Credentials;
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_types::os_shim_internal::{Env, Fs};

use crate::aws::own_identity::candidates::Reading;
use crate::aws::own_identity::load_error::{LoadError, OddLine, Unfit};
use crate::config::ProfileFile;
use crate::secret::Secret;
use crate::watched_file::{ReadError, WatchedFile};

/// The longest file that is read: hundreds of profiles.
const MAX_BYTES: usize = 256 * 1024;

/// UTF-8's, and UTF-16's in both orders: editors on Windows write them.
const BYTE_ORDER_MARKS: [&[u8]; 3] = [b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"];

/// Ways to credentials that a profile may name and the agent does not go: each is a call to another service,
/// or a program that the image does not contain.
const OTHER_WAYS: [&str; 6] = [
    "credential_process",
    "sso_session",
    "sso_start_url",
    "role_arn",
    "web_identity_token_file",
    "credential_source",
];

/// A watched credentials file.
#[derive(Debug)]
pub struct CredentialsFile {
    file: WatchedFile,
    kind: ProfileFile,
    profile: String,
    /// What was said last of a file that is used anyway.
    told: Option<OddLine>,
}

impl CredentialsFile {
    /// A file that has not been read yet.
    pub fn new(path: PathBuf, kind: ProfileFile, profile: String) -> Self {
        Self { file: WatchedFile::new(path, MAX_BYTES).once_settled(), kind, profile, told: None }
    }

    /// What admins know it by.
    pub(super) fn name(&self) -> Arc<str> {
        format!("profile {} of {}", self.profile, self.file.path().display()).into()
    }

    /// Reads the file if there is reason to. `None`: no new content.
    ///
    /// # Errors
    /// [`LoadError`], when it cannot be read or is incomplete; the next check tries again.
    pub(super) async fn load(&mut self, reading: Reading) -> Result<Option<Credentials>, LoadError> {
        match reading {
            Reading::Changes => {}
            Reading::Anew => self.file.read_again(),
            Reading::AtOnce => self.file.forget(),
        }
        let changed = match self.file.read_if_changed().await {
            Ok(Some(changed)) => changed,
            Ok(None) => return Ok(None),
            Err(ReadError::Io(error)) => return Err(self.unreadable(error)),
            Err(ReadError::TooLong) => return Err(self.unfit(Unfit::TooLong(MAX_BYTES))),
        };
        let text = text_of(changed.content).map_err(|fault| self.unfit(fault))?;
        let odd_line = odd_line(text.reveal());
        let credentials = self.parse(text.reveal(), odd_line).await?;
        self.file.accept(changed.stamp);
        self.tell(odd_line);
        Ok(Some(credentials))
    }

    /// The SDK leaves out what it cannot read, which may be the session token. Told once, as the file may be
    /// read every second.
    fn tell(&mut self, odd_line: Option<OddLine>) {
        if odd_line != self.told
            && let Some(line) = odd_line
        {
            let path = self.file.path().display();
            tracing::warn!(%path, "a part of the credentials file is not used: {line}");
        }
        self.told = odd_line;
    }

    async fn parse(&self, text: &str, odd_line: Option<OddLine>) -> Result<Credentials, LoadError> {
        let kind = match self.kind {
            ProfileFile::Credentials => EnvConfigFileKind::Credentials,
            ProfileFile::Config => EnvConfigFileKind::Config,
        };
        let files = EnvConfigFiles::builder().with_contents(kind, text).build();
        let profiles = profile::load(
            &Fs::from_slice(&[]),
            &Env::from_slice(&[]),
            &files,
            Some(self.profile.clone().into()),
        )
        .await
        .map_err(|_| self.incomplete(odd_line))?;
        let value = |name| profiles.get(name).map(str::trim).filter(|value| !value.is_empty());
        let Some(key) = value("aws_access_key_id") else {
            let other = OTHER_WAYS.into_iter().find(|name| value(name).is_some());
            return Err(other.map_or_else(|| self.incomplete(odd_line), |setting| self.other_way(setting)));
        };
        let secret = value("aws_secret_access_key").ok_or_else(|| self.incomplete(odd_line))?;
        let token = value("aws_session_token").map(str::to_owned);
        // The SDK takes an indented line for the rest of the value above it; nothing can be signed with that.
        if ![Some(key), Some(secret), token.as_deref()].into_iter().flatten().all(is_word) {
            return Err(self.incomplete(odd_line));
        }
        Ok(Credentials::new(key, secret, token, None, "credentials file"))
    }

    fn unreadable(&self, source: std::io::Error) -> LoadError {
        LoadError::FileUnreadable { path: self.file.path().display().to_string(), source }
    }

    fn unfit(&self, fault: Unfit) -> LoadError {
        LoadError::FileUnfit { path: self.file.path().display().to_string(), fault }
    }

    fn other_way(&self, setting: &'static str) -> LoadError {
        LoadError::OtherWay {
            path: self.file.path().display().to_string(),
            profile: self.profile.clone(),
            setting,
        }
    }

    fn incomplete(&self, odd_line: Option<OddLine>) -> LoadError {
        LoadError::FileIncomplete {
            path: self.file.path().display().to_string(),
            profile: self.profile.clone(),
            odd_line,
        }
    }
}

/// Whether it may be a key or a token: all of them are printable ASCII.
fn is_word(value: &str) -> bool {
    value.bytes().all(|byte| byte.is_ascii_graphic())
}

fn text_of(content: Vec<u8>) -> Result<Secret, Unfit> {
    if BYTE_ORDER_MARKS.iter().any(|mark| content.starts_with(mark)) {
        return Err(Unfit::ByteOrderMark);
    }
    if content.contains(&0) {
        return Err(Unfit::Nul);
    }
    // The error of the conversion contains the secret bytes, so it is not kept as a source.
    String::from_utf8(content).map(Secret::new).map_err(|_| Unfit::NotText)
}

/// The first line that the SDK's parser would leave out or refuse. It says so by quoting the line, which may
/// be a secret, so its words are not logged.
fn odd_line(text: &str) -> Option<OddLine> {
    text.lines().position(|line| !is_line(line.trim())).map(|index| OddLine(index + 1))
}

/// Whether this is a line of a credentials file. Names are letters, digits, `_`, `-` and `.`: the parser
/// takes more, and so half a token for a name.
fn is_line(line: &str) -> bool {
    if line.is_empty() || line.starts_with(['#', ';']) {
        return true;
    }
    if let Some(section) = line.strip_prefix('[') {
        let Some((names, rest)) = section.split_once(']') else { return false };
        let is_name = |c: char| c.is_ascii_alphanumeric() || "_-/.%@:+\"'".contains(c);
        let is_section = (1..=2).contains(&names.split_whitespace().count())
            && names.split_whitespace().all(|name| name.chars().all(is_name));
        let rest = rest.trim_start();
        return is_section && (rest.is_empty() || rest.starts_with(['#', ';']));
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    line.split_once('=').is_some_and(|(name, _)| {
        let name = name.trim_end();
        !name.is_empty() && name.chars().all(is_name)
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{CredentialsFile, LoadError, MAX_BYTES, OddLine, ProfileFile, Reading, Unfit, odd_line};
    use crate::telemetry::logging::tests::Logged;

    const WHOLE: &str =
        "[default]\naws_access_key_id = AKIAONE\naws_secret_access_key = one\naws_session_token = t1\n";
    const NEWER: &str = "[default]\naws_access_key_id = AKIATWO\naws_secret_access_key = two-is-longer\n";

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("pod-identity-agent-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        path
    }

    async fn key_of(file: &mut CredentialsFile) -> Option<String> {
        file.load(Reading::Changes).await.unwrap().map(|credentials| credentials.access_key_id().to_owned())
    }

    #[tokio::test]
    async fn a_file_is_read_at_once_and_again_when_a_change_has_settled() {
        let path = scratch("settles");
        let mut file = CredentialsFile::new(path.clone(), ProfileFile::Credentials, "default".to_owned());
        assert!(matches!(file.load(Reading::Changes).await, Err(LoadError::FileUnreadable { .. })));
        std::fs::write(&path, WHOLE).unwrap();
        assert_eq!(key_of(&mut file).await.as_deref(), Some("AKIAONE"));
        assert_eq!(key_of(&mut file).await, None, "nothing new");
        std::fs::write(&path, NEWER).unwrap();
        assert_eq!(key_of(&mut file).await, None, "changed, but it may still be written to");
        assert_eq!(key_of(&mut file).await.as_deref(), Some("AKIATWO"));
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn half_a_secret_is_never_used() {
        let path = scratch("half");
        std::fs::write(&path, WHOLE).unwrap();
        let mut file = CredentialsFile::new(path.clone(), ProfileFile::Credentials, "default".to_owned());
        assert!(file.load(Reading::Changes).await.unwrap().is_some());
        std::fs::write(&path, "[default]\naws_access_key_id = AKIATWO\naws_secret_access_key = tw").unwrap();
        assert_eq!(key_of(&mut file).await, None, "half written at this check");
        std::fs::write(&path, NEWER).unwrap();
        assert_eq!(key_of(&mut file).await, None, "changed since the last check");
        let whole = file.load(Reading::Changes).await.unwrap().unwrap();
        assert_eq!(whole.secret_access_key(), "two-is-longer");
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn a_file_without_the_profile_is_incomplete() {
        let path = scratch("profile");
        std::fs::write(&path, WHOLE).unwrap();
        let mut file = CredentialsFile::new(path.clone(), ProfileFile::Credentials, "hybrid".to_owned());
        let error = file.load(Reading::Changes).await.unwrap_err();
        assert!(error.to_string().contains("profile hybrid"), "{error}");
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_file_as_a_whole_is_told() {
        let path = scratch("unfit");
        let mut long = WHOLE.as_bytes().to_vec();
        long.resize(MAX_BYTES + 1, b'#');
        let cases = [
            (long, Unfit::TooLong(MAX_BYTES)),
            ([b"\xef\xbb\xbf", WHOLE.as_bytes()].concat(), Unfit::ByteOrderMark),
            (b"\xff\xfe[\0d\0".to_vec(), Unfit::ByteOrderMark),
            ([WHOLE.as_bytes(), b"\0\0"].concat(), Unfit::Nul),
            ([WHOLE.as_bytes(), b"\xff"].concat(), Unfit::NotText),
        ];
        for (content, expected) in cases {
            std::fs::write(&path, content).unwrap();
            let mut file = CredentialsFile::new(path.clone(), ProfileFile::Credentials, "default".to_owned());
            let error = file.load(Reading::Changes).await.unwrap_err();
            assert!(
                matches!(error, LoadError::FileUnfit { fault, .. } if fault == expected),
                "{expected:?}: {error}"
            );
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn lines_that_are_not_of_a_credentials_file_are_found() {
        let good =
            "# c\n; c\n\n[default] # c\naws_access_key_id = A\n[profile \"a.b\"]\ns3 =\n  max = 1\r\nx=\n";
        assert_eq!(odd_line(good), None);
        for odd in [
            r#"{"AccessKeyId":"A","Token":"t=="}"#,
            "aws_session_token: t==",
            "aws_session_token:t==",
            "aws_session_token t",
            "  IQoJb3JpZ2luX2VjE/abc+d==",
            "= t",
            "[default",
            "[secret= x]",
            "[default] aws_access_key_id = A",
            "[a b c]",
            "export AWS_SECRET_ACCESS_KEY=s",
        ] {
            assert_eq!(odd_line(&format!("{WHOLE}{odd}\n[x]\n")), Some(OddLine(5)), "{odd}");
        }
    }

    #[tokio::test]
    async fn an_odd_line_is_told_by_its_number_once_for_each_change() {
        let told = |line| format!("a part of the credentials file is not used: {}", OddLine(line));
        let logged = Logged::from_now_on();
        let path = scratch("odd");
        std::fs::write(&path, format!("{WHOLE}aws_session_token: planted==\n")).unwrap();
        let mut file = CredentialsFile::new(path.clone(), ProfileFile::Credentials, "default".to_owned());
        for _ in 0..3 {
            assert!(file.load(Reading::AtOnce).await.unwrap().is_some());
        }
        assert_eq!(logged.lines_of(&told(5)), 1);
        std::fs::write(&path, "[default]\n{\"SecretAccessKey\":\"planted==\"}\n").unwrap();
        let error = file.load(Reading::AtOnce).await.unwrap_err().to_string();
        assert!(error.ends_with(&OddLine(2).to_string()) && !error.contains("planted"), "{error}");
        assert!(!logged.text().contains("planted"), "{}", logged.text());
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn a_value_that_goes_on_over_lines_is_none() {
        let path = scratch("lines");
        std::fs::write(&path, format!("{WHOLE}  planted\n")).unwrap();
        let mut file = CredentialsFile::new(path.clone(), ProfileFile::Credentials, "default".to_owned());
        let error = file.load(Reading::AtOnce).await.unwrap_err().to_string();
        assert!(error.ends_with(&OddLine(5).to_string()) && !error.contains("planted"), "{error}");
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn static_keys_of_a_config_file_are_used_and_other_ways_are_named() {
        let path = scratch("config");
        let text =
            format!("{WHOLE}[profile hybrid]\naws_access_key_id = AKIATWO\naws_secret_access_key = two\n");
        let ways = "[profile sso]\nsso_session = s\n[profile process]\ncredential_process = /bin/true\n";
        std::fs::write(&path, format!("{text}{ways}")).unwrap();
        let file =
            |profile: &str| CredentialsFile::new(path.clone(), ProfileFile::Config, profile.to_owned());
        assert_eq!(key_of(&mut file("hybrid")).await.as_deref(), Some("AKIATWO"));
        assert_eq!(key_of(&mut file("default")).await.as_deref(), Some("AKIAONE"));
        for (profile, setting) in [("sso", "sso_session"), ("process", "credential_process")] {
            let error = file(profile).load(Reading::Changes).await.unwrap_err();
            assert!(error.to_string().contains(setting), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
    }
}
