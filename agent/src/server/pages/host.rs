//! Which `Host` a request may name: only the addresses we answer on.
//!
//! Owns: that one rule, without I/O. Must not know: which status a refusal gets. The rule keeps web pages and
//! redirects that resolve a name of their own to our address from reading credentials (DNS rebinding), so
//! names are refused. Parsed by hand: the AWS CRT sends IPv6 without brackets, which `http::uri::Authority`
//! refuses (docs/design/client-contract.md#request-rules).

#[cfg(any(test, fuzzing))]
pub(crate) mod properties;

use std::net::{IpAddr, Ipv6Addr};

use http::HeaderMap;
use http::Uri;
use http::header::HOST;

use crate::workload::WELL_KNOWN;

/// The addresses a request may name.
#[derive(Clone, Debug)]
pub struct AllowedHosts {
    addresses: Vec<IpAddr>,
    /// `localhost` is a name nobody but the node can point elsewhere; it is allowed where loopback is bound.
    localhost: bool,
}

impl AllowedHosts {
    /// The two well-known addresses and those we bind.
    pub fn new(bind_hosts: &[IpAddr]) -> Self {
        let localhost = bind_hosts.iter().any(IpAddr::is_loopback);
        Self { addresses: [&WELL_KNOWN, bind_hosts].concat(), localhost }
    }

    /// Whether the request names us: by its target if that is absolute, else by its one `Host` header.
    pub fn allow_request(&self, target: &Uri, headers: &HeaderMap) -> bool {
        if let Some(authority) = target.authority() {
            return is_allowed(Some(authority.as_str().as_bytes()), self);
        }
        let mut hosts = headers.get_all(HOST).iter();
        let host = hosts.next();
        // Two Host headers are two opinions of where the request belongs.
        hosts.next().is_none() && is_allowed(host.map(http::HeaderValue::as_bytes), self)
    }
}

/// Whether the value of a `Host` header names one of `allowed`, with or without a port. Which port is no
/// matter: it may be diverted. No `Host` at all is not allowed; every SDK sends one.
pub fn is_allowed(host: Option<&[u8]>, allowed: &AllowedHosts) -> bool {
    let Some(host) = host.and_then(|host| std::str::from_utf8(host).ok()) else { return false };
    // Blanks around a header's value are not part of it, and hyper has removed them already.
    match address_of(host) {
        Some(address) => allowed.addresses.contains(&address),
        None => {
            allowed.localhost && without_port(host).is_some_and(|name| name.eq_ignore_ascii_case("localhost"))
        }
    }
}

fn address_of(host: &str) -> Option<IpAddr> {
    if let Some(rest) = host.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        if !port.is_empty() && !port.strip_prefix(':').is_some_and(is_port) {
            return None;
        }
        return address.parse().ok().map(IpAddr::V6);
    }
    // Unbracketed IPv6 has no port, because its last group could be one.
    if let Ok(address) = host.parse::<Ipv6Addr>() {
        return Some(IpAddr::V6(address));
    }
    without_port(host)?.parse().ok().map(IpAddr::V4)
}

fn without_port(host: &str) -> Option<&str> {
    match host.split_once(':') {
        None => Some(host),
        Some((name, port)) => is_port(port).then_some(name),
    }
}

fn is_port(port: &str) -> bool {
    // parse alone would take "+80".
    port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use http::header::HOST;
    use http::{HeaderMap, HeaderValue, Uri};

    use super::{AllowedHosts, is_allowed};

    fn allowed(bind_hosts: &[&str]) -> AllowedHosts {
        let addresses: Vec<IpAddr> = bind_hosts.iter().map(|host| host.parse().unwrap()).collect();
        AllowedHosts::new(&addresses)
    }

    #[test]
    fn hosts_that_name_us_are_allowed_and_no_others() {
        let hosts = allowed(&["10.0.0.7", "2001:db8::1"]);
        for host in [
            "169.254.170.23",
            "169.254.170.23:80",
            "169.254.170.23:8080",
            "[fd00:ec2::23]",
            "[fd00:ec2::23]:80",
            "fd00:ec2::23",
            "FD00:EC2::23",
            "[FD00:0ec2:0:0:0:0:0:23]:80",
            "fd00:ec2:0:0:0:0:0:23",
            "10.0.0.7",
            "10.0.0.7:65535",
            "[2001:db8::1]:80",
            "2001:db8::1",
        ] {
            assert!(is_allowed(Some(host.as_bytes()), &hosts), "{host}");
        }
        for host in [
            "",
            ":",
            ":80",
            "localhost",
            "localhost:80",
            "evil.example",
            "169.254.170.23.evil.example",
            "169.254.170.2",
            "169.254.169.254",
            "169.254.170.23:",
            "169.254.170.23:+80",
            "169.254.170.23:65536",
            "169.254.170.23:80:80",
            "169.254.170.23 ",
            "169.254.170.023",
            "user@169.254.170.23",
            "0xa9fe aa17",
            "2852039191",
            "[fd00:ec2::23",
            "[fd00:ec2::23]80",
            "[fd00:ec2::23]:",
            "[fd00:ec2::23]:http",
            "[fd00:ec2::23%eth0]",
            "[169.254.170.23]",
            "fd00:ec2::23:80",
            "fd00:ec2::24",
            "::ffff:169.254.170.23",
            "::",
            "0.0.0.0",
        ] {
            assert!(!is_allowed(Some(host.as_bytes()), &hosts), "{host}");
        }
        assert!(!is_allowed(Some(b"169.254.170.23\xff"), &hosts));
        assert!(!is_allowed(None, &hosts));
    }

    #[test]
    fn localhost_is_allowed_only_where_loopback_is_bound() {
        for bound in ["127.0.0.1", "::1"] {
            let hosts = allowed(&[bound]);
            for host in ["localhost", "LocalHost:8080", "169.254.170.23"] {
                assert!(is_allowed(Some(host.as_bytes()), &hosts), "{host} with {bound}");
            }
            assert!(!is_allowed(Some(b"localhost.evil.example"), &hosts));
            assert!(!is_allowed(Some(b"localhost:http"), &hosts));
        }
        assert!(!is_allowed(Some(b"localhost"), &allowed(&[])));
    }

    #[test]
    fn an_absolute_target_decides_and_two_hosts_are_refused() {
        let hosts = allowed(&[]);
        let ours = HeaderValue::from_static("169.254.170.23");
        let other = HeaderValue::from_static("evil.example");
        let path = Uri::from_static("/v1/credentials");
        let absolute = Uri::from_static("http://169.254.170.23:80/v1/credentials");
        let elsewhere = Uri::from_static("http://evil.example/v1/credentials");
        let headers = |values: &[&HeaderValue]| {
            values.iter().map(|value| (HOST, (*value).clone())).collect::<HeaderMap>()
        };
        assert!(hosts.allow_request(&path, &headers(&[&ours])));
        assert!(hosts.allow_request(&absolute, &headers(&[&other])));
        assert!(!hosts.allow_request(&elsewhere, &headers(&[&ours])));
        let two: HeaderMap = {
            let mut two = HeaderMap::new();
            two.append(HOST, ours.clone());
            two.append(HOST, ours);
            two
        };
        assert!(!hosts.allow_request(&path, &two));
        assert!(!hosts.allow_request(&path, &HeaderMap::new()));
    }
}
