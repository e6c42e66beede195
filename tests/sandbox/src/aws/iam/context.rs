//! What the judgement of a trust policy may look at: the keys of the request and their values.
//!
//! Owns: which keys the sandbox models. Must not know: the operators that compare them.

use std::collections::BTreeMap;

/// Keys that the sandbox fills in where the request has them. Lower case: keys are the same in any case (IAM
/// guide, condition elements).
const MODELLED: [&str; 7] = [
    "aws:principalaccount",
    "aws:principalarn",
    "aws:sourceaccount",
    "aws:sourcearn",
    "aws:tagkeys",
    "sts:externalid",
    "sts:rolesessionname",
];
/// Keys with a name of the user's behind them.
const MODELLED_PREFIXES: [&str; 2] = ["aws:requesttag/", "aws:principaltag/"];
/// Keys with the issuer before them.
const MODELLED_SUFFIXES: [&str; 2] = [":sub", ":aud"];

/// The keys of one request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Context(BTreeMap<String, Vec<String>>);

impl Context {
    /// The same with one more value of a key.
    pub(crate) fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.0.entry(key.to_ascii_lowercase()).or_default().push(value.into());
        self
    }

    /// The same with session tags of the request.
    pub(crate) fn with_request_tags(self, tags: &BTreeMap<String, String>) -> Self {
        tags.iter().fold(self, |context, (name, value)| {
            context.with(&format!("aws:RequestTag/{name}"), value).with("aws:TagKeys", name)
        })
    }

    /// The same with tags of the session that asks.
    pub(crate) fn with_principal_tags(self, tags: &BTreeMap<String, String>) -> Self {
        tags.iter()
            .fold(self, |context, (name, value)| context.with(&format!("aws:PrincipalTag/{name}"), value))
    }

    /// The values of a key, none if the request does not have it; `None` if the sandbox cannot know.
    pub(super) fn values(&self, key: &str) -> Option<&[String]> {
        let key = key.to_ascii_lowercase();
        if let Some(values) = self.0.get(&key) {
            return Some(values);
        }
        let is_modelled = MODELLED.contains(&key.as_str())
            || MODELLED_PREFIXES.iter().any(|prefix| key.starts_with(prefix))
            || MODELLED_SUFFIXES.iter().any(|suffix| key.ends_with(suffix));
        is_modelled.then_some(&[])
    }
}
