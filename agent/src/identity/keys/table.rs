//! The keys by their ids, at one moment. Pure.
//!
//! Owns: the union of all sources. Must not know: how sources are read. Two sources may use the same id for
//! different keys; both are kept, and either may verify a token.

use std::collections::HashMap;
use std::sync::Arc;

use super::SourceKeys;
use super::key::TokenKey;

/// The union of all sources' keys.
#[derive(Debug, Default)]
pub(in crate::identity) struct KeyTable {
    generation: u64,
    by_id: HashMap<Box<str>, Vec<Entry>>,
    /// Of each source, the issuer that it names itself.
    issuers: Vec<Option<Box<str>>>,
    /// Whether a source that names an issuer has not done so yet.
    lacks_issuers: bool,
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
    pub(super) fn of(generation: u64, sources: &[SourceKeys]) -> Self {
        let mut by_id: HashMap<Box<str>, Vec<Entry>> = HashMap::new();
        for (source, SourceKeys { document, .. }) in sources.iter().enumerate() {
            for key in document.iter().flat_map(|document| &document.keys) {
                by_id.entry(key.id().into()).or_default().push(Entry { source, key: Arc::clone(key) });
            }
        }
        let issuer = |source: &SourceKeys| source.document.as_ref()?.issuer.clone();
        let lacks = |source: &SourceKeys| source.names_issuer && source.document.is_none();
        Self {
            generation,
            by_id,
            issuers: sources.iter().map(issuer).collect(),
            lacks_issuers: sources.iter().any(lacks),
        }
    }

    /// The number of this version of the table.
    pub(in crate::identity) fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether that source says that it is this issuer's.
    pub(in crate::identity) fn is_issuer_of(&self, source: usize, issuer: &str) -> bool {
        self.issuers.get(source).and_then(Option::as_deref) == Some(issuer)
    }

    /// The issuers that sources name.
    pub(in crate::identity) fn issuers(&self) -> impl Iterator<Item = &str> {
        self.issuers.iter().flatten().map(AsRef::as_ref)
    }

    /// Whether an issuer that is not known may be one that a source has not named yet.
    pub(in crate::identity) fn lacks_issuers(&self) -> bool {
        self.lacks_issuers
    }

    /// The keys with that id.
    pub(in crate::identity) fn find(&self, id: &str) -> &[Entry] {
        self.by_id.get(id).map(Vec::as_slice).unwrap_or_default()
    }
}
