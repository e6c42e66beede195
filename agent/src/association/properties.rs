//! What is true of every role map and of all role limits, whatever their bytes.

use serde_json::Value;

use super::role_limits::RoleLimits;
use super::role_map::RoleMap;

/// What is read is a JSON object, and an entry without a `*` is what its account is given.
pub(crate) fn of_map(bytes: &[u8]) {
    let Ok(map) = RoleMap::read(bytes) else { return };
    for (name, entry) in members(bytes).iter().filter(|(name, _)| !name.ends_with('*')) {
        let found = name.split_once('/').and_then(|(namespace, account)| map.find(namespace, account));
        assert_eq!(found.map(|found| found.role.as_str()), entry.get("RoleARN").and_then(Value::as_str));
    }
}

/// What is read is a JSON object, and a role without a `*` is allowed in a namespace without one.
pub(crate) fn of_limits(bytes: &[u8]) {
    let Ok(limits) = RoleLimits::read(bytes) else { return };
    for (namespace, roles) in members(bytes).iter().filter(|(namespace, _)| !namespace.contains('*')) {
        let roles = roles.as_array().into_iter().flatten().filter_map(Value::as_str);
        for role in roles.filter(|role| !role.contains('*')) {
            assert!(limits.allow(namespace, role), "{namespace}: {role}");
        }
    }
}

fn members(bytes: &[u8]) -> Vec<(String, Value)> {
    let json: Result<Value, _> = serde_json::from_slice(bytes);
    let members = json.ok().and_then(|json| json.as_object().cloned());
    assert!(members.is_some(), "no JSON object was read");
    members.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, proptest};

    use super::{of_limits, of_map};

    proptest! {
        #[test]
        fn they_hold_of_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            of_map(&bytes);
            of_limits(&bytes);
        }

        #[test]
        fn they_hold_of_what_looks_like_a_map(name in "[ab]{1,3}/[ab]{0,3}[*]?", role in "[a-c/]{1,4}") {
            let arn = format!("arn:aws:iam::111122223333:role/{role}");
            of_map(format!(r#"{{"{name}":{{"RoleARN":"{arn}"}}}}"#).as_bytes());
            of_limits(format!(r#"{{"{name}":["{arn}"]}}"#).as_bytes());
        }
    }
}
