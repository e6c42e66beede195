//! URLs in the configuration.
//!
//! Owns: what a usable URL is, and when it may be shown. Must not know: what a URL is for.

#[cfg(any(test, fuzzing))]
pub(crate) mod properties;

use std::net::{IpAddr, Ipv6Addr};

use http::Uri;

use super::problem::Problem;

/// A URL with a scheme, a host and, if there is one, a valid port.
#[derive(Debug)]
pub(super) struct Url {
    uri: Uri,
}

impl Url {
    /// Reads an http or https URL that has no user name, password, query or fragment.
    pub(super) fn read(setting: &str, text: &str) -> Result<Self, Problem> {
        let problem = |rule: &str| show(setting, rule, text);
        if text.contains('@') {
            return Err(problem("must not contain a user name or password"));
        }
        if text.contains(['?', '#']) {
            return Err(problem("must not have a query or fragment"));
        }
        let url = Self::parse(text)
            .ok_or_else(|| problem("must be a URL with scheme and host, such as https://eks-auth.example"))?;
        match url.scheme() {
            "http" | "https" => Ok(url),
            _ => Err(problem("must begin with http:// or https://")),
        }
    }

    /// Any URL with scheme and host. For values that may contain a password and are therefore never shown.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let authority = uri.authority()?;
        let host = authority.host();
        let after_user = authority.as_str().rsplit('@').next()?;
        // http::Uri accepts any digits after the colon; a port of 99999 would fail at the first connection.
        let is_port_good = after_user.len() == host.len() || authority.port_u16().is_some();
        // It accepts brackets anywhere, and anything in them, too.
        let is_host_good = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => !host.is_empty() && !host.contains(['[', ']']),
        };
        (uri.scheme().is_some() && is_host_good && is_port_good).then_some(Self { uri })
    }

    /// `http`, `https`, or something else in lower case.
    pub(super) fn scheme(&self) -> &str {
        self.uri.scheme_str().unwrap_or_default()
    }

    /// Whether data sent there stays on this node: the host is loopback or link-local.
    pub(super) fn is_local(&self) -> bool {
        is_local_host(self.uri.host().unwrap_or_default().trim_matches(['[', ']']))
    }
}

/// Whether this is loopback or link-local. `host` has no brackets.
pub fn is_local_host(host: &str) -> bool {
    match host.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V4(v4)) => v4.is_loopback() || v4.is_link_local(),
        Ok(IpAddr::V6(v6)) => v6.is_loopback() || v6.is_unicast_link_local(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

/// A problem with its value, unless the value may contain a password or a token.
fn show(setting: &str, rule: &str, text: &str) -> Problem {
    if text.contains(['@', '?', '#']) {
        Problem::without_value(setting, rule)
    } else {
        Problem::with_value(setting, rule, text)
    }
}

#[cfg(test)]
mod tests {
    use super::Url;

    #[test]
    fn urls_need_a_scheme_a_host_and_a_valid_port() {
        for good in ["https://a", "http://127.0.0.1:80", "https://[::1]:8443/path", "https://a.b:1/"] {
            assert!(Url::read("--endpoint", good).is_ok(), "{good}");
        }
        let bad = [
            "",
            "a",
            "a:80",
            "https://",
            "https:///path",
            "https://:80",
            "ftp://a",
            "https://a:99999",
            "https://a:x",
        ];
        for bad in bad.into_iter().chain([
            "https://[]",
            "https://[a]",
            "https://a.[::1]:8",
            "https://a b",
            "//a",
            "https://a?x=1",
            "https://a#x",
        ]) {
            assert!(Url::read("--endpoint", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_url_that_may_contain_a_secret_is_not_shown() {
        for text in ["https://user:planted@host", "https://host/?token=planted", "user:planted@", "x#planted"]
        {
            let problem = Url::read("--endpoint", text).unwrap_err();
            assert!(!format!("{problem} {problem:?}").contains("planted"), "{problem}");
        }
    }

    #[test]
    fn local_is_loopback_and_link_local() {
        for local in [
            "127.0.0.1",
            "127.9.9.9:1",
            "[::1]:1",
            "169.254.169.254",
            "[fe80::1]",
            "LOCALHOST",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(Url::read("x", &format!("http://{local}")).unwrap().is_local(), "{local}");
        }
        for other in ["10.0.0.1", "localhost.example", "[fd00:ec2::254]", "127.0.0.1.example"] {
            assert!(!Url::read("x", &format!("http://{other}")).unwrap().is_local(), "{other}");
        }
    }
}
