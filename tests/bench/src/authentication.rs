//! What it costs to know a caller: against the one operation in it that cannot be saved.
//!
//! A first verification against one RS256 verification by aws-lc-rs alone; a token that was verified before
//! against one SHA-256 of its bytes.

use std::hint::black_box;
use std::time::Duration;

use aws_lc_rs::{digest, signature};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pod_identity_agent::clock::{Clock, Now};
use pod_identity_agent::config::{KeyLocation, TokenVerification, Upstream, VerificationMode};
use pod_identity_agent::identity::keys::{KeySource, TokenKeys};
use pod_identity_agent::identity::{Authentication, Authenticator, Identity, Policy};
use pod_identity_agent::lifecycle::condition_name::ConditionName;
use pod_identity_agent::lifecycle::readiness::Readiness;
use pod_identity_agent::lifecycle::tasks::Tasks;
use pod_identity_agent::rng::Rng;
use pod_identity_agent::workload::BearerToken;
use sandbox::Sandbox;
use tokio::time::Instant;

use crate::{Outcome, load};

/// Rounds of each; odd, for a median.
const ROUNDS: usize = 31;
/// Verifications in a round. Each has an authenticator of its own, and those take 300 KiB.
const VERIFICATIONS: u32 = 100;
/// Cached authentications in a round: about 10 ms.
const CACHED: u32 = 5_000;

/// Ratios; 1.0 would be the bare operation.
pub(crate) struct Ratios {
    /// A first verification over one RS256 verification.
    pub(crate) first: f64,
    /// A cached authentication over one SHA-256.
    pub(crate) cached: f64,
}

pub(crate) async fn measure(sandbox: &Sandbox, token: &str) -> Outcome<Ratios> {
    let keys = keys_of(sandbox).await?;
    let verification = TokenVerification {
        mode: VerificationMode::Required,
        issuers: vec![sandbox.issuer_url().to_owned()],
        api_server: None,
        keys: vec![KeyLocation::Url(sandbox.jwks_url())],
    };
    let policy = Policy::new(&verification, "sandbox", None);
    let now = Clock::system().now();
    let rsa = Rsa::new(&load::get(&sandbox.jwks_url()).await?, token)?;
    let known = Authenticator::new(keys.clone(), policy.clone());
    let parsed = BearerToken::from_header(token.as_bytes())?;
    if !is_verified(&known, &parsed, now) {
        return Err("the sandbox's token was not verified".into());
    }
    let first = ratio(
        || {
            // A new one each time, so that nothing is remembered; making it is not part of the measurement.
            let fresh: Vec<_> =
                (0..VERIFICATIONS).map(|_| Authenticator::new(keys.clone(), policy.clone())).collect();
            timed(|| fresh.iter().filter(|authenticator| is_verified(authenticator, &parsed, now)).count())
        },
        || timed(|| (0..VERIFICATIONS).filter(|_| rsa.verify()).count()),
    );
    let cached = ratio(
        || {
            timed(|| {
                let tokens =
                    (0..CACHED).filter_map(|_| BearerToken::from_header(black_box(token.as_bytes())).ok());
                tokens.filter(|token| is_verified(&known, token, now)).count()
            })
        },
        || {
            let hash =
                |_: &u32| digest::digest(&digest::SHA256, black_box(token.as_bytes())).as_ref().len() == 32;
            timed(|| (0..CACHED).filter(hash).count())
        },
    );
    Ok(Ratios { first, cached })
}

async fn keys_of(sandbox: &Sandbox) -> Outcome<TokenKeys> {
    let keys = TokenKeys::of_sources(1);
    let tasks = Tasks::new();
    let direct = Upstream { endpoint: None, use_fips: false, ca_bundle: None, proxy: None };
    let (location, clock) = (KeyLocation::Url(sandbox.jwks_url()), Clock::system());
    let source = KeySource::new(&location, 0, keys.clone(), &direct, &clock)?;
    let complete = Readiness::new().advisory(ConditionName::TokenKeys);
    tasks.spawn("keys", source.keep(clock, Rng::from_entropy(), complete));
    for _ in 0..500 {
        if keys.are_complete() {
            return Ok(keys);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err("the sandbox's keys did not come".into())
}

fn is_verified(authenticator: &Authenticator, token: &BearerToken, now: Now) -> bool {
    matches!(
        authenticator.authenticate(black_box(token), now),
        Authentication::Identified(Identity::Verified(_))
    )
}

fn timed(work: impl FnOnce() -> usize) -> Duration {
    let started = Instant::now();
    black_box(work());
    started.elapsed()
}

/// The median ratio of rounds in turns.
fn ratio(ours: impl Fn() -> Duration, floor: impl Fn() -> Duration) -> f64 {
    let mut ratios: Vec<f64> = (0..ROUNDS).map(|_| ours().as_secs_f64() / floor().as_secs_f64()).collect();
    ratios.sort_by(f64::total_cmp);
    ratios.get(ROUNDS / 2).copied().unwrap_or(f64::NAN)
}

/// One RS256 verification and nothing else.
struct Rsa {
    modulus: Vec<u8>,
    exponent: Vec<u8>,
    message: Vec<u8>,
    signature: Vec<u8>,
}

impl Rsa {
    fn new(jwks: &str, token: &str) -> Outcome<Self> {
        let jwks: serde_json::Value = serde_json::from_str(jwks)?;
        let member = |name: &str| -> Outcome<Vec<u8>> {
            let text = jwks.pointer(&format!("/keys/0/{name}")).and_then(serde_json::Value::as_str);
            Ok(URL_SAFE_NO_PAD.decode(text.ok_or("not an RSA key")?)?)
        };
        let (message, signature) = token.rsplit_once('.').ok_or("not a token")?;
        Ok(Self {
            modulus: member("n")?,
            exponent: member("e")?,
            message: message.as_bytes().to_vec(),
            signature: URL_SAFE_NO_PAD.decode(signature)?,
        })
    }

    fn verify(&self) -> bool {
        let key = signature::RsaPublicKeyComponents { n: &self.modulus, e: &self.exponent };
        let algorithm = &signature::RSA_PKCS1_2048_8192_SHA256;
        key.verify(algorithm, black_box(&self.message), &self.signature).is_ok()
    }
}
