//! The keys that verify the cluster's tokens: the union of all sources, each key with its source.
//!
//! Owns: the table that tokens are verified with, its generation, and which peers may request a refetch. Must
//! not know: how a source is read (`source`), or what a token claims. A new document replaces the keys of its
//! own source only; while a source is unavailable its last good keys stay
//! (docs/design/decisions.md#identity).

pub(crate) mod document;
mod fetch;
pub(in crate::identity) mod key;
mod limiter;
mod source;
mod table;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::futures::OwnedNotified;
use tokio::sync::{Notify, watch};

use crate::clock::BootTime;
use crate::workload::PeerKey;
use key::TokenKey;
pub(super) use limiter::FIRST_READS_APART;
use limiter::RefetchLimiter;
pub(in crate::identity) use table::{Entry, KeyTable};

pub use document::DocumentError;
pub use fetch::FetchError;
pub use source::{IssuerDocuments, KeySource, LoadError, ReadFailed};

/// All keys of the process; clones share them.
#[derive(Clone, Debug)]
pub struct TokenKeys {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    table: RwLock<Arc<KeyTable>>,
    /// The generation of the table, readable without the lock.
    generation: AtomicU64,
    sources: Mutex<Vec<SourceKeys>>,
    limiter: Mutex<RefetchLimiter>,
    /// The number of the last refetch that was requested. The first read of all sources is number 1.
    requested: watch::Sender<u64>,
    /// Notified whenever a source was read, successfully or not. It wakes those who wait in their order, so
    /// that a simulated story is the same each time; a watch does not.
    progress: Arc<Notify>,
}

/// The state of one source.
#[derive(Debug, Default)]
struct SourceKeys {
    /// Whether its documents name their issuer.
    names_issuer: bool,
    /// What it last gave.
    document: Option<Document>,
    /// When they were last confirmed.
    confirmed: Option<BootTime>,
    /// The number of the last refetch that it has finished, successfully or not.
    finished: u64,
}

/// What a source gives.
#[derive(Debug, PartialEq)]
struct Document {
    keys: Vec<Arc<TokenKey>>,
    /// The issuer of the tokens that they verify, where the source knows it.
    issuer: Option<Box<str>>,
}

/// What metrics show of the keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeysView {
    /// The number of keys in the table.
    pub keys: usize,
    /// The age of the keys that were confirmed longest ago; `None` if a source has not been read
    /// yet, or there is none.
    pub age: Option<Duration>,
}

/// A refetch under way.
#[derive(Debug)]
pub(super) struct Refetch {
    keys: TokenKeys,
    number: u64,
    progress: Pin<Box<OwnedNotified>>,
}

/// How far a refetch is: whether no source, some or all have finished it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Untouched,
    Partial,
    Complete,
}

impl TokenKeys {
    /// No keys yet; `count` sources will provide them.
    pub fn of_sources(count: usize) -> Self {
        let none_read = std::iter::repeat_with(SourceKeys::default).take(count).collect();
        let shared = Shared {
            table: RwLock::default(),
            generation: AtomicU64::new(0),
            sources: Mutex::new(none_read),
            limiter: Mutex::default(),
            requested: watch::Sender::new(1),
            progress: Arc::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// What metrics show.
    pub fn view(&self, now: BootTime) -> KeysView {
        let sources = self.shared.sources.lock();
        let keys =
            sources.iter().flat_map(|source| &source.document).map(|document| document.keys.len()).sum();
        let ages: Option<Vec<_>> =
            sources.iter().map(|source| source.confirmed.map(|at| now.since(at))).collect();
        KeysView { keys, age: ages.and_then(|ages| ages.into_iter().max()) }
    }

    /// Whether every source has provided a valid document.
    pub fn are_complete(&self) -> bool {
        self.shared.sources.lock().iter().all(|source| source.document.is_some())
    }

    /// Whether a source has provided a document without a key that can be used.
    pub fn lack_some(&self) -> bool {
        let lacks =
            |source: &SourceKeys| source.document.as_ref().is_some_and(|document| document.keys.is_empty());
        self.shared.sources.lock().iter().any(lacks)
    }

    /// The current table.
    pub(super) fn table(&self) -> Arc<KeyTable> {
        Arc::clone(&self.shared.table.read())
    }

    /// The generation of the table. Verdicts of another generation are no longer valid: keys may have been
    /// added or withdrawn.
    pub(super) fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// Requests a refetch of all sources on behalf of a peer, or joins the one under way. `None`: not now.
    ///
    /// Once a source has finished the one under way, it may have a new key again, so another is begun, within
    /// the rates: those who wait for a source that is dead must not keep the others from being read.
    pub(super) fn request_refetch(&self, peer: PeerKey, now: BootTime) -> Option<Refetch> {
        // Subscribed first: progress made from here on is not missed.
        let progress = self.next_progress();
        let current = *self.shared.requested.borrow();
        let number = match self.progress_of(current) {
            Progress::Untouched => current,
            Progress::Partial | Progress::Complete if self.shared.limiter.lock().admit(peer, now) => {
                self.shared.requested.send_modify(|requested| *requested += 1);
                current + 1
            }
            Progress::Partial => current,
            Progress::Complete => return None,
        };
        Some(Refetch { keys: self.clone(), number, progress })
    }

    /// Has all sources read once more, for those who wait for the first keys: each [`FIRST_READS_APART`] at
    /// most, however many wait.
    pub(super) fn request_first_read(&self, now: BootTime) {
        let current = *self.shared.requested.borrow();
        if self.progress_of(current) == Progress::Complete && self.shared.limiter.lock().admit_first(now) {
            self.shared.requested.send_modify(|requested| *requested += 1);
        }
    }

    /// Follows the reads of all sources without requesting one: a source that has provided no document yet is
    /// retried anyway.
    pub(super) fn watch_reads(&self) -> Refetch {
        Refetch { keys: self.clone(), number: u64::MAX, progress: self.next_progress() }
    }

    /// Follows the first read of each source. It may be over.
    pub(super) fn watch_first_reads(&self) -> Refetch {
        Refetch { keys: self.clone(), number: 1, progress: self.next_progress() }
    }

    /// The next time that a source has been read, from now on.
    fn next_progress(&self) -> Pin<Box<OwnedNotified>> {
        Box::pin(Arc::clone(&self.shared.progress).notified_owned())
    }

    /// The requests for a refetch, for the sources.
    fn refetch_requests(&self) -> watch::Receiver<u64> {
        self.shared.requested.subscribe()
    }

    /// Says of a source that its documents name their issuer, before it is read.
    fn names_issuer(&self, source: usize) {
        let mut sources = self.shared.sources.lock();
        let Some(entry) = sources.get_mut(source) else { return };
        entry.names_issuer = true;
        self.publish(&sources);
    }

    /// A source was read: this is what it gives from now on; `None` if that has not changed.
    fn confirm(&self, source: usize, document: Option<Document>, now: BootTime) {
        let mut sources = self.shared.sources.lock();
        let Some(entry) = sources.get_mut(source) else { return };
        entry.confirmed = Some(now);
        if document.is_none() || entry.document == document {
            return;
        }
        entry.document = document;
        self.publish(&sources);
    }

    fn publish(&self, sources: &[SourceKeys]) {
        let generation = self.generation() + 1;
        *self.shared.table.write() = Arc::new(KeyTable::of(generation, sources));
        // After the table, so that a reader of the new number finds the new table.
        self.shared.generation.store(generation, Ordering::Release);
    }

    /// A source has finished all refetches up to `number`, successfully or not.
    fn finish(&self, source: usize, number: u64) {
        if let Some(entry) = self.shared.sources.lock().get_mut(source) {
            entry.finished = entry.finished.max(number);
        }
        self.shared.progress.notify_waiters();
    }

    fn progress_of(&self, number: u64) -> Progress {
        let sources = self.shared.sources.lock();
        let finished = sources.iter().filter(|source| source.finished >= number).count();
        if finished == sources.len() {
            Progress::Complete
        } else if finished == 0 {
            Progress::Untouched
        } else {
            Progress::Partial
        }
    }

    fn is_finished(&self, number: u64) -> bool {
        self.progress_of(number) == Progress::Complete
    }
}

impl Refetch {
    /// Waits until a source has been read; `false` once all have finished. Cancel-safe.
    pub(super) async fn next_result(&mut self) -> bool {
        if self.keys.is_finished(self.number) {
            return false;
        }
        self.progress.as_mut().await;
        // Before the caller looks at the keys: progress made from here on is not missed.
        self.progress = self.keys.next_progress();
        true
    }
}

#[cfg(test)]
impl TokenKeys {
    /// Keys of one source, as if it had just been read.
    pub(in crate::identity) fn replace(&self, source: usize, document: &serde_json::Value) {
        self.provide(source, document);
        self.finish(source, *self.shared.requested.borrow());
    }

    /// The source is read whenever that is requested, and never has anything new.
    pub(in crate::identity) async fn read_for_nothing(self, source: usize) {
        let mut requests = self.refetch_requests();
        loop {
            let requested = *requests.borrow_and_update();
            self.finish(source, requested);
            if requests.changed().await.is_err() {
                return;
            }
        }
    }

    /// The moment before that: the keys are there, and nobody has been told.
    pub(in crate::identity) fn provide(&self, source: usize, document: &serde_json::Value) {
        let keys = document::read(document.to_string().as_bytes()).unwrap();
        self.confirm(source, Some(Document { keys, issuer: None }), BootTime::from_boot(Duration::ZERO));
    }

    /// The same of a source that names its issuer.
    pub(in crate::identity) fn replace_of_issuer(
        &self,
        source: usize,
        issuer: &str,
        document: &serde_json::Value,
    ) {
        let keys = document::read(document.to_string().as_bytes()).unwrap();
        let document = Document { keys, issuer: Some(issuer.into()) };
        self.confirm(source, Some(document), BootTime::from_boot(Duration::ZERO));
        self.finish(source, *self.shared.requested.borrow());
    }

    /// Says of a source that it will name its issuer.
    pub(in crate::identity) fn await_issuer(&self, source: usize) {
        self.names_issuer(source);
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
        let document = |names: &[&str]| {
            let keys: Vec<_> = names.iter().map(|name| EcSigner::new(name).jwk()).collect();
            json!({ "keys": keys })
        };
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

    #[test]
    fn a_source_that_is_dead_does_not_keep_the_others_from_being_read_again() {
        let keys = TokenKeys::of_sources(2);
        let requests = keys.refetch_requests();
        let at = |seconds| BootTime::from_boot(Duration::from_secs(seconds));
        // Source 1 is read for seconds without success; source 0 has answered each time.
        for (now, number) in [(100, 2), (111, 3), (122, 4)] {
            keys.replace(0, &json!({ "keys": [] }));
            let refetch = keys.request_refetch(pod(), at(now)).expect("one more");
            assert_eq!((refetch.number, *requests.borrow()), (number, number));
            let joined = keys.request_refetch(pod(), at(now + 1)).expect("nobody has finished it yet");
            assert_eq!((joined.number, *requests.borrow()), (number, number));
        }
        keys.replace(0, &json!({ "keys": [] }));
        let joined =
            keys.request_refetch(pod(), at(123)).expect("beyond the rate: the dead one is waited for");
        assert_eq!((joined.number, *requests.borrow()), (4, 4));
    }

    #[tokio::test]
    async fn all_join_a_refetch_under_way_and_only_a_new_one_counts_against_the_rate() {
        let keys = TokenKeys::of_sources(2);
        let now = BootTime::from_boot(Duration::from_secs(100));
        let mut first = keys.request_refetch(pod(), now).expect("the first read is under way");
        keys.replace(0, &json!({ "keys": [] }));
        assert!(first.next_result().await, "one of two");
        keys.replace(1, &json!({ "keys": [] }));
        assert!(!first.next_result().await, "both have finished");
        assert!(keys.request_refetch(pod(), now).is_some(), "a new one");
        assert!(keys.request_refetch(pod(), now).is_some(), "joins it");
        keys.replace(0, &json!({ "keys": [] }));
        keys.replace(1, &json!({ "keys": [] }));
        assert!(keys.request_refetch(pod(), now).is_none(), "not twice within ten seconds");
    }
}
