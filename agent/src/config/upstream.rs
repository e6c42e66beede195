//! The connection to EKS Auth: endpoint, FIPS, CA bundle, proxy.
//!
//! Owns: the rules for these four settings, which are those of the AWS SDKs. Must not know: how a connection
//! is made.

use std::path::{Path, PathBuf};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::boolean::aws_bool;
use super::environment::Environment;
use super::no_proxy::NoProxy;
use super::problem::{Problem, Problems};
use super::url::Url;
use super::{Proxy, Upstream};
use crate::secret::Secret;

/// Reads all four and notes every problem.
pub(super) fn read(
    endpoint: Option<&str>,
    environment: &Environment,
    problems: &mut Problems,
) -> Option<Upstream> {
    let use_fips = problems.take(aws_bool("AWS_USE_FIPS_ENDPOINT", environment.use_fips.as_deref()));
    let of_service = environment.endpoint_eks_auth.as_deref().map(|url| ("AWS_ENDPOINT_URL_EKS_AUTH", url));
    let flag = endpoint.map(|url| ("--endpoint", url));
    let chosen = problems.take(choose_endpoint(flag, of_service, environment));
    if let (Some(true), Some(Some((setting, _)))) = (use_fips, chosen) {
        // The endpoint rules of EKS Auth fail when both are set.
        let rule = "must not be combined with AWS_USE_FIPS_ENDPOINT=true";
        problems.note(Problem::without_value(setting, rule));
    }
    let endpoint = chosen.and_then(|chosen| match chosen {
        Some((setting, text)) => problems.take(checked_endpoint(setting, text)).map(Some),
        None => Some(None),
    });
    let ca_bundle = environment.ca_bundle.as_deref().map(Path::new);
    let ca_bundle = match ca_bundle {
        Some(path) => problems.take(checked_ca_bundle(path)).map(Some),
        None => Some(None),
    };
    let proxy = read_proxy(environment, problems);
    Some(Upstream { endpoint: endpoint?, use_fips: use_fips?, ca_bundle: ca_bundle?, proxy: proxy? })
}

/// The flag, else the variable of the service, else that of all services. The variables count unless
/// `AWS_IGNORE_CONFIGURED_ENDPOINT_URLS` is true.
pub(super) fn choose_endpoint<'a>(
    flag: Option<(&'static str, &'a str)>,
    of_service: Option<(&'static str, &'a str)>,
    environment: &'a Environment,
) -> Result<Option<(&'static str, &'a str)>, Problem> {
    // Amazon's agent treats an empty --endpoint as not set.
    if let Some(flag) = flag.filter(|(_, url)| !url.is_empty()) {
        return Ok(Some(flag));
    }
    if aws_bool("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", environment.ignore_endpoints.as_deref())? {
        return Ok(None);
    }
    Ok(of_service.or_else(|| environment.endpoint_any.as_deref().map(|url| ("AWS_ENDPOINT_URL", url))))
}

pub(super) fn checked_endpoint(setting: &str, text: &str) -> Result<String, Problem> {
    let url = Url::read(setting, text)?;
    if url.scheme() == "http" && !url.is_local() {
        let rule =
            "must be https unless the host is loopback or link-local, because pods' tokens are sent to it";
        return Err(Problem::with_value(setting, rule, text));
    }
    Ok(text.to_owned())
}

/// Every certificate of the bundle must be one that the SDK can load: it panics on one that it cannot parse.
fn checked_ca_bundle(path: &Path) -> Result<PathBuf, Problem> {
    let problem = |rule: String| Problem::with_value("AWS_CA_BUNDLE", rule, &path.to_string_lossy());
    let bytes = std::fs::read(path).map_err(|error| problem(format!("must be a readable file: {error}")))?;
    let mut count = 0_usize;
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        count += 1;
        let certificate =
            certificate.map_err(|_| problem(format!("must be PEM: certificate {count} is not")))?;
        webpki::anchor_from_trusted_cert(&certificate).map_err(|error| {
            problem(format!("must contain X.509 certificates: certificate {count} is invalid: {error:?}"))
        })?;
    }
    if count == 0 {
        return Err(problem("must contain at least one PEM certificate".to_owned()));
    }
    Ok(path.to_owned())
}

/// The proxies for http and https. `NO_PROXY` alone sets none.
fn read_proxy(environment: &Environment, problems: &mut Problems) -> Option<Option<Proxy>> {
    let mut checked = |setting, value: &Option<Secret>| match value {
        Some(value) => problems.take(checked_proxy(setting, value)).map(Some),
        None => Some(None),
    };
    let http = checked("HTTP_PROXY", &environment.http_proxy);
    let https = checked("HTTPS_PROXY", &environment.https_proxy);
    let (http, https) = (http?, https?);
    if http.is_none() && https.is_none() {
        return Some(None);
    }
    let no_proxy = NoProxy::read(environment.no_proxy.as_deref().unwrap_or_default());
    Some(Some(Proxy { http, https, no_proxy }))
}

/// A proxy's URL. As in Go's net/http and in curl, `host:port` means `http://host:port`. The value is never
/// shown.
fn checked_proxy(setting: &str, given: &Secret) -> Result<Secret, Problem> {
    let url = if given.reveal().contains("://") {
        given.clone()
    } else {
        Secret::new(format!("http://{}", given.reveal()))
    };
    match Url::parse(url.reveal()).as_ref().map(Url::scheme) {
        Some("http" | "https") => Ok(url),
        Some(_) => Err(Problem::without_value(setting, "must begin with http:// or https://")),
        None => Err(Problem::without_value(setting, "must be a URL, such as http://proxy.example:3128")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{Environment, Problems, Upstream, read};

    fn upstream(flag: Option<&str>, variables: &[(&str, &str)]) -> Result<Upstream, Vec<String>> {
        let mut problems = Problems::default();
        let upstream = read(flag, &Environment::of(variables), &mut problems);
        problems.finish(upstream).map_err(|error| error.problems().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_endpoint_comes_from_the_flag_then_the_services_variable_then_the_general_one() {
        let both = [("AWS_ENDPOINT_URL_EKS_AUTH", "https://two"), ("AWS_ENDPOINT_URL", "https://three")];
        assert_eq!(upstream(Some("https://one"), &both).unwrap().endpoint.unwrap(), "https://one");
        assert_eq!(upstream(None, &both).unwrap().endpoint.unwrap(), "https://two");
        assert_eq!(upstream(Some(""), &both[1..]).unwrap().endpoint.unwrap(), "https://three");
        let ignored = [both[0], both[1], ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "TRUE")];
        assert_eq!(upstream(None, &ignored).unwrap().endpoint, None);
        assert_eq!(upstream(Some("https://one"), &ignored).unwrap().endpoint.unwrap(), "https://one");
    }

    #[test]
    fn plain_http_is_for_this_node_only() {
        assert!(upstream(Some("http://127.0.0.1:1234"), &[]).is_ok());
        assert!(upstream(Some("http://[::1]:1234"), &[]).is_ok());
        let problems = upstream(Some("http://eks-auth.example"), &[]).unwrap_err();
        assert!(problems.concat().contains("must be https"), "{problems:?}");
    }

    #[test]
    fn fips_and_an_endpoint_are_refused_together() {
        let fips = ("AWS_USE_FIPS_ENDPOINT", "true");
        assert!(upstream(None, &[fips]).unwrap().use_fips);
        let problems = upstream(None, &[fips, ("AWS_ENDPOINT_URL", "https://a")]).unwrap_err();
        assert_eq!(problems.len(), 1);
        assert!(problems.concat().starts_with("AWS_ENDPOINT_URL: must not be combined with"), "{problems:?}");
        assert!(
            upstream(None, &[("AWS_USE_FIPS_ENDPOINT", "yes")])
                .unwrap_err()
                .concat()
                .contains("true or false")
        );
    }

    #[test]
    fn every_problem_of_the_connection_to_aws_is_reported_at_once() {
        let variables = [
            ("AWS_USE_FIPS_ENDPOINT", "1"),
            ("AWS_CA_BUNDLE", "/does/not/exist"),
            ("HTTPS_PROXY", "socks5://a:1"),
        ];
        let problems = upstream(Some("eks-auth"), &variables).unwrap_err();
        assert_eq!(problems.len(), 4, "{problems:?}");
    }

    #[test]
    fn a_proxys_password_is_never_shown() {
        let shown = |value| {
            let read = upstream(None, &[("https_proxy", value)]);
            format!("{read:?}")
        };
        for value in [
            "http://user:planted@proxy:1",
            "ftp://user:planted@proxy",
            "http://user:planted@proxy:99999",
            "planted proxy",
        ] {
            assert!(!shown(value).contains("planted"), "{}", shown(value));
        }
        let proxy =
            upstream(None, &[("https_proxy", "proxy:3128"), ("no_proxy", "a")]).unwrap().proxy.unwrap();
        assert_eq!(proxy.https.unwrap().reveal(), "http://proxy:3128");
        assert!(upstream(None, &[("no_proxy", "a")]).unwrap().proxy.is_none());
    }

    /// A self-signed P-256 certificate, made for this test with openssl; valid for 100 years, which is
    /// not checked.
    const CERTIFICATE: &str = include_str!("testdata/ca.pem");

    struct Bundle(PathBuf);

    impl Bundle {
        fn holding(name: &str, text: &str) -> Self {
            let path = std::env::temp_dir().join(format!("ca-bundle-{name}-{}.pem", std::process::id()));
            std::fs::write(&path, text).unwrap();
            Self(path)
        }

        fn read(&self) -> Result<Option<PathBuf>, String> {
            let path = self.0.to_str().unwrap();
            upstream(None, &[("AWS_CA_BUNDLE", path)])
                .map(|up| up.ca_bundle)
                .map_err(|problems| problems.concat())
        }
    }

    impl Drop for Bundle {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn a_ca_bundle_must_contain_certificates_that_the_sdk_can_load() {
        let good = Bundle::holding("good", &format!("# a comment\n{CERTIFICATE}{CERTIFICATE}"));
        assert_eq!(good.read().unwrap().as_deref(), Some(Path::new(&good.0)));
        let empty = Bundle::holding("empty", "not a certificate\n");
        assert!(empty.read().unwrap_err().contains("at least one PEM certificate"));
        let no_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let second = Bundle::holding("second", &format!("{CERTIFICATE}{no_certificate}"));
        assert!(second.read().unwrap_err().contains("certificate 2 is invalid"));
        let cut_off = Bundle::holding("cut", &CERTIFICATE[..CERTIFICATE.len() / 2]);
        assert!(cut_off.read().unwrap_err().contains("PEM"));
    }
}
