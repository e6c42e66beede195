//! The role map and the role limits, read again when they change.
//!
//! Owns: how often they are checked, and what is said of a bad one. Must not know: what is in them. A bad edit
//! is refused, and the last good content stays; and nothing ends because a file is missing for a moment.

use std::future::pending;
use std::path::PathBuf;
use std::time::Duration;

use super::problems::Problems;
use super::role_limits::{self, RoleLimits};
use super::role_map::{self, RoleMap};
use super::state::State;
use super::{Associations, Roles};
use crate::clock::{BootTime, Clock};
use crate::telemetry::error_chain::ErrorChain;
use crate::watched_file::{ReadError, WatchedFile};

/// A check is one `open` and one `fstat`; as for files of keys.
const CHECK: Duration = Duration::from_secs(5);

/// Why a file does not count.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("it cannot be read")]
    Read(#[from] ReadError),
    #[error("{0}")]
    Content(#[from] Problems),
}

/// One of the two files.
struct RoleFile<T> {
    /// For the log.
    name: &'static str,
    file: WatchedFile,
    read: fn(&[u8]) -> Result<T, Problems>,
    /// `None` of it: it says what it said.
    note: fn(&mut State, Option<T>, BootTime),
    fail: fn(&mut State),
    /// What was said of it last, so that each problem is logged once.
    problem: Option<String>,
}

impl Associations {
    /// Keeps both files up to date without end; cancel by dropping. `tell` is given whether they can be used,
    /// and why not, at each check.
    pub async fn keep_files(self, clock: Clock, tell: impl Fn(Result<(), String>) + Send) {
        let Some(roles) = &self.shared.roles else { return pending().await };
        let mut map = roles.map.clone().map(RoleFile::map);
        let mut limits = roles.limits.clone().map(RoleFile::limits);
        if map.is_none() && limits.is_none() {
            return pending().await;
        }
        loop {
            if let Some(map) = &mut map {
                map.check(roles, &clock).await;
            }
            if let Some(limits) = &mut limits {
                limits.check(roles, &clock).await;
            }
            let problems = [
                map.as_ref().and_then(|map| map.problem.as_deref()),
                limits.as_ref().and_then(|limits| limits.problem.as_deref()),
            ];
            let problems: Vec<&str> = problems.into_iter().flatten().collect();
            tell(if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) });
            tokio::time::sleep(CHECK).await;
        }
    }
}

impl RoleFile<RoleMap> {
    fn map(path: PathBuf) -> Self {
        let file = WatchedFile::new(path, role_map::MOST_BYTES);
        let (note, fail) = (State::note_map, State::map_failed);
        Self { name: "role map", file, read: RoleMap::read, note, fail, problem: None }
    }
}

impl RoleFile<RoleLimits> {
    fn limits(path: PathBuf) -> Self {
        let file = WatchedFile::new(path, role_limits::MOST_BYTES);
        let (note, fail) = (State::note_limits, State::limits_failed);
        Self { name: "role limits", file, read: RoleLimits::read, note, fail, problem: None }
    }
}

impl<T> RoleFile<T> {
    async fn check(&mut self, roles: &Roles, clock: &Clock) {
        let read = self.read_if_changed().await;
        let now = clock.now().boot;
        let mut state = roles.state.lock();
        let problem = match read {
            Ok(content) => {
                (self.note)(&mut state, content, now);
                None
            }
            Err(unusable) => {
                (self.fail)(&mut state);
                let path = self.file.path().display();
                Some(format!("{} {path}: {}", self.name, ErrorChain(&unusable)))
            }
        };
        let (has_ended, has_wish) = (state.has_withdrawn(), state.has_new_wish());
        drop(state);
        roles.tell(has_ended);
        if has_wish {
            roles.wanted.notify_one();
        }
        self.say(problem);
    }

    /// The content if it is new and good; `None`: it is as it was.
    async fn read_if_changed(&mut self) -> Result<Option<T>, Unusable> {
        let Some(changed) = self.file.read_if_changed().await? else { return Ok(None) };
        let content = (self.read)(&changed.content)?;
        self.file.accept(changed.stamp);
        Ok(Some(content))
    }

    fn say(&mut self, problem: Option<String>) {
        match (&self.problem, &problem) {
            (known, Some(problem)) if known.as_ref() != Some(problem) => {
                tracing::warn!(problem, "a file of roles cannot be used; its last good content stays");
            }
            (Some(_), None) => tracing::info!(file = self.name, "a file of roles can be used again"),
            (Some(_) | None, _) => {}
        }
        self.problem = problem;
    }
}
