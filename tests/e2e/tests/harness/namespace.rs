//! A network namespace that a test makes and that ends with it.
//!
//! Owns: how one is made, entered and given up. Must not know: what is wired into it.
//!
//! A holder process lives in it and reads its stdin. When the test ends, however it ends, that pipe closes,
//! the holder ends, and the kernel takes the namespace with all its links away. Nothing has a name that
//! outlives it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use nix::sched::{CloneFlags, setns};

/// A network namespace with its loopback up.
pub(crate) struct Namespace {
    holder: Child,
}

impl Namespace {
    /// A new one, empty but for its loopback.
    pub(crate) fn new() -> Self {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && echo made && exec cat >/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare runs (Debian: util-linux)");
        let mut line = String::new();
        let told = BufReader::new(holder.stdout.take().expect("a pipe")).read_line(&mut line);
        told.expect("a readable pipe");
        assert_eq!(
            line, "made\n",
            "this machine lets us make no network namespace: run the tests as root or by tests/run.sh, which goes \
             through a user namespace where the kernel has them"
        );
        Self { holder }
    }

    /// The pid of the holder, by which `ip link … netns` finds it.
    pub(crate) fn pid(&self) -> u32 {
        self.holder.id()
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.pid())
    }

    /// Moves the calling thread into it, for good; what it starts from now on is there too.
    pub(crate) fn enter(&self) {
        enter(&self.path());
    }

    /// Runs something asynchronous on a thread of its own in there, from now on; the future is for what it
    /// returns.
    pub(crate) fn within<T, W>(&self, what: W) -> impl Future<Output = T> + use<T, W>
    where
        T: Send + 'static,
        W: AsyncFnOnce() -> T + Send + 'static,
    {
        let path = self.path();
        let (tell, told) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            enter(&path);
            let _nobody_waits = tell.send(runtime().block_on(what()));
        });
        async { told.await.expect("the thread in the namespace has not panicked") }
    }

    /// A program in there, to be given its arguments.
    pub(crate) fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg("--").arg(program);
        command
    }

    /// Runs lines of `ip`; all must succeed.
    pub(crate) fn ip(&self, lines: &str) {
        self.feed(&["ip", "-batch", "-"], lines);
    }

    /// Runs a shell script; every line must succeed.
    pub(crate) fn sh(&self, script: &str) {
        self.feed(&["sh", "-eu"], script);
    }

    fn feed(&self, program: &[&str], input: &str) {
        let mut command = self.program(program[0]);
        command.args(&program[1..]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        // iptables wants a file to lock, and /run belongs to the machine's root; any file will do.
        command.env("XTABLES_LOCKFILE", "/dev/null");
        let mut child = command.spawn().expect("nsenter runs (Debian: util-linux)");
        let mut stdin = child.stdin.take().expect("a pipe");
        // A program that has failed by now reads no more; what it says is asserted below.
        let _gone = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program:?} failed: {said}\n{input}");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // By pid, and only the one we started.
        let _gone = self.holder.kill();
        let _reaped = self.holder.wait();
    }
}

/// Everything in a namespace runs on one thread: another thread would be in another namespace.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn enter(path: &str) {
    let namespace = File::open(path).expect("the namespace is still there");
    setns(namespace, CloneFlags::CLONE_NEWNET).expect("we made the namespace, so we may enter it");
}
