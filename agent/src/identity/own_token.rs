//! The agent's own token for EKS Auth, from the file that the kubelet rotates.
//!
//! Owns: reading it, and whether it can be used. Must not know: what it is used for.

use std::path::Path;

use zeroize::Zeroizing;

use super::claims::{UnreadableClaims, UnverifiedClaims};
use crate::watched_file::{ReadError, WatchedFile};
use crate::workload::{Audience, BearerToken, MalformedToken, PresentedToken};

/// More than the longest token, with a line's end.
const MAX_BYTES: usize = 20 * 1024;

/// Why there is no such token. Repeats nothing of the file.
#[derive(Debug, thiserror::Error)]
pub enum OwnTokenError {
    /// The file cannot be read.
    #[error("{0}")]
    Unread(#[from] ReadError),
    /// Its content is no token.
    #[error("it is no service account token")]
    Malformed(#[from] MalformedToken),
    /// Its content is no token of Kubernetes.
    #[error("{0}")]
    Claims(#[from] UnreadableClaims),
    /// The token is for somebody else: EKS Auth would refuse it, and that says nothing.
    #[error("its token is not for the audience {0}")]
    Audience(std::sync::Arc<str>),
}

/// Reads the token as it is now.
///
/// # Errors
/// [`OwnTokenError`], when the file has no token for EKS Auth.
pub async fn read(path: &Path) -> Result<PresentedToken, OwnTokenError> {
    let mut file = WatchedFile::new(path.to_owned(), MAX_BYTES);
    let changed = file.read_if_changed().await?;
    let content = Zeroizing::new(changed.map(|changed| changed.content).unwrap_or_default());
    let token = BearerToken::from_header(&content)?;
    let claims = UnverifiedClaims::of(&token)?;
    let wanted = Audience::PodIdentity.name();
    if !claims.audiences.iter().any(|audience| **audience == *wanted) {
        return Err(OwnTokenError::Audience(wanted));
    }
    let (expires, issued) = (claims.validity.expires, claims.validity.issued);
    Ok(PresentedToken { token, expires, issued })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::read;

    struct Written(PathBuf);

    impl Written {
        fn new(name: &str, text: &str) -> Self {
            let path = std::env::temp_dir().join(format!("own-token-{name}-{}", std::process::id()));
            std::fs::write(&path, text).unwrap();
            Self(path)
        }
    }

    impl Drop for Written {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn token_for(audience: &str) -> String {
        let claims = format!(r#"{{"iss":"i","sub":"s","aud":["{audience}"],"exp":2000,"iat":1000}}"#);
        format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode("{}"), URL_SAFE_NO_PAD.encode(claims))
    }

    #[tokio::test]
    async fn it_is_read_again_each_time_and_must_be_for_eks_auth() {
        let file = Written::new("good", &format!("{}\n", token_for("pods.eks.amazonaws.com")));
        let first = read(&file.0).await.unwrap();
        assert_eq!(first.life().unwrap().as_secs(), 1000);
        std::fs::write(&file.0, token_for("sts.amazonaws.com")).unwrap();
        let said = read(&file.0).await.unwrap_err().to_string();
        assert_eq!(said, "its token is not for the audience pods.eks.amazonaws.com");
    }

    #[tokio::test]
    async fn what_is_no_token_is_said_without_its_content() {
        for (name, text) in [("text", "planted"), ("parts", "planted.planted.planted"), ("empty", "")] {
            let file = Written::new(name, text);
            let said = read(&file.0).await.unwrap_err().to_string();
            assert!(!said.is_empty() && !said.contains("planted"), "{said}");
        }
        let said = read("/no/such/file".as_ref()).await.unwrap_err().to_string();
        assert!(said.contains("No such file"), "{said}");
    }
}
