//! The ARN of an IAM role.
//!
//! Owns: what such an ARN looks like. Must not know: who gives the role to whom.

use std::fmt;
use std::sync::Arc;

/// The longest ARN of a role that STS takes, in bytes (botocore model, sts 2011-06-15, `arnType`).
const LONGEST: usize = 2_048;
/// Digits of an account's id.
const ACCOUNT_DIGITS: usize = 12;

/// An ARN as `arn:aws:iam::111122223333:role/path/name`, of any partition.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoleArn(Arc<str>);

/// A text that is the ARN of no role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it must be the ARN of a role, such as arn:aws:iam::111122223333:role/name")]
pub struct NotARoleArn;

impl RoleArn {
    /// Reads an ARN.
    ///
    /// # Errors
    /// [`NotARoleArn`].
    pub fn read(text: &str) -> Result<Self, NotARoleArn> {
        let is_one = text.len() <= LONGEST && is_role_arn(text);
        is_one.then(|| Self(text.into())).ok_or(NotARoleArn)
    }

    /// The whole ARN.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RoleArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RoleArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `arn:<partition>:iam::<account>:role/<path and name>`, with the characters that IAM allows in a path and a
/// name (IAM user guide, "IAM and AWS STS quotas").
fn is_role_arn(text: &str) -> bool {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let &["arn", partition, "iam", "", account, resource] = parts.as_slice() else { return false };
    let is_partition = partition.strip_prefix("aws").is_some_and(|rest| {
        let may_be_in_it = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        (rest.is_empty() || rest.starts_with('-')) && rest.bytes().all(may_be_in_it)
    });
    let is_account = account.len() == ACCOUNT_DIGITS && account.bytes().all(|byte| byte.is_ascii_digit());
    is_partition && is_account && resource.strip_prefix("role/").is_some_and(is_path_and_name)
}

fn is_path_and_name(text: &str) -> bool {
    let (path, name) = text.rsplit_once('/').unwrap_or(("", text));
    let may_be_in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
    // IAM has all of printable ASCII in a path. Not these: who reads an ARN or a pattern of them takes them
    // for its parts.
    let may_be_in_path = |byte: u8| byte.is_ascii_graphic() && !b":*?".contains(&byte);
    !name.is_empty() && name.bytes().all(may_be_in_name) && path.bytes().all(may_be_in_path)
}

#[cfg(test)]
mod tests {
    use super::RoleArn;

    #[test]
    fn an_arn_of_a_role_is_told_from_what_people_write_instead() {
        for (text, is_one) in [
            ("arn:aws:iam::111122223333:role/reader", true),
            ("arn:aws:iam::111122223333:role/team/a/Reader_1+=,.@-", true),
            ("arn:aws:iam::111122223333:role/team!a/(b)/~#$%&'\";<>[]\\^`{|}/reader", true),
            ("arn:aws:iam::111122223333:role/reader!", false),
            ("arn:aws:iam::111122223333:role/team/rea!der", false),
            ("arn:aws:iam::111122223333:role/team:a/reader", false),
            ("arn:aws:iam::111122223333:role/team*/reader", false),
            ("arn:aws:iam::111122223333:role/team?/reader", false),
            ("arn:aws:iam::111122223333:role/team a/reader", false),
            ("arn:aws:iam::111122223333:role/team\u{7f}/reader", false),
            ("arn:aws:iam::111122223333:role/té/reader", false),
            ("arn:aws-us-gov:iam::111122223333:role/reader", true),
            ("arn:aws-iso-b:iam::111122223333:role/reader", true),
            ("reader", false),
            ("arn:aws:iam::111122223333:role/", false),
            ("arn:aws:iam::111122223333:role/team/", false),
            ("arn:aws:iam::111122223333:user/reader", false),
            ("arn:aws:iam::11112222333:role/reader", false),
            ("arn:aws:iam::ACCOUNT_ID:role/IAM_ROLE_NAME", false),
            ("arn:aws:iam:us-west-2:111122223333:role/reader", false),
            ("arn:aws:sts::111122223333:assumed-role/reader/session", false),
            ("arn:awsx:iam::111122223333:role/reader", false),
            ("arn:gcp:iam::111122223333:role/reader", false),
            (" arn:aws:iam::111122223333:role/reader", false),
            ("arn:aws:iam::111122223333:role/rea der", false),
            ("", false),
        ] {
            assert_eq!(RoleArn::read(text).is_ok(), is_one, "{text}");
        }
        let longest = format!("arn:aws:iam::111122223333:role/{}", "r".repeat(2_048 - 31));
        assert!(RoleArn::read(&longest).is_ok() && RoleArn::read(&(longest + "r")).is_err());
    }
}
