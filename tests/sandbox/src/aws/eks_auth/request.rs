//! The body of `AssumeRoleForPodIdentity`, checked against the service model.
//!
//! Owns: members, types and patterns of the model (botocore, API version 2023-11-26, and the three members
//! that newer SDKs send). Must not know: what a token means.

use serde_json::Value;

use super::refusal::{Code, Refused};

/// The optional members: where the caller runs.
pub(super) const NODE_DETAILS: [&str; 3] = ["eksNodeName", "instanceId", "zone"];

/// What the caller sent.
#[derive(Debug)]
pub(super) struct Arguments {
    pub(super) token: String,
}

impl Arguments {
    /// Reads the body. A member that no model knows is refused: whoever tests against the sandbox should hear
    /// of it.
    pub(super) fn parse(body: &[u8]) -> Result<Self, Refused> {
        let serialization = |text: String| Refused::new(Code::Serialization, text);
        let value: Value = serde_json::from_slice(body).map_err(|error| serialization(error.to_string()))?;
        let Value::Object(members) = value else {
            return Err(serialization("the body is not a JSON object".to_owned()));
        };
        let mut token = None;
        for (name, value) in members {
            if name != "token" && !NODE_DETAILS.contains(&name.as_str()) {
                return Err(invalid(&format!("unknown member '{name}'")));
            }
            let Value::String(text) = value else {
                return Err(serialization(format!("{name} is not a string")));
            };
            if name == "token" {
                token = Some(text);
            }
        }
        let token = token.ok_or_else(|| invalid("Value null at 'token': Member must not be null"))?;
        if is_jwt(&token) {
            Ok(Self { token })
        } else {
            Err(invalid("Value at 'token': Member must satisfy regular expression pattern"))
        }
    }
}

fn invalid(text: &str) -> Refused {
    Refused::new(Code::InvalidParameter, format!("1 validation error detected: {text}"))
}

/// `[A-Za-z0-9-_=]+\.[A-Za-z0-9-_=]+\.[A-Za-z0-9-_=]+`
fn is_jwt(token: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_=".contains(&byte))
    };
    token.split('.').count() == 3 && token.split('.').all(is_part)
}

/// `[0-9A-Za-z][A-Za-z0-9\-_]*`, 1 to 100 characters.
pub(super) fn check_cluster_name(name: &str) -> Result<(), Refused> {
    let right = name.len() <= 100
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if right {
        Ok(())
    } else {
        Err(invalid("Value at 'clusterName': Member must satisfy regular expression pattern"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_held_to_the_model() {
        let code = |body: &str| Arguments::parse(body.as_bytes()).err().map(|refused| refused.code);
        assert_eq!(code(r#"{"token":"a.b.c"}"#), None);
        assert_eq!(code(r#"{"token":"a.b.c","eksNodeName":"n","instanceId":"i-1","zone":"usw2-az1"}"#), None);
        for (body, expected) in [
            ("", Code::Serialization),
            ("[]", Code::Serialization),
            (r#"{"token":1}"#, Code::Serialization),
            (r#"{"token":null}"#, Code::Serialization),
            ("{}", Code::InvalidParameter),
            (r#"{"token":"a.b"}"#, Code::InvalidParameter),
            (r#"{"token":"a.b."}"#, Code::InvalidParameter),
            (r#"{"token":"a.b.c","clusterName":"c"}"#, Code::InvalidParameter),
        ] {
            assert_eq!(code(body), Some(expected), "{body}");
        }
        assert!(check_cluster_name("a-b_C1").is_ok());
        assert!(check_cluster_name("-a").is_err() && check_cluster_name("").is_err());
    }
}
