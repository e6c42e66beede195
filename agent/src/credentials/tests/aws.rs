//! EKS Auth or STS on simulated time: an HTTP client of the SDK that answers as the test says.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use eks_auth_wire::{Answers, Idle, Issued, answer_with_id, refusal, token_of, web_identity};
use parking_lot::Mutex;

use crate::outgoing::Carrier;

/// How AWS answers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mood {
    /// Credentials of this life, after this time.
    Issues { after: Duration, life: Duration },
    /// This status and code, at once.
    Says(u16, &'static str),
    /// The same, after this time.
    SaysAfter(Duration, u16, &'static str),
    /// This status and body: without a code, of something on the way, unless it has AWS's request id.
    Page { status: u16, body: &'static str, has_request_id: bool },
    /// Credentials that end at this second of the epoch, whatever that is.
    IssuesUntil(i64),
    /// An answer that was given so long ago, with credentials that ended so long ago, by somebody in between.
    Replays { given: Duration, ended: Duration },
    /// Nothing, ever.
    Hangs,
    /// No connection.
    Refuses,
    /// Credentials for up to so many at once, 429 above.
    Throttles { above: usize, after: Duration },
    /// Credentials for so many calls a second, with as many at once after a quiet second, 429 for all others:
    /// what an account has for all its nodes.
    Rate { per_second: u32, after: Duration },
}

/// Which of its services it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    EksAuth,
    Sts,
}

/// What a call is about.
#[derive(Clone, Debug)]
struct Asked {
    token: String,
    /// Whom the calls are counted for: the pod and, where it asks for one, the role.
    identity: String,
    /// Of STS.
    web_identity: web_identity::Call,
}

#[derive(Clone, Debug)]
pub(super) struct Aws {
    service: Service,
    shared: Arc<Mutex<State>>,
    answers: Answers,
    idle: Idle,
    started: tokio::time::Instant,
}

#[derive(Debug)]
struct State {
    mood: Mood,
    moods: HashMap<String, Mood>,
    role: &'static str,
    calls: usize,
    calls_of: HashMap<String, usize>,
    under_way: HashMap<String, usize>,
    most_of_one: usize,
    most_in_all: usize,
    /// Which pod a token is of, if it has several.
    pods: HashMap<String, String>,
    expiries: HashMap<String, SystemTime>,
    /// The role that STS was asked for, of each set.
    roles: HashMap<String, String>,
    date_ahead: Duration,
    /// When the next call is due at the rate of [`Mood::Rate`], since the start: the bucket of GCRA.
    next_due: Duration,
}

impl Aws {
    /// EKS Auth.
    pub(super) fn new() -> Self {
        Self::of(Service::EksAuth)
    }

    /// STS.
    pub(super) fn sts() -> Self {
        Self::of(Service::Sts)
    }

    fn of(service: Service) -> Self {
        let mood = Mood::Issues { after: Duration::from_millis(80), life: Duration::from_secs(6 * 3600) };
        let state = State {
            mood,
            moods: HashMap::new(),
            role: "r",
            calls: 0,
            calls_of: HashMap::new(),
            under_way: HashMap::new(),
            most_of_one: 0,
            most_in_all: 0,
            pods: HashMap::new(),
            expiries: HashMap::new(),
            roles: HashMap::new(),
            date_ahead: Duration::ZERO,
            next_due: Duration::ZERO,
        };
        Self {
            service,
            shared: Arc::new(Mutex::new(state)),
            answers: Answers::default(),
            idle: Idle::default(),
            started: tokio::time::Instant::now(),
        }
    }

    pub(super) fn be(&self, mood: Mood) {
        self.shared.lock().mood = mood;
    }

    /// The `Date` of its answers is wrong by so much.
    pub(super) fn misdate_by(&self, ahead: Duration) {
        self.shared.lock().date_ahead = ahead;
    }

    /// Answers one pod otherwise than all.
    pub(super) fn be_to(&self, pod: usize, mood: Mood) {
        self.shared.lock().moods.insert(super::token_of(pod), mood);
    }

    /// Answers this very token otherwise than all.
    pub(super) fn be_to_token(&self, token: &str, mood: Mood) {
        self.shared.lock().moods.insert(token.to_owned(), mood);
    }

    /// These tokens are of one pod: the calls for it are counted together.
    pub(super) fn are_of_one_pod(&self, tokens: &[&str]) {
        let pods = tokens.iter().map(|token| ((*token).to_owned(), tokens[0].to_owned()));
        self.shared.lock().pods.extend(pods);
    }

    /// From now on the associations name another role.
    pub(super) fn name_role(&self, role: &'static str) {
        self.shared.lock().role = role;
    }

    pub(super) fn calls_of(&self, pod: usize) -> usize {
        self.shared.lock().calls_of.get(&super::token_of(pod)).copied().unwrap_or_default()
    }

    /// How often it was called with this very token.
    pub(super) fn calls_with(&self, token: &str) -> usize {
        self.shared.lock().calls_of.get(token).copied().unwrap_or_default()
    }

    pub(super) fn calls(&self) -> usize {
        self.shared.lock().calls
    }

    /// The calls that are under way.
    pub(super) fn under_way(&self) -> usize {
        self.shared.lock().under_way.values().sum()
    }

    /// The most calls that were under way at once for one pod.
    pub(super) fn most_of_one(&self) -> usize {
        self.shared.lock().most_of_one
    }

    /// The most calls that were under way at once.
    pub(super) fn most_in_all(&self) -> usize {
        self.shared.lock().most_in_all
    }

    /// The life that a set has left by AWS's own clock, which nobody can set wrong.
    pub(super) fn life_left(&self, access_key_id: &str) -> Duration {
        self.shared.lock().expiries[access_key_id].duration_since(self.time()).unwrap_or_default()
    }

    /// The role that STS was asked for, of this set.
    pub(super) fn role_of(&self, access_key_id: &str) -> String {
        self.shared.lock().roles[access_key_id].clone()
    }

    pub(super) fn http_client(&self) -> SharedHttpClient {
        let connector = SharedHttpConnector::new(self.clone());
        http_client_fn(move |_, _| connector.clone())
    }

    /// True time, which nothing bends.
    fn time(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000) + self.started.elapsed()
    }

    fn asked_by(&self, request: &HttpRequest) -> Asked {
        let web_identity = web_identity::Call::of(request);
        let token = match self.service {
            Service::EksAuth => token_of(request),
            Service::Sts => web_identity.token.clone(),
        };
        let pod = self.shared.lock().pods.get(&token).unwrap_or(&token).clone();
        let identity = format!("{pod}{}", web_identity.role);
        Asked { token, identity, web_identity }
    }

    fn arrive(&self, Asked { token, identity, .. }: &Asked) -> Mood {
        let mut state = self.shared.lock();
        state.calls += 1;
        *state.calls_of.entry(token.clone()).or_default() += 1;
        *state.under_way.entry(identity.clone()).or_default() += 1;
        state.most_of_one = state.most_of_one.max(state.under_way[identity]);
        state.most_in_all = state.most_in_all.max(state.under_way.values().sum());
        state.moods.get(token).copied().unwrap_or(state.mood)
    }

    async fn answer(self, asked: Asked) -> Result<HttpResponse, ConnectorError> {
        let mood = self.arrive(&asked);
        let _gone = Gone { aws: self.clone(), identity: asked.identity.clone() };
        match mood {
            Mood::Issues { after, life } => {
                tokio::time::sleep(after).await;
                self.issue(&asked, life)
            }
            Mood::Says(status, code) => self.refuse(status, code),
            Mood::SaysAfter(after, status, code) => {
                tokio::time::sleep(after).await;
                self.refuse(status, code)
            }
            Mood::Page { status, body, has_request_id } => {
                let mut page = self.response(status, body.to_owned())?;
                if !has_request_id {
                    page.headers_mut().remove("x-amzn-requestid");
                }
                Ok(page)
            }
            Mood::IssuesUntil(seconds) => {
                self.response(200, issued(&association(&asked), "r", "ASIA", seconds))
            }
            Mood::Replays { given, ended } => {
                let seconds = (self.time() - ended).duration_since(UNIX_EPOCH).unwrap().as_secs();
                let body = issued(&association(&asked), "r", "ASIAOLD", seconds.try_into().unwrap());
                answer_with_id(200, body, self.time() - given, "the same")
            }
            Mood::Hangs => std::future::pending().await,
            Mood::Refuses => Err(ConnectorError::io("connection refused".into())),
            Mood::Throttles { above, after } => {
                let under_way: usize = self.shared.lock().under_way.values().sum();
                if under_way > above {
                    return self.throttle();
                }
                tokio::time::sleep(after).await;
                self.issue(&asked, Duration::from_secs(6 * 3600))
            }
            Mood::Rate { per_second, after } => {
                let is_within = self.takes_from_rate(per_second);
                tokio::time::sleep(after).await;
                if is_within { self.issue(&asked, Duration::from_secs(6 * 3600)) } else { self.throttle() }
            }
        }
    }

    fn refuse(&self, status: u16, code: &str) -> Result<HttpResponse, ConnectorError> {
        let body = match self.service {
            Service::EksAuth => refusal(code),
            Service::Sts => web_identity::refusal(code),
        };
        self.response(status, body)
    }

    fn throttle(&self) -> Result<HttpResponse, ConnectorError> {
        match self.service {
            Service::EksAuth => self.refuse(429, "ThrottlingException"),
            Service::Sts => self.refuse(400, "Throttling"),
        }
    }

    /// Whether there is one left of so many a second.
    fn takes_from_rate(&self, per_second: u32) -> bool {
        let now = self.started.elapsed();
        let mut state = self.shared.lock();
        let due = state.next_due.max(now.saturating_sub(Duration::from_secs(1)));
        let is_within = due <= now;
        if is_within {
            state.next_due = due + Duration::from_secs(1) / per_second;
        }
        is_within
    }

    fn issue(&self, asked: &Asked, life: Duration) -> Result<HttpResponse, ConnectorError> {
        let expires = self.time() + life;
        let mut state = self.shared.lock();
        let prefix = if self.service == Service::Sts { "ASIASTS" } else { "ASIA" };
        let key = format!("{prefix}{:06}", state.expiries.len());
        state.expiries.insert(key.clone(), expires);
        state.roles.insert(key.clone(), asked.web_identity.role.clone());
        let role = state.role;
        drop(state);
        let body = match self.service {
            Service::EksAuth => {
                let seconds = expires.duration_since(UNIX_EPOCH).unwrap().as_secs().try_into().unwrap();
                issued(&association(asked), role, &key, seconds)
            }
            Service::Sts => web_identity::Issued {
                call: &asked.web_identity,
                access_key_id: &key,
                secret: "planted-secret-key",
                session_token: "planted-session-token",
                expiration: expires,
            }
            .body(),
        };
        self.response(200, body)
    }

    fn response(&self, status: u16, body: String) -> Result<HttpResponse, ConnectorError> {
        let ahead = self.shared.lock().date_ahead;
        self.answers.answer(status, body, self.time() + ahead)
    }
}

fn association(asked: &Asked) -> String {
    format!("a-{}", asked.identity)
}

fn issued(association: &str, role: &str, access_key_id: &str, expiration: i64) -> String {
    let (secret, session) = ("planted-secret-key", "planted-session-token");
    Issued { association, role, access_key_id, secret, session, expiration }.body()
}

impl HttpConnector for Aws {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let asked = self.asked_by(&request);
        let (aws, carrier) = (self.clone(), request.extension::<Carrier>().cloned());
        HttpConnectorFuture::new(async move {
            carrier.expect("every call tells what it travels on").takes(aws.idle.take());
            let answer = aws.clone().answer(asked).await;
            if answer.is_ok() {
                aws.idle.give_back();
            }
            answer
        })
    }
}

/// The call is over, also when the SDK's time-out drops it.
struct Gone {
    aws: Aws,
    identity: String,
}

impl Drop for Gone {
    fn drop(&mut self) {
        *self.aws.shared.lock().under_way.get_mut(&self.identity).unwrap() -= 1;
    }
}
