//! The names in a configuration: cluster, region, node.
//!
//! Owns: the patterns of valid names. Must not know: where they are used.

use super::environment::Environment;
use super::problem::Problem;

/// The value in the public chart's `values.yaml` that users must replace.
const CLUSTER_PLACEHOLDER: &str = "EKS_CLUSTER_NAME";
/// The same for the region.
const REGION_PLACEHOLDER: &str = "AWS_REGION_NAME";
/// `clusterName` of the EKS Auth service model: 1 to 100 characters.
const MAX_CLUSTER_NAME: usize = 100;
/// A region becomes one label of a host name (RFC 1035, 2.3.4).
const MAX_REGION: usize = 63;
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

/// The region: the flag, else `AWS_REGION`, else `AWS_DEFAULT_REGION`, as in the AWS SDKs.
pub(super) fn region(flag: Option<&str>, environment: &Environment) -> Result<String, Problem> {
    let candidates = [
        ("--region", flag),
        ("AWS_REGION", environment.aws_region.as_deref()),
        ("AWS_DEFAULT_REGION", environment.aws_default_region.as_deref()),
    ];
    let (setting, name) = candidates
        .into_iter()
        .find_map(|(setting, name)| name.map(|name| (setting, name)))
        .ok_or_else(|| {
            Problem::without_value("--region", "is required; set this flag, AWS_REGION or AWS_DEFAULT_REGION")
        })?;
    if name == REGION_PLACEHOLDER {
        let rule = "is still the chart's placeholder; set env.AWS_REGION in its values";
        return Err(Problem::with_value(setting, rule, name));
    }
    if is_region(name) {
        return Ok(name.to_owned());
    }
    let rule = match name.strip_suffix(|last: char| last.is_ascii_lowercase()) {
        Some(region) if is_region(region) => {
            "must be a region, not an availability zone: remove the last letter"
        }
        Some(_) | None => "must be a region, such as us-west-2 or eu-isoe-west-1",
    };
    Err(Problem::with_value(setting, rule, name))
}

/// Whether a text has the form of a region in any partition: two or more words of lower-case letters, then a
/// number.
fn is_region(text: &str) -> bool {
    let mut parts = text.split('-').rev();
    let is_numbered =
        parts.next().is_some_and(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    let mut words = 0_usize;
    let are_words = parts
        .inspect(|_| words += 1)
        .all(|part| part.len() > 1 && part.bytes().all(|b| b.is_ascii_lowercase()));
    is_numbered && are_words && words >= 2 && text.len() <= MAX_REGION
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
    use super::{Environment, cluster, is_region, node, region};

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
    fn the_charts_placeholders_are_named_as_such() {
        assert!(cluster(Some("EKS_CLUSTER_NAME")).unwrap_err().to_string().contains("placeholder"));
        let problem = region(None, &Environment::of(&[("AWS_REGION", "AWS_REGION_NAME")])).unwrap_err();
        assert_eq!(problem.setting(), "AWS_REGION");
        assert!(problem.to_string().contains("placeholder"));
    }

    #[test]
    fn regions_of_every_partition_are_regions() {
        let regions = [
            "us-east-1",
            "us-gov-west-1",
            "cn-northwest-1",
            "eusc-de-east-1",
            "us-iso-east-1",
            "us-isob-east-1",
        ];
        for good in regions.into_iter().chain([
            "eu-isoe-west-1",
            "us-isof-south-1",
            "mx-central-1",
            "ap-southeast-12",
        ]) {
            assert!(is_region(good), "{good}");
        }
        for bad in [
            "",
            "us",
            "us-east",
            "us-1",
            "us-east-1a",
            "US-EAST-1",
            "us--east-1",
            "us-east-",
            "-us-east-1",
            "us.east-1",
        ] {
            assert!(!is_region(bad), "{bad}");
        }
    }

    #[test]
    fn the_region_flag_comes_before_the_environment() {
        let environment =
            Environment::of(&[("AWS_REGION", "eu-west-1"), ("AWS_DEFAULT_REGION", "eu-west-2")]);
        assert_eq!(region(Some("us-west-2"), &environment).unwrap(), "us-west-2");
        assert_eq!(region(None, &environment).unwrap(), "eu-west-1");
        assert_eq!(
            region(None, &Environment::of(&[("AWS_DEFAULT_REGION", "eu-west-2")])).unwrap(),
            "eu-west-2"
        );
        assert!(
            region(None, &Environment::default()).unwrap_err().to_string().contains("AWS_DEFAULT_REGION")
        );
    }

    #[test]
    fn a_zone_given_as_region_is_reported_as_a_zone() {
        let problem = region(Some("us-west-2a"), &Environment::default()).unwrap_err();
        assert!(problem.to_string().contains("availability zone"), "{problem}");
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
