//! One source of keys, kept up to date in the background.
//!
//! Owns: when a source is read: at start, every five minutes, when somebody shows an unknown key id, and soon after it
//! failed. Must not know: tokens. A source that is down changes nothing: its last good keys stay.

use std::path::Path;
use std::time::Duration;

use super::document::{self, DocumentError};
use super::fetch::{FetchError, KeyUrl};
use super::file::KeyFile;
use super::{Arc, TokenKey, TokenKeys};
use crate::chance::Chance;
use crate::clock::Clock;
use crate::config::KeyLocation;
use crate::lifecycle::readiness::Condition;
use crate::lifecycle::tasks::Tasks;

/// A URL is read again after this, give or take a tenth. An issuer publishes a key an hour before it signs (facts 2.3),
/// and a withdrawn key should not live much longer than the issuer's word.
const REFRESH: Duration = Duration::from_secs(5 * 60);
/// A file is looked at this often: one `stat`.
const LOOK: Duration = Duration::from_secs(5);
/// After a failure the next try comes after this, doubling up to [`SLOWEST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest pause after failures.
const SLOWEST_RETRY: Duration = Duration::from_secs(30);

/// Why a source cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It does not answer.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The file cannot be read.
    #[error("the key file cannot be read")]
    File(#[from] std::io::Error),
    /// What it gave is no key document.
    #[error(transparent)]
    Document(#[from] DocumentError),
}

/// A source, and the place of its keys.
pub struct KeySource {
    reader: Reader,
    /// As in the flag, for the log. It holds no secret: `config` refuses users, passwords and queries.
    name: String,
    index: usize,
    keys: TokenKeys,
}

enum Reader {
    Url(Box<KeyUrl>),
    File(KeyFile),
}

impl KeySource {
    /// The source number `index` of these keys.
    ///
    /// # Errors
    /// [`FetchError`], when URL or CA bundle cannot be used.
    pub fn new(
        location: &KeyLocation,
        index: usize,
        keys: TokenKeys,
        ca_bundle: Option<&Path>,
        tasks: &Tasks,
    ) -> Result<Self, FetchError> {
        let (reader, name) = match location {
            KeyLocation::Url(url) => {
                (Reader::Url(Box::new(KeyUrl::new(url, ca_bundle, tasks)?)), url.clone())
            }
            KeyLocation::File(path) => (Reader::File(KeyFile::new(path.clone())), path.display().to_string()),
        };
        Ok(Self { reader, name, index, keys })
    }

    /// Keeps its keys up to date for ever; cancel by dropping. `complete` is met once every source has given a document.
    pub async fn keep(mut self, clock: Clock, chance: Chance, complete: Condition) {
        let mut askings = self.keys.askings();
        let mut failures = 0_u32;
        loop {
            let asking = *askings.borrow_and_update();
            match self.load().await {
                Ok(keys) => {
                    self.keys.confirm(self.index, keys, clock.now().boot);
                    if failures > 0 {
                        tracing::info!(source = self.name, "token keys can be read again");
                    }
                    failures = 0;
                }
                Err(error) => {
                    // The first in a row only: it is tried for ever.
                    if failures == 0 {
                        let err = crate::telemetry::chain::Chain(&error);
                        tracing::warn!(source = self.name, err = %err, "token keys cannot be read, the last good ones stay");
                    }
                    failures = failures.saturating_add(1);
                }
            }
            self.keys.answer(self.index, asking);
            self.report(&complete);
            let pause = self.pause(failures).mul_f64(0.9 + 0.2 * chance.fraction());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                changed = askings.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Its keys; `None`: they are as they were.
    async fn load(&mut self) -> Result<Option<Vec<Arc<TokenKey>>>, LoadError> {
        match &mut self.reader {
            Reader::Url(url) => Ok(Some(document::read(&url.fetch().await?)?)),
            Reader::File(file) => {
                let Some((content, look)) = file.read_if_changed().await? else { return Ok(None) };
                let keys = document::read(&content)?;
                // Only now: a file that did not parse is tried again at the next look.
                file.take(look);
                Ok(Some(keys))
            }
        }
    }

    fn pause(&self, failures: u32) -> Duration {
        let regular = match self.reader {
            Reader::Url(_) => REFRESH,
            Reader::File(_) => LOOK,
        };
        match failures {
            0 => regular,
            _ => FIRST_RETRY.saturating_mul(1 << (failures - 1).min(5)).min(SLOWEST_RETRY).min(regular),
        }
    }

    fn report(&self, complete: &Condition) {
        if self.keys.are_complete() {
            complete.met();
        } else {
            complete.unmet("a source of token keys has not been read yet");
        }
    }
}
