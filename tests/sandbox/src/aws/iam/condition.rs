//! The `Condition` of a statement.
//!
//! Owns: the operators of strings and ARNs, with `IfExists`, `ForAnyValue` and `ForAllValues`. Must not know:
//! what follows from a condition that is met.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use serde_json::Value;

use super::context::Context;
use super::pattern::{arn_matches, matches};

/// What a condition comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Met,
    NotMet,
    /// It has an operator, a key or a variable that the sandbox does not model.
    Unknown,
}

/// All conditions of a statement; every one must be met.
#[derive(Clone, Debug, Default)]
pub(super) struct Conditions(Vec<Condition>);

#[derive(Clone, Debug)]
struct Condition {
    /// `None` is one that is not modelled.
    test: Option<Test>,
    key: String,
    /// One of them must fit.
    wanted: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
struct Test {
    comparison: Comparison,
    is_negated: bool,
    if_exists: bool,
    quantifier: Option<Quantifier>,
}

#[derive(Clone, Copy, Debug)]
enum Comparison {
    Equals,
    EqualsIgnoringCase,
    Like,
    Arn,
    /// Whether the key is absent.
    Null,
}

#[derive(Clone, Copy, Debug)]
enum Quantifier {
    Any,
    All,
}

impl Conditions {
    pub(super) fn verdict(&self, context: &Context) -> Verdict {
        let verdicts: Vec<_> = self.0.iter().map(|condition| condition.verdict(context)).collect();
        if verdicts.contains(&Verdict::NotMet) {
            Verdict::NotMet
        } else if verdicts.contains(&Verdict::Unknown) {
            Verdict::Unknown
        } else {
            Verdict::Met
        }
    }
}

impl Condition {
    fn verdict(&self, context: &Context) -> Verdict {
        let has_variable = self.wanted.iter().any(|wanted| wanted.contains("${"));
        match (self.test, context.values(&self.key)) {
            (Some(test), Some(values)) if !has_variable => {
                if test.holds(values, &self.wanted) {
                    Verdict::Met
                } else {
                    Verdict::NotMet
                }
            }
            _ => Verdict::Unknown,
        }
    }
}

impl Test {
    /// `None` if there is no such operator here.
    fn parse(operator: &str) -> Option<Self> {
        let (quantifier, operator) = match operator.split_once(':') {
            Some(("ForAnyValue", rest)) => (Some(Quantifier::Any), rest),
            Some(("ForAllValues", rest)) => (Some(Quantifier::All), rest),
            Some(_) => return None,
            None => (None, operator),
        };
        let (if_exists, operator) = match operator.strip_suffix("IfExists") {
            Some(operator) => (true, operator),
            None => (false, operator),
        };
        let (comparison, is_negated) = match operator {
            "StringEquals" => (Comparison::Equals, false),
            "StringNotEquals" => (Comparison::Equals, true),
            "StringEqualsIgnoreCase" => (Comparison::EqualsIgnoringCase, false),
            "StringNotEqualsIgnoreCase" => (Comparison::EqualsIgnoringCase, true),
            "StringLike" => (Comparison::Like, false),
            "StringNotLike" => (Comparison::Like, true),
            // The two behave the same (IAM guide).
            "ArnEquals" | "ArnLike" => (Comparison::Arn, false),
            "ArnNotEquals" | "ArnNotLike" => (Comparison::Arn, true),
            "Null" if !if_exists && quantifier.is_none() => (Comparison::Null, false),
            _ => return None,
        };
        Some(Self { comparison, is_negated, if_exists, quantifier })
    }

    fn holds(self, values: &[String], wanted: &[String]) -> bool {
        if matches!(self.comparison, Comparison::Null) {
            let absent = if values.is_empty() { "true" } else { "false" };
            return wanted.iter().any(|wanted| wanted == absent);
        }
        if values.is_empty() {
            return self.if_exists
                || match self.quantifier {
                    None => self.is_negated,
                    Some(Quantifier::Any) => false,
                    Some(Quantifier::All) => true,
                };
        }
        let fits = |value: &String| wanted.iter().any(|wanted| self.fits(wanted, value)) != self.is_negated;
        match self.quantifier {
            Some(Quantifier::All) => values.iter().all(fits),
            Some(Quantifier::Any) => values.iter().any(fits),
            // Of several values of a key one may fit, and none may be what is excluded.
            None if self.is_negated => values.iter().all(fits),
            None => values.iter().any(fits),
        }
    }

    fn fits(self, wanted: &str, value: &str) -> bool {
        match self.comparison {
            Comparison::Equals => wanted == value,
            Comparison::EqualsIgnoringCase => wanted.to_lowercase() == value.to_lowercase(),
            Comparison::Like => matches(wanted, value),
            Comparison::Arn => arn_matches(wanted, value),
            Comparison::Null => false,
        }
    }
}

impl<'de> Deserialize<'de> for Conditions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let operators = BTreeMap::<String, BTreeMap<String, Value>>::deserialize(deserializer)?;
        let mut conditions = Vec::new();
        for (operator, keys) in operators {
            for (key, value) in keys {
                let wanted = texts(&value)
                    .ok_or_else(|| D::Error::custom(format!("the values of {key} are not texts")))?;
                conditions.push(Condition { test: Test::parse(&operator), key, wanted });
            }
        }
        Ok(Self(conditions))
    }
}

/// One value or a list of them. IAM takes booleans and numbers for their texts.
fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Bool(_) | Value::Number(_) => Some(vec![value.to_string()]),
        Value::Array(values) => {
            values.iter().map(texts).collect::<Option<Vec<_>>>().map(|texts| texts.concat())
        }
        Value::Null | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn verdict(condition: Value, context: &Context) -> Verdict {
        serde_json::from_value::<Conditions>(condition).unwrap().verdict(context)
    }

    #[test]
    fn each_operator_decides_as_the_iam_guide_says() {
        use Verdict::{Met, NotMet, Unknown};
        let tags = [("a", "1"), ("b", "2")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let context = Context::default()
            .with("issuer/id/X:sub", "system:serviceaccount:shop:cart")
            .with("aws:PrincipalArn", "arn:aws:iam::111122223333:role/first")
            .with_request_tags(&tags.into());
        let sub = "issuer/id/X:sub";
        for (operator, key, wanted, expected) in [
            ("StringEquals", sub, json!("system:serviceaccount:shop:cart"), Met),
            ("StringEquals", "ISSUER/id/x:SUB", json!(["no", "system:serviceaccount:shop:cart"]), Met),
            ("StringEquals", sub, json!("system:serviceaccount:shop:*"), NotMet),
            ("StringEquals", sub, json!("System:serviceaccount:shop:cart"), NotMet),
            ("StringEqualsIgnoreCase", sub, json!("System:ServiceAccount:shop:cart"), Met),
            ("StringLike", sub, json!("system:serviceaccount:shop:*"), Met),
            ("StringLike", sub, json!("system:serviceaccount:other:*"), NotMet),
            ("StringNotEquals", sub, json!("system:serviceaccount:shop:cart"), NotMet),
            ("StringNotEquals", sub, json!("another"), Met),
            ("StringNotLike", sub, json!("system:*"), NotMet),
            ("ArnLike", "aws:PrincipalArn", json!("arn:aws:iam::*:role/first"), Met),
            ("ArnEquals", "aws:PrincipalArn", json!("arn:aws:iam::111122223333:role/*"), Met),
            ("ArnNotEquals", "aws:PrincipalArn", json!("arn:aws:iam::111122223333:role/first"), NotMet),
            ("Null", "sts:ExternalId", json!("true"), Met),
            ("Null", sub, json!(false), Met),
            ("Null", sub, json!("true"), NotMet),
            // A key that the request does not have.
            ("StringEquals", "sts:ExternalId", json!("x"), NotMet),
            ("StringEqualsIfExists", "sts:ExternalId", json!("x"), Met),
            ("StringEqualsIfExists", sub, json!("x"), NotMet),
            ("StringNotEquals", "sts:ExternalId", json!("x"), Met),
            ("StringEquals", "another/id/X:sub", json!("system:serviceaccount:shop:cart"), NotMet),
            // Keys with several values.
            ("ForAnyValue:StringEquals", "aws:TagKeys", json!(["a", "z"]), Met),
            ("ForAllValues:StringEquals", "aws:TagKeys", json!(["a", "z"]), NotMet),
            ("ForAllValues:StringLike", "aws:TagKeys", json!(["?"]), Met),
            ("ForAnyValue:StringEquals", "sts:ExternalId", json!("x"), NotMet),
            ("ForAllValues:StringEquals", "sts:ExternalId", json!("x"), Met),
            // What the sandbox does not model.
            ("IpAddress", sub, json!("10.0.0.0/8"), Unknown),
            ("ForSomeValue:StringEquals", "aws:TagKeys", json!("a"), Unknown),
            ("StringEquals", "aws:SourceVpc", json!("vpc-1"), Unknown),
            ("StringEquals", sub, json!("${aws:username}"), Unknown),
        ] {
            let condition = json!({ operator: { key: wanted } });
            assert_eq!(verdict(condition.clone(), &context), expected, "{condition}");
        }
    }

    #[test]
    fn all_conditions_must_be_met_and_one_that_is_not_decides() {
        let context = Context::default().with("sts:ExternalId", "x").with("i:aud", "y");
        let both = |aud: &str| json!({ "StringEquals": { "sts:ExternalId": "x", "i:aud": aud } });
        assert_eq!(verdict(both("y"), &context), Verdict::Met);
        assert_eq!(verdict(both("z"), &context), Verdict::NotMet);
        let unknown =
            |aud: &str| json!({ "StringEquals": { "i:aud": aud }, "Bool": { "aws:SecureTransport": true } });
        assert_eq!(verdict(unknown("y"), &context), Verdict::Unknown);
        assert_eq!(verdict(unknown("z"), &context), Verdict::NotMet);
    }
}
