//! The parameters of `AssumeRoleWithWebIdentity`, checked against the service model.
//!
//! Owns: names, lengths, patterns and ranges of the model (botocore, API version 2011-06-15). Must not know:
//! what a token means.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde_json::Value;

use super::refusal::{Code, Refused};
use crate::aws::iam::arn::RoleArn;

/// `RoleArn`, in characters.
const ROLE_ARN: RangeInclusive<usize> = 20..=2048;
/// `RoleSessionName`, in characters.
const SESSION_NAME: RangeInclusive<usize> = 2..=64;
/// `WebIdentityToken`, in characters.
const TOKEN: RangeInclusive<usize> = 4..=20_000;
/// `Policy`, in characters.
const POLICY: RangeInclusive<usize> = 1..=2048;
/// `DurationSeconds`.
const DURATION: RangeInclusive<u64> = 900..=43_200;
/// `DurationSeconds` of who does not ask for one.
const DEFAULT_DURATION: u64 = 3600;
/// `MinimumSessionTokenSize`, in bytes.
const SESSION_TOKEN_SIZE: RangeInclusive<u64> = 0..=4096;
/// Managed session policies.
const MAX_POLICY_ARNS: usize = 10;
/// What the packed policies may be long, in characters of the originals. The real packing is not public.
const PACKED: usize = 2048;

const PLAIN: [&str; 7] =
    ["Action", "Version", "RoleArn", "RoleSessionName", "WebIdentityToken", "Policy", "DurationSeconds"];

/// What the caller sent.
#[derive(Debug)]
pub(super) struct Arguments {
    pub(super) role_arn: String,
    pub(super) session_name: String,
    pub(super) token: String,
    pub(super) policy: Option<String>,
    policy_arns: Vec<String>,
    /// In seconds.
    pub(super) duration: u64,
}

impl Arguments {
    /// Reads the parameters. One that no model knows is refused: a test against the sandbox should find it.
    pub(super) fn parse(parameters: impl Iterator<Item = (String, String)>) -> Result<Self, Refused> {
        let mut by_name = BTreeMap::new();
        let mut policy_arns = Vec::new();
        for (name, value) in parameters {
            if is_policy_arn(&name) {
                policy_arns.push(value);
            } else if PLAIN.contains(&name.as_str()) || name == "MinimumSessionTokenSize" {
                by_name.insert(name, value);
            } else {
                return Err(invalid(&format!("{name} is not a parameter of this action")));
            }
        }
        let mut required = |name: &str, lengths: RangeInclusive<usize>| {
            let value = by_name.remove(name).ok_or_else(|| {
                let member = member(name);
                invalid(&format!(
                    "Value null at '{member}' failed to satisfy constraint: Member must not be null"
                ))
            })?;
            check_length(name, &value, lengths).map(|()| value)
        };
        let role_arn = required("RoleArn", ROLE_ARN)?;
        let session_name = required("RoleSessionName", SESSION_NAME)?;
        let token = required("WebIdentityToken", TOKEN)?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
        if !session_name.chars().all(is_name) {
            return Err(invalid(&format!(
                "Value '{session_name}' at 'roleSessionName' failed to satisfy constraint: Member must \
                 satisfy regular expression pattern: [\\w+=,.@-]*"
            )));
        }
        let policy = by_name.remove("Policy");
        if let Some(policy) = &policy {
            check_length("Policy", policy, POLICY)?;
        }
        let duration = number(&by_name, "DurationSeconds", DURATION)?.unwrap_or(DEFAULT_DURATION);
        number(&by_name, "MinimumSessionTokenSize", SESSION_TOKEN_SIZE)?;
        Ok(Self { role_arn, session_name, token, policy, policy_arns, duration })
    }

    /// The role's ARN, taken apart.
    pub(super) fn role(&self) -> Result<RoleArn<'_>, Refused> {
        let malformed = || Refused::new(Code::ValidationError, "Request ARN is invalid");
        RoleArn::parse(&self.role_arn).ok_or_else(malformed)
    }

    /// How much of the room for session policies is taken, in per cent.
    pub(super) fn packed_policy_percent(&self) -> Result<usize, Refused> {
        if let Some(policy) = &self.policy
            && !is_policy(policy)
        {
            return Err(Refused::new(Code::MalformedPolicyDocument, "Syntax errors in policy."));
        }
        if self.policy_arns.len() > MAX_POLICY_ARNS {
            let text = "Member must have length less than or equal to 10";
            return Err(invalid(&format!("Value at 'policyArns' failed to satisfy constraint: {text}")));
        }
        let texts = self.policy.iter().chain(&self.policy_arns);
        let percent = (texts.map(|text| text.chars().count()).sum::<usize>() * 100).div_ceil(PACKED);
        if percent > 100 {
            let text =
                format!("Packed policy consumes {percent}% of allotted space, please use smaller policy.");
            return Err(Refused::new(Code::PackedPolicyTooLarge, text));
        }
        Ok(percent)
    }
}

/// `PolicyArns.member.<number>.arn`
fn is_policy_arn(name: &str) -> bool {
    let number = name.strip_prefix("PolicyArns.member.").and_then(|rest| rest.strip_suffix(".arn"));
    number.is_some_and(|number| number.parse::<u8>().is_ok())
}

/// Whether a session policy is one, as far as anybody but IAM can say.
fn is_policy(text: &str) -> bool {
    serde_json::from_str::<Value>(text).is_ok_and(|policy| policy.get("Statement").is_some())
}

fn number(
    by_name: &BTreeMap<String, String>,
    name: &str,
    range: RangeInclusive<u64>,
) -> Result<Option<u64>, Refused> {
    let Some(text) = by_name.get(name) else { return Ok(None) };
    let (member, min, max) = (member(name), range.start(), range.end());
    let wrong = |what: &str| {
        Err(invalid(&format!(
            "Value '{text}' at '{member}' failed to satisfy constraint: Member must have {what}"
        )))
    };
    match text.parse::<u64>() {
        Ok(number) if range.contains(&number) => Ok(Some(number)),
        Ok(number) if number > *max => wrong(&format!("value less than or equal to {max}")),
        Ok(_) | Err(_) => wrong(&format!("value greater than or equal to {min}")),
    }
}

fn check_length(name: &str, value: &str, lengths: RangeInclusive<usize>) -> Result<(), Refused> {
    let (length, member, min, max) = (value.chars().count(), member(name), lengths.start(), lengths.end());
    if lengths.contains(&length) {
        return Ok(());
    }
    let limit = if length < *min {
        format!("greater than or equal to {min}")
    } else {
        format!("less than or equal to {max}")
    };
    // Without the value: a token is a secret.
    Err(invalid(&format!(
        "Value at '{member}' failed to satisfy constraint: Member must have length {limit}"
    )))
}

/// A parameter's name as errors spell it: with a small first letter.
fn member(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(letters).collect()
}

fn invalid(text: &str) -> Refused {
    Refused::new(Code::ValidationError, format!("1 validation error detected: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 4] = [
        ("Action", "AssumeRoleWithWebIdentity"),
        ("RoleArn", "arn:aws:iam::111122223333:role/app"),
        ("RoleSessionName", "a+=,.@-_B9"),
        ("WebIdentityToken", "a.b.c"),
    ];

    fn parse(changed: &[(&str, Option<&str>)]) -> Result<Arguments, Refused> {
        let mut parameters: BTreeMap<_, _> =
            GOOD.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        for (name, value) in changed {
            match value {
                Some(value) => parameters.insert((*name).to_owned(), (*value).to_owned()),
                None => parameters.remove(*name),
            };
        }
        Arguments::parse(parameters.into_iter())
    }

    #[test]
    fn good_parameters_are_taken_at_both_ends_of_each_range() {
        assert_eq!(parse(&[]).unwrap().duration, 3600);
        for (name, value) in [
            ("DurationSeconds", "900".to_owned()),
            ("DurationSeconds", "43200".to_owned()),
            ("RoleSessionName", "ab".to_owned()),
            ("RoleSessionName", "a".repeat(64)),
            ("WebIdentityToken", "a".repeat(20_000)),
            ("WebIdentityToken", "abcd".to_owned()),
            ("PolicyArns.member.1.arn", "arn:aws:iam::aws:policy/ReadOnlyAccess".to_owned()),
            ("MinimumSessionTokenSize", "4096".to_owned()),
        ] {
            assert!(parse(&[(name, Some(&value))]).is_ok(), "{name} {value}");
        }
    }

    #[test]
    fn each_parameter_is_held_to_the_model() {
        for (name, value, says) in [
            ("RoleArn", None, "'roleArn' failed to satisfy constraint: Member must not be null"),
            ("RoleArn", Some("arn:aws:iam::1:ro".to_owned()), "length greater than or equal to 20"),
            ("RoleSessionName", None, "'roleSessionName'"),
            ("RoleSessionName", Some("a".to_owned()), "length greater than or equal to 2"),
            ("RoleSessionName", Some("a".repeat(65)), "length less than or equal to 64"),
            ("RoleSessionName", Some("shop/cart".to_owned()), "regular expression"),
            ("RoleSessionName", Some("kätzchen".to_owned()), "regular expression"),
            ("WebIdentityToken", None, "'webIdentityToken'"),
            ("WebIdentityToken", Some("abc".to_owned()), "length greater than or equal to 4"),
            ("WebIdentityToken", Some("a".repeat(20_001)), "length less than or equal to 20000"),
            ("DurationSeconds", Some("899".to_owned()), "greater than or equal to 900"),
            ("DurationSeconds", Some("43201".to_owned()), "less than or equal to 43200"),
            ("DurationSeconds", Some("1h".to_owned()), "'durationSeconds'"),
            ("MinimumSessionTokenSize", Some("4097".to_owned()), "less than or equal to 4096"),
            ("Tags.member.1.Key", Some("a".to_owned()), "not a parameter"),
            ("ExternalId", Some("abc".to_owned()), "not a parameter"),
        ] {
            let refused = parse(&[(name, value.as_deref())]).unwrap_err();
            assert_eq!(refused.code, Code::ValidationError, "{name}");
            assert!(refused.message.contains(says), "{name}: {}", refused.message);
            let echoed =
                name == "WebIdentityToken" && value.is_some_and(|value| refused.message.contains(&value));
            assert!(!echoed, "a token is not repeated");
        }
    }

    #[test]
    fn session_policies_are_documents_and_have_limited_room() {
        let percent = |policy: &str| parse(&[("Policy", Some(policy))]).unwrap().packed_policy_percent();
        assert_eq!(parse(&[]).unwrap().packed_policy_percent(), Ok(0));
        assert_eq!(percent(r#"{"Version":"2012-10-17","Statement":[]}"#), Ok(2));
        for bad in ["{", "[]", "{}", "x"] {
            assert_eq!(percent(bad).unwrap_err().code, Code::MalformedPolicyDocument, "{bad}");
        }
        let long = format!(r#"{{"Statement":[],"Id":"{}"}}"#, "a".repeat(2000));
        let arn = "arn:aws:iam::aws:policy/AdministratorAccess-AWSElasticBeanstalk";
        let both = parse(&[("Policy", Some(&long)), ("PolicyArns.member.1.arn", Some(arn))]).unwrap();
        assert_eq!(both.packed_policy_percent().unwrap_err().code, Code::PackedPolicyTooLarge);
        let not_a_role = [("RoleArn", Some("arn:aws:iam::111122223333:user/app"))];
        assert_eq!(parse(&not_a_role).unwrap().role().unwrap_err().message, "Request ARN is invalid");
    }
}
