//! The names by which AWS's own records know a set of credentials.
//!
//! Owns: which names of an answer are passed on. Must not know: who reads them. None is secret: ids, which
//! something on the way could have put one into, are passed on only in the form that AWS gives them.

/// AWS's access key ids have up to 128 characters, today 20.
const LONGEST_ACCESS_KEY_ID: usize = 128;
/// AWS's request ids are UUIDs.
const LONGEST_REQUEST_ID: usize = 36;

/// The names in an answer that granted credentials; those that are missing in it are `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// `ASIA…`: CloudTrail has it in the event of each call that is signed with the set.
    pub access_key_id: Option<Box<str>>,
    /// The ARN of the session, with its name.
    pub session_arn: Option<Box<str>>,
    /// The ARN of the association.
    pub association_arn: Option<Box<str>>,
    /// The namespace that AWS granted the set to, after it had verified the token itself.
    pub namespace: Option<Box<str>>,
    /// The same, of the service account.
    pub service_account: Option<Box<str>>,
    /// The number of the answer.
    pub request_id: Option<Box<str>>,
}

/// What can be the id of an access key: a secret key and a session token have small letters.
pub fn access_key_id(text: &str) -> Option<Box<str>> {
    let is_one = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
    name(text).filter(|id| id.len() <= LONGEST_ACCESS_KEY_ID && id.bytes().all(is_one))
}

/// What can be the id of a request.
pub fn request_id(text: &str) -> Option<Box<str>> {
    let is_one = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    name(text).filter(|id| id.len() <= LONGEST_REQUEST_ID && id.bytes().all(is_one))
}

/// A name, unless it is empty: the SDK reads what is missing as an empty text.
pub fn name(text: &str) -> Option<Box<str>> {
    (!text.is_empty()).then(|| text.into())
}

#[cfg(test)]
mod tests {
    use super::{access_key_id, request_id};

    #[test]
    fn what_is_no_id_of_aws_is_not_passed_on_as_one() {
        for (text, is_key, is_request) in [
            ("ASIAIOSFODNN7EXAMPLE", true, false),
            ("0f6d1f4e-5e3a-4a43-9d5c-8b2f5a1c9e77", false, true),
            ("", false, false),
            ("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", false, false),
            ("wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY00", false, false),
            ("eyJhbGciOiJSUzI1NiIsImtpZCI6ImExIn0", false, false),
            ("IQoJb3JpZ2luX2VjEPlantedSessionToken==", false, false),
            ("ASIA\nASIA", false, false),
        ] {
            assert_eq!(access_key_id(text).is_some(), is_key, "{text}");
            assert_eq!(request_id(text).is_some(), is_request, "{text}");
        }
        assert_eq!(access_key_id(&"A".repeat(129)), None);
        assert_eq!(request_id(&"a".repeat(37)), None);
    }
}
