//! The form of the role map: that of the webhook's ConfigMap. Pure.
//!
//! Owns: what an entry may be. Must not know: which entry counts.
//!
//! A file with anything wrong in it is refused as a whole: half a map would take roles away from those in
//! the other half.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use super::{Namespace, RoleMap};
use crate::association::json::{self, Value};
use crate::association::problems::{Problems, quoted};
use crate::association::settings::{RoleSettings, SHORTEST_TOKEN_LIFE, fault_of_audience};
use crate::workload::{RoleArn, StsEndpoint, is_name};

/// An entry of usual length has 100 bytes, so this is what fits into the file.
const MOST_ENTRIES: usize = 10_000;
/// The longest name of a namespace (RFC 1123 label).
const LONGEST_NAMESPACE: usize = 63;

const FIELDS: &str = "RoleARN, Audience, UseRegionalSTS and TokenExpiration";

/// Which accounts an entry is for.
enum Accounts<'a> {
    Exactly(&'a str),
    BeginningWith(&'a str),
}

/// The map that a file holds.
pub(super) fn read(content: &[u8]) -> Result<RoleMap, Problems> {
    let members = json::object(content).map_err(Problems::one)?;
    if members.len() > MOST_ENTRIES {
        return Err(Problems::one(format!("the file has more than {MOST_ENTRIES} entries")));
    }
    let (mut namespaces, mut problems) = (HashMap::<Box<str>, Namespace>::new(), Problems::default());
    for (key, value) in &members {
        let place = key_of(key).map_err(|fault| problems.add(format!("entry {}: {fault}", quoted(key))));
        let settings = settings_of(value, |fault| problems.add(format!("entry {}: {fault}", quoted(key))));
        let (Ok((namespace, accounts)), Some(settings)) = (place, settings) else { continue };
        let namespace = namespaces.entry(namespace.into()).or_default();
        let entry = match accounts {
            Accounts::Exactly(name) => namespace.exact.entry(name.into()),
            Accounts::BeginningWith(prefix) => namespace.prefixes.entry(prefix.into()),
        };
        match entry {
            Entry::Vacant(entry) => drop(entry.insert(Arc::new(settings))),
            Entry::Occupied(_) => problems.add(format!("entry {}: it is there twice", quoted(key))),
        }
    }
    problems.or(RoleMap { namespaces })
}

/// `<namespace>/<service account>`, with a `*` at the end or without.
fn key_of(key: &str) -> Result<(&str, Accounts<'_>), &'static str> {
    let (namespace, account) = key.split_once('/').ok_or("it must be NAMESPACE/SERVICE-ACCOUNT")?;
    if namespace.contains('*') {
        return Err("a namespace must be named in full, without *");
    }
    if !is_name(namespace) || namespace.contains('.') || namespace.len() > LONGEST_NAMESPACE {
        return Err("what stands before / is no name of a namespace");
    }
    let Some(prefix) = account.strip_suffix('*') else {
        return match (account.contains('*'), is_name(account)) {
            (true, _) => Err("* may only stand at the end"),
            (false, false) => Err("what stands behind / is no name of a service account"),
            (false, true) => Ok((namespace, Accounts::Exactly(account))),
        };
    };
    if prefix.contains('*') {
        return Err("there may be one * only");
    }
    // The beginning of a name is one that some letter completes.
    match is_name(&format!("{prefix}a")) {
        true => Ok((namespace, Accounts::BeginningWith(prefix))),
        false => Err("no name of a service account begins with what stands before *"),
    }
}

/// `None`: something is wrong with it, which was reported.
fn settings_of(value: &Value, mut report: impl FnMut(String)) -> Option<RoleSettings> {
    let Value::Object(members) = value else {
        report(format!("it must be an object with {FIELDS}"));
        return None;
    };
    let (mut role, mut audience, mut endpoint, mut token_life) = (None, None, StsEndpoint::Regional, None);
    let (mut seen, mut is_good) = (Vec::new(), true);
    for (name, value) in members {
        let fault = match (name.as_str(), value) {
            (name, _) if seen.contains(&name) => Some(format!("{name} is there twice")),
            ("RoleARN", Value::Text(text)) => match RoleArn::read(text) {
                Ok(read) => {
                    role = Some(read);
                    None
                }
                Err(error) => Some(format!("RoleARN is {}: {error}", quoted(text))),
            },
            // The webhook takes an empty one for none.
            ("Audience", Value::Text(text)) => {
                audience = (!text.is_empty()).then(|| Arc::from(text.as_str()));
                fault_of_audience(text).map(|fault| format!("Audience: {fault}"))
            }
            ("UseRegionalSTS", Value::Bool(is_regional)) => {
                endpoint = if *is_regional { StsEndpoint::Regional } else { StsEndpoint::Global };
                None
            }
            // kOps writes it in each entry; the webhook takes it for none (its pkg/cache/cache.go).
            ("TokenExpiration", Value::Number(0)) => None,
            ("TokenExpiration", Value::Number(seconds @ SHORTEST_TOKEN_LIFE..)) => {
                token_life = Some(Duration::from_secs(*seconds));
                None
            }
            ("RoleARN" | "Audience", _) => Some(format!("{name} must be a text")),
            ("UseRegionalSTS", _) => Some("UseRegionalSTS must be true or false".to_owned()),
            ("TokenExpiration", _) => Some(
                "TokenExpiration must be a whole number of seconds, 600 at least, or 0 for none".to_owned(),
            ),
            (other, _) => Some(format!("there is no field {}; there are {FIELDS}", quoted(other))),
        };
        is_good &= fault.is_none();
        fault.into_iter().for_each(&mut report);
        seen.push(name.as_str());
    }
    if role.is_none() && !seen.contains(&"RoleARN") {
        report("RoleARN is missing".to_owned());
    }
    let role = role.filter(|_| is_good)?;
    Some(RoleSettings { role, audience, endpoint, token_life })
}
