//! What EKS's API knows beyond the associations that EKS Auth sees: when they were made and by which add-on,
//! the add-ons themselves, updates, and requests that were made before.
//!
//! Owns: that state and its bounds. Must not know: HTTP, nor what a request may do.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::SystemTime;

use serde::Serialize;
use serde_json::{Value, json};

use super::input::Tags;
use super::refusal::{Code, Refused};
use crate::random;

/// Updates and requests remembered; the oldest go first.
const REMEMBERED: usize = 1_000;

/// What EKS keeps of an association.
#[derive(Clone, Debug)]
pub(super) struct Details {
    pub(super) tags: Tags,
    pub(super) created_at: SystemTime,
    pub(super) modified_at: SystemTime,
    /// The add-on that owns it.
    pub(super) owner_arn: Option<String>,
}

impl Details {
    pub(super) fn new(now: SystemTime, owner_arn: Option<String>, tags: Tags) -> Self {
        Self { tags, created_at: now, modified_at: now, owner_arn }
    }
}

/// An installed add-on.
#[derive(Clone, Debug)]
pub(super) struct Addon {
    pub(super) arn: String,
    pub(super) version: String,
    pub(super) namespace: String,
    pub(super) service_account_role_arn: Option<String>,
    pub(super) configuration_values: Option<String>,
    pub(super) tags: Tags,
    pub(super) created_at: SystemTime,
    pub(super) modified_at: SystemTime,
}

/// The state.
#[derive(Debug)]
pub(super) struct Records {
    /// By the association's id; one that was there from the start has none until it is changed.
    pub(super) associations: HashMap<String, Details>,
    /// By name.
    pub(super) addons: BTreeMap<String, Addon>,
    updates: VecDeque<(String, Value)>,
    /// Operation and token, what was asked, what was answered.
    requests: VecDeque<(String, Value, Value)>,
    /// Since when the cluster is there.
    pub(super) since: SystemTime,
}

impl Records {
    pub(super) fn new(since: SystemTime) -> Self {
        Self {
            associations: HashMap::new(),
            addons: BTreeMap::new(),
            updates: VecDeque::new(),
            requests: VecDeque::new(),
            since,
        }
    }

    /// What is known of an association.
    pub(super) fn details(&self, id: &str) -> Details {
        let known = self.associations.get(id).cloned();
        known.unwrap_or_else(|| Details::new(self.since, None, Tags::new()))
    }

    /// The answer to the same request when it was made before with the same token.
    pub(super) fn answered(
        &self,
        operation: &str,
        token: Option<&str>,
        input: &impl Serialize,
    ) -> Result<Option<Value>, Refused> {
        let Some(token) = token else { return Ok(None) };
        let key = format!("{operation} {token}");
        match self.requests.iter().find(|(known, ..)| *known == key) {
            None => Ok(None),
            Some((_, asked, answer)) if *asked == json!(input) => Ok(Some(answer.clone())),
            Some(_) => {
                let text = "The clientRequestToken was used before with other parameters.";
                Err(Refused::new(Code::InvalidRequest, text))
            }
        }
    }

    /// Remembers an answer for the same request to come again.
    pub(super) fn remember(
        &mut self,
        operation: &str,
        token: Option<&str>,
        input: &impl Serialize,
        answer: &Value,
    ) {
        let Some(token) = token else { return };
        bounded(&mut self.requests, (format!("{operation} {token}"), json!(input), answer.clone()));
    }

    /// Notes an update, which is over at once, and gives it as it was when it began.
    pub(super) fn update(&mut self, mut update: Value) -> Value {
        let id = random::uuid();
        if let Some(update) = update.as_object_mut() {
            update.insert("id".to_owned(), id.clone().into());
            update.insert("errors".to_owned(), json!([]));
            update.insert("status".to_owned(), "Successful".into());
        }
        bounded(&mut self.updates, (id, update.clone()));
        if let Some(update) = update.as_object_mut() {
            update.insert("status".to_owned(), "InProgress".into());
        }
        update
    }

    /// An update by its id.
    pub(super) fn known_update(&self, id: &str) -> Option<Value> {
        self.updates.iter().find(|(known, _)| known == id).map(|(_, update)| update.clone())
    }
}

fn bounded<T>(list: &mut VecDeque<T>, item: T) {
    if list.len() == REMEMBERED {
        list.pop_front();
    }
    list.push_back(item);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_request_again_has_the_same_answer_and_another_with_its_token_is_refused() {
        let mut records = Records::new(SystemTime::UNIX_EPOCH);
        records.remember("CreateAddon", Some("t"), &json!({"a": 1}), &json!("first"));
        let answered = |operation, input: Value| records.answered(operation, Some("t"), &input);
        assert_eq!(answered("CreateAddon", json!({"a": 1})), Ok(Some(json!("first"))));
        assert_eq!(answered("UpdateAddon", json!({"a": 1})), Ok(None), "a token of another operation");
        assert!(answered("CreateAddon", json!({"a": 2})).is_err());
        assert_eq!(records.answered("CreateAddon", None, &json!({"a": 2})), Ok(None));
    }

    #[test]
    fn an_update_is_in_progress_when_it_begins_and_done_when_it_is_looked_at() {
        let mut records = Records::new(SystemTime::UNIX_EPOCH);
        let begun = records.update(json!({ "type": "AddonUpdate" }));
        assert_eq!(begun["status"], "InProgress");
        let id = begun["id"].as_str().unwrap();
        assert_eq!(records.known_update(id).unwrap()["status"], "Successful");
        for _ in 0..REMEMBERED {
            records.update(json!({}));
        }
        assert_eq!(records.known_update(id), None, "what is remembered is bounded");
    }
}
