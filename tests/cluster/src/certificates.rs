//! The cluster's authority, and who it vouches for.
//!
//! Owns: certificates and kubeconfigs. Must not know: who runs where.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::json;

use crate::failure::{Failure, at};

/// One authority for all: servers, clients, kubelets.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, in PEM.
pub(crate) struct Identity {
    certificate: String,
    key: String,
}

impl Authority {
    pub(crate) fn new() -> Result<Self, Failure> {
        let mut own = CertificateParams::new(Vec::new())?;
        own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        own.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        own.distinguished_name.push(DnType::CommonName, "cluster CA");
        let key = KeyPair::generate()?;
        let pem = own.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(own, key), pem })
    }

    /// A client: the API server takes the common name as user and the organisation as group.
    pub(crate) fn client(&self, user: &str, group: &str) -> Result<Identity, Failure> {
        let mut client = CertificateParams::new(Vec::new())?;
        client.distinguished_name.push(DnType::CommonName, user);
        client.distinguished_name.push(DnType::OrganizationName, group);
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&client)
    }

    /// A server with those names and addresses.
    pub(crate) fn server(&self, names: Vec<String>) -> Result<Identity, Failure> {
        let mut server = CertificateParams::new(names)?;
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(&server)
    }

    fn sign(&self, subject: &CertificateParams) -> Result<Identity, Failure> {
        let key = KeyPair::generate()?;
        let certificate = subject.signed_by(&key, &self.issuer)?.pem();
        Ok(Identity { certificate, key: key.serialize_pem() })
    }

    /// Writes its certificate as `ca.pem`, and returns where.
    pub(crate) fn write(&self, folder: &Path) -> Result<PathBuf, Failure> {
        let path = folder.join("ca.pem");
        private(&path, &self.pem)?;
        Ok(path)
    }

    /// A kubeconfig for that client; whole, so that it can be copied anywhere.
    pub(crate) fn kubeconfig(&self, server: &str, client: &Identity, path: &Path) -> Result<(), Failure> {
        let data = |pem: &str| STANDARD.encode(pem);
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "cluster", "cluster": {"server": server, "certificate-authority-data": data(&self.pem)}}],
            "users": [{"name": "user", "user": {
                "client-certificate-data": data(&client.certificate), "client-key-data": data(&client.key),
            }}],
            "contexts": [{"name": "cluster", "context": {"cluster": "cluster", "user": "user"}}],
            "current-context": "cluster",
        });
        private(path, &config.to_string())
    }
}

impl Identity {
    /// Writes both as `NAME.pem` and `NAME.key`, and returns where.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> Result<(PathBuf, PathBuf), Failure> {
        let paths = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        private(&paths.0, &self.certificate)?;
        private(&paths.1, &self.key)?;
        Ok(paths)
    }
}

/// Writes a file that is for its owner only, over an older one if need be.
fn private(path: &Path, content: &str) -> Result<(), Failure> {
    let failed = || at(format!("{} cannot be written", path.display()));
    let next = path.with_extension("next");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&next)
        .map_err(failed())?;
    file.write_all(content.as_bytes()).and_then(|()| fs::rename(&next, path)).map_err(failed())
}
