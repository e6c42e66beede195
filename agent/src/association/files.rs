//! The role map and the role limits, read again when they change.
//!
//! Owns: how often they are checked, and what is said of a bad one. Must not know: what is in them. A bad
//! edit is refused, and the last good content stays; and nothing ends because a file is missing for a moment.

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
    #[error(transparent)]
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
        Self { name: "role map", file, read: read_map, note: State::note_map, problem: None }
    }
}

/// What has no effect is said once for each content, so that nobody counts on it.
fn read_map(content: &[u8]) -> Result<RoleMap, Problems> {
    let map = RoleMap::read(content)?;
    let entries = map.with_token_life();
    if entries > 0 {
        tracing::info!(
            entries,
            "TokenExpiration of the role map has no effect: a pod's volume says how long its tokens live"
        );
    }
    Ok(map)
}

impl RoleFile<RoleLimits> {
    fn limits(path: PathBuf) -> Self {
        let file = WatchedFile::new(path, role_limits::MOST_BYTES);
        Self { name: "role limits", file, read: RoleLimits::read, note: State::note_limits, problem: None }
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

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    use parking_lot::Mutex;
    use tokio::time::{Instant, sleep, timeout};

    use crate::association::testing::roles;
    use crate::association::{Associations, Choice};
    use crate::clock::{Clock, Simulated};
    use crate::lifecycle::tasks::spawn_detached;
    use crate::rng::Rng;
    use crate::workload::{Audience, Caller, Pod, Route, ServiceAccount};

    const MAP: &str = r#"{"ns/sa":{"RoleARN":"arn:aws:iam::111122223333:role/r"}}"#;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("pod-identity-agent-roles-{}-{name}", std::process::id()));
            let _ = std::fs::remove_file(&path);
            Self(path)
        }

        fn write(&self, content: &str) {
            std::fs::write(&self.0, content).unwrap();
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    type Told = Arc<Mutex<Option<Result<(), String>>>>;

    fn keep(map: Option<&Path>, limits: Option<&Path>) -> (Associations, Clock, Told) {
        let associations = Associations::new(Some(roles(map, limits, false)), Rng::seeded(7));
        let (clock, told) = (Clock::simulated(Simulated::starting_at(UNIX_EPOCH)), Told::default());
        let last_told = Arc::clone(&told);
        let tell = move |said| *last_told.lock() = Some(said);
        spawn_detached("test-files", associations.clone().keep_files(clock.clone(), tell));
        (associations, clock, told)
    }

    async fn ask(associations: &Associations, clock: &Clock, pod_uid: &str) -> String {
        let service_account = ServiceAccount { namespace: "ns".into(), name: "sa".into(), uid: "u".into() };
        let pod = Pod { service_account, name: "p".into(), uid: pod_uid.into(), node: None };
        let (caller, audience) = (Caller::Verified(Arc::new(pod)), Audience::WebIdentity("sts".into()));
        let route = match associations.choose(&caller, &audience, clock.now()) {
            Choice::Route(route) => Ok(route),
            Choice::Refused(why) | Choice::Former(_, why) => Err(why),
            Choice::Ask(question) => {
                let asked = associations.ask(question, clock.now());
                match timeout(Duration::from_millis(4_500), asked).await {
                    Ok(answer) => answer,
                    Err(_) => return "late".to_owned(),
                }
            }
        };
        match route {
            Ok(Route::WebIdentity(_)) => "role".to_owned(),
            Ok(Route::EksAuth) => "eks-auth".to_owned(),
            Err(why) => format!("{why:?}"),
        }
    }

    /// Long enough for a check, and for the reading of a file in real time.
    async fn a_check() {
        sleep(Duration::from_millis(5_200)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_comes_late_is_read_then_and_a_bad_edit_is_refused() {
        let file = Scratch::new("late");
        let (associations, clock, told) = keep(Some(&file.0), None);
        assert_eq!(ask(&associations, &clock, "a").await, "late", "it is held");
        let said = told.lock().clone();
        let Some(Err(said)) = said else { panic!("{said:?}") };
        assert!(said.contains("role map /") && said.contains("No such file"), "{said}");
        file.write(MAP);
        a_check().await;
        assert_eq!(
            (ask(&associations, &clock, "a").await, told.lock().clone()),
            ("role".to_owned(), Some(Ok(())))
        );
        for content in ["{", r#"{"ns/sa":{"RoleARN":"r"}}"#] {
            file.write(content);
            a_check().await;
            assert_eq!(
                (ask(&associations, &clock, "b").await, told.lock().clone().unwrap().is_ok()),
                ("role".to_owned(), false)
            );
        }
        std::fs::remove_file(&file.0).unwrap();
        sleep(Duration::from_secs(3_600)).await;
        assert_eq!(ask(&associations, &clock, "c").await, "role", "nothing ends because a file is missing");
        let withdrawn = timeout(Duration::from_secs(1), associations.withdrawals().next()).await;
        assert!(withdrawn.is_err(), "{withdrawn:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_waits_gets_its_role_when_the_file_comes() {
        let file = Scratch::new("mounted");
        let (associations, clock, _told) = keep(Some(&file.0), None);
        sleep(Duration::from_secs(2)).await;
        let (role, ()) = tokio::join!(ask(&associations, &clock, "a"), async {
            sleep(Duration::from_secs(1)).await;
            file.write(MAP);
        });
        assert_eq!(role, "role");
    }

    #[tokio::test(start_paused = true)]
    async fn an_entry_that_is_taken_out_ends_the_entitlement_after_two_checks() {
        let file = Scratch::new("out");
        file.write(MAP);
        let (associations, clock, _told) = keep(Some(&file.0), None);
        assert_eq!(ask(&associations, &clock, "a").await, "role");
        file.write("{}");
        let began = Instant::now();
        let withdrawn = timeout(Duration::from_secs(60), associations.withdrawals().next()).await.unwrap();
        assert_eq!(&*withdrawn.service_account.name, "sa");
        let after = began.elapsed().as_secs();
        assert!((10..=20).contains(&after), "{after} s");
        assert_eq!(ask(&associations, &clock, "a").await, "NoRole");
    }

    #[tokio::test(start_paused = true)]
    async fn limits_that_cannot_be_read_let_nobody_have_anything() {
        let (map, limits) = (Scratch::new("map"), Scratch::new("limits"));
        map.write(MAP);
        let (associations, clock, told) = keep(Some(&map.0), Some(&limits.0));
        assert_eq!(ask(&associations, &clock, "a").await, "late");
        assert!(told.lock().clone().is_some_and(|said| said.unwrap_err().starts_with("role limits /")));
        limits.write(r#"{"other":["*"]}"#);
        a_check().await;
        assert_eq!(ask(&associations, &clock, "a").await, "NotAllowed");
        limits.write(r#"{"n*":["arn:aws:iam::111122223333:role/*"]}"#);
        a_check().await;
        assert_eq!(ask(&associations, &clock, "a").await, "role");
    }
}
