//! One source of keys, kept up to date in the background.
//!
//! Owns: when a source is read: at start, at its interval, when a token has an unknown key id, and soon
//! after a failure. Must not know: tokens. A source that is unavailable changes nothing: its last good keys
//! stay.

use std::error::Error;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;

use super::document::{self, DocumentError, MAX_DOCUMENT_BYTES};
use super::fetch::{FetchError, KeyUrl};
use super::{Document, TokenKeys};
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::config::{KeyLocation, Upstream};
use crate::lifecycle::readiness::Condition;
use crate::rng::Rng;
use crate::telemetry::error_chain::ErrorChain;
use crate::watched_file::{ReadError, WatchedFile};

/// A URL is read again after this time unless told otherwise, plus or minus a tenth. An issuer publishes a
/// key an hour before it signs with it (docs/design/facts.md#issuer-and-keys), and a withdrawn key should not
/// be accepted for long.
const REFRESH: Duration = Duration::from_secs(5 * 60);
/// A file is checked this often; a check is one `open` and one `fstat`.
const FILE_POLL: Duration = Duration::from_secs(5);
/// The pauses after failures. They are never longer than the regular interval of the source.
const RETRY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));

/// Why a source cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The URL cannot be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The file cannot be read.
    #[error("the key file cannot be read")]
    File(#[source] std::io::Error),
    /// The content is not a valid key document.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// What reads this source has failed.
    #[error("the token keys cannot be read from {from}")]
    Elsewhere {
        /// The source.
        from: String,
        /// Why.
        #[source]
        error: ReadFailed,
    },
}

/// Why a source that is read elsewhere gives nothing.
pub type ReadFailed = Box<dyn Error + Send + Sync>;

/// What an issuer says of itself.
#[derive(Debug)]
pub struct IssuerDocuments {
    /// `iss` of its tokens, where it says so.
    pub issuer: Option<String>,
    /// Its keys, a JWKS document.
    pub keys: Bytes,
}

/// A source and its part of the keys.
pub struct KeySource {
    reader: Reader,
    /// The value of the flag, for the log. It contains no secret: `config` refuses passwords and queries.
    name: String,
    index: usize,
    keys: TokenKeys,
    refresh: Duration,
}

enum Reader {
    Url(Box<KeyUrl>),
    File(WatchedFile),
    Elsewhere(Box<dyn FnMut() -> Reading + Send>),
}

type Reading = Pin<Box<dyn Future<Output = Result<IssuerDocuments, ReadFailed>> + Send>>;

impl From<ReadError> for LoadError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io(error) => Self::File(error),
            ReadError::TooLong => Self::Document(DocumentError::TooLong),
        }
    }
}

impl KeySource {
    /// Source number `index` of these keys. By this clock certificates are judged.
    ///
    /// # Errors
    /// [`FetchError`], when URL, CA bundle or proxy cannot be used.
    pub fn new(
        location: &KeyLocation,
        index: usize,
        keys: TokenKeys,
        upstream: &Upstream,
        clock: &Clock,
    ) -> Result<Self, FetchError> {
        let (reader, name) = match location {
            KeyLocation::Url(url) => (Reader::Url(Box::new(KeyUrl::new(url, upstream, clock)?)), url.clone()),
            // No need to wait until it has settled: half a key document does not parse.
            KeyLocation::File(path) => {
                (Reader::File(WatchedFile::new(path.clone(), MAX_DOCUMENT_BYTES)), path.display().to_string())
            }
        };
        Ok(Self { reader, name, index, keys, refresh: REFRESH })
    }

    /// Source number `index` of these keys, which `read` reads as often as a URL is fetched, with a deadline
    /// of its own. It names its issuer if `names_issuer`: until it has, a token of an unknown issuer may be
    /// its.
    pub fn read_elsewhere<F>(
        name: String,
        index: usize,
        keys: TokenKeys,
        names_issuer: bool,
        mut read: impl FnMut() -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = Result<IssuerDocuments, ReadFailed>> + Send + 'static,
    {
        if names_issuer {
            keys.names_issuer(index);
        }
        let reader = Reader::Elsewhere(Box::new(move || Box::pin(read())));
        Self { reader, name, index, keys, refresh: REFRESH }
    }

    /// The same, read again after that time. A file is checked as often as ever.
    #[must_use]
    pub fn refreshed_every(self, refresh: Duration) -> Self {
        Self { refresh, ..self }
    }

    /// Keeps its keys up to date without end; cancel by dropping. `complete` is met once every source has
    /// provided a document with keys.
    pub async fn keep(mut self, clock: Clock, rng: Rng, complete: Condition) {
        let mut requests = self.keys.refetch_requests();
        let mut failures = 0_u32;
        loop {
            let requested = *requests.borrow_and_update();
            match self.load().await {
                Ok(document) => {
                    self.keys.confirm(self.index, document, clock.now().boot);
                    if failures > 0 {
                        tracing::info!(source = self.name, "token keys can be read again");
                    }
                    failures = 0;
                }
                Err(error) => {
                    // Only the first failure in a row, because retries never end.
                    if failures == 0 {
                        let (source, err) = (&self.name, ErrorChain(&error));
                        tracing::warn!(source, %err, "token keys cannot be read; keeping the last good ones");
                    }
                    failures = failures.saturating_add(1);
                }
            }
            self.keys.finish(self.index, requested);
            self.report(&complete);
            let pause = self.pause_after(failures).mul_f64(0.9 + 0.2 * rng.fraction());
            tokio::select! {
                // In a fixed order, so that a simulated story is the same each time.
                biased;
                () = tokio::time::sleep(pause) => {}
                changed = requests.changed() => if changed.is_err() { return },
            }
        }
    }

    /// What it gives; `None` if that has not changed.
    async fn load(&mut self) -> Result<Option<Document>, LoadError> {
        let (keys, issuer) = match &mut self.reader {
            Reader::Url(url) => (document::read(&url.fetch().await?)?, None),
            Reader::File(file) => {
                let Some(changed) = file.read_if_changed().await? else { return Ok(None) };
                let keys = document::read(&changed.content)?;
                file.accept(changed.stamp);
                (keys, None)
            }
            Reader::Elsewhere(read) => {
                let read = read().await;
                let IssuerDocuments { issuer, keys } =
                    read.map_err(|error| LoadError::Elsewhere { from: self.name.clone(), error })?;
                (document::read(&keys)?, issuer)
            }
        };
        Ok(Some(Document { keys, issuer: issuer.map(Into::into) }))
    }

    fn pause_after(&self, failures: u32) -> Duration {
        let regular = match self.reader {
            Reader::Url(_) | Reader::Elsewhere(_) => self.refresh,
            Reader::File(_) => FILE_POLL,
        };
        match failures {
            0 => regular,
            _ => RETRY.pause(failures).min(regular),
        }
    }

    fn report(&self, complete: &Condition) {
        if !self.keys.are_complete() {
            complete.unmet("a source of token keys has not been read yet");
        } else if self.keys.lack_some() {
            // It is read, and withdraws what was there; but no issuer signs without a key.
            complete.unmet("the document has no keys that can be used");
        } else {
            complete.met();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::{FetchError, KeySource, LoadError, TokenKeys};
    use crate::clock::Clock;
    use crate::config::{KeyLocation, Upstream};
    use crate::identity::testing::{EcSigner, pod};
    use crate::lifecycle::condition_name::ConditionName;
    use crate::lifecycle::readiness::Readiness;
    use crate::lifecycle::tasks::Tasks;
    use crate::outgoing::SendError;
    use crate::rng::Rng;

    fn scratch(name: &str) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("pod-identity-agent-keys-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        path
    }

    fn source(location: &KeyLocation) -> (KeySource, TokenKeys) {
        let keys = TokenKeys::of_sources(1);
        let upstream = Upstream { endpoint: None, use_fips: false, ca_bundle: None, proxy: None };
        (KeySource::new(location, 0, keys.clone(), &upstream, &Clock::system()).unwrap(), keys)
    }

    fn document(name: &str) -> String {
        json!({ "keys": [EcSigner::new(name).jwk()] }).to_string()
    }

    /// Answers each connection with the next of these texts, later ones never.
    async fn serving(answers: Vec<String>) -> KeyLocation {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        Tasks::new().spawn("issuer", async move {
            let mut open = Vec::new();
            for answer in answers.into_iter().map(Some).chain(std::iter::repeat(None)) {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await.unwrap();
                match answer {
                    // The client may close the connection before all of it is sent.
                    Some(answer) => drop(stream.write_all(answer.as_bytes()).await),
                    None => open.push(stream),
                }
            }
        });
        KeyLocation::Url(url)
    }

    fn ok(body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    #[tokio::test]
    async fn a_file_is_read_when_it_changes_and_half_of_it_is_not_used() {
        let path = scratch("changes");
        let (mut source, _keys) = source(&KeyLocation::File(path.clone()));
        assert!(matches!(source.load().await, Err(LoadError::File(_))), "it may be created later");
        std::fs::write(&path, document("one")).unwrap();
        let ids = |read: Option<super::Document>| {
            read.map(|read| read.keys.iter().map(|key| key.id().to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(ids(source.load().await.unwrap()), Some(vec!["one".to_owned()]));
        assert_eq!(ids(source.load().await.unwrap()), None, "nothing new");
        let newer = document("number-two");
        std::fs::write(&path, &newer[..newer.len() - 3]).unwrap();
        for check in 1..=2 {
            assert!(
                matches!(source.load().await, Err(LoadError::Document(_))),
                "half written, check {check}"
            );
        }
        std::fs::write(&path, &newer).unwrap();
        assert_eq!(ids(source.load().await.unwrap()), Some(vec!["number-two".to_owned()]));
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn a_url_must_answer_in_time_with_a_whole_document_and_no_redirect() {
        let long = ok(&format!(r#"{{"keys":[]{}}}"#, " ".repeat(256 * 1024)));
        let redirect = "HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n".to_owned();
        let broken = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{".to_owned();
        let (mut source, _keys) =
            source(&serving(vec![ok(&document("one")), redirect, long, ok("<html>"), broken]).await);
        assert_eq!(source.load().await.unwrap().map(|read| read.keys.len()), Some(1));
        let failed = source.load().await.unwrap_err();
        assert!(
            matches!(failed, LoadError::Fetch(FetchError::Status(status)) if status == 302),
            "{failed:?}"
        );
        let failed = source.load().await.unwrap_err();
        assert!(matches!(failed, LoadError::Fetch(FetchError::Send(SendError::TooLong(_)))), "{failed:?}");
        let failed = source.load().await.unwrap_err();
        assert!(matches!(failed, LoadError::Document(_)), "{failed:?}");
        let failed = source.load().await.unwrap_err();
        assert!(matches!(failed, LoadError::Fetch(FetchError::Send(SendError::Body(_)))), "{failed:?}");
        let started = tokio::time::Instant::now();
        let failed = source.load().await.unwrap_err();
        assert!(matches!(failed, LoadError::Fetch(FetchError::Timeout)), "{failed:?}");
        assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn a_source_that_fails_keeps_its_keys_and_is_retried_soon() {
        let down = "HTTP/1.1 503 Down\r\nContent-Length: 0\r\n\r\n".to_owned();
        let location = serving(vec![down.clone(), ok(&document("one")), down, ok(&document("two"))]).await;
        let (source, keys) = source(&location);
        let readiness = Readiness::new();
        let complete = readiness.advisory(ConditionName::TokenKeys);
        let clock = Clock::system();
        let watching = async {
            // The first attempt fails; the second follows after about a second.
            let until = async |id: &str| {
                while keys.table().find(id).is_empty() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            until("one").await;
            assert!(readiness.report()[0].met);
            let mut refetch = keys.request_refetch(pod(), clock.now().boot).unwrap();
            while refetch.next_result().await {}
            assert_eq!(keys.table().find("one").len(), 1, "unavailable, and its last good keys stay");
            assert!(readiness.report()[0].met);
            until("two").await;
            assert!(keys.table().find("one").is_empty(), "withdrawn");
        };
        tokio::select! {
            () = source.keep(clock.clone(), Rng::seeded(1), complete) => unreachable!(),
            watched = tokio::time::timeout(Duration::from_secs(10), watching) => watched.unwrap(),
        }
    }

    #[tokio::test]
    async fn a_document_without_usable_keys_is_read_and_is_not_what_the_condition_wants() {
        let of_unknown_type = r#"{"keys":[{"kty":"AKP","kid":"ml-dsa","pub":"AAAA"}]}"#;
        for (body, met, reason) in [
            (r#"{"keys":[]}"#, false, "the document has no keys that can be used"),
            (of_unknown_type, false, "the document has no keys that can be used"),
            (&document("one"), true, ""),
        ] {
            let (source, keys) = source(&serving(vec![ok(body)]).await);
            let readiness = Readiness::new();
            let complete = readiness.advisory(ConditionName::TokenKeys);
            let clock = Clock::system();
            let read = async {
                while keys.view(clock.now().boot).age.is_none() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            tokio::select! {
                () = source.keep(clock.clone(), Rng::seeded(1), complete) => unreachable!(),
                read = tokio::time::timeout(Duration::from_secs(10), read) => read.unwrap(),
            }
            let report = &readiness.report()[0];
            assert_eq!((report.met, report.reason.as_str()), (met, reason), "{body}");
        }
    }

    #[test]
    fn retries_are_quick_at_first_and_a_file_is_checked_often() {
        let (url, _keys) = source(&KeyLocation::Url("http://127.0.0.1:1/keys".to_owned()));
        let pauses: Vec<_> = (0..8).map(|failures| url.pause_after(failures).as_secs()).collect();
        assert_eq!(pauses, [300, 1, 2, 4, 8, 16, 30, 30]);
        let often = url.refreshed_every(Duration::from_secs(10));
        let pauses: Vec<_> = (0..8).map(|failures| often.pause_after(failures).as_secs()).collect();
        assert_eq!(pauses, [10, 1, 2, 4, 8, 10, 10, 10], "nor is a retry later than the next read");
        let (file, _keys) = source(&KeyLocation::File("/keys".into()));
        let pauses: Vec<_> = (0..8).map(|failures| file.pause_after(failures).as_secs()).collect();
        assert_eq!(pauses, [5, 1, 2, 4, 5, 5, 5, 5]);
    }
}
