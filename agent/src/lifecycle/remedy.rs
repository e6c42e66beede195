//! What to do about a condition that is not met.
//!
//! Owns: one sentence for each condition, and the section of docs/runbook.md that says more. Must not know:
//! why a condition is not met at this moment; its reason says that.

use super::condition_name::ConditionName;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remedy {
    /// In one sentence.
    pub advice: &'static str,
    /// The heading of the section in docs/runbook.md; it is the name of an alert.
    pub section: &'static str,
}

const NOT_SERVING: &str = "PodIdentityNotServing";
const UNGUARDED: &str = "PodIdentityUnguarded";
const LIMIT: &str = "PodIdentityLimitReached";

/// The same at each address.
const PORT: &str =
    "Find the process that has the address and port (`ss -ltnp` on the node), and move it or the agent.";

impl ConditionName {
    /// What to do while it is not met.
    #[expect(clippy::too_many_lines, reason = "a table: one sentence for each condition")]
    pub const fn remedy(self) -> Remedy {
        let (section, advice) = match self {
            Self::Running => (
                NOT_SERVING,
                "Wait while the agent starts or ends; if it stays, read its log and delete the pod.",
            ),
            Self::Region => (
                NOT_SERVING,
                "Give the region (--region or AWS_REGION; env.AWS_REGION of the chart), or switch the \
                 metadata service on and let the agent reach it.",
            ),
            Self::OwnCredentials => (
                NOT_SERVING,
                "Attach an instance profile and switch the metadata service on, or, on a hybrid node, see \
                 that the credentials file is there.",
            ),
            Self::UpstreamAcceptsUs => (
                "PodIdentityRejectedByAws",
                "Allow eks-auth:AssumeRoleForPodIdentity to the role of the node \
                 (AmazonEKSWorkerNodePolicy), and in the policy of a VPC endpoint.",
            ),
            Self::TrialCall => (
                "PodIdentityTrialCallFails",
                "Correct the cluster's name or the region, or give the node's role its permission, also in \
                 the policy of a VPC endpoint, as the reason says; the agent asks again within a minute.",
            ),
            Self::UpstreamReachable => (
                "PodIdentityAwsUnreachable",
                "Mend the step that the reason names: the node's resolver, the route to EKS Auth, the proxy, \
                 or the certificates in AWS_CA_BUNDLE.",
            ),
            Self::StsReachable => (
                "PodIdentityStsUnreachable",
                "Mend the step that the reason names: resolver, route to STS, proxy or certificates.",
            ),
            Self::UpstreamGrants => (
                "PodIdentityNothingGranted",
                "Compare --cluster-name and --region with the cluster that has the associations, then look \
                 at the association and the trust policy of the role.",
            ),
            Self::ListenerIpv4
            | Self::ListenerIpv4Own
            | Self::ListenerIpv4Second
            | Self::ListenerIpv4Third
            | Self::ListenerIpv4Fourth
            | Self::ListenerIpv6
            | Self::ListenerIpv6Own
            | Self::ListenerIpv6Second
            | Self::ListenerIpv6Third
            | Self::ListenerIpv6Fourth
            | Self::ListenerOther
            | Self::Probes
            | Self::ProbesIpv6
            | Self::Metrics => (NOT_SERVING, PORT),
            Self::ListenerIpv4Guard | Self::ListenerIpv6Guard => (
                NOT_SERVING,
                "See to what `address-guard` says; if that is met, find the process that has --guard-port \
                 and the port after it.",
            ),
            Self::TokenKeys => (
                "PodIdentityTokenKeysUnread",
                "Mend the way to the API server, or the URLs and files of --jwks.",
            ),
            Self::TokenIssuer => (
                "PodIdentityTokensForeign",
                "Correct --issuer or --jwks to what the cluster's tokens say, or leave them out: the API \
                 server names both.",
            ),
            Self::RoleFiles => (
                "PodIdentityRoleFilesUnusable",
                "Correct the role map or the role limits where the reason says; they are read again by \
                 themselves.",
            ),
            Self::RoleAnnotations => (
                "PodIdentityRoleAnnotationsUnread",
                "Give the agent's service account the right to get serviceaccounts, or mend the way to the \
                 API server.",
            ),
            Self::Pods => (
                "PodIdentityPodsUnknown",
                "Give the agent's service account the right to list and watch pods, or mend the way to the \
                 API server.",
            ),
            Self::AddressIpv4 | Self::AddressIpv6 => (
                NOT_SERVING,
                "Run `initialize`, or let the agent keep the address itself (--manage-link, NET_ADMIN).",
            ),
            Self::Link => {
                (UNGUARDED, "Give the container NET_ADMIN, and see which program changes the link.")
            }
            Self::AddressGuard => (
                UNGUARDED,
                "Give the container nft, NET_ADMIN and a kernel with nf_tables, or switch the guard off.",
            ),
            Self::ImdsCount => (
                UNGUARDED,
                "Give the agent nft and NET_ADMIN, or switch the count off with `--block-imds=off`.",
            ),
            Self::ImdsBlock => (
                UNGUARDED,
                "Give the container nft, NET_ADMIN and a kernel with nf_tables, or switch --block-imds off.",
            ),
            Self::SelfProbe => (
                "PodIdentityAddressTaken",
                "Find what answers on the agent's address instead of it: a process on port 80, or a pod with \
                 hostPort 80; switch --guard-address on.",
            ),
            Self::SelfProbeFromPod => (
                "PodIdentityAddressTaken",
                "Find what keeps pods from the agent: a pod with hostPort 80, a network policy, or a lack of \
                 SYS_ADMIN for the probe itself.",
            ),
            Self::ImdsOutOfReach => (
                UNGUARDED,
                "Find the way by which pods still reach the metadata service, such as host networking or \
                 another table before the agent's.",
            ),
            Self::LimitVerifiedIdentities | Self::LimitUnverifiedIdentities => {
                (LIMIT, "Raise --max-cache-size; new pods are served meanwhile, at one call to AWS each.")
            }
            Self::LimitIdentitiesPerPeer | Self::LimitUpstreamCallsPerPeer => {
                (LIMIT, "Find the pod that asks with ever new tokens; its address is in the log.")
            }
            Self::LimitHeldRequestsPerPeer
            | Self::LimitRequestRatePerPeer
            | Self::LimitConnectionsPerPeer => (
                LIMIT,
                "Find the pod that asks in a loop; its address is in the log, and one SDK client is enough \
                 for it.",
            ),
            Self::LimitConnections => (
                LIMIT,
                "Raise the descriptors or the memory limit of the container, which bound the connections.",
            ),
        };
        Remedy { advice, section }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::ConditionName;

    fn repository(file: &str) -> String {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)).unwrap()
    }

    /// The text below a heading of the runbook, up to the next one.
    fn section(runbook: &str, name: &str) -> String {
        let heading = format!("\n## {name}\n");
        let (_, rest) = runbook.split_once(&heading).unwrap_or_else(|| panic!("no section {name}"));
        rest.split("\n## ").next().unwrap().to_owned()
    }

    #[test]
    fn every_remedy_is_one_sentence_and_none_repeats_the_meaning() {
        for name in ConditionName::ALL {
            let advice = name.remedy().advice;
            let is_one = advice.ends_with('.') && !advice.contains(". ") && !advice.contains("  ");
            assert!(is_one && advice != name.meaning(), "{name}: {advice}");
        }
    }

    /// By its name, or with its family: `listener-…`.
    #[test]
    fn the_section_of_a_remedy_is_in_the_runbook_and_speaks_of_the_condition() {
        let runbook = repository("docs/runbook.md");
        for name in ConditionName::ALL {
            let section = section(&runbook, name.remedy().section);
            let family = name.as_str().split('-').next().unwrap();
            let is_named =
                section.contains(&format!("`{name}`")) || section.contains(&format!("`{family}-…`"));
            assert!(is_named, "{name} is not in {}", name.remedy().section);
        }
    }

    #[test]
    fn every_alert_has_its_section() {
        let (runbook, alerts) = (repository("docs/runbook.md"), repository("deploy/chart/alerts.yaml"));
        let names: Vec<_> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
        assert!(names.len() > 15, "{names:?}");
        names.into_iter().for_each(|name| assert!(!section(&runbook, name).trim().is_empty()));
    }
}
