//! EKS Auth and STS on simulated time: the SDK's HTTP client, answering as the weather and the pod's own
//! spells have it.
//!
//! Owns: the script of each call. Must not know: the agent, or the wire format (`eks_auth_wire`).

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use eks_auth_wire::{Answers, Idle, Issued as IssuedSet, refusal, token_of, web_identity};
use pod_identity_agent::outgoing::Carrier;

use crate::annotations;
use crate::imds;
use crate::journal::What;
use crate::kind::NO_ASSOCIATION;
use crate::ledger::{ACCESS_DENIED, Issued, Kept, NO_ROLE, Token};
use crate::life::Life;
use crate::rng::Rng;
use crate::source::Source;
use crate::story::World;
use crate::watch::{Found, Invariant};
use crate::weather::Sky;

/// Marks an answer with a wrong date, for this file alone.
const LIE: &str = "x-simulated-lie";

/// AWS, as the SDK's HTTP client sees it.
#[derive(Clone)]
pub struct Aws {
    world: Arc<World>,
    source: Source,
    answers: Answers,
    /// The connections of this agent.
    idle: Idle,
    /// This agent lives.
    life: Life,
}

impl std::fmt::Debug for Aws {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Aws")
    }
}

impl Aws {
    /// An HTTP client for the SDK behind which this world's EKS Auth or STS is.
    pub fn http_client(world: &Arc<World>, source: Source, life: Life) -> SharedHttpClient {
        let (answers, idle) = (world.answers.clone(), Idle::default());
        let connector =
            SharedHttpConnector::new(Self { world: Arc::clone(world), source, answers, idle, life });
        http_client_fn(move |_, _| connector.clone())
    }

    async fn answer(self, asked: Asked) -> Result<HttpResponse, ConnectorError> {
        let (world, source) = (&*self.world, self.source);
        let arrived = world.now();
        let Some(token) = world.ledger.lock().token(&asked.token) else {
            return self.says(400, self.invalid_token(), arrived);
        };
        let call = Call { token, role: annotations::number_of(&asked.web_identity.role), asked: &asked };
        let _gone = self.take_in(&call, arrived);
        let mut chance = self.chance_of(token);
        // Who signed is judged by AWS's front end, before anything of the call.
        let answers = match world.weather.sky(source, arrived) {
            Sky::Hangs | Sky::Refuses | Sky::Says(_, _) => false,
            Sky::Throttles(_) | Sky::Flaky | Sky::Clear | Sky::Slow(_) | Sky::Allows { .. } => true,
        };
        let is_signed = source == Source::EksAuth;
        if let Some(code) = world.weather.own.judge(asked.signer, arrived).filter(|_| answers && is_signed) {
            tokio::time::sleep(chance.between(ms(5), ms(80))).await;
            world.watch.rejected(world.now());
            return self.told(token, 403, code);
        }
        match world.weather.sky(source, arrived) {
            Sky::Hangs => std::future::pending().await,
            Sky::Refuses => Err(ConnectorError::io("connection refused".into())),
            Sky::Says(status, code) => {
                tokio::time::sleep(chance.between(ms(5), ms(80))).await;
                self.told(token, status, code)
            }
            Sky::Throttles(above) if world.ledger.lock().under_way(source) > above => self.throttle(token),
            Sky::Allows { per_second, at_once }
                if !world.ledger.lock().may_call(source, per_second, at_once, arrived) =>
            {
                tokio::time::sleep(chance.between(ms(5), ms(40))).await;
                self.throttle(token)
            }
            Sky::Slow(after) => self.judge(&call, arrived, ms(after)).await,
            Sky::Throttles(_) => self.judge(&call, arrived, chance.between(ms(100), ms(600))).await,
            Sky::Flaky => match chance.below(4) {
                0 => self.told(token, 503, "ServiceUnavailableException"),
                1 => std::future::pending().await,
                _ => self.judge(&call, arrived, chance.between(ms(50), ms(1150))).await,
            },
            Sky::Clear | Sky::Allows { .. } => {
                self.judge(&call, arrived, chance.between(ms(20), ms(120))).await
            }
        }
    }

    fn throttle(&self, token: Token) -> Result<HttpResponse, ConnectorError> {
        let now = self.world.now();
        let found = self.world.ledger.lock().throttle(token, now);
        self.world.watch.report(now, found);
        match self.source {
            Source::EksAuth => self.told(token, 429, "ThrottlingException"),
            Source::Sts => self.told(token, 400, "Throttling"),
        }
    }

    fn take_in(&self, call: &Call<'_>, arrived: Duration) -> Gone {
        let (world, Call { token, role, .. }) = (&*self.world, *call);
        let is_in_doubt = world.is_in_doubt();
        let latest = world.watch.clocks().latest(arrived);
        let mut ledger = world.ledger.lock();
        let found = ledger.arrive((token, role), arrived, latest, is_in_doubt, world.weather.shape.nodes);
        let under_way = ledger.under_way(self.source);
        let left = role.and_then(|role| ledger.asks_for_left_role(token, role, arrived));
        drop(ledger);
        if left.is_some_and(|noticed_at| !world.watch.was_interrupted_since(noticed_at)) {
            let what = "STS is asked for a role that its pod has left, minutes after the pod had asked again";
            world.watch.report(arrived, Some(Found::new(Invariant::Entitlement, what, vec![token.pod])));
        }
        world.note(token.pod, What::Called(under_way));
        world.watch.report(arrived, found);
        Gone { aws: self.clone(), token, role }
    }

    /// The chance of this pod's n-th set, whatever other pods do.
    fn chance_of(&self, token: Token) -> Rng {
        let at = u64::try_from(self.world.now().as_millis()).unwrap_or_default();
        let slot = self.world.slot_of(token.pod);
        Rng::stream(self.world.story.seed, u64::from(slot) + (1 << 32), at)
    }

    /// What the service, in good health, says to this pod.
    async fn judge(
        &self,
        call: &Call<'_>,
        arrived: Duration,
        after: Duration,
    ) -> Result<HttpResponse, ConnectorError> {
        tokio::time::sleep(after).await;
        let (world, token) = (&*self.world, call.token);
        // AWS's own clock goes on while the node is paused: the answer is of this moment, whenever it is
        // read.
        let now = arrived + after;
        let spell = world.ledger.lock().pods.get(token.pod).and_then(|pod| {
            pod.spells.iter().find(|(from, to, _)| (*from..*to).contains(&now)).map(|(_, _, code)| *code)
        });
        if token.is_forged {
            return self.told(token, 400, self.invalid_token());
        }
        // Without an annotation STS is not asked, or does not know of it.
        let spell = spell.filter(|code| *code != NO_ROLE);
        let refusal = if now >= token.expires { Some("ExpiredTokenException") } else { spell };
        let Some(code) = refusal else { return self.issue(call, arrived, now) };
        world.ledger.lock().refuse(token, code, now);
        let status = match code {
            NO_ASSOCIATION => 404,
            ACCESS_DENIED => 403,
            _ => 400,
        };
        world.note(token.pod, What::Said(status, code));
        self.says(status, code, now)
    }

    fn issue(
        &self,
        call: &Call<'_>,
        arrived: Duration,
        now: Duration,
    ) -> Result<HttpResponse, ConnectorError> {
        let Call { token, role, asked } = *call;
        let came = self.world.now();
        let lie = self.world.lie();
        let is_the_pods = self.world.is_surely_the_pods(token);
        let tells_the_time = self.world.is_in_doubt();
        // Who was deceived about the time may take an older set for the one that lives longer.
        let is_misdated = lie.is_some() || self.world.watch.is_deceived();
        let kept = Kept { is_the_pods, is_misdated, tells_the_time, came };
        let mut chance = self.chance_of(token);
        let issued = self.world.ledger.lock().issue(
            (token, role),
            arrived,
            now,
            kept,
            &mut chance,
            &self.world.weather.shape,
        );
        let Issued { number, expires, role, found } = issued;
        self.world.watch.report(came, found);
        self.world.note(token.pod, What::Issued(number, expires.saturating_sub(now).as_secs()));
        let association = format!("a-{}", self.world.slot_of(token.pod));
        let access_key_id = &format!("ASIA{number}");
        let (secret, session) = (&format!("secret-{number}"), &format!("session-{number}"));
        let body = match self.source {
            Source::EksAuth => IssuedSet {
                association: &association,
                role: &format!("r{role}"),
                access_key_id,
                secret,
                session,
                expiration: (World::BEGINNING + expires).as_secs().try_into().unwrap_or(i64::MAX),
            }
            .body(),
            Source::Sts => web_identity::Issued {
                call: &asked.web_identity,
                access_key_id,
                secret,
                session_token: session,
                expiration: UNIX_EPOCH + World::BEGINNING + expires,
            }
            .body(),
        };
        self.response(200, body, lie, now)
    }

    fn told(&self, token: Token, status: u16, code: &'static str) -> Result<HttpResponse, ConnectorError> {
        self.world.note(token.pod, What::Said(status, code));
        self.says(status, code, self.world.now())
    }

    fn says(&self, status: u16, code: &str, at: Duration) -> Result<HttpResponse, ConnectorError> {
        let lie = self.world.lie();
        let body = match self.source {
            Source::EksAuth => refusal(code),
            Source::Sts => web_identity::refusal(code),
        };
        self.response(status, body, lie, at)
    }

    const fn invalid_token(&self) -> &'static str {
        match self.source {
            Source::EksAuth => "InvalidTokenException",
            Source::Sts => "InvalidIdentityToken",
        }
    }

    /// An answer of this moment.
    fn response(
        &self,
        status: u16,
        body: String,
        lie: Option<i64>,
        at: Duration,
    ) -> Result<HttpResponse, ConnectorError> {
        let mut response = self.answers.answer(status, body, dated(at, lie))?;
        if let Some(lie) = lie {
            self.world.watch.lied(self.world.now(), lie);
            response.headers_mut().insert(LIE, "1");
        }
        Ok(response)
    }
}

/// The `Date` of an answer of this moment.
fn dated(at: Duration, lie: Option<i64>) -> SystemTime {
    let off = Duration::from_secs(lie.unwrap_or_default().unsigned_abs());
    let time = UNIX_EPOCH + World::BEGINNING + at;
    if lie.unwrap_or_default() < 0 { time - off } else { time + off }
}

impl HttpConnector for Aws {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let web_identity = web_identity::Call::of(&request);
        let token = match self.source {
            Source::EksAuth => token_of(&request),
            Source::Sts => web_identity.token.clone(),
        };
        let asked = Asked { token, signer: imds::signer_of(&request), web_identity };
        let carrier = request.extension::<Carrier>().cloned();
        let (aws, times_bent) = (self.clone(), self.world.watch.times_bent());
        HttpConnectorFuture::new(async move {
            let (world, life, idle) = (Arc::clone(&aws.world), aws.life.clone(), aws.idle.clone());
            let is_used = idle.take();
            if let Some(carrier) = carrier {
                carrier.takes(is_used);
            }
            let Some(answer) = life.unless_over(aws.answer(asked)).await else {
                // Of an agent that was killed nothing comes any more, and nothing reaches it.
                return std::future::pending().await;
            };
            let answer = answer?;
            idle.give_back();
            if answer.headers().get(LIE).is_none() {
                world.watch.answered(world.now(), times_bent);
            }
            Ok(answer)
        })
    }
}

/// The call is over, also when the SDK's time-out drops it.
struct Gone {
    aws: Aws,
    token: Token,
    role: Option<usize>,
}

/// What a request says.
struct Asked {
    token: String,
    /// Which of the node's own sets signed it.
    signer: Option<usize>,
    /// Of STS.
    web_identity: web_identity::Call,
}

/// A call with a token that the story knows.
#[derive(Clone, Copy)]
struct Call<'a> {
    token: Token,
    /// Which of the pod's roles STS is asked for.
    role: Option<usize>,
    asked: &'a Asked,
}

impl Drop for Gone {
    fn drop(&mut self) {
        self.aws.world.ledger.lock().leave(self.token, self.role);
    }
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
