//! The addresses and ports the agent listens on.
//!
//! Owns: which hosts may be bound, and which of our own listeners would need the same port. Must not know:
//! how to bind. A port that another process uses is not detected here; the agent handles that while it runs.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Listen;
use super::problem::{Problem, Problems};

/// A port. For 0 the kernel chooses one, which tests use.
pub(super) fn port(setting: &str, text: &str) -> Result<u16, Problem> {
    text.parse().map_err(|_| Problem::with_value(setting, "must be a port from 0 to 65535", text))
}

/// The address to serve metrics on. It may be the wildcard, unlike a credential address: metrics contain no
/// secret.
pub(super) fn metrics_host(text: &str) -> Result<IpAddr, Problem> {
    let rule = "must be an IP address or localhost";
    ip(text).ok_or_else(|| Problem::with_value("--metrics-address", rule, text))
}

/// Reads the hosts of the credential endpoint and notes every problem.
pub(super) fn bind_hosts(texts: &[String], problems: &mut Problems) -> Option<Vec<IpAddr>> {
    const SETTING: &str = "--bind-hosts";
    if texts.is_empty() {
        problems.note(Problem::without_value(SETTING, "needs at least one address"));
        return None;
    }
    let mut seen = HashSet::new();
    let hosts: Vec<IpAddr> = texts
        .iter()
        .filter_map(|text| {
            let host = problems.take(bind_host(SETTING, text))?;
            if seen.insert(host) {
                return Some(host);
            }
            problems.note(Problem::with_value(SETTING, "must not contain an address twice", text));
            None
        })
        .collect();
    (hosts.len() == texts.len()).then_some(hosts)
}

fn bind_host(setting: &str, text: &str) -> Result<IpAddr, Problem> {
    if text.contains(',') {
        let rule = "takes one address; repeat the flag for more, such as -b 169.254.170.23 -b [fd00:ec2::23]";
        return Err(Problem::with_value(setting, rule, text));
    }
    let host = ip(text).ok_or_else(|| {
        let rule = "must be an IP address, such as 169.254.170.23 or [fd00:ec2::23], or localhost";
        Problem::with_value(setting, rule, text)
    })?;
    if host.is_unspecified() {
        let rule = "must not be a wildcard address: it would accept tokens on every interface of the node";
        return Err(Problem::with_value(setting, rule, text));
    }
    Ok(host)
}

/// An IP address with or without brackets, or localhost, which is 127.0.0.1 to Go's `net.Listen`: of the
/// addresses of a name it takes the first IPv4 one. An IPv4-mapped IPv6 address is the IPv4 address.
fn ip(text: &str) -> Option<IpAddr> {
    if text == "localhost" {
        return Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    match text.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
    .map(|address: IpAddr| address.to_canonical())
}

/// Notes every pair of our own listeners that cannot both listen.
pub(super) fn note_clashes(listen: &Listen, probe_port: u16, metrics: SocketAddr, problems: &mut Problems) {
    let credentials: Vec<_> = listen.hosts.iter().map(|host| SocketAddr::new(*host, listen.port)).collect();
    // The probe listener binds to localhost, as in Amazon's agent.
    let probes = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let probes = probes.map(|host| SocketAddr::new(host, probe_port));
    let mut check = |setting, other, ours: &[SocketAddr], theirs: &[SocketAddr]| {
        if ours.iter().any(|a| theirs.iter().any(|b| clashes(*a, *b))) {
            let rule = format!("must differ from {other}: both would listen on the same address and port");
            problems.note(Problem::without_value(setting, rule));
        }
    };
    check("--probe-port", "--port", &probes, &credentials);
    check("--metrics-port", "--port", &[metrics], &credentials);
    check("--metrics-port", "--probe-port", &[metrics], &probes);
}

/// Whether Linux lets only one of the two listen: the same port, and the same address or a wildcard that
/// covers it.
fn clashes(a: SocketAddr, b: SocketAddr) -> bool {
    // A wildcard IPv6 socket covers the IPv4 addresses too (net.ipv6.bindv6only is 0 by default).
    let covers = |wildcard: IpAddr, other: IpAddr| match wildcard {
        IpAddr::V4(v4) => v4.is_unspecified() && other.is_ipv4(),
        IpAddr::V6(v6) => v6.is_unspecified(),
    };
    a.port() == b.port()
        && a.port() != 0
        && (a.ip() == b.ip() || covers(a.ip(), b.ip()) || covers(b.ip(), a.ip()))
}

#[cfg(test)]
mod tests {
    use super::{Listen, Problems, bind_hosts, clashes, metrics_host, note_clashes, port};

    fn hosts(texts: &[&str]) -> Result<Vec<String>, Vec<String>> {
        let texts: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
        let mut problems = Problems::default();
        let hosts = bind_hosts(&texts, &mut problems);
        problems
            .finish(hosts)
            .map(|hosts| hosts.iter().map(ToString::to_string).collect())
            .map_err(|error| error.problems().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn bind_hosts_are_addresses_with_or_without_brackets() {
        assert_eq!(hosts(&["169.254.170.23", "[fd00:ec2::23]"]).unwrap(), ["169.254.170.23", "fd00:ec2::23"]);
        assert_eq!(hosts(&["FD00:EC2::0023"]).unwrap(), ["fd00:ec2::23"]);
        assert_eq!(hosts(&["::ffff:127.0.0.1"]).unwrap(), ["127.0.0.1"]);
        assert_eq!(hosts(&["localhost"]).unwrap(), ["127.0.0.1"]);
        assert!(hosts(&["localhost", "127.0.0.1"]).unwrap_err().concat().contains("twice"));
    }

    #[test]
    fn every_bad_bind_host_is_reported() {
        let bad = [
            "node-1",
            "127.0.0.1:80",
            "[127.0.0.1]",
            "[::1",
            "0.0.0.0",
            "[::]",
            "::ffff:0.0.0.0",
            "fe80::1%eth0",
            "",
        ];
        assert_eq!(hosts(&bad).unwrap_err().len(), bad.len());
        assert!(hosts(&["0.0.0.0"]).unwrap_err().concat().contains("wildcard"));
        assert!(hosts(&["127.0.0.1,127.0.0.2"]).unwrap_err().concat().contains("repeat the flag"));
        assert!(hosts(&["::1", "127.0.0.1", "[::1]"]).unwrap_err().concat().contains("twice"));
        assert!(hosts(&[]).unwrap_err().concat().contains("at least one"));
    }

    #[test]
    fn a_port_is_a_number_that_fits() {
        assert_eq!(port("--port", "0").unwrap(), 0);
        assert_eq!(port("--port", "65535").unwrap(), 65535);
        for bad in ["65536", "-1", "", "http", "80 "] {
            assert_eq!(port("--probe-port", bad).unwrap_err().setting(), "--probe-port");
        }
        assert!(metrics_host("0.0.0.0").is_ok());
        assert_eq!(metrics_host("localhost").unwrap().to_string(), "127.0.0.1");
        assert!(metrics_host("everywhere").is_err());
    }

    #[test]
    fn listeners_clash_when_the_kernel_would_refuse_one_of_them() {
        let cases = [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("127.0.0.1:80", "0.0.0.0:80", true),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("[::]:80", "127.0.0.1:80", true),
            ("[::]:80", "[::1]:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ];
        for (a, b, expected) in cases {
            assert_eq!(clashes(a.parse().unwrap(), b.parse().unwrap()), expected, "{a} {b}");
        }
    }

    #[test]
    fn the_defaults_do_not_clash_and_each_clash_is_reported() {
        let found = |hosts: &[&str], port, probe_port, metrics: &str| {
            let listen = Listen { hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(), port };
            let mut problems = Problems::default();
            note_clashes(&listen, probe_port, metrics.parse().unwrap(), &mut problems);
            problems.finish(Some(())).map_or_else(|error| error.problems().len(), |()| 0)
        };
        assert_eq!(found(&["169.254.170.23", "fd00:ec2::23"], 80, 2703, "0.0.0.0:2705"), 0);
        assert_eq!(found(&["169.254.170.23"], 80, 80, "127.0.0.1:80"), 1);
        assert_eq!(found(&["127.0.0.1"], 80, 80, "0.0.0.0:80"), 3);
    }
}
