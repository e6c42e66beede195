//! The names of roles and of their sessions.
//!
//! Owns: `arn:<partition>:iam::<account>:role/<path and name>` and what is made from it. Must not know:
//! whether there is such a role.

/// A role's ARN, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RoleArn<'a> {
    pub(crate) partition: &'a str,
    pub(crate) account: &'a str,
    /// Without its path.
    pub(crate) name: &'a str,
}

impl<'a> RoleArn<'a> {
    /// `None` if it is not the ARN of a role.
    pub(crate) fn parse(arn: &'a str) -> Option<Self> {
        let (prefix, path) = arn.split_once(":role/")?;
        let (partition, account) = prefix.strip_prefix("arn:")?.split_once(":iam::")?;
        let name = path.rsplit('/').next().filter(|name| !name.is_empty())?;
        let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
        is_account.then_some(Self { partition, account, name })
    }

    /// The ARN of a session of this role.
    pub(crate) fn session(&self, session_name: &str) -> String {
        let Self { partition, account, name } = self;
        format!("arn:{partition}:sts::{account}:assumed-role/{name}/{session_name}")
    }

    /// The principal that stands for the whole account.
    pub(crate) fn account_root(&self) -> String {
        format!("arn:{}:iam::{}:root", self.partition, self.account)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_named_by_the_last_part_of_its_path() {
        let arn = RoleArn::parse("arn:aws-us-gov:iam::111122223333:role/path/to/name").unwrap();
        assert_eq!(arn, RoleArn { partition: "aws-us-gov", account: "111122223333", name: "name" });
        assert_eq!(arn.session("s"), "arn:aws-us-gov:sts::111122223333:assumed-role/name/s");
        assert_eq!(arn.account_root(), "arn:aws-us-gov:iam::111122223333:root");
    }

    #[test]
    fn what_is_not_a_role_is_not_taken_for_one() {
        for bad in [
            "",
            "arn:aws:iam::1:role/a",
            "arn:aws:iam::111122223333:user/a",
            "arn:aws:iam::111122223333:role/",
        ] {
            assert_eq!(RoleArn::parse(bad), None, "{bad}");
        }
    }
}
