//! What is true of every `NO_PROXY`, whatever its text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::NoProxy;

/// Each entry counts by itself, in any order and any case, and an address is the same in all its forms.
pub(crate) fn of_variable(variable: &str, host: &str, port: u16) {
    let excludes = |variable: &str, host: &str| NoProxy::read(variable).excludes(host, port);
    let by_any = variable.split(',').any(|entry| excludes(entry, host));
    assert_eq!(excludes(variable, host), by_any, "{variable:?} for {host:?}");
    let backwards: Vec<&str> = variable.rsplit(',').collect();
    assert_eq!(excludes(&backwards.join(" , "), host), by_any, "{variable:?} backwards for {host:?}");
    assert_eq!(
        excludes(&variable.to_ascii_uppercase(), &host.to_ascii_uppercase()),
        by_any,
        "{variable:?} in capitals"
    );
    assert!(excludes(&format!("{variable},*"), host));
    if variable.trim_matches([',', ' ']).is_empty() {
        assert!(!by_any, "nothing excludes {host:?}");
    }
}

/// A range has the addresses that agree with it in its first bits, of its own family only; those of IPv4 are
/// the same when they are written as IPv6.
pub(crate) fn of_range(network: IpAddr, prefix: u8, host: IpAddr) {
    let expected = match (network, host) {
        (IpAddr::V4(network), IpAddr::V4(host)) => agree(&network.octets(), &host.octets(), prefix),
        (IpAddr::V6(network), IpAddr::V6(host)) => agree(&network.octets(), &host.octets(), prefix),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    };
    let excludes = |range: String, host: String| NoProxy::read(&range).excludes(&host, 443);
    assert_eq!(
        excludes(format!("{network}/{prefix}"), host.to_string()),
        expected,
        "{network}/{prefix} {host}"
    );
    if let (IpAddr::V4(network), IpAddr::V4(host)) = (network, host) {
        let (network, host) = (network.to_ipv6_mapped(), host.to_ipv6_mapped());
        let range = format!("{network}/{}", prefix.saturating_add(96));
        assert_eq!(excludes(range.clone(), host.to_string()), expected, "{range} {host}");
    }
}

/// Whether the first bits of two addresses are the same; never, if there are not so many.
fn agree(one: &[u8], other: &[u8], bits: u8) -> bool {
    let digits = |octets: &[u8]| -> Vec<bool> {
        octets.iter().flat_map(|octet| (0..8).rev().map(move |bit| octet >> bit & 1 == 1)).collect()
    };
    let (one, other) = (digits(one), digits(other));
    let bits = usize::from(bits);
    one.get(..bits).is_some_and(|first| other.get(..bits) == Some(first))
}

/// Two addresses of one family from the same bits, of which the second differs in one bit.
pub(crate) fn of_neighbours(bits: u128, flipped: u8, prefix: u8) {
    let other = bits ^ (1_u128.rotate_left(u32::from(flipped)));
    let v6 = [bits, other].map(Ipv6Addr::from_bits);
    // What is IPv4 in another form is tested as such.
    if v6.iter().all(|address| address.to_ipv4_mapped().is_none()) {
        of_range(v6[0].into(), prefix, v6[1].into());
    }
    let [one, other] = [bits, bits ^ (1 << (flipped % 32))].map(|bits| u32::try_from(bits & 0xffff_ffff));
    if let (Ok(one), Ok(other)) = (one, other) {
        of_range(Ipv4Addr::from_bits(one).into(), prefix, Ipv4Addr::from_bits(other).into());
        if v6.iter().all(|address| address.to_ipv4_mapped().is_none()) {
            of_range(Ipv4Addr::from_bits(one).into(), prefix, v6[0].into());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{of_neighbours, of_variable};

    const ENTRIES: &str = "( {0,1}(\\*|\\*?\\.?[a-cA-C]{0,2}(\\.[a-cA-C]{1,2}){0,2}|10\\.0\\.0\\.[0-3\
        ]|\\[?::[0-3]\\]?|::ffff:10\\.0\\.0\\.1|10\\.0\\.0\\.0/[0-9]{1,3})(:443|:80|:|) {0,1},?){0,4}";
    const HOSTS: &str =
        "([a-c]{1,2}(\\.[a-c]{1,2}){0,3}\\.?|10\\.0\\.0\\.[0-3]|::[0-3]|::ffff:10\\.0\\.0\\.1)";

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn entries(variable in ENTRIES, host in HOSTS) {
            of_variable(&variable, &host, 443);
        }

        #[test]
        fn any_text(variable in "\\PC{0,20}", host in "\\PC{0,10}") {
            of_variable(&variable, &host, 443);
        }

        #[test]
        fn ranges(bits in any::<u128>(), flipped in 0_u8..128, prefix in 0_u8..=130) {
            of_neighbours(bits, flipped, prefix);
        }
    }
}
