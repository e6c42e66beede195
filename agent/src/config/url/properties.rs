//! What is true of every URL of the configuration, whatever its text.

use std::net::Ipv6Addr;

use http::Uri;

use super::{Url, is_local_host};

/// What stands in a text for a `$`, and is not in the words of any problem.
const PLANTED: &str = "planted-pa55word";

/// A URL that is taken has a scheme, a host, perhaps a port, and no part that may be secret; a problem with
/// another never quotes one that may.
pub(crate) fn of_text(text: &str) {
    let text = text.replace('$', PLANTED);
    match Url::read("--endpoint", &text) {
        Ok(url) => {
            assert!(!text.contains(['@', '?', '#', ' ']), "{text:?}");
            let Ok(uri) = text.parse::<Uri>() else { unreachable!("{text:?} is no URI") };
            assert!(matches!(uri.scheme_str(), Some("http" | "https")), "{text:?}");
            let host = uri.host().unwrap_or_default();
            let inner = host.trim_matches(['[', ']']);
            let is_address = inner.parse::<Ipv6Addr>().is_ok() && host == format!("[{inner}]");
            let is_name = !host.is_empty() && !host.contains(['[', ']', ':']);
            assert!(is_address || is_name, "{text:?} has the host {host:?}");
            let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
            let port = authority.strip_prefix(host).unwrap_or_default();
            assert!(port.is_empty() || uri.port_u16().is_some(), "{text:?} has the port {port:?}");
            assert_eq!(url.is_local(), is_local_host(inner), "{text:?}");
        }
        Err(problem) => {
            let shown = format!("{problem} {problem:?}");
            let may_be_secret = text.contains(['@', '?', '#']);
            assert!(!(may_be_secret && shown.contains(PLANTED)), "{shown}");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::of_text;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn nearly_urls(
            text in "(http|https|HTTPS|ftp|)(://|//|:|)([a-z$]{1,5}(:[a-z$]{0,5})?@|)([a-z0-9.-]{0,8}\
                |\\[[0-9a-fz:.%]{0,8}\\]?|localhost)(:[0-9x]{0,6}|)(/[a-z$]{0,4}|)(\\?[$]|#[$]|)"
        ) {
            of_text(&text);
        }

        #[test]
        fn any_text(text in "\\PC{0,30}") {
            of_text(&text);
            of_text(&format!("https://{text}"));
        }
    }
}
