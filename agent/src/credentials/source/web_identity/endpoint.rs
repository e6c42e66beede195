//! Where STS is. Pure.
//!
//! Owns: when the global endpoint is asked. Must not know: how it is reached.

use crate::workload::StsEndpoint;

/// The endpoint that all regions shared before each had its own.
const GLOBAL: &str = "https://sts.amazonaws.com";
/// The regions that may ask it; the others have their own only (botocore endpoint rules of STS,
/// `UseGlobalEndpoint`).
const REGIONS_WITH_GLOBAL: [&str; 15] = [
    "ap-northeast-1",
    "ap-south-1",
    "ap-southeast-1",
    "ap-southeast-2",
    "ca-central-1",
    "eu-central-1",
    "eu-north-1",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "sa-east-1",
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
];

/// The URL that is asked instead of the region's own, which the SDK knows. A configured endpoint stands above
/// both, and there is neither FIPS nor dual stack at the global one.
pub(super) fn instead_of_regional(
    wanted: StsEndpoint,
    region: &str,
    configured: Option<&str>,
    has_variant: bool,
) -> Option<String> {
    let global = match wanted {
        StsEndpoint::Regional => None,
        StsEndpoint::Global => (!has_variant && REGIONS_WITH_GLOBAL.contains(&region)).then_some(GLOBAL),
    };
    configured.or(global).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::instead_of_regional;
    use crate::workload::StsEndpoint::{Global, Regional};

    #[test]
    fn the_global_endpoint_is_asked_only_where_it_is_wanted_and_there_is_one() {
        let (sts, own) = ("https://sts.amazonaws.com", "https://vpce.example");
        for (wanted, region, configured, has_variant, expected) in [
            (Regional, "us-west-2", None, false, None),
            (Global, "us-west-2", None, false, Some(sts)),
            (Global, "us-west-2", None, true, None),
            (Global, "ap-south-2", None, false, None),
            (Global, "cn-north-1", None, false, None),
            (Global, "us-gov-west-1", None, false, None),
            (Global, "us-west-2", Some(own), false, Some(own)),
            (Regional, "us-west-2", Some(own), true, Some(own)),
        ] {
            let found = instead_of_regional(wanted, region, configured, has_variant);
            assert_eq!(found.as_deref(), expected, "{wanted:?} {region}");
        }
    }
}
