//! What `nft` lists of the table, reduced to what can be compared. Pure.
//!
//! Owns: which parts of a listing stand for a change by somebody else. Must not know: what should be in it.
//!
//! nft lists a table in its own wording, which differs between versions. So the listing taken right after a
//! write is what later ones are compared with.

use std::net::IpAddr;

use serde_json::Value;

use super::elements::Epoch;
use super::table::{IPV4, IPV6, OWNER};

/// What differs between two listings of the same table: handles, and the time that an element has left.
const PASSING: [&str; 3] = ["handle", "expires", "metainfo"];

/// Who wrote the table last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writer {
    /// The element is not there.
    Nobody,
    /// An agent that counts as this one does.
    Known(Epoch),
    /// An agent of another version, which counts in another way.
    OfAnotherFormat,
}

/// The table as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) writer: Writer,
    content: Value,
}

impl Listing {
    /// `listed`: what `nft --json list table` prints.
    pub(super) fn new(mut listed: Value) -> Self {
        let writer = match object(&listed, "set", OWNER).and_then(|owner| first_element(owner)) {
            Some(element) => epoch_in(element).map_or(Writer::OfAnotherFormat, Writer::Known),
            None => Writer::Nobody,
        };
        reduce(&mut listed);
        Self { writer, content: listed }
    }

    /// The guard port that an address leads to, if to any.
    pub(super) fn guard_port_of(&self, address: IpAddr) -> Option<u16> {
        let map = if address.is_ipv4() { IPV4.to_guard } else { IPV6.to_guard };
        let elements = object(&self.content, "map", map)?.get("elem")?.as_array()?;
        // Of each element key and value, both an address and a port.
        let port = |element: &Value| {
            let key = element.pointer("/0/elem/val/concat/0")?.as_str()?;
            let is_its = key.parse::<IpAddr>().ok()? == address;
            u16::try_from(element.pointer("/1/concat/1")?.as_u64().filter(|_| is_its)?).ok()
        };
        elements.iter().find_map(port)
    }
}

/// nft prints a set of one element as a list, or as that element.
fn first_element(set: &Value) -> Option<&Value> {
    let elements = set.get("elem")?;
    elements.as_array().map_or(Some(elements), |elements| elements.first())
}

fn epoch_in(element: &Value) -> Option<Epoch> {
    let value = element.pointer("/elem/val").unwrap_or(element);
    let half = |at| value.pointer(at)?.as_u64().and_then(|number| u16::try_from(number).ok());
    Some(Epoch::of_halves(half("/concat/0")?, half("/concat/1")?))
}

/// The set or map of this name.
fn object<'a>(listed: &'a Value, kind: &str, name: &str) -> Option<&'a Value> {
    let mut objects = listed.get("nftables")?.as_array()?.iter().filter_map(|object| object.get(kind));
    objects.find(|object| object.get("name").and_then(Value::as_str) == Some(name))
}

fn reduce(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !PASSING.contains(&name.as_str()));
            fields.values_mut().for_each(reduce);
            if let Some(Value::Array(elements)) = fields.get_mut("elem") {
                // A hash table has no order.
                elements.sort_by_key(Value::to_string);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(reduce),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Epoch, Listing, Writer};
    use crate::workload::WELL_KNOWN;

    fn with(owner: &Value, expires: u32, to: u16) -> Listing {
        Listing::new(json!({ "nftables": [
            { "metainfo": { "version": "1.0.6" } },
            { "set": { "name": "owner", "handle": 3, "elem": owner } },
            { "map": { "name": "to_guard_ipv4", "handle": expires, "elem": [
                [{ "elem": { "val": { "concat": ["169.254.170.23", 80] }, "expires": expires } },
                 { "concat": ["169.254.170.23", to] }],
            ] } },
        ] }))
    }

    fn listing(epoch: u16, expires: u32, to: u16) -> Listing {
        with(&json!([{ "concat": [0, epoch] }]), expires, to)
    }

    #[test]
    fn time_that_passes_is_no_change_and_another_port_or_owner_is() {
        let written = listing(1, 119, 2707);
        assert_eq!(written, listing(1, 17, 2707));
        assert_ne!(written, listing(1, 119, 2708));
        assert_ne!(written, listing(2, 119, 2707));
    }

    #[test]
    fn the_epoch_is_read_in_each_shape_and_what_cannot_be_read_is_another_versions() {
        let writer = |owner: &Value| with(owner, 1, 1).writer;
        for shape in [
            json!([{ "concat": [1, 26] }]),
            json!({ "concat": [1, 26] }),
            json!([{ "elem": { "val": { "concat": [1, 26] } } }]),
        ] {
            assert_eq!(writer(&shape), Writer::Known(Epoch(65_562)), "{shape}");
        }
        assert_eq!(writer(&json!([])), Writer::Nobody);
        for shape in [json!(["first"]), json!([7]), json!([{ "concat": ["http", 7] }])] {
            assert_eq!(writer(&shape), Writer::OfAnotherFormat, "{shape}");
        }
        let of_others = json!({ "nftables": [{ "set": { "name": "owner" } }] });
        assert_eq!(Listing::new(of_others).writer, Writer::Nobody);
    }

    #[test]
    fn the_port_that_an_address_leads_to_is_read() {
        assert_eq!(listing(1, 119, 2708).guard_port_of(WELL_KNOWN[0]), Some(2708));
        assert_eq!(listing(1, 119, 2708).guard_port_of(WELL_KNOWN[1]), None);
    }
}
