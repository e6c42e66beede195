//! What stands in the table, as `nft --json` reads it. Pure.
//!
//! Owns: chains, priorities, rules. Must not know: how they get into the kernel.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::workload::INSTANCE_METADATA;

/// The name of our table, of the family `inet`.
pub(super) const TABLE: &str = "pod_identity_agent";
/// Before portmap and kube-proxy, whose destination NAT is at -100 (`dstnat`): the first NAT that a connection meets is
/// the one it gets (measured with all three of portmap's variants).
const BEFORE_DSTNAT: i32 = -110;
/// Before the filters of policy engines at 0, which could let metadata through for good reasons of their own.
const BEFORE_FILTER: i32 = -10;

/// What the table is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Our addresses, if they are guarded.
    pub guarded: Option<Guarded>,
    /// Whether pods are kept from the instance's metadata.
    pub block_imds: bool,
}

/// What is led where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guarded {
    /// The port that SDKs use.
    pub port: u16,
    /// Each of our addresses, and the port that we listen on there. Where it is the same port nothing is translated, so
    /// that open connections outlive a flush of all rules; the first NAT that a connection meets is the one it gets even
    /// then.
    pub addresses: Vec<(IpAddr, u16)>,
}

/// The whole table in one transaction, whatever was in it before. Connections that are under way keep the NAT they have.
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
        // Forwarded is what pods with a network of their own send; the host and its pods do not come by here.
        commands.push(chain("forward", "filter", "forward", BEFORE_FILTER));
        commands.extend(INSTANCE_METADATA.iter().flat_map(|ip| reject("forward", *ip)));
    }
    json!({ "nftables": commands })
}

/// No table.
pub(super) fn removal() -> Value {
    json!({ "nftables": removal_commands() })
}

/// Deleting what is not there would fail the transaction, so it is added first.
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
        "pod-identity-agent: credentials are served here, whoever else wants the port",
        &[
            destination_is(ip),
            equals("tcp", "dport", &json!(from)),
            json!({ "dnat": { "family": family(ip), "addr": ip.to_string(), "port": to } }),
        ],
    )
}

/// Refused and not dropped: an SDK that has no credentials shall say so at once instead of waiting for a timeout.
fn reject(chain: &str, ip: IpAddr) -> [Value; 2] {
    let comment = "pod-identity-agent: pods do not get the node's role";
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
    fn our_addresses_are_led_to_us_before_anybody_elses_nat() {
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
            assert_eq!(&expressions[2]["dnat"]["addr"], address, "an address is led to itself");
            assert_eq!(expressions[1]["match"]["right"], 80);
        }
    }

    #[test]
    fn metadata_is_refused_to_what_is_forwarded_and_to_nobody_else() {
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
