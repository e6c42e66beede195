//! A CA of the sandbox's own, and a server certificate by it.
//!
//! Owns: what stands in the certificates. Must not know: which service speaks TLS.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use rustls::version::TLS12;
use rustls::{DEFAULT_VERSIONS, ServerConfig, SupportedProtocolVersion};
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

use crate::options::Options;

/// The certificates could not be made.
#[derive(Debug, Error)]
pub enum TlsError {
    /// By rcgen.
    #[error("the certificate could not be made")]
    Certificate(#[from] rcgen::Error),
    /// Or rustls does not take them.
    #[error("the certificate cannot be used")]
    Config(#[from] rustls::Error),
}

/// TLS 1.2 and nothing newer.
const ONLY_1_2: [&SupportedProtocolVersion; 1] = [&TLS12];

/// An acceptor with a certificate for the address of these options, localhost and the names of EKS Auth,
/// of STS and of the issuers in their region; and the CA to trust, in PEM.
pub(crate) fn acceptor(options: &Options) -> Result<(TlsAcceptor, String), TlsError> {
    let Options { address, region, tls_1_2_only, .. } = options;
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    ca.distinguished_name.push(DnType::CommonName, "sandbox CA");
    let ca_key = KeyPair::generate()?;
    let ca_pem = ca.self_signed(&ca_key)?.pem();

    // The real names too, for those who are led here by a proxy or by DNS.
    let names = vec![
        address.to_string(),
        "localhost".to_owned(),
        format!("eks-auth.{region}.api.aws"),
        format!("oidc.eks.{region}.amazonaws.com"),
        format!("sts.{region}.amazonaws.com"),
        format!("sts.{region}.api.aws"),
    ];
    let mut server = CertificateParams::new(names)?;
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = server.signed_by(&key, &Issuer::new(ca, ca_key))?;

    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(if *tls_1_2_only { &ONLY_1_2 } else { DEFAULT_VERSIONS })?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.into()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))?;
    Ok((TlsAcceptor::from(Arc::new(config)), ca_pem))
}
