//! The keys by their ids, at one moment. Pure.
//!
//! Owns: the union of all sources. Must not know: how sources are read. Two sources may use the same id for
//! different keys; both are kept, and either may verify a token.

use std::collections::HashMap;
use std::sync::Arc;

use super::key::TokenKey;

/// The union of all sources' keys.
#[derive(Debug, Default)]
pub(in crate::identity) struct KeyTable {
    generation: u64,
    by_id: HashMap<Box<str>, Vec<Entry>>,
}

/// A key and its source.
#[derive(Clone, Debug)]
pub(in crate::identity) struct Entry {
    /// The number of its source, in the order of the flags.
    pub(in crate::identity) source: usize,
    /// The key.
    pub(in crate::identity) key: Arc<TokenKey>,
}

impl KeyTable {
    /// The union of these sources' keys.
    pub(super) fn of<'a>(generation: u64, sources: impl Iterator<Item = &'a [Arc<TokenKey>]>) -> Self {
        let mut by_id: HashMap<Box<str>, Vec<Entry>> = HashMap::new();
        for (source, keys) in sources.enumerate() {
            for key in keys {
                by_id.entry(key.id().into()).or_default().push(Entry { source, key: Arc::clone(key) });
            }
        }
        Self { generation, by_id }
    }

    /// The number of this version of the table.
    pub(in crate::identity) fn generation(&self) -> u64 {
        self.generation
    }

    /// The keys with that id.
    pub(in crate::identity) fn find(&self, id: &str) -> &[Entry] {
        self.by_id.get(id).map(Vec::as_slice).unwrap_or_default()
    }
}
