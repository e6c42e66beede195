//! The role map: which service account has which role, by a file of the admin.
//!
//! Owns: which entry counts for an account. Must not know: the form of the file (`reading`), or when it is
//! read.

mod reading;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use super::problems::Problems;
use super::settings::RoleSettings;

/// The longest file, in bytes: that of a ConfigMap.
pub(super) const MOST_BYTES: usize = 1024 * 1024;

/// A role map.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RoleMap {
    namespaces: HashMap<Box<str>, Namespace>,
}

/// The entries of a namespace.
#[derive(Debug, Default, PartialEq, Eq)]
struct Namespace {
    exact: HashMap<Box<str>, Arc<RoleSettings>>,
    /// By what stands before the `*`.
    prefixes: HashMap<Box<str>, Arc<RoleSettings>>,
}

impl RoleMap {
    /// Reads the content of a file.
    ///
    /// # Errors
    /// All that is wrong in it.
    pub(super) fn read(content: &[u8]) -> Result<Self, Problems> {
        reading::read(content)
    }

    /// All entries, each by its name in the file.
    pub(super) fn entries(&self) -> impl Iterator<Item = (String, &RoleSettings)> {
        self.namespaces.iter().flat_map(|(namespace, entries)| {
            let exact = entries
                .exact
                .iter()
                .map(move |(name, settings)| (format!("{namespace}/{name}"), &**settings));
            let prefixes = entries
                .prefixes
                .iter()
                .map(move |(prefix, settings)| (format!("{namespace}/{prefix}*"), &**settings));
            exact.chain(prefixes)
        })
    }

    /// How many entries say how long tokens are to live.
    pub(super) fn with_token_life(&self) -> usize {
        let entries = self.namespaces.values().flat_map(|of| of.exact.values().chain(of.prefixes.values()));
        entries.filter(|settings| settings.token_life.is_some()).count()
    }

    /// What an account is given: by the entry of its name, else by the one with the longest beginning of it.
    pub(super) fn find(&self, namespace: &str, account: &str) -> Option<&Arc<RoleSettings>> {
        let entries = self.namespaces.get(namespace)?;
        let by_prefix = || {
            let has_prefixes = !entries.prefixes.is_empty();
            let ends = (0..=account.len()).rev().filter(|_| has_prefixes);
            ends.filter_map(|end| account.get(..end)).find_map(|prefix| entries.prefixes.get(prefix))
        };
        entries.exact.get(account).or_else(by_prefix)
    }
}
