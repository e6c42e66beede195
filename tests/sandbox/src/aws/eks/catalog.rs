//! The add-ons there are: their versions, the service accounts of their pods and the policies suggested for
//! these.
//!
//! Owns: a few real ones, with the names that AWS documents. Must not know: which are installed.

use serde_json::{Value, json};

use super::page::page;
use super::query::Query;
use super::refusal::{Code, Refused};
use super::without_nulls;

/// What every add-on here takes as configuration: any object.
const SCHEMA: &str =
    r#"{"$schema":"http://json-schema.org/draft-07/schema#","type":"object","additionalProperties":true}"#;
/// Kubernetes' versions that all of them run on.
const CLUSTER_VERSIONS: [&str; 7] = ["1.36", "1.35", "1.34", "1.33", "1.32", "1.31", "1.30"];

/// A service account of an add-on, and the managed policies suggested for its role.
type Suggested = (&'static str, &'static [&'static str]);

/// An add-on.
#[derive(Debug)]
pub(super) struct Offered {
    pub(super) name: &'static str,
    kind: &'static str,
    pub(super) namespace: &'static str,
    pub(super) owner: &'static str,
    pub(super) publisher: &'static str,
    /// The newest first, which is the default.
    versions: &'static [&'static str],
    service_accounts: &'static [Suggested],
}

/// One of AWS's own, in kube-system.
const fn of_aws(
    name: &'static str,
    kind: &'static str,
    versions: &'static [&'static str],
    service_accounts: &'static [Suggested],
) -> Offered {
    let (namespace, owner, publisher) = ("kube-system", "aws", "eks");
    Offered { name, kind, namespace, owner, publisher, versions, service_accounts }
}

const EBS: &[&str] = &["arn:aws:iam::aws:policy/service-role/AmazonEBSCSIDriverPolicy"];
const EFS: &[&str] = &["arn:aws:iam::aws:policy/service-role/AmazonEFSCSIDriverPolicy"];
const CNI: &[&str] = &["arn:aws:iam::aws:policy/AmazonEKS_CNI_Policy"];
const CLOUDWATCH: &[&str] = &[
    "arn:aws:iam::aws:policy/AWSXrayWriteOnlyAccess",
    "arn:aws:iam::aws:policy/CloudWatchAgentServerPolicy",
];
const ROUTE53: &[&str] = &["arn:aws:iam::aws:policy/AmazonRoute53FullAccess"];

const ALL: [Offered; 8] = [
    of_aws(
        "aws-ebs-csi-driver",
        "storage",
        &["v1.31.0-eksbuild.1", "v1.30.0-eksbuild.1"],
        &[("ebs-csi-controller-sa", EBS)],
    ),
    of_aws(
        "aws-efs-csi-driver",
        "storage",
        &["v2.0.7-eksbuild.1"],
        &[("efs-csi-controller-sa", EFS), ("efs-csi-node-sa", EFS)],
    ),
    of_aws("vpc-cni", "networking", &["v1.18.5-eksbuild.1", "v1.18.3-eksbuild.3"], &[("aws-node", CNI)]),
    of_aws("coredns", "networking", &["v1.11.3-eksbuild.1"], &[]),
    of_aws("kube-proxy", "networking", &["v1.30.3-eksbuild.5"], &[]),
    of_aws("eks-pod-identity-agent", "security", &["v1.3.2-eksbuild.2"], &[]),
    Offered {
        namespace: "amazon-cloudwatch",
        ..of_aws(
            "amazon-cloudwatch-observability",
            "observability",
            &["v2.1.2-eksbuild.1"],
            &[("cloudwatch-agent", CLOUDWATCH)],
        )
    },
    Offered {
        namespace: "external-dns",
        owner: "community",
        ..of_aws("external-dns", "networking", &["v0.16.1-eksbuild.2"], &[("external-dns", ROUTE53)])
    },
];

impl Offered {
    /// An add-on by its name.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|offered| offered.name == name)
    }

    /// The version that is asked for, or the default one; `None` if there is no such version.
    pub(super) fn version(&self, asked: Option<&str>) -> Option<&'static str> {
        match asked {
            None => self.versions.first().copied(),
            Some(asked) => self.versions.iter().find(|version| **version == asked).copied(),
        }
    }

    /// Whether its pods have that service account; if not, why an association of it is refused.
    pub(super) fn check_service_account(&self, service_account: &str, version: &str) -> Result<(), String> {
        let name = self.name;
        if self.service_accounts.is_empty() {
            return Err(format!("Pod Identity feature is not supported for addon version: {version}"));
        }
        if self.service_accounts.iter().any(|(known, _)| *known == service_account) {
            return Ok(());
        }
        Err(format!(
            "Service account {service_account} in pod identity configuration is not supported for addon \
             {name}"
        ))
    }

    fn info(&self, cluster_versions: &[&str]) -> Value {
        let versions = self.versions.iter().enumerate().map(|(place, version)| {
            let is_default = place == 0;
            let compatibilities = cluster_versions.iter().map(|version| {
                json!({ "clusterVersion": version, "platformVersions": ["*"], "defaultVersion": is_default })
            });
            json!({
                "addonVersion": version,
                "architecture": ["amd64", "arm64"],
                "computeTypes": ["ec2", "hybrid"],
                "compatibilities": compatibilities.collect::<Vec<_>>(),
                "requiresConfiguration": false,
                "requiresIamPermissions": !self.service_accounts.is_empty(),
            })
        });
        json!({
            "addonName": self.name,
            "type": self.kind,
            "addonVersions": versions.collect::<Vec<_>>(),
            "publisher": self.publisher,
            "owner": self.owner,
            "defaultNamespace": self.namespace,
        })
    }
}

/// DescribeAddonVersions.
pub(super) fn describe_versions(query: &Query) -> Result<Value, Refused> {
    let asked = query.one("kubernetesVersion");
    let cluster_versions: Vec<&str> =
        CLUSTER_VERSIONS.into_iter().filter(|version| asked.is_none_or(|asked| asked == *version)).collect();
    let is_one_of =
        |name: &str, value: &str| query.one(name).is_none() || query.all(name).any(|asked| asked == value);
    let listed = ALL.iter().filter(|offered| {
        !cluster_versions.is_empty()
            && query.one("addonName").is_none_or(|name| offered.name == name)
            && is_one_of("types", offered.kind)
            && is_one_of("publishers", offered.publisher)
            && is_one_of("owners", offered.owner)
    });
    let all = listed.map(|offered| (offered.name.to_owned(), offered.info(&cluster_versions))).collect();
    let (addons, next) = page(query, all)?;
    Ok(without_nulls(json!({ "addons": addons, "nextToken": next })))
}

/// DescribeAddonConfiguration.
pub(super) fn describe_configuration(query: &Query) -> Result<Value, Refused> {
    let (name, version) = (query.one("addonName"), query.one("addonVersion"));
    let (Some(name), Some(version)) = (name, version) else {
        return Err(Refused::invalid("addonName and addonVersion are required."));
    };
    let missing = |what: &str| {
        Refused::new(Code::ResourceNotFound, format!("No such {what}: {name} {version}")).of_addon(name)
    };
    let offered = Offered::named(name).ok_or_else(|| missing("add-on"))?;
    let version = offered.version(Some(version)).ok_or_else(|| missing("version of the add-on"))?;
    let suggested = offered.service_accounts.iter().map(|(service_account, policies)| {
        json!({ "serviceAccount": service_account, "recommendedManagedPolicies": policies })
    });
    Ok(json!({
        "addonName": offered.name,
        "addonVersion": version,
        "configurationSchema": SCHEMA,
        "podIdentityConfiguration": suggested.collect::<Vec<_>>(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(query: &str) -> Vec<String> {
        let found = describe_versions(&Query::parse(query)).unwrap();
        let names = found["addons"].as_array().unwrap().iter();
        names.map(|addon| addon["addonName"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn the_guides_example_is_found_as_it_is_printed() {
        assert_eq!(versions("addonName=aws-ebs-csi-driver&kubernetesVersion=1.30"), ["aws-ebs-csi-driver"]);
        let query = Query::parse("addonName=aws-ebs-csi-driver&addonVersion=v1.31.0-eksbuild.1");
        let configuration = describe_configuration(&query).unwrap();
        assert_eq!(
            configuration["podIdentityConfiguration"],
            json!([{ "serviceAccount": "ebs-csi-controller-sa", "recommendedManagedPolicies": EBS }])
        );
    }

    #[test]
    fn filters_narrow_the_list() {
        assert_eq!(versions("types=storage"), ["aws-ebs-csi-driver", "aws-efs-csi-driver"]);
        assert_eq!(versions("owners=community"), ["external-dns"]);
        assert_eq!(versions("kubernetesVersion=1.20"), Vec::<String>::new());
        let bad = Query::parse("addonName=vpc-cni&addonVersion=v0");
        assert!(describe_configuration(&bad).is_err());
    }
}
