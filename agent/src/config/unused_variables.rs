//! Variables of credentials that are set and not used.
//!
//! Owns: which those are, and which other variable goes before them. Must not know: their values, or how a
//! notice is worded. Amazon's agent uses some of them: where it does and this one does not, an admin must
//! not have to find it out.

use super::OwnCredentials;
use super::ProfileFile;
use super::environment::{
    ACCESS_KEY_ID, CONFIG_FILE, CREDENTIALS_FILE, Environment, PROFILE, SECRET_ACCESS_KEY, SESSION_TOKEN,
};

/// Of each pair the first goes before the second. Amazon's agent takes the two files together; here one is
/// read.
const PRECEDENCE: [[&str; 2]; 4] =
    [ACCESS_KEY_ID, SECRET_ACCESS_KEY, [CREDENTIALS_FILE, CONFIG_FILE], PROFILE];

/// A variable that is set and not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnusedVariable {
    /// Its name.
    pub name: &'static str,
    /// The variable that goes before it and is used.
    pub instead: Option<&'static str>,
}

/// Those of this environment. `is_file_by_flag`: no variable has named the file.
pub(super) fn unused(
    own: &OwnCredentials,
    is_file_by_flag: bool,
    environment: &Environment,
) -> Vec<UnusedVariable> {
    let used = used(own, is_file_by_flag, environment);
    let unused = environment.credentials.iter().copied().filter(|name| !used.contains(name));
    unused.map(|name| UnusedVariable { name, instead: before(name).filter(|it| used.contains(it)) }).collect()
}

fn used(own: &OwnCredentials, is_file_by_flag: bool, environment: &Environment) -> Vec<&'static str> {
    let first =
        |names: [&'static str; 2]| names.into_iter().find(|name| environment.credentials.contains(name));
    let used = match own {
        OwnCredentials::Imds(_) => [None, None, None],
        OwnCredentials::Environment { .. } => {
            [first(ACCESS_KEY_ID), first(SECRET_ACCESS_KEY), Some(SESSION_TOKEN)]
        }
        OwnCredentials::File { .. } if is_file_by_flag => [first(PROFILE), None, None],
        OwnCredentials::File { kind: ProfileFile::Credentials, .. } => {
            [Some(CREDENTIALS_FILE), first(PROFILE), None]
        }
        OwnCredentials::File { kind: ProfileFile::Config, .. } => [Some(CONFIG_FILE), first(PROFILE), None],
    };
    used.into_iter().flatten().collect()
}

fn before(name: &str) -> Option<&'static str> {
    PRECEDENCE.into_iter().find_map(|[first, second]| (second == name).then_some(first))
}
