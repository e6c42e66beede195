//! What `nft` lists of the table, as numbers. Pure.
//!
//! Owns: how a listing is read. Must not know: which pods have these addresses.

use std::net::IpAddr;

use serde_json::Value;

use super::table::{BLOCKED, CHAINS, CLIENTS, MOST_CLIENTS, PASSED, SERVICE, VERSION};

/// What is in the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// Whether it is of this text, and lacks nothing.
    pub(super) is_whole: bool,
    /// The sets that have addresses of the service in them: what is counted.
    pub(super) in_force: Vec<&'static str>,
    /// Connections that went on to the service.
    pub(super) passed: u64,
    /// Connections that came to the block.
    pub(super) blocked: u64,
    /// How often each address connected.
    pub(super) clients: Vec<(IpAddr, u64)>,
}

impl Counted {
    /// `listed`: what `nft --json list table` prints. What is not as expected is not counted; then the table
    /// is not whole.
    pub(super) fn of(listed: &Value) -> Self {
        let objects = listed.get("nftables").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let named = |kind: &'static str, name: &'static str| {
            let of_kind = objects.iter().filter_map(move |object| object.get(kind));
            of_kind.into_iter().find(move |object| text(object, "name") == Some(name))
        };
        let rules_of = |chain: &str| {
            let rules = objects.iter().filter_map(|object| object.get("rule"));
            rules.filter(|rule| text(rule, "chain") == Some(chain)).count()
        };
        let sets = || SERVICE.iter().flatten().chain(&CLIENTS);
        let counter = |name| number(named("counter", name)?, "packets");
        let (passed, blocked) = (counter(PASSED), counter(BLOCKED));
        let has_chains = CHAINS.iter().all(|chain| rules_of(chain) == CLIENTS.len());
        let has_sets = sets().all(|set| named("set", set).is_some());
        let is_of_this_text = named("chain", VERSION).is_some();
        let elements_of = |set| named("set", set).map(elements).unwrap_or_default();
        Self {
            is_whole: is_of_this_text && has_chains && has_sets && passed.is_some() && blocked.is_some(),
            in_force: SERVICE.into_iter().flatten().filter(|set| !elements_of(set).is_empty()).collect(),
            passed: passed.unwrap_or(0),
            blocked: blocked.unwrap_or(0),
            clients: CLIENTS
                .into_iter()
                .flat_map(|set| elements_of(set).iter().take(MOST_CLIENTS))
                .filter_map(client)
                .collect(),
        }
    }
}

fn client(element: &Value) -> Option<(IpAddr, u64)> {
    let element = element.get("elem")?;
    let connections = number(element.get("counter")?, "packets")?;
    Some((text(element, "val")?.parse().ok()?, connections))
}

/// nft leaves the list out where there is none.
fn elements(set: &Value) -> &[Value] {
    set.get("elem").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn text<'a>(object: &'a Value, field: &str) -> Option<&'a str> {
    object.get(field).and_then(Value::as_str)
}

fn number(object: &Value, field: &str) -> Option<u64> {
    object.get(field).and_then(Value::as_u64)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::table::{CHAINS, CLIENTS, MOST_CLIENTS, SERVICE, VERSION};
    use super::Counted;

    /// As nft 1.0.6 lists the table while it observes.
    fn listing(clients: &[Value]) -> Value {
        let mut objects = vec![
            json!({ "metainfo": { "version": "1.0.6" } }),
            json!({ "table": { "family": "inet", "name": "pod_identity_agent_imds", "handle": 1 } }),
            json!({ "counter": { "name": "passed", "handle": 3, "packets": 6, "bytes": 360 } }),
            json!({ "counter": { "name": "blocked", "handle": 4, "packets": 2, "bytes": 120 } }),
            json!({ "chain": { "name": VERSION, "handle": 9 } }),
        ];
        for set in SERVICE.iter().flatten().chain(&CLIENTS) {
            objects.push(match *set {
                "passing_ipv4" => json!({ "set": { "name": set, "elem": [
                    { "elem": { "val": "169.254.169.254", "timeout": 1800, "expires": 1797 } },
                ] } }),
                "passing_ipv6" => json!({ "set": { "name": set, "elem": ["fd00:ec2::254"] } }),
                "clients_ipv4" => json!({ "set": { "name": set, "elem": clients } }),
                _ => json!({ "set": { "name": set } }),
            });
        }
        for chain in CHAINS {
            objects.push(json!({ "chain": { "name": chain, "hook": "forward" } }));
            objects.extend([0, 1].map(|_| json!({ "rule": { "chain": chain, "expr": [] } })));
        }
        json!({ "nftables": objects })
    }

    fn element(address: &str, packets: &Value) -> Value {
        let counter = json!({ "packets": packets, "bytes": 180 });
        json!({ "elem": { "val": address, "expires": 86_399, "counter": counter } })
    }

    #[test]
    fn what_nft_lists_is_read() {
        let counted = Counted::of(&listing(&[element("10.0.1.2", &json!(3))]));
        assert_eq!(
            counted,
            Counted {
                is_whole: true,
                in_force: vec!["passing_ipv4", "passing_ipv6"],
                passed: 6,
                blocked: 2,
                clients: vec![("10.0.1.2".parse().unwrap(), 3)],
            }
        );
    }

    #[test]
    fn a_table_that_lacks_anything_is_not_whole() {
        let whole = listing(&[]);
        assert!(Counted::of(&whole).is_whole);
        let parts = whole["nftables"].as_array().unwrap().len();
        // The first two say nothing, and a base chain without its rules is known by these.
        for left_out in 2..parts {
            let mut listed = whole.clone();
            let left_out = listed["nftables"].as_array_mut().unwrap().remove(left_out);
            let says_nothing = left_out["chain"]["hook"] == "forward";
            assert_eq!(Counted::of(&listed).is_whole, says_nothing, "{left_out}");
        }
        for other in [json!({}), json!([]), json!({ "nftables": [] }), Value::Null] {
            assert_eq!(Counted::of(&other), Counted::default());
        }
    }

    #[test]
    fn elements_that_cannot_be_read_count_for_nobody_and_no_more_are_read_than_the_set_has_room_for() {
        let odd = [
            json!("10.0.1.3"),
            json!({ "elem": { "val": "10.0.1.4" } }),
            element("pod\n", &json!(1)),
            element("10.0.1.5", &json!(-1)),
            element("10.0.1.6", &json!("7")),
            element("10.0.1.7", &json!(7)),
        ];
        assert_eq!(Counted::of(&listing(&odd)).clients, [("10.0.1.7".parse().unwrap(), 7)]);
        let many: Vec<_> = (0..=MOST_CLIENTS)
            .map(|n| element(&format!("10.0.{}.{}", n / 256, n % 256), &json!(1)))
            .collect();
        assert_eq!(Counted::of(&listing(&many)).clients.len(), MOST_CLIENTS);
    }
}
