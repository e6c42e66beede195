//! The shell of the administrator of a cluster and its AWS account: kubectl and the AWS CLI, as documents
//! have it.
//!
//! Owns: what is on its path and in its environment, and that variables last from one command to the next.
//! Must not know: what is typed.

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use super::{Cluster, repository, succeeded};

/// Before what is typed. All variables are kept for the next time, as in one terminal.
const BEGIN: &str = "[[ ! -e .variables ]] || . ./.variables\ntrap 'export -p >.variables' EXIT\nset -a\n";

/// A terminal in a folder of its own, which goes with it.
pub(crate) struct Shell<'a> {
    cluster: &'a Cluster,
    folder: PathBuf,
    at_end: RefCell<Vec<String>>,
}

impl<'a> Shell<'a> {
    /// A new one; its name is that of its folder.
    pub(crate) fn new(cluster: &'a Cluster, name: &str) -> Self {
        let folder = cluster.folder().join("shells").join(name.replace(' ', "-"));
        fs::create_dir_all(&folder).expect("a folder");
        Self { cluster, folder, at_end: RefCell::default() }
    }

    /// Runs commands, each of which must succeed, and returns what they wrote.
    pub(crate) fn run(&self, commands: &str) -> String {
        succeeded(commands, &[], &self.try_run(commands))
    }

    /// Runs commands up to the first that fails.
    pub(crate) fn try_run(&self, commands: &str) -> Output {
        let admin = self.cluster.state["admin"]["environment"].as_object().expect("this cluster has moto");
        let admin = admin.iter().map(|(name, value)| (name, value.as_str().expect("a text")));
        let [tools, venv] = [self.cluster.assets.join("tools"), repository(".cache/venv/bin")]
            .map(|folder| folder.canonicalize().expect("it is made").display().to_string());
        Command::new("bash")
            .args(["-euo", "pipefail", "-c", &format!("{BEGIN}{commands}")])
            .current_dir(&self.folder)
            .env_clear()
            .envs(admin)
            .env("PATH", format!("{tools}:{venv}:/usr/bin:/bin"))
            .env("KUBECONFIG", self.cluster.text("kubeconfig"))
            .env("HOME", &self.folder)
            .stdin(Stdio::null())
            .output()
            .expect("bash runs")
    }

    /// Has commands run at the end, however that comes: those that were given last are the first.
    pub(crate) fn at_end(&self, commands: &str) {
        self.at_end.borrow_mut().push(commands.to_owned());
    }

    /// A file in its folder.
    pub(crate) fn write(&self, name: &str, content: &str) {
        fs::write(self.folder.join(name), content).expect("a file");
    }
}

impl Cluster {
    /// Where pods find EKS, IAM, S3 and STS.
    pub(crate) fn aws_url(&self) -> &str {
        self.state["admin"]["urlOfPods"].as_str().expect("this cluster has moto")
    }
}

impl Drop for Shell<'_> {
    fn drop(&mut self) {
        for commands in self.at_end.take().iter().rev() {
            let _there_may_be_nothing_to_undo = self.try_run(commands);
        }
        let _goes_with_the_cluster = fs::remove_dir_all(&self.folder);
    }
}
