//! A role that somebody has assumed.
//!
//! Owns: what the session is called and what it carries. Must not know: the credentials made for it.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use serde::Serialize;

use super::iam::arn::RoleArn;
use crate::random;

/// A session of a role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// The role.
    pub role_arn: String,
    /// `RoleSessionName`.
    pub name: String,
    /// Session tags, those of a chained session included.
    pub tags: BTreeMap<String, String>,
    /// The inline session policy, which limits what the session may do.
    pub policy: Option<String>,
}

impl Session {
    /// Its own ARN; empty for what is not a role.
    pub(crate) fn arn(&self) -> String {
        RoleArn::parse(&self.role_arn).map(|role| role.session(&self.name)).unwrap_or_default()
    }

    /// `AROA…:<session name>`.
    pub(crate) fn user_id(&self) -> String {
        format!("{}:{}", role_id(&self.role_arn), self.name)
    }
}

/// The unique id of a role: always the same for the same ARN.
pub(crate) fn role_id(role_arn: &str) -> String {
    let hashed = random::hex(digest(&SHA256, role_arn.as_bytes()).as_ref()).to_uppercase();
    "AROA".chars().chain(hashed.chars().take(17)).collect()
}
