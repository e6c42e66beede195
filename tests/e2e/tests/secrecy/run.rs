//! One run of the agent in which everything goes wrong that has a secret near it.

use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::signal::Signal;
use sandbox::{Effect, Fault, Match, PodSpec, Sandbox, Service};
use tokio::task::JoinSet;

use super::planted::Planted;
use crate::harness::{Agent, Answer, Builder, Request, eventually, heal, pod};
use crate::status::StateDir;
use crate::web_identity;

pub(super) const FORMATS: [&str; 2] = ["json", "text"];

/// The same run with each format of the log, side by side: most of it is waiting.
pub(super) async fn in_both_formats(run: impl AsyncFn(&'static str)) {
    let [json, text] = FORMATS;
    tokio::join!(run(json), run(text));
}

/// A run, what it showed to anybody but to the pod that a secret is of, and the secrets that were in it.
pub(super) struct Run {
    pub(super) sandbox: Sandbox,
    pub(super) agent: Agent,
    state_dir: StateDir,
    seen: String,
    secrets: Vec<(String, String)>,
}

impl Run {
    /// Started with everything logged that can be, and with variables that make libraries print secrets.
    pub(super) async fn start(sandbox: Sandbox, builder: Builder, format: &str) -> Self {
        let state_dir = StateDir::new(&sandbox);
        let agent = builder
            .flag("--state-dir", state_dir.path())
            .flag("--verbosity", "trace")
            .flag("--log-format", format)
            .env("RUST_LOG", "trace")
            .env("LOG_SENSITIVE_BODIES", "true")
            .env("SSLKEYLOGFILE", sandbox.dir().join("keys").to_str().unwrap())
            .start()
            .await;
        Self { sandbox, agent, state_dir, seen: String::new(), secrets: Vec::new() }
    }

    /// A secret of this run that the sandbox does not know.
    pub(super) fn plant(&mut self, name: &str, secret: &str) {
        self.secrets.push((name.to_owned(), secret.to_owned()));
    }

    /// What was shown beside the log and the pages.
    pub(super) fn saw(&mut self, shown: &str) {
        self.seen += shown;
        self.seen.push('\n');
    }

    /// A new pod, which nobody but itself may know by its token.
    pub(super) fn pod(&mut self, name: &str) -> String {
        let token = pod(&self.sandbox, name).token;
        self.plant("pod token", &token);
        token
    }

    /// The same with a token for STS.
    pub(super) fn pod_with_role(&mut self, name: &str) -> String {
        let token = web_identity::pod(&self.sandbox, name).token;
        self.plant("pod token", &token);
        token
    }

    /// Asks with this token; returns whether it was served.
    pub(super) async fn ask(&mut self, token: &str) -> bool {
        let answer = self.agent.ask(token).await;
        let is_served = answer.status == 200;
        self.saw_answer(answer);
        is_served
    }

    /// A success is for the pod: its own secrets are none of what is shown, but all others are.
    fn saw_answer(&mut self, answer: Answer) {
        let mut shown = answer.reason + &answer.body;
        for (name, value) in answer.headers {
            shown += &format!("{name}: {value}\n");
        }
        if answer.status == 200
            && let Ok(json) = serde_json::from_str::<serde_json::Value>(&answer.body)
        {
            for own in ["SecretAccessKey", "Token"].into_iter().filter_map(|own| json[own].as_str()) {
                shown = shown.replace(own, "");
            }
        }
        self.saw(&shown);
    }

    async fn send(&mut self, request: Request, to: SocketAddr) {
        // What is refused at once may be cut off before the answer.
        if let Ok(answer) = request.send(to).await {
            self.saw_answer(answer);
        }
    }

    /// A token in each place where it does not belong, and tokens that are none.
    pub(super) async fn misplaced_tokens(&mut self) {
        let token = self.pod("misplaced");
        let (head, signature) = token.rsplit_once('.').unwrap();
        let wrong = [
            format!("{token}!"),
            format!("Bearer {token} {token}"),
            format!("Basic {token}"),
            head.to_owned(),
            format!("{head}.{}", signature.chars().rev().collect::<String>()),
            format!("{token}.{token}"),
            token.replace('.', ":"),
            token.repeat(20),
        ];
        for token in wrong {
            self.ask(&token).await;
        }
        let [to, probes, metrics] = self.addresses();
        let misplaced = [
            Request::credentials(&token).header("Host", "evil"),
            Request::credentials(&token).header("Authorization", &token),
            Request::credentials(&token).method("POST"),
            Request::get(&format!("/v1/credentials?token={token}")),
            Request::get(&format!("/v1/credentials/{token}")),
            Request::get("/v1/credentials").header("Host", &format!("{token}.example")),
            Request::get("/v1/credentials").header("Cookie", &token).header("User-Agent", &token),
            Request::get(&format!("http://{token}/v1/credentials")),
        ];
        for request in misplaced {
            self.send(request, to).await;
        }
        for to in [probes, metrics] {
            self.send(Request::get(&format!("/{token}")).header("Authorization", &token), to).await;
        }
    }

    /// AWS, or what stands before it, quotes what it was sent: the pod's token and the agent's credentials.
    pub(super) async fn upstream_that_quotes(&mut self) {
        let codes = [
            (400, "AccessDeniedException"),
            (400, "InvalidTokenException"),
            (404, "ResourceNotFoundException"),
            (403, "InvalidSignatureException"),
            (500, "InternalServerException"),
        ];
        let of_agent = self.known("node's").next();
        self.quoted_by(Service::EksAuth, &codes, of_agent.as_deref()).await;
    }

    /// STS quotes what it was sent: its `ValidationError` names the value that it does not like. The agent's
    /// own credentials it has never seen, as the call is not signed.
    pub(super) async fn sts_that_quotes(&mut self) {
        let codes = [
            (400, "ValidationError"),
            (400, "InvalidIdentityToken"),
            (400, "ExpiredTokenException"),
            (403, "AccessDenied"),
            (403, "IDPRejectedClaim"),
            (500, "InternalFailure"),
        ];
        self.quoted_by(Service::Sts, &codes, None).await;
    }

    /// All at once, as an agent holds its answer for seconds.
    async fn quoted_by(&mut self, service: Service, codes: &[(u16, &str)], of_agent: Option<&str>) {
        let mut faults = Vec::new();
        let mut tokens = Vec::new();
        let mut pod_with = |run: &mut Self, effect: &dyn Fn(&str) -> Effect| {
            let name = format!("quoted-{}", tokens.len());
            let token = if service == Service::Sts { run.pod_with_role(&name) } else { run.pod(&name) };
            let matching = Match { pod: Some(name), ..Match::default() };
            faults.push(Fault { matching, ..Fault::new(service, effect(&token)) });
            tokens.push(token);
        };
        for (status, code) in codes {
            let says =
                |message: String| Effect::Status { status: *status, code: (*code).to_owned(), message };
            pod_with(self, &|token| says(format!("Invalid value at 'token': {token}")));
            pod_with(self, &|token| says(format!("{}… {}", &token[5..80], &token[token.len() - 40..])));
            if let Some(of_agent) = of_agent {
                pod_with(self, &|_| says(format!("rejected:\nx-amz-security-token:{of_agent}")));
            }
        }
        pod_with(self, &|_| Effect::BadJson);
        pod_with(self, &|_| Effect::ResetMidBody);
        self.sandbox.faults().set(faults);
        let mut asking = JoinSet::new();
        let to = self.agent.address();
        for token in tokens {
            asking.spawn(async move { Request::credentials(&token).send(to).await.expect("an answer") });
        }
        for answer in asking.join_all().await {
            assert_ne!(answer.status, 200, "{answer:?}");
            self.saw_answer(answer);
        }
        heal(&self.sandbox);
    }

    /// IMDS fails in the moment in which the agent must renew its own credentials, and quotes those that it
    /// gave.
    pub(super) async fn imds_that_quotes(&mut self) {
        let given: String = self.known("node's").chain(self.known("imds")).collect::<Vec<_>>().join(" ");
        let quoting = Effect::Status { status: 500, code: "Failed".to_owned(), message: given };
        for effect in [quoting, Effect::BadJson, Effect::ResetMidBody] {
            self.sandbox.faults().set([Fault::new(Service::Imds, effect)]);
            self.sandbox.expire_node_credentials(Duration::from_secs(3600));
            let token = self.pod("without-imds");
            self.ask(&token).await;
        }
        heal(&self.sandbox);
    }

    /// A pod that nothing is associated with.
    pub(super) async fn stranger(&mut self) {
        let spec = PodSpec { service_account: "nobody".to_owned(), ..PodSpec::default() };
        let token = self.sandbox.pod(spec).unwrap().token;
        self.plant("pod token", &token);
        self.ask(&token).await;
    }

    /// Secrets of the sandbox with names that begin like this.
    fn known(&self, of: &str) -> impl Iterator<Item = String> {
        let of = of.to_owned();
        self.sandbox
            .secrets()
            .into_iter()
            .filter(move |(name, _)| name.starts_with(&of))
            .map(|(_, secret)| secret)
    }

    fn addresses(&self) -> [SocketAddr; 3] {
        [self.agent.port, self.agent.probe_port, self.agent.metrics_port]
            .map(|port| ([127, 0, 0, 1], port).into())
    }

    /// All pages, the end, and the whole log: none of them has a piece of a secret. `kinds` were in play.
    pub(super) async fn shows_no_secret(mut self, kinds: &[&str]) {
        let environment = std::fs::read_to_string(format!("/proc/{}/environ", self.agent.pid())).unwrap();
        for printing in ["LOG_SENSITIVE_BODIES", "SSLKEYLOGFILE"] {
            assert!(!environment.contains(printing), "{printing} was not removed");
        }
        for to in self.addresses() {
            for path in ["/", "/healthz", "/readyz", "/metrics", "/debug", "/v1/credentials"] {
                self.send(Request::get(path), to).await;
            }
        }
        for command in [&["status"] as &[_], &["status", "--output", "json"], &["doctor"]] {
            let (code, said) = self.state_dir.run(command);
            assert!(code != Some(2) && said.len() > 500, "it was asked: {command:?}: {said}");
            self.saw(&said);
        }
        self.agent.signal(Signal::SIGTERM);
        self.agent.ended(Duration::from_secs(10)).await;
        let log = self.agent.log();
        assert!(log.contains("effective configuration"), "{log}");
        assert!(log.contains("\"level\":\"debug\"") || log.contains(" DEBUG "), "logged at trace: {log}");
        self.saw(&log);

        self.secrets.extend(self.sandbox.secrets());
        for kind in kinds {
            assert!(self.secrets.iter().any(|(name, _)| name == kind), "{kind} was in play");
        }
        let (secrets, seen) = (self.secrets, self.seen);
        // A second of work, beside which other runs of this thread go on.
        let search = move || {
            let mut planted = Planted::default();
            secrets.iter().for_each(|(name, secret)| planted.add(name, secret));
            planted.found_in(&seen)
        };
        assert_eq!(tokio::task::spawn_blocking(search).await.unwrap(), None);
        assert!(!self.sandbox.dir().join("keys").exists(), "TLS keys were written to a file");
    }
}

/// Waits until this stands in the log.
pub(super) async fn logged(run: &Run, what: &str) {
    eventually(what, async || run.agent.log().contains(what)).await;
}
