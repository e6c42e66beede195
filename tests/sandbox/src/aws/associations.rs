//! Pod identity associations: which service account gets which role.
//!
//! Owns: the list, its YAML file and the reading of it again, and how long a change stays unseen by EKS Auth.
//! Must not know: who asks.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::iam::arn::RoleArn;
use crate::options::Options;
use crate::random;

/// One association.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Association {
    /// Namespace of the service account.
    pub namespace: String,
    /// The service account.
    pub service_account: String,
    /// `arn:aws:iam::<account>:role/<path and name>`.
    pub role_arn: String,
    /// `a-` and 17 characters; made from the two names if not given.
    #[serde(default)]
    pub association_id: Option<String>,
    /// A second role, which the first one assumes for the pod: its credentials are the ones that the pod
    /// gets, for 59 minutes at most.
    #[serde(default)]
    pub target_role_arn: Option<String>,
    /// Leaves the six session tags away.
    #[serde(default)]
    pub disable_session_tags: bool,
    /// An inline session policy. EKS takes it only where the session tags are disabled.
    #[serde(default)]
    pub policy: Option<String>,
    /// Lifetime of its credentials in seconds, if not the sandbox's.
    #[serde(default)]
    pub lifetime_seconds: Option<u64>,
    /// How the role refuses, if it does.
    #[serde(default)]
    pub refuse: Option<Refusal>,
}

/// How a role refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// Its trust policy does not name EKS Pod Identity: AccessDeniedException with status 400.
    AccessDenied,
}

impl Association {
    /// An association with the sandbox's lifetime, that does not refuse.
    #[must_use]
    pub fn new(namespace: &str, service_account: &str, role_arn: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
            role_arn: role_arn.to_owned(),
            association_id: None,
            target_role_arn: None,
            disable_session_tags: false,
            policy: None,
            lifetime_seconds: None,
            refuse: None,
        }
    }

    /// Its id: the given one, or the same one for the same service account at any time.
    pub(crate) fn id(&self) -> String {
        self.association_id.clone().unwrap_or_else(|| {
            let names = format!("{}/{}", self.namespace, self.service_account);
            let hashed = random::hex(digest(&SHA256, names.as_bytes()).as_ref());
            hashed.chars().take(17).fold("a-".to_owned(), |id, digit| id + digit.encode_utf8(&mut [0; 4]))
        })
    }

    /// What EKS says in `sts:ExternalId` when it assumes the target role:
    /// `<region>/<account>/<cluster>/<namespace>/<service account>`.
    #[must_use]
    pub fn external_id(&self, options: &Options) -> String {
        let Options { region, account, cluster_name, .. } = options;
        format!("{region}/{account}/{cluster_name}/{}/{}", self.namespace, self.service_account)
    }
}

/// Associations that cannot be used.
#[derive(Debug, Error)]
pub enum AssociationsError {
    /// The file cannot be read.
    #[error("the associations file {path} cannot be read")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not a YAML list of associations.
    #[error("the associations file {path} is not a list of associations: {reason}")]
    Yaml {
        /// Which file.
        path: PathBuf,
        /// Where and what.
        reason: String,
    },
    /// A role that is none.
    #[error("the association of {0} has a roleArn that is not arn:aws:iam::<12 digits>:role/<name>")]
    Role(String),
    /// A target role that is none.
    #[error("the association of {0} has a targetRoleArn that is not arn:aws:iam::<12 digits>:role/<name>")]
    TargetRole(String),
    /// A session policy beside session tags, or one that is not JSON.
    #[error("the association of {0} has a policy that is not JSON, or does not disable session tags")]
    Policy(String),
    /// Two for one service account.
    #[error("{0} has two associations; EKS allows one")]
    Twice(String),
}

/// When a file was last changed, as far as the file system says: time and length.
type Stamp = (SystemTime, u64);

#[derive(Debug)]
struct Source {
    path: PathBuf,
    /// `None` while the file cannot be found.
    seen: Option<Stamp>,
}

#[derive(Debug)]
struct Current {
    list: Vec<Association>,
    file: Option<Source>,
    /// What EKS Auth goes on seeing, each list until its time; the oldest first.
    seen_until: Vec<(SystemTime, Vec<Association>)>,
}

impl Current {
    fn new(list: Vec<Association>, file: Option<Source>) -> Self {
        Self { list, file, seen_until: Vec::new() }
    }

    /// The list that EKS Auth goes by.
    fn seen_at(&mut self, now: SystemTime) -> &[Association] {
        self.seen_until.retain(|(until, _)| *until > now);
        self.seen_until.first().map_or(&self.list, |(_, list)| list)
    }
}

/// The associations in force.
#[derive(Debug)]
pub(crate) struct Associations(Mutex<Current>);

impl Associations {
    /// From a list.
    pub(crate) fn given(list: Vec<Association>) -> Result<Self, AssociationsError> {
        check(&list)?;
        Ok(Self(Mutex::new(Current::new(list, None))))
    }

    /// From a file, which must be good at the start.
    pub(crate) fn from_file(path: &Path) -> Result<Self, AssociationsError> {
        let seen = stamp(path);
        let list = read(path)?;
        let file = Some(Source { path: path.to_owned(), seen });
        Ok(Self(Mutex::new(Current::new(list, file))))
    }

    /// Replaces all; a file is no longer looked at.
    pub(crate) fn set(&self, list: Vec<Association>) -> Result<(), AssociationsError> {
        check(&list)?;
        *self.0.lock() = Current::new(list, None);
        Ok(())
    }

    /// All of them, by the file as it is now.
    pub(crate) fn list(&self) -> Vec<Association> {
        let mut current = self.0.lock();
        current.look_again();
        current.list.clone()
    }

    /// Replaces all at `now`, as EKS's API does: EKS Auth goes on seeing the old ones for `delay`.
    pub(crate) fn change(
        &self,
        list: Vec<Association>,
        now: SystemTime,
        delay: Duration,
    ) -> Result<(), AssociationsError> {
        check(&list)?;
        let mut current = self.0.lock();
        let before = std::mem::replace(&mut current.list, list);
        current.file = None;
        if let (false, Some(until)) = (delay.is_zero(), now.checked_add(delay)) {
            current.seen_until.push((until, before));
        }
        Ok(())
    }

    /// The association of a service account as EKS Auth sees it at `now`, by the file as it is now.
    pub(crate) fn find(
        &self,
        namespace: &str,
        service_account: &str,
        now: SystemTime,
    ) -> Option<Association> {
        let mut current = self.0.lock();
        current.look_again();
        let is_it = |it: &&Association| it.namespace == namespace && it.service_account == service_account;
        current.seen_at(now).iter().find(is_it).cloned()
    }
}

impl Current {
    fn look_again(&mut self) {
        let Some(file) = &mut self.file else { return };
        let now = stamp(&file.path);
        if now == file.seen {
            return;
        }
        file.seen = now;
        match read(&file.path) {
            Ok(list) => {
                tracing::info!(count = list.len(), "associations read again");
                self.list = list;
            }
            Err(error) => tracing::warn!(%error, "associations kept as they were"),
        }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn read(path: &Path) -> Result<Vec<Association>, AssociationsError> {
    let text = fs::read_to_string(path)
        .map_err(|source| AssociationsError::Read { path: path.to_owned(), source })?;
    let list = serde_saphyr::from_str::<Vec<Association>>(&text)
        .map_err(|error| AssociationsError::Yaml { path: path.to_owned(), reason: error.to_string() })?;
    check(&list)?;
    Ok(list)
}

fn check(list: &[Association]) -> Result<(), AssociationsError> {
    for (place, association) in list.iter().enumerate() {
        let who = || format!("{}/{}", association.namespace, association.service_account);
        if RoleArn::parse(&association.role_arn).is_none() {
            return Err(AssociationsError::Role(who()));
        }
        if association.target_role_arn.as_deref().is_some_and(|arn| RoleArn::parse(arn).is_none()) {
            return Err(AssociationsError::TargetRole(who()));
        }
        if let Some(policy) = &association.policy
            && (!association.disable_session_tags || serde_json::from_str::<Value>(policy).is_err())
        {
            return Err(AssociationsError::Policy(who()));
        }
        let same = |other: &Association| {
            other.namespace == association.namespace && other.service_account == association.service_account
        };
        if list.iter().skip(place + 1).any(same) {
            return Err(AssociationsError::Twice(who()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str =
        "- {namespace: default, serviceAccount: app, roleArn: 'arn:aws:iam::111122223333:role/one'}\n";

    #[test]
    fn the_sample_file_is_good() {
        let list = read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/associations.yaml"))).unwrap();
        assert_eq!((list[0].namespace.as_str(), list[0].service_account.as_str()), ("default", "app"));
        assert!(list.iter().any(|it| it.refuse == Some(Refusal::AccessDenied)));
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_keeps_the_last_good() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("associations.yaml");
        fs::write(&path, ONE).unwrap();
        let associations = Associations::from_file(&path).unwrap();
        let role = || associations.find("default", "app", SystemTime::UNIX_EPOCH).map(|it| it.role_arn);
        assert!(role().unwrap().ends_with("/one"));

        fs::write(&path, ONE.replace("/one", "/other")).unwrap();
        assert!(role().unwrap().ends_with("/other"));
        fs::write(&path, "- {namespace: [").unwrap();
        assert!(role().unwrap().ends_with("/other"), "broken: kept");
        fs::remove_file(&path).unwrap();
        assert!(role().unwrap().ends_with("/other"), "missing: kept");
        fs::write(&path, "[]\n").unwrap();
        assert_eq!(role(), None, "good and empty: gone");
    }

    #[test]
    fn eks_auth_sees_each_change_only_after_its_delay() {
        let list = |role: &str| vec![Association::new("ns", "sa", role)];
        let [one, two, three] =
            ["one", "two", "three"].map(|name| format!("arn:aws:iam::111122223333:role/{name}"));
        let associations = Associations::given(list(&one)).unwrap();
        let at = |second| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        let seen = |second| associations.find("ns", "sa", at(second)).unwrap().role_arn;
        associations.change(list(&two), at(10), Duration::from_secs(5)).unwrap();
        associations.change(list(&three), at(12), Duration::from_secs(5)).unwrap();
        assert_eq!(associations.list()[0].role_arn, three, "who asks EKS sees it at once");
        assert_eq!([seen(14), seen(15), seen(16), seen(17)], [one, two.clone(), two, three]);
        associations.change(Vec::new(), at(20), Duration::ZERO).unwrap();
        assert_eq!(associations.find("ns", "sa", at(20)), None, "without delay at once");
    }

    #[test]
    fn what_eks_would_not_take_is_refused_with_the_name() {
        let with_role =
            |role: &str| Associations::given(vec![Association::new("ns", "sa", role)]).unwrap_err();
        for bad in [
            "",
            "arn:aws:iam::1:role/a",
            "arn:aws:iam::111122223333:user/a",
            "arn:aws:iam::111122223333:role/",
        ] {
            assert!(with_role(bad).to_string().contains("ns/sa"), "{bad}");
        }
        let one = Association::new("ns", "sa", "arn:aws:iam::111122223333:role/a");
        assert!(matches!(Associations::given(vec![one.clone(), one]), Err(AssociationsError::Twice(_))));
    }

    #[test]
    fn a_policy_needs_its_tags_disabled_and_a_target_is_a_role() {
        let plain = Association::new("ns", "sa", "arn:aws:iam::111122223333:role/a");
        let policy = |text: &str, disable_session_tags| Association {
            policy: Some(text.to_owned()),
            disable_session_tags,
            ..plain.clone()
        };
        assert!(Associations::given(vec![policy("{}", true)]).is_ok());
        for bad in [policy("{}", false), policy("{", true)] {
            assert!(matches!(Associations::given(vec![bad]), Err(AssociationsError::Policy(_))));
        }
        let target_role_arn = Some("arn:aws:iam::111122223333:user/b".to_owned());
        let bad = Association { target_role_arn, ..plain.clone() };
        assert!(matches!(Associations::given(vec![bad]), Err(AssociationsError::TargetRole(_))));
        assert_eq!(plain.external_id(&Options::default()), "us-west-2/111122223333/sandbox/ns/sa");
    }

    #[test]
    fn an_association_without_an_id_has_one_of_the_usual_shape() {
        let id = Association::new("ns", "sa", "arn:aws:iam::111122223333:role/a").id();
        assert!(id.starts_with("a-") && id.len() == 19, "{id}");
    }
}
