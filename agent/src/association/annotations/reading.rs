//! What the annotations of a service account amount to. Pure.
//!
//! Owns: the four annotations of EKS and their forms. Must not know: how they are read, or when.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::association::problems::quoted;
use crate::association::settings::{RoleSettings, SHORTEST_TOKEN_LIFE, fault_of_audience};
use crate::workload::{RoleArn, StsEndpoint};

const ROLE: &str = "eks.amazonaws.com/role-arn";
const AUDIENCE: &str = "eks.amazonaws.com/audience";
const REGIONAL: &str = "eks.amazonaws.com/sts-regional-endpoints";
const TOKEN_EXPIRATION: &str = "eks.amazonaws.com/token-expiration";

/// The role that a service account is annotated with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::association) enum Annotated {
    /// This one.
    Role(Arc<RoleSettings>),
    /// None.
    None,
    /// Something that names no role; the sentence says what is wrong, and is for people.
    Invalid(Arc<str>),
}

impl Annotated {
    /// The role, where there is one.
    pub(in crate::association) const fn role(&self) -> Option<&Arc<RoleSettings>> {
        match self {
            Self::Role(settings) => Some(settings),
            Self::None | Self::Invalid(_) => None,
        }
    }
}

/// What annotations amount to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// The role.
    pub(super) annotated: Annotated,
    /// What is wrong and does no harm here, for the log.
    pub(super) warnings: Vec<String>,
}

/// Reads annotations, by their whole names. Others than the four are not looked at.
///
/// An empty value is none: that is what a chart leaves behind where a value is not set.
pub(super) fn read(annotations: &HashMap<Box<str>, Box<str>>) -> Reading {
    let value = |name: &str| annotations.get(name).map(|value| &**value).filter(|value| !value.is_empty());
    let mut warnings = Vec::new();
    let Some(role) = value(ROLE) else { return Reading { annotated: Annotated::None, warnings } };
    let endpoint = value(REGIONAL).map_or(Ok(StsEndpoint::Regional), endpoint).unwrap_or_else(|warning| {
        warnings.push(warning);
        StsEndpoint::Regional
    });
    let token_life = value(TOKEN_EXPIRATION).map(token_life).transpose().unwrap_or_else(|warning| {
        warnings.push(warning);
        None
    });
    let audience = value(AUDIENCE);
    let fault = audience.and_then(fault_of_audience);
    let annotated = match (RoleArn::read(role), fault) {
        (Err(error), _) => {
            Annotated::Invalid(format!("annotation {ROLE} is {}: {error}", quoted(role)).into())
        }
        (Ok(_), Some(fault)) => Annotated::Invalid(format!("annotation {AUDIENCE}: {fault}").into()),
        (Ok(role), None) => {
            let audience = audience.map(Arc::from);
            Annotated::Role(Arc::new(RoleSettings { role, audience, endpoint, token_life }))
        }
    };
    Reading { annotated, warnings }
}

/// By the words of Go's `strconv.ParseBool`, which the webhook calls.
fn endpoint(text: &str) -> Result<StsEndpoint, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(StsEndpoint::Regional),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(StsEndpoint::Global),
        other => Err(format!(
            "annotation {REGIONAL} is {}: it must be true or false; the regional endpoint is asked",
            quoted(other)
        )),
    }
}

/// The kubelet asks for the token, and the agent takes what comes; so this is no error here.
fn token_life(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds >= SHORTEST_TOKEN_LIFE);
    seconds.map(Duration::from_secs).ok_or_else(|| {
        let quoted = quoted(text);
        format!("annotation {TOKEN_EXPIRATION} is {quoted}: it must be a number of seconds, 600 at least")
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use super::{AUDIENCE, Annotated, REGIONAL, ROLE, Reading, TOKEN_EXPIRATION, read};
    use crate::workload::StsEndpoint::{Global, Regional};

    const ARN: &str = "arn:aws:iam::111122223333:role/reader";

    fn reading(annotations: &[(&str, &str)]) -> Reading {
        let annotations: HashMap<_, _> =
            annotations.iter().map(|(name, value)| (Box::from(*name), Box::from(*value))).collect();
        read(&annotations)
    }

    #[test]
    fn a_role_has_the_agents_audience_and_the_regional_endpoint_unless_annotated_otherwise() {
        for (annotations, audience, endpoint, warnings) in [
            (vec![(ROLE, ARN)], None, Regional, 0),
            (vec![(ROLE, ARN), (AUDIENCE, "my.audience")], Some("my.audience"), Regional, 0),
            (vec![(ROLE, ARN), (AUDIENCE, "")], None, Regional, 0),
            (vec![(ROLE, ARN), (REGIONAL, "true")], None, Regional, 0),
            (vec![(ROLE, ARN), (REGIONAL, "false")], None, Global, 0),
            (vec![(ROLE, ARN), (REGIONAL, "F")], None, Global, 0),
            (vec![(ROLE, ARN), (REGIONAL, "0")], None, Global, 0),
            (vec![(ROLE, ARN), (REGIONAL, "no")], None, Regional, 1),
            (vec![(ROLE, ARN), (TOKEN_EXPIRATION, "600")], None, Regional, 0),
            (vec![(ROLE, ARN), (TOKEN_EXPIRATION, "599")], None, Regional, 1),
            (vec![(ROLE, ARN), (TOKEN_EXPIRATION, "-1"), (REGIONAL, "off")], None, Regional, 2),
            (vec![(ROLE, ARN), ("eks.amazonaws.com/skip-containers", "a")], None, Regional, 0),
        ] {
            let reading = reading(&annotations);
            let Annotated::Role(settings) = &reading.annotated else { panic!("{annotations:?}") };
            assert_eq!(settings.role.as_str(), ARN);
            assert_eq!((settings.audience.as_deref(), settings.endpoint), (audience, endpoint));
            assert_eq!(reading.warnings.len(), warnings, "{annotations:?}: {:?}", reading.warnings);
            let expected =
                annotations.contains(&(TOKEN_EXPIRATION, "600")).then_some(Duration::from_secs(600));
            assert_eq!(settings.token_life, expected, "{annotations:?}");
        }
    }

    #[test]
    fn without_a_role_there_is_none_whatever_else_is_annotated() {
        let none = Reading { annotated: Annotated::None, warnings: Vec::new() };
        assert_eq!(reading(&[]), none);
        assert_eq!(reading(&[(ROLE, "")]), none, "a chart with an empty value");
        assert_eq!(reading(&[(AUDIENCE, "a b"), (REGIONAL, "no"), ("role-arn", ARN)]), none);
    }

    #[test]
    fn what_names_no_role_is_quoted_in_a_sentence() {
        for (annotations, says) in [
            (
                vec![(ROLE, "reader")],
                r#"eks.amazonaws.com/role-arn is "reader": it must be the ARN of a role"#,
            ),
            (vec![(ROLE, "arn:aws:iam::111122223333:role/r\n")], r#"role/r\n""#),
            (vec![(ROLE, ARN), (AUDIENCE, "a b")], "annotation eks.amazonaws.com/audience: an audience has"),
            (vec![(ROLE, ARN), (AUDIENCE, &*"a".repeat(513))], "annotation eks.amazonaws.com/audience: an"),
        ] {
            let Annotated::Invalid(said) = reading(&annotations).annotated else { panic!("{annotations:?}") };
            assert!(said.contains(says), "{said}");
        }
        let Annotated::Invalid(said) = reading(&[(ROLE, &"x".repeat(5_000))]).annotated else { panic!() };
        assert!(said.len() < 300, "{}", said.len());
    }
}
