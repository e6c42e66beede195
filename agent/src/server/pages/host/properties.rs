//! What is true of every `Host` header and every request target, whatever they say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Uri};

use super::{AllowedHosts, is_allowed};

/// Two of the addresses that the agent answers on by default, and one that it was given.
const OURS: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
    IpAddr::V4(Ipv4Addr::LOCALHOST),
];

/// A header is allowed exactly if the standard library reads one of our addresses in it, or it says
/// localhost.
pub(crate) fn of_header(host: &[u8]) {
    let hosts = AllowedHosts::new(&[OURS[2]]);
    let text = str::from_utf8(host).unwrap_or_default();
    let (name, port) = text.split_once(':').unwrap_or((text, "80"));
    let is_localhost = name.eq_ignore_ascii_case("localhost") && is_port(port);
    let expected = is_localhost || address_in(text).is_some_and(|address| OURS.contains(&address));
    assert_eq!(is_allowed(Some(host), &hosts), expected, "{text:?}");
    let Ok(value) = HeaderValue::from_bytes(host) else { return };
    let headers: HeaderMap = [(HOST, value)].into_iter().collect();
    let path = Uri::from_static("/v1/credentials");
    assert_eq!(hosts.allow_request(&path, &headers), expected, "{text:?} as a header");
}

/// A target with an authority is judged by it, and never because of what stands beside the address.
pub(crate) fn of_target(target: &str) {
    let Ok(target) = target.parse::<Uri>() else { return };
    let hosts = AllowedHosts::new(&[]);
    let none = HeaderMap::new();
    let Some(authority) = target.authority() else {
        return assert!(!hosts.allow_request(&target, &none), "no host is named by {target}");
    };
    let address = address_in(authority.as_str());
    let expected = address.is_some_and(|address| OURS[..2].contains(&address));
    assert_eq!(hosts.allow_request(&target, &none), expected, "{target}");
    if expected {
        assert!(!authority.as_str().contains('@'), "{target}");
    }
}

/// The address, as the standard library reads it, with or without a port; a zone is no part of them.
fn address_in(text: &str) -> Option<IpAddr> {
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let bare = bracketed.and_then(|inner| inner.parse::<Ipv6Addr>().ok()).map(IpAddr::V6);
    let with_port = text.parse::<SocketAddr>().ok().filter(|_| !text.contains('%'));
    bare.or_else(|| text.parse().ok()).or_else(|| with_port.map(|with_port| with_port.ip()))
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{of_header, of_target};

    /// One of our addresses, or nearly, with what may stand around it.
    const NEARLY: &str = "(user@|\\[|)(169\\.254\\.170\\.(23|023|2|231)|0xa9\\.254\\.170\\.23|fd00:0?\
        ec2(:0:0:0:0:0:23|::23|::0:23|::24)|::ffff:169\\.254\\.170\\.23|localhost|LOCALHOST|127\\.0\\\
        .0\\.1|example)(%1|\\]|\\.|)(:[0-9+]{0,6}|)";

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn nearly_our_address(host in NEARLY) {
            of_header(host.as_bytes());
            of_target(&format!("http://{host}/v1/credentials"));
            of_target(&host);
        }

        #[test]
        fn any_bytes(host in prop::collection::vec(any::<u8>(), 0..60)) {
            of_header(&host);
        }

        #[test]
        fn any_target(target in "(http|https|ftp)?(://|//|/|)\\PC{0,40}") {
            of_target(&target);
        }
    }
}
