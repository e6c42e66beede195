//! `NO_PROXY`, as Go's golang.org/x/net/http/httpproxy reads it, and so Amazon's agent.
//!
//! Owns: the little language, and whether it excludes a host. Must not know: which proxies there are.
//!
//! Entries are separated by commas: `*`, an address, a range (`10.0.0.0/8`), `example.com` (that name and all
//! below it), `.example.com` and `*.example.com` (only those below it). All but `*` and ranges may end in a
//! port. An entry that is none of these excludes a name that nobody has, as in Go: it is no error.

#[cfg(any(test, fuzzing))]
pub(crate) mod properties;

use std::net::IpAddr;

/// Which hosts are reached without a proxy.
#[derive(Clone, Debug, Default)]
pub struct NoProxy {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
enum Entry {
    Everything,
    Range { network: IpAddr, prefix: u8 },
    Address { address: IpAddr, port: Option<String> },
    Name { below: String, itself: bool, port: Option<String> },
}

impl NoProxy {
    /// Reads the variable. Nothing is an error.
    pub fn read(text: &str) -> Self {
        let entries = text.split(',').filter_map(|entry| Entry::read(&entry.trim().to_ascii_lowercase()));
        Self { entries: entries.collect() }
    }

    /// Whether this host and port are reached without a proxy. `host` has no brackets.
    pub fn excludes(&self, host: &str, port: u16) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let address = host.parse::<IpAddr>().ok().map(|address| address.to_canonical());
        self.entries.iter().any(|entry| entry.excludes(&host, address, &port.to_string()))
    }
}

impl Entry {
    fn read(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Everything);
        }
        if let Some(range) = range(text) {
            return Some(range);
        }
        let (host, port) = split_port(text);
        if let Ok(address) = host.parse::<IpAddr>() {
            return Some(Self::Address { address: address.to_canonical(), port });
        }
        let host = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
        match host.strip_prefix('.') {
            _ if host.is_empty() => None,
            Some(_) => Some(Self::Name { below: host.to_owned(), itself: false, port }),
            None => Some(Self::Name { below: format!(".{host}"), itself: true, port }),
        }
    }

    fn excludes(&self, host: &str, address: Option<IpAddr>, port: &str) -> bool {
        let is_port = |wanted: &Option<String>| wanted.as_deref().is_none_or(|wanted| wanted == port);
        match self {
            Self::Everything => true,
            Self::Range { network, prefix } => {
                address.is_some_and(|address| is_in(address, *network, *prefix))
            }
            Self::Address { address: wanted, port } => address == Some(*wanted) && is_port(port),
            Self::Name { below, itself, port } => {
                let is_itself = *itself && below.strip_prefix('.') == Some(host);
                (is_itself || host.ends_with(below.as_str())) && is_port(port)
            }
        }
    }
}

fn range(text: &str) -> Option<Entry> {
    let (network, prefix) = text.split_once('/')?;
    let network: IpAddr = network.parse().ok()?;
    let prefix: u8 = prefix.parse().ok()?;
    let bits = if network.is_ipv4() { 32 } else { 128 };
    if prefix > bits {
        return None;
    }
    // As Go has it: a range within the IPv4 addresses that are written as IPv6 is one of IPv4.
    Some(match (network.to_canonical(), prefix.checked_sub(96)) {
        (network @ IpAddr::V4(_), Some(prefix)) if bits == 128 => Entry::Range { network, prefix },
        (_, _) => Entry::Range { network, prefix },
    })
}

/// Splits a port off, as Go's net.SplitHostPort does: brackets go only together with a port.
fn split_port(text: &str) -> (&str, Option<String>) {
    // An address without brackets has colons of its own.
    if text.parse::<IpAddr>().is_ok() {
        return (text, None);
    }
    let Some((host, port)) = text.rsplit_once(':') else { return (text, None) };
    let host = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host);
    (host, Some(port.to_owned()).filter(|port| !port.is_empty()))
}

fn is_in(address: IpAddr, network: IpAddr, prefix: u8) -> bool {
    let prefix = u32::from(prefix);
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            let differing = address.to_bits() ^ network.to_bits();
            differing.checked_shr(32 - prefix).unwrap_or_default() == 0
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            let differing = address.to_bits() ^ network.to_bits();
            differing.checked_shr(128 - prefix).unwrap_or_default() == 0
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::NoProxy;

    const HOST: &str = "eks-auth.us-west-2.api.aws";

    #[test]
    fn it_excludes_what_go_excludes() {
        let table: &[(&str, &str, u16, bool)] = &[
            // Everything.
            ("*", HOST, 443, true),
            ("other.example, *", "10.1.2.3", 443, true),
            // Names: itself and below, or only below.
            ("api.aws", HOST, 443, true),
            ("api.aws", "api.aws", 443, true),
            (".api.aws", HOST, 443, true),
            (".api.aws", "api.aws", 443, false),
            ("*.api.aws", HOST, 443, true),
            ("*.api.aws", "api.aws", 443, false),
            ("pi.aws", HOST, 443, false),
            ("*pi.aws", HOST, 443, false),
            (HOST, "x.eks-auth.us-west-2.api.aws", 443, true),
            ("us-west-2", HOST, 443, false),
            // Case, space, empty entries, a dot at the end of the host.
            (" API.AWS ,", HOST, 443, true),
            (",,", HOST, 443, false),
            ("", HOST, 443, false),
            ("api.aws", "EKS-Auth.API.aws", 443, true),
            ("api.aws", "eks-auth.api.aws.", 443, true),
            // Ports.
            ("api.aws:443", HOST, 443, true),
            ("api.aws:8443", HOST, 443, false),
            ("*.api.aws:443", HOST, 443, true),
            (".api.aws:80", HOST, 443, false),
            (":443", HOST, 443, false),
            ("10.0.0.1:443", "10.0.0.1", 443, true),
            ("10.0.0.1:80", "10.0.0.1", 443, false),
            ("[2001:db8::1]:443", "2001:db8::1", 443, true),
            ("[2001:db8::1]:80", "2001:db8::1", 443, false),
            // Addresses and ranges.
            ("10.0.0.1", "10.0.0.1", 443, true),
            ("10.0.0.1", "10.0.0.10", 443, false),
            ("2001:DB8::1", "2001:db8:0::1", 443, true),
            ("10.0.0.0/8", "10.255.0.1", 443, true),
            ("10.1.2.3/8", "10.255.0.1", 443, true),
            ("10.0.0.0/8", "11.0.0.1", 443, false),
            ("0.0.0.0/0", "11.0.0.1", 443, true),
            ("10.0.0.1/32", "10.0.0.1", 443, true),
            ("2001:db8::/32", "2001:db8:ffff::1", 443, true),
            ("2001:db8::/32", "2001:db9::1", 443, false),
            ("::/0", "10.0.0.1", 443, false),
            ("10.0.0.0/8", HOST, 443, false),
            // Nonsense excludes nothing.
            ("10.0.0.0/33", "10.0.0.1", 443, false),
            ("10.0.0.0/x", "10.0.0.1", 443, false),
        ];
        for (variable, host, port, expected) in table {
            assert_eq!(
                NoProxy::read(variable).excludes(host, *port),
                *expected,
                "{variable:?} {host}:{port}"
            );
        }
    }
}
