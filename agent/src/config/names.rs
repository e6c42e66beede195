//! The names in a configuration: cluster and node.
//!
//! Owns: the patterns of valid names. Must not know: where they are used.

use super::environment::Environment;
use super::problem::Problem;

/// The value in the public chart's `values.yaml` that users must replace.
const CLUSTER_PLACEHOLDER: &str = "EKS_CLUSTER_NAME";
/// `clusterName` of the EKS Auth service model: 1 to 100 characters.
const MAX_CLUSTER_NAME: usize = 100;
/// A node's name is a DNS subdomain (Kubernetes, "Object Names and IDs").
const MAX_NODE_NAME: usize = 253;

/// The cluster's name: `[0-9A-Za-z][A-Za-z0-9-_]*` in the EKS Auth service model.
pub(super) fn cluster(given: Option<&str>) -> Result<String, Problem> {
    const SETTING: &str = "--cluster-name";
    let name =
        given.ok_or_else(|| Problem::without_value(SETTING, "is required: the name of the EKS cluster"))?;
    if name == CLUSTER_PLACEHOLDER {
        return Err(Problem::with_value(
            SETTING,
            "is still the chart's placeholder; set clusterName in its values",
            name,
        ));
    }
    let is_first_good = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let are_rest_good = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if !is_first_good || !are_rest_good || name.len() > MAX_CLUSTER_NAME {
        let rule = "must be 1 to 100 letters, digits, - and _, and begin with a letter or digit";
        return Err(Problem::with_value(SETTING, rule, name));
    }
    Ok(name.to_owned())
}

/// The node's name: the flag, else `NODE_NAME`, which the chart sets from `spec.nodeName`.
pub(super) fn node(flag: Option<&str>, environment: &Environment) -> Result<Option<String>, Problem> {
    let (setting, name) = match (flag, environment.node_name.as_deref()) {
        (Some(name), _) => ("--node-name", name),
        (None, Some(name)) => ("NODE_NAME", name),
        (None, None) => return Ok(None),
    };
    let is_label = |label: &str| {
        let ends = |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        ends(label.bytes().next())
            && ends(label.bytes().next_back())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if name.len() <= MAX_NODE_NAME && name.split('.').all(is_label) {
        Ok(Some(name.to_owned()))
    } else {
        let rule = "must be the name of a Kubernetes node: lower-case letters, digits, -, ., at most 253";
        Err(Problem::with_value(setting, rule, name))
    }
}

#[cfg(test)]
mod tests {
    use super::{Environment, cluster, node};

    #[test]
    fn a_cluster_name_matches_the_pattern_of_the_service_model() {
        for good in ["a", "9", "prod", "my_cluster-1", &"x".repeat(100)] {
            assert_eq!(cluster(Some(good)).unwrap(), good);
        }
        for bad in ["", "-a", "_a", "a.b", "a b", "ä", "a\n", &"x".repeat(101)] {
            assert_eq!(cluster(Some(bad)).unwrap_err().setting(), "--cluster-name", "{bad}");
        }
        assert!(cluster(None).unwrap_err().to_string().contains("is required"));
    }

    #[test]
    fn the_charts_placeholder_is_named_as_such() {
        assert!(cluster(Some("EKS_CLUSTER_NAME")).unwrap_err().to_string().contains("placeholder"));
    }

    #[test]
    fn a_node_name_is_optional_and_checked() {
        let from_variable = Environment::of(&[("NODE_NAME", "ip-10-0-0-1.us-west-2.compute.internal")]);
        assert_eq!(node(Some("flag"), &from_variable).unwrap().as_deref(), Some("flag"));
        assert!(node(None, &from_variable).unwrap().is_some());
        assert_eq!(node(None, &Environment::default()).unwrap(), None);
        for bad in ["", "Node", "a..b", "-a", "a-", "a_b", "$(NODE_NAME)", &"a".repeat(254)] {
            assert!(node(Some(bad), &Environment::default()).is_err(), "{bad}");
        }
    }
}
