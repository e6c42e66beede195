//! What can go wrong with a cluster.
//!
//! Owns: the sentences. Must not know: how anything is started.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

use sandbox::SandboxError;
use thiserror::Error as ThisError;

/// No cluster, or none any more.
#[derive(Debug, ThisError)]
pub(crate) enum Failure {
    /// Namespaces, cgroups and mounts are root's.
    #[error("a cluster needs root: it mounts, makes namespaces and runs containers")]
    NotRoot,
    /// Not prepared.
    #[error("{0} is not there; tests/cluster/prepare.sh makes it (`make cluster` calls it)")]
    Missing(PathBuf),
    /// The kernel or the disk says no.
    #[error("{0}")]
    Io(String, #[source] io::Error),
    /// The kernel says no.
    #[error("{0}")]
    System(&'static str, #[source] nix::Error),
    /// A program fails.
    #[error("{0} ended with {1}{2}")]
    Program(String, ExitStatus, String),
    /// Something takes too long.
    #[error("{0} within {1} s{2}")]
    Late(&'static str, u64, String),
    /// Somebody wanted the end before there was a cluster.
    #[error("ended before the cluster was up")]
    Interrupted,
    /// There is no such node.
    #[error("no node {0} of a cluster that is up (they are called node-1 and node-2)")]
    NoNode(String),
    /// Nor such a cluster.
    #[error("no cluster that is up has its kubeconfig in {0:?}; --cluster names the folder")]
    NoCluster(PathBuf),
    /// Which one is not said.
    #[error("several clusters are up: name the folder of one's kubeconfig with --cluster")]
    SeveralClusters,
    /// AWS does not start.
    #[error("the sandbox could not be started")]
    Sandbox(#[from] SandboxError),
    /// No certificate.
    #[error("a certificate could not be made")]
    Certificate(#[from] rcgen::Error),
}

/// Gives an I/O error its place.
pub(crate) fn at(what: impl Into<String>) -> impl FnOnce(io::Error) -> Failure {
    move |error| Failure::Io(what.into(), error)
}

/// The error and its causes, on one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
