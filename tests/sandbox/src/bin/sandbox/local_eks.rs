//! What `up --eks` adds: the Python that has moto, and how to be the administrator of the local EKS.
//!
//! Owns: the environment file for the AWS CLI. Must not know: how moto is started (the library).

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use sandbox::Sandbox;

use crate::Failure;
use crate::up::quoted;

/// What `tests/sandbox/moto/prepare.sh` makes, in the repository that this program was built from.
pub(crate) fn python() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.cache/moto/bin/python"))
}

/// How to use the AWS CLI as the administrator. Writes the file that it names.
pub(crate) fn greeting(sandbox: &Sandbox, url: &str) -> Result<String, Failure> {
    let (admin, options) = (sandbox.admin_credentials(), sandbox.options());
    let region = &options.region;
    let file = sandbox.dir().join("admin.env");
    let text = format!(
        "export AWS_ENDPOINT_URL={url}\n\
         export AWS_ACCESS_KEY_ID={}\n\
         export AWS_SECRET_ACCESS_KEY={}\n\
         export AWS_REGION={region} AWS_DEFAULT_REGION={region}\n\
         unset AWS_SESSION_TOKEN AWS_PROFILE\n",
        admin.access_key_id,
        quoted(&admin.secret_access_key),
    );
    let mut open = std::fs::OpenOptions::new();
    open.write(true).create_new(true).mode(0o600).open(&file)?.write_all(text.as_bytes())?;
    let (file, cluster) = (quoted(&file.to_string_lossy()), &options.cluster_name);
    Ok(format!(
        "\nUse the AWS CLI as the administrator of account {}, in a shell that has read this file:\n\n  \
         . {file}\n  \
         aws eks list-pod-identity-associations --cluster-name {cluster}\n  \
         aws iam list-roles\n  \
         aws s3 mb s3://my-bucket\n",
        options.account
    ))
}
