//! The AWS region of a configuration: its name, or where it is read.
//!
//! Owns: which setting gives it, and the form of a region. Must not know: how it is read from the instance.

use super::environment::Environment;
use super::metadata_service::{self, MetadataService};
use super::problem::{Problem, Problems};

/// The value in the public chart's `values.yaml` that users must replace.
const PLACEHOLDER: &str = "AWS_REGION_NAME";
/// A region becomes one label of a host name (RFC 1035, 2.3.4).
const MAX_LENGTH: usize = 63;

/// Where the AWS region comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegionSource {
    /// `--region`, `AWS_REGION` or `AWS_DEFAULT_REGION`: a valid name of a region.
    Given(String),
    /// The instance that the agent runs on.
    Instance(MetadataService),
    /// No setting gives it, and `AWS_EC2_METADATA_DISABLED` forbids to read it.
    Nowhere,
}

/// The flag, else `AWS_REGION`, else `AWS_DEFAULT_REGION`, as in the AWS SDKs; else the instance knows it.
/// What is malformed is a problem, and what is missing is none: no restart would bring it.
pub(super) fn read(
    flag: Option<&str>,
    environment: &Environment,
    problems: &mut Problems,
) -> Option<RegionSource> {
    let candidates = [
        ("--region", flag),
        ("AWS_REGION", environment.aws_region.as_deref()),
        ("AWS_DEFAULT_REGION", environment.aws_default_region.as_deref()),
    ];
    let given = candidates.into_iter().find_map(|(setting, name)| name.map(|name| (setting, name)));
    if let Some((setting, name)) = given {
        return problems.take(named(setting, name)).map(RegionSource::Given);
    }
    match metadata_service::is_disabled(environment, problems)? {
        true => Some(RegionSource::Nowhere),
        false => metadata_service::read(environment, problems).map(RegionSource::Instance),
    }
}

fn named(setting: &str, name: &str) -> Result<String, Problem> {
    if name == PLACEHOLDER {
        let rule = "is still the chart's placeholder; set env.AWS_REGION in its values, or remove it";
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
pub(crate) fn is_region(text: &str) -> bool {
    let mut parts = text.split('-').rev();
    let is_numbered =
        parts.next().is_some_and(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    let mut words = 0_usize;
    let are_words = parts
        .inspect(|_| words += 1)
        .all(|part| part.len() > 1 && part.bytes().all(|b| b.is_ascii_lowercase()));
    is_numbered && are_words && words >= 2 && text.len() <= MAX_LENGTH
}

#[cfg(test)]
mod tests {
    use super::{Environment, Problems, is_region, read};
    use crate::config::{MetadataService, RegionSource};

    fn region(flag: Option<&str>, variables: &[(&str, &str)]) -> Result<RegionSource, String> {
        let mut problems = Problems::default();
        let region = read(flag, &Environment::of(variables), &mut problems);
        problems
            .finish(region)
            .map_err(|error| error.problems().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    fn given(name: &str) -> Result<RegionSource, String> {
        Ok(RegionSource::Given(name.to_owned()))
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
            "us-east-1\n",
            " us-east-1",
            "us-east-1/../x",
            "us-east-1.example.com#",
            "us-east-1@x",
        ] {
            assert!(!is_region(bad), "{bad}");
        }
    }

    #[test]
    fn the_flag_comes_before_the_environment_and_that_before_the_instance() {
        let variables = [("AWS_REGION", "eu-west-1"), ("AWS_DEFAULT_REGION", "eu-west-2")];
        assert_eq!(region(Some("us-west-2"), &variables), given("us-west-2"));
        assert_eq!(region(None, &variables), given("eu-west-1"));
        assert_eq!(region(None, &variables[1..]), given("eu-west-2"));
        let at = |endpoint: Option<&str>, ipv6| {
            Ok(RegionSource::Instance(MetadataService { endpoint: endpoint.map(str::to_owned), ipv6 }))
        };
        assert_eq!(region(None, &[]), at(None, false));
        assert_eq!(region(None, &[("AWS_REGION", "")]), at(None, false));
        let elsewhere = [
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1338"),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "IPv6"),
        ];
        assert_eq!(region(None, &elsewhere), at(Some("http://127.0.0.1:1338"), true));
    }

    #[test]
    fn without_a_metadata_service_there_is_nowhere_to_read_it_and_no_problem() {
        let disabled = ("AWS_EC2_METADATA_DISABLED", "true");
        assert_eq!(region(None, &[disabled]), Ok(RegionSource::Nowhere));
        assert_eq!(region(None, &[disabled, ("AWS_REGION", "eu-west-1")]), given("eu-west-1"));
    }

    #[test]
    fn what_is_malformed_is_a_problem_of_its_setting() {
        for (flag, variables, named) in [
            (Some("moon"), &[][..], "--region: must be a region, such as"),
            (Some(""), &[], "--region: must be a region, such as"),
            (Some("us-west-2a"), &[], "--region: must be a region, not an availability zone"),
            (None, &[("AWS_REGION", "AWS_REGION_NAME")], "AWS_REGION: is still the chart's placeholder"),
            (None, &[("AWS_DEFAULT_REGION", "x")], "AWS_DEFAULT_REGION: must be a region"),
            (None, &[("AWS_EC2_METADATA_DISABLED", "maybe")], "AWS_EC2_METADATA_DISABLED: "),
            (None, &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", "https://a")], "_ENDPOINT: must begin with http"),
            (None, &[("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "v4")], "_MODE: must be IPv4 or IPv6"),
        ] {
            let problem = region(flag, variables).unwrap_err();
            assert!(problem.contains(named), "{problem}");
        }
        // Nobody asks the metadata service then.
        assert_eq!(
            region(Some("us-west-2"), &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", "x")]),
            given("us-west-2")
        );
    }
}
