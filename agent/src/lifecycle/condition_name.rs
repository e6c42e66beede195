//! The names of all conditions: a closed list, each with its meaning.
//!
//! Owns: which conditions exist, how `/readyz` and metrics spell them, and what each one means. Must not
//! know: which part reports a condition, and when. Users' alerts select conditions by name, so a name is an
//! interface: a test compares the chart's alerts and dashboard with this list.

use std::fmt;

use serde::{Serialize, Serializer};

/// Declares the enum, its list, its names and its meanings from one table, so that none can lack an entry.
macro_rules! condition_names {
    ($($variant:ident = $name:literal: $meaning:literal;)+) => {
        /// The name of a condition.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ConditionName {
            $(#[doc = $meaning] $variant,)+
        }

        impl ConditionName {
            /// Every condition that exists. A process reports those that its flags ask for.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name as `/readyz`, metrics and logs spell it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What it means that the condition is met, in one sentence.
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$variant => $meaning,)+
                }
            }
        }
    };
}

condition_names! {
    Running = "running": "All parts of the agent are started, and it is not shutting down.";
    Region = "region":
        "The agent knows its AWS region: given, or read from the instance metadata service.";
    OwnCredentials = "own-credentials": "The agent has AWS credentials of its own to call EKS Auth with.";
    UpstreamAcceptsUs = "upstream-accepts-us":
        "The last answers of EKS Auth did not reject the agent's own credentials.";
    UpstreamReachable = "upstream-reachable":
        "EKS Auth has answered one of the last three calls, or calls have failed for less than a minute.";
    StsReachable = "sts-reachable":
        "STS has answered one of the last three calls, or calls have failed for less than a minute.";
    UpstreamGrants = "upstream-grants":
        "Not every answer of EKS Auth and STS since the start, or in ten minutes, was a refusal.";

    TrialCall = "trial-call":
        "EKS Auth knows the cluster and takes calls of this node's role, or gave no answer; asked until met.";

    ListenerIpv4 = "listener-ipv4":
        "The first IPv4 address and port that credentials are served on lead to a listener of the agent.";
    ListenerIpv4Own = "listener-ipv4-own":
        "With --guard-address, the agent listens on --port of its first IPv4 address too.";
    ListenerIpv4Guard = "listener-ipv4-guard":
        "The table leads to a guard port of the agent's first IPv4 address, or the agent needs none.";
    ListenerIpv4Second = "listener-ipv4-2": "The agent listens on its second IPv4 address and port.";
    ListenerIpv4Third = "listener-ipv4-3": "The agent listens on its third IPv4 address and port.";
    ListenerIpv4Fourth = "listener-ipv4-4": "The agent listens on its fourth IPv4 address and port.";
    ListenerIpv6 = "listener-ipv6":
        "The first IPv6 address and port that credentials are served on lead to a listener of the agent.";
    ListenerIpv6Own = "listener-ipv6-own":
        "With --guard-address, the agent listens on --port of its first IPv6 address too.";
    ListenerIpv6Guard = "listener-ipv6-guard":
        "The table leads to a guard port of the agent's first IPv6 address, or the agent needs none.";
    ListenerIpv6Second = "listener-ipv6-2": "The agent listens on its second IPv6 address and port.";
    ListenerIpv6Third = "listener-ipv6-3": "The agent listens on its third IPv6 address and port.";
    ListenerIpv6Fourth = "listener-ipv6-4": "The agent listens on its fourth IPv6 address and port.";
    ListenerOther = "listener-other":
        "The agent listens on every further address and port that it serves credentials on.";
    Probes = "probes": "The agent listens on 127.0.0.1 for liveness and readiness probes.";
    ProbesIpv6 = "probes-ipv6": "The agent listens on ::1 for liveness and readiness probes.";
    Metrics = "metrics": "The agent listens on the port for metrics.";

    TokenKeys = "token-keys": "The agent has the cluster's keys to verify service account tokens with.";
    TokenIssuer = "token-issuer":
        "Not every token since the start, or in ten minutes, was of an issuer or a key that the agent lacks.";
    RoleFiles = "role-files": "The role map and the role limits can be used as they are now.";
    RoleAnnotations = "role-annotations":
        "The annotations of service accounts that were asked for could be read at the Kubernetes API.";
    Pods = "pods": "The agent follows which pods live on this node, at the Kubernetes API.";

    AddressIpv4 = "address-ipv4":
        "The node has 169.254.170.23 on one of its links and in its local routing table.";
    AddressIpv6 = "address-ipv6":
        "The node has fd00:ec2::23 on one of its links and in its local routing table, or has no IPv6.";
    Link = "link": "The link, the addresses and the routes that pods reach the agent by are all in place.";
    AddressGuard = "address-guard":
        "The nftables table of --guard-address leads to an agent here; waited for at start, for 10 s.";
    ImdsBlock = "imds-block":
        "The nftables rules of --block-imds=on are in place.";
    ImdsCount = "imds-count":
        "The connections of pods to the instance metadata service are counted, or cannot be on this node.";

    SelfProbe = "self-probe": "A request from the node to the agent's addresses is answered by this agent.";
    SelfProbeFromPod = "self-probe-from-pod":
        "A request from a network namespace like a pod's to the agent's addresses is answered by this agent.";
    ImdsOutOfReach = "imds-out-of-reach":
        "A connection from a network namespace like a pod's to the instance metadata service fails.";

    LimitVerifiedIdentities = "limit-verified-identities":
        "For the last minute the cache had room for every verified identity.";
    LimitUnverifiedIdentities = "limit-unverified-identities":
        "For the last minute the cache had room for every unverified identity.";
    LimitIdentitiesPerPeer = "limit-identities-per-peer":
        "For the last minute no peer used more unverified tokens than the cache keeps for one peer.";
    LimitUpstreamCallsPerPeer = "limit-upstream-calls-per-peer":
        "For the last minute no peer reached its limit of simultaneous AWS calls for unverified tokens.";
    LimitHeldRequestsPerPeer = "limit-held-requests-per-peer":
        "For the last minute no peer reached its limit of requests that wait for an answer.";
    LimitRequestRatePerPeer = "limit-request-rate-per-peer":
        "For the last minute no peer asked faster than --pod-request-rate.";
    LimitConnectionsPerPeer = "limit-connections-per-peer":
        "For the last minute no peer reached its limit of open connections.";
    LimitConnections = "limit-connections":
        "For the last minute the agent did not reach its limit of open connections.";
}

impl fmt::Display for ConditionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ConditionName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::ConditionName;

    #[test]
    fn names_are_unique_and_in_kebab_case() {
        let names: BTreeSet<_> = ConditionName::ALL.iter().map(|name| name.as_str()).collect();
        assert_eq!(names.len(), ConditionName::ALL.len());
        for name in names {
            let is_kebab_case = name.split('-').all(|word| {
                !word.is_empty()
                    && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
            });
            assert!(is_kebab_case, "{name}");
        }
    }

    #[test]
    fn every_meaning_is_one_sentence() {
        for name in ConditionName::ALL {
            let meaning = name.meaning();
            assert!(
                meaning.ends_with('.') && !meaning.contains(". ") && !meaning.contains("  "),
                "{name}: {meaning}"
            );
        }
    }

    /// Each name in `condition="a"` or `condition=~"a|b"` of a file that queries the metric.
    fn conditions_queried_by(file: &str) -> Vec<String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
        let text = std::fs::read_to_string(path).unwrap();
        let matchers = text.split("condition=").skip(1);
        let values = matchers.filter_map(|rest| rest.trim_start_matches(['~', '\\']).strip_prefix('"'));
        let names =
            values.filter_map(|value| value.split(['"', '\\']).next()).flat_map(|names| names.split('|'));
        names.map(str::to_owned).collect()
    }

    #[test]
    fn alerts_and_dashboard_query_only_conditions_that_exist() {
        for file in
            ["deploy/chart/alerts.yaml", "deploy/chart/dashboard.json", "tests/chart/alerts_test.yaml"]
        {
            let queried = conditions_queried_by(file);
            assert!(!queried.is_empty(), "{file} queries no condition");
            for name in queried {
                assert!(ConditionName::ALL.iter().any(|known| known.as_str() == name), "{file}: {name}");
            }
        }
    }

    #[test]
    fn a_name_is_serialised_as_it_is_spelled() {
        assert_eq!(serde_json::to_string(&ConditionName::AddressIpv4).unwrap(), r#""address-ipv4""#);
    }
}
