//! The content of the table, as `nft --json` reads it. Pure.
//!
//! Owns: chains, priorities, rules. Must not know: how they get into the kernel.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::workload::INSTANCE_METADATA;

/// The name of the agent's table, in the family `inet`.
pub(super) const TABLE: &str = "pod_identity_agent";
/// Before portmap and kube-proxy, which do destination NAT at -100 (`dstnat`): the first NAT rule that
/// matches a connection decides (measured with all three of portmap's variants).
const BEFORE_DSTNAT: i32 = -110;
/// Before the filters of policy engines at 0, which may accept packets to the metadata service for reasons of
/// their own.
const BEFORE_FILTER: i32 = -10;

/// What the table is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The agent's addresses, if they are guarded.
    pub guarded: Option<Guarded>,
    /// Whether pods are blocked from the instance metadata service.
    pub block_imds: bool,
}

/// Which connections are redirected, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guarded {
    /// The port that SDKs use.
    pub port: u16,
    /// Each of the agent's addresses, and the port that the agent listens on there. If it is the same port,
    /// nothing is translated, so open connections survive a flush of all rules; even then the rule is the
    /// first NAT that matches, and no later one applies.
    pub addresses: Vec<(IpAddr, u16)>,
}

/// The whole table in one transaction, whatever was in it before. Open connections keep their NAT.
pub(super) fn replacement(rules: &Rules) -> Value {
    let mut commands = removal_commands();
    commands.push(json!({ "add": { "table": table() } }));
    if let Some(guarded) = &rules.guarded {
        for hook in ["prerouting", "output"] {
            commands.push(chain(hook, "nat", hook, BEFORE_DSTNAT));
            commands.extend(guarded.addresses.iter().map(|(ip, to)| redirect(hook, *ip, guarded.port, *to)));
        }
    }
    if rules.block_imds {
        // Only packets from pods with their own network are forwarded. Packets of the host, and of pods that
        // use host networking, do not pass this hook.
        commands.push(chain("forward", "filter", "forward", BEFORE_FILTER));
        commands.extend(INSTANCE_METADATA.iter().flat_map(|ip| reject("forward", *ip)));
    }
    json!({ "nftables": commands })
}

/// Removes the table.
pub(super) fn removal() -> Value {
    json!({ "nftables": removal_commands() })
}

/// Deleting a table that does not exist would fail the transaction, so the table is added first.
fn removal_commands() -> Vec<Value> {
    vec![json!({ "add": { "table": table() } }), json!({ "delete": { "table": table() } })]
}

fn table() -> Value {
    json!({ "family": "inet", "name": TABLE })
}

fn chain(name: &str, kind: &str, hook: &str, priority: i32) -> Value {
    json!({ "add": { "chain": {
        "family": "inet", "table": TABLE, "name": name,
        "type": kind, "hook": hook, "prio": priority, "policy": "accept",
    } } })
}

fn rule(chain: &str, comment: &str, expressions: &[Value]) -> Value {
    json!({ "add": { "rule": {
        "family": "inet", "table": TABLE, "chain": chain, "comment": comment, "expr": expressions,
    } } })
}

fn redirect(chain: &str, ip: IpAddr, from: u16, to: u16) -> Value {
    rule(
        chain,
        "pod-identity-agent: connections to the agent's address reach the agent",
        &[
            destination_is(ip),
            equals("tcp", "dport", &json!(from)),
            json!({ "dnat": { "family": family(ip), "addr": ip.to_string(), "port": to } }),
        ],
    )
}

/// Rejected, not dropped: an SDK without credentials must fail at once instead of waiting for a timeout.
fn reject(chain: &str, ip: IpAddr) -> [Value; 2] {
    let comment = "pod-identity-agent: pods cannot use the node's role";
    [
        rule(
            chain,
            comment,
            &[
                destination_is(ip),
                json!({ "match": { "op": "==", "left": { "meta": { "key": "l4proto" } }, "right": "tcp" } }),
                json!({ "reject": { "type": "tcp reset" } }),
            ],
        ),
        rule(
            chain,
            comment,
            &[destination_is(ip), json!({ "reject": { "type": "icmpx", "expr": "admin-prohibited" } })],
        ),
    ]
}

fn destination_is(ip: IpAddr) -> Value {
    equals(family(ip), "daddr", &json!(ip.to_string()))
}

fn equals(protocol: &str, field: &str, value: &Value) -> Value {
    json!({ "match": {
        "op": "==", "left": { "payload": { "protocol": protocol, "field": field } }, "right": value,
    } })
}

const fn family(ip: IpAddr) -> &'static str {
    match ip {
        IpAddr::V4(_) => "ip",
        IpAddr::V6(_) => "ip6",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{Guarded, Rules, removal, replacement};
    use crate::workload::WELL_KNOWN;

    fn commands(json: &Value, kind: &str) -> Vec<Value> {
        let all = json["nftables"].as_array().unwrap();
        all.iter().filter_map(|command| command["add"].get(kind).cloned()).collect()
    }

    fn guarded() -> Guarded {
        Guarded { port: 80, addresses: vec![(WELL_KNOWN[0], 2707), (WELL_KNOWN[1], 80)] }
    }

    #[test]
    fn the_table_is_replaced_in_one_transaction() {
        let json = replacement(&Rules { guarded: Some(guarded()), block_imds: true });
        let all = json["nftables"].as_array().unwrap();
        assert!(all[0]["add"]["table"].is_object() && all[1]["delete"]["table"].is_object());
        assert!(all[2]["add"]["table"].is_object());
        assert!(all[3..].iter().all(|command| command["add"].is_object()));
        assert_eq!(removal()["nftables"].as_array().unwrap()[..], all[..2]);
    }

    #[test]
    fn the_agents_addresses_are_redirected_before_any_other_nat() {
        let json = replacement(&Rules { guarded: Some(guarded()), block_imds: false });
        let chains = commands(&json, "chain");
        let hooks: Vec<_> =
            chains.iter().map(|chain| (chain["hook"].as_str().unwrap(), &chain["prio"])).collect();
        assert_eq!(hooks, [("prerouting", &Value::from(-110)), ("output", &Value::from(-110))]);
        let rules = commands(&json, "rule");
        assert_eq!(rules.len(), 4);
        let ports: Vec<_> =
            rules.iter().map(|rule| rule["expr"][2]["dnat"]["port"].as_u64().unwrap()).collect();
        assert_eq!(ports, [2707, 80, 2707, 80]);
        for rule in rules {
            let expressions = rule["expr"].as_array().unwrap();
            let address = &expressions[0]["match"]["right"];
            assert_eq!(&expressions[2]["dnat"]["addr"], address, "the address itself is not changed");
            assert_eq!(expressions[1]["match"]["right"], 80);
        }
    }

    #[test]
    fn the_metadata_service_is_rejected_for_forwarded_packets_only() {
        let json = replacement(&Rules { guarded: None, block_imds: true });
        let chains = commands(&json, "chain");
        assert_eq!(chains.len(), 1);
        assert_eq!((&chains[0]["type"], &chains[0]["hook"]), (&"filter".into(), &"forward".into()));
        let rules = commands(&json, "rule");
        let addresses: Vec<_> =
            rules.iter().map(|rule| rule["expr"][0]["match"]["right"].as_str().unwrap()).collect();
        assert_eq!(addresses, ["169.254.169.254", "169.254.169.254", "fd00:ec2::254", "fd00:ec2::254"]);
    }
}
