//! The keys that verify the cluster's tokens: the union of all sources, each key with the source it came from.
//!
//! Owns: the table that verdicts are made with, its generation, and who may have the sources asked again. Must not know:
//! how a source is read (`source`), or what a token says. A source's new document replaces that source's keys and nobody
//! else's; while a source is down its last good keys stay (design 4.3).

mod document;
mod fetch;
mod file;
pub(in crate::identity) mod key;
mod limiter;
mod source;
mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::clock::BootTime;
use crate::workload::PeerKey;
use key::TokenKey;
use limiter::AskLimiter;
pub(in crate::identity) use table::KeyTable;

pub use document::DocumentError;
pub use fetch::FetchError;
pub use source::{KeySource, LoadError};

/// All keys of the process; clones share them.
#[derive(Clone, Debug)]
pub struct TokenKeys {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    table: RwLock<Arc<KeyTable>>,
    /// The table's generation, for those who need nothing else of it.
    generation: AtomicU64,
    sources: Mutex<Vec<SourceKeys>>,
    limiter: Mutex<AskLimiter>,
    /// How often the sources were asked. They are being asked from the start on.
    asked: watch::Sender<u64>,
    /// Changes whenever a source was read, well or not.
    progress: watch::Sender<()>,
}

/// What is known of one source.
#[derive(Debug, Default)]
struct SourceKeys {
    /// Its last good keys.
    keys: Option<Vec<Arc<TokenKey>>>,
    /// When they were last confirmed.
    confirmed: Option<BootTime>,
    /// The last asking that it has answered, well or not.
    answered: u64,
}

/// What operators see of the keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeysView {
    /// Keys in the table.
    pub keys: usize,
    /// Time since the source that was silent longest confirmed its keys; `None` if one never did, or there is none.
    pub age: Option<Duration>,
}

/// An asking under way.
#[derive(Debug)]
pub(super) struct Asking {
    keys: TokenKeys,
    number: u64,
    progress: watch::Receiver<()>,
}

impl TokenKeys {
    /// No keys yet, of so many sources.
    pub fn of_sources(count: usize) -> Self {
        let known = std::iter::repeat_with(SourceKeys::default).take(count).collect();
        let shared = Shared {
            table: RwLock::default(),
            generation: AtomicU64::new(0),
            sources: Mutex::new(known),
            limiter: Mutex::default(),
            asked: watch::Sender::new(1),
            progress: watch::Sender::new(()),
        };
        Self { shared: Arc::new(shared) }
    }

    /// What operators see.
    pub fn view(&self, now: BootTime) -> KeysView {
        let sources = self.shared.sources.lock();
        let keys = sources.iter().map(|known| known.keys.as_ref().map_or(0, Vec::len)).sum();
        let ages: Option<Vec<_>> =
            sources.iter().map(|known| known.confirmed.map(|at| now.since(at))).collect();
        KeysView { keys, age: ages.and_then(|ages| ages.into_iter().max()) }
    }

    /// Whether every source has given a good document.
    pub fn are_complete(&self) -> bool {
        self.shared.sources.lock().iter().all(|known| known.keys.is_some())
    }

    /// The table as it is now.
    pub(super) fn table(&self) -> Arc<KeyTable> {
        Arc::clone(&self.shared.table.read())
    }

    /// Verdicts of another generation are void: a key may have come or gone.
    pub(super) fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// Has the sources asked again on behalf of a peer, or joins an asking under way. `None`: not now.
    pub(super) fn ask(&self, peer: PeerKey, now: BootTime) -> Option<Asking> {
        // Subscribed first: progress made from here on is not missed.
        let progress = self.shared.progress.subscribe();
        let current = *self.shared.asked.borrow();
        let number = if !self.has_answered(current) {
            current
        } else if self.shared.limiter.lock().take(peer, now) {
            self.shared.asked.send_modify(|asked| *asked += 1);
            current + 1
        } else {
            return None;
        };
        Some(Asking { keys: self.clone(), number, progress })
    }

    /// Waits for the first document of sources that have given none yet.
    pub(super) fn await_first(&self) -> Asking {
        Asking { keys: self.clone(), number: u64::MAX, progress: self.shared.progress.subscribe() }
    }

    /// The askings, for the sources.
    fn askings(&self) -> watch::Receiver<u64> {
        self.shared.asked.subscribe()
    }

    /// A source was read: these are its keys from now on, or they are as they were (`None`).
    fn confirm(&self, source: usize, keys: Option<Vec<Arc<TokenKey>>>, now: BootTime) {
        let mut sources = self.shared.sources.lock();
        let Some(known) = sources.get_mut(source) else { return };
        known.confirmed = Some(now);
        let Some(keys) = keys else { return };
        if known.keys.as_ref() == Some(&keys) {
            return;
        }
        known.keys = Some(keys);
        let generation = self.generation() + 1;
        let table =
            KeyTable::of(generation, sources.iter().map(|known| known.keys.as_deref().unwrap_or_default()));
        *self.shared.table.write() = Arc::new(table);
        // After the table: whoever sees the new number finds the new table.
        self.shared.generation.store(generation, Ordering::Release);
    }

    /// A source has answered all askings up to `number`, well or not.
    fn answer(&self, source: usize, number: u64) {
        if let Some(known) = self.shared.sources.lock().get_mut(source) {
            known.answered = known.answered.max(number);
        }
        self.shared.progress.send_replace(());
    }

    fn has_answered(&self, number: u64) -> bool {
        self.shared.sources.lock().iter().all(|known| known.answered >= number)
    }
}

impl Asking {
    /// Waits until a source has been read; `false` once all have answered. Cancel-safe.
    pub(super) async fn has_news(&mut self) -> bool {
        if self.keys.has_answered(self.number) {
            return false;
        }
        self.progress.changed().await.is_ok()
    }
}

#[cfg(test)]
impl TokenKeys {
    /// Keys of one source, as if it had just been read.
    pub(in crate::identity) fn replace(&self, source: usize, document: &serde_json::Value) {
        let keys = document::read(document.to_string().as_bytes()).unwrap();
        self.confirm(source, Some(keys), BootTime::from_boot(Duration::ZERO));
        self.answer(source, *self.shared.asked.borrow());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::{BootTime, TokenKeys};
    use crate::identity::testing::{EcSigner, pod};

    #[test]
    fn a_new_document_replaces_the_keys_of_its_own_source_only() {
        let keys = TokenKeys::of_sources(2);
        let document = |names: &[&str]| json!({ "keys": names.iter().map(|name| EcSigner::new(name).jwk()).collect::<Vec<_>>() });
        keys.replace(0, &document(&["a", "b"]));
        keys.replace(1, &document(&["b", "c"]));
        let sources_of = |id| keys.table().find(id).iter().map(|entry| entry.source).collect::<Vec<_>>();
        assert_eq!((sources_of("a"), sources_of("b"), sources_of("c")), (vec![0], vec![0, 1], vec![1]));
        let before = keys.generation();
        keys.replace(0, &document(&["d"]));
        assert!(keys.generation() > before, "a key was withdrawn");
        assert_eq!((sources_of("a"), sources_of("b"), sources_of("d")), (vec![], vec![1], vec![0]));
    }

    #[test]
    fn the_same_document_again_changes_nothing() {
        let keys = TokenKeys::of_sources(1);
        let document = json!({ "keys": [EcSigner::new("a").jwk()] });
        keys.replace(0, &document);
        let before = keys.generation();
        keys.replace(0, &document);
        assert_eq!(keys.generation(), before);
        let age = Duration::from_secs(7);
        assert_eq!(keys.view(BootTime::from_boot(age)).age, Some(age));
    }

    #[tokio::test]
    async fn all_join_an_asking_under_way_and_only_a_new_one_takes_a_turn() {
        let keys = TokenKeys::of_sources(2);
        let now = BootTime::from_boot(Duration::from_secs(100));
        let mut first = keys.ask(pod(), now).expect("the first reading is under way");
        keys.replace(0, &json!({ "keys": [] }));
        assert!(first.has_news().await, "one of two");
        keys.replace(1, &json!({ "keys": [] }));
        assert!(!first.has_news().await, "both have answered");
        assert!(keys.ask(pod(), now).is_some(), "its turn");
        assert!(keys.ask(pod(), now).is_some(), "joins");
        keys.replace(0, &json!({ "keys": [] }));
        keys.replace(1, &json!({ "keys": [] }));
        assert!(keys.ask(pod(), now).is_none(), "it had its turn");
    }
}
