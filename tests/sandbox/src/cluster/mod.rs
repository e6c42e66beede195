//! The cluster: its signing keys, its pods with their token files, and the documents by which others verify
//! tokens.
//!
//! Must not know: AWS. A token is a token of Kubernetes; that EKS Auth is its audience is a value in it.

pub(crate) mod issuer;
pub(crate) mod keys;
pub(crate) mod pod;
pub(crate) mod projected_volume;
pub(crate) mod token;
