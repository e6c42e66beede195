//! The cluster's issuer of tokens: its keys, and which of them it publishes when.
//!
//! Owns: signing, the document that the agent reads, and what the agent has read of it. Must not know: how
//! the agent judges a token.
//!
//! Every genuine token is good for AWS, whatever is published: a document that lacks a key may be late, or
//! torn. What a thief signs with a key that leaked is not, once the key is withdrawn.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use serde_json::json;

/// Who issues, as the tokens say.
pub const ISSUER: &str = "https://oidc.eks.us-west-2.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF";
/// Keys of a story at most.
const MOST_KEYS: u32 = 32;

/// Which key signs, and which are in the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyState {
    /// The number of the key that signs new tokens.
    pub signer: u32,
    /// The keys in the document, a bit for each; `None`: it cannot be read.
    pub published: Option<u32>,
}

/// The issuer.
#[derive(Debug, Default)]
pub struct Issuer {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    keys: BTreeMap<u32, Key>,
    signer: u32,
    published: Option<u32>,
    /// The keys that the agent has read last, and since when it has had each without a break.
    known: BTreeMap<u32, Duration>,
    /// The keys that the agent had once and was told to forget.
    withdrawn: Vec<u32>,
    /// Since when each key has been in the document without a break.
    published_since: BTreeMap<u32, Duration>,
}

#[derive(Debug)]
struct Key(EcdsaKeyPair);

impl Issuer {
    /// From now on it does so.
    pub fn set(&self, to: KeyState, now: Duration) {
        let mut state = self.state.lock();
        let before = std::mem::take(&mut state.published_since);
        state.published_since = numbers(to.published.unwrap_or_default())
            .map(|key| (key, before.get(&key).copied().unwrap_or(now)))
            .collect();
        (state.signer, state.published) = (to.signer, to.published);
    }

    /// The number of the key that signs new tokens.
    pub fn signer(&self) -> u32 {
        self.state.lock().signer
    }

    /// A key that the agent had once and was told to forget, and would not find again if it looked now.
    pub fn withdrawn(&self) -> Option<u32> {
        let state = self.state.lock();
        let published: Vec<u32> = numbers(state.published.unwrap_or_default()).collect();
        state.withdrawn.iter().rfind(|key| !published.contains(key)).copied()
    }

    /// The name of a key.
    pub fn name_of(key: u32) -> String {
        format!("9e1e3b5c7d9f1a3b5c7d9f1a3b5c7d9f1a3b{key:04}")
    }

    /// A signature with this key.
    pub fn sign(&self, key: u32, message: &[u8]) -> Vec<u8> {
        let mut state = self.state.lock();
        let Some(key) = state.key(key) else { return Vec::new() };
        key.0
            .sign(&SystemRandom::new(), message)
            .map(|signature| signature.as_ref().to_vec())
            .unwrap_or_default()
    }

    /// The agent reads the document.
    pub fn read(&self, now: Duration) -> Option<Vec<u8>> {
        let mut state = self.state.lock();
        let published: Vec<u32> = numbers(state.published?).collect();
        let forgotten: Vec<u32> =
            state.known.keys().filter(|key| !published.contains(key)).copied().collect();
        state.withdrawn.retain(|key| !published.contains(key));
        state.withdrawn.extend(forgotten);
        let known =
            published.iter().map(|key| (*key, state.known.get(key).copied().unwrap_or(now))).collect();
        state.known = known;
        let keys: Vec<_> =
            published.into_iter().filter_map(|key| state.key(key).map(|pair| pair.jwk(key))).collect();
        Some(json!({ "keys": keys }).to_string().into_bytes())
    }

    /// The agent is another one, which has read nothing yet.
    pub fn forget_reader(&self) {
        let mut state = self.state.lock();
        state.known.clear();
        state.withdrawn.clear();
    }

    /// Since when this key has been in the document without a break.
    pub fn published_since(&self, key: u32) -> Option<Duration> {
        self.state.lock().published_since.get(&key).copied()
    }

    /// Since when the agent has had this key.
    pub fn known_since(&self, key: u32) -> Option<Duration> {
        self.state.lock().known.get(&key).copied()
    }
}

impl State {
    /// Keys are made when they are first needed.
    fn key(&mut self, number: u32) -> Option<&Key> {
        match self.keys.entry(number) {
            Entry::Occupied(known) => Some(known.into_mut()),
            Entry::Vacant(new) => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).ok()?;
                Some(new.insert(Key(pair)))
            }
        }
    }
}

impl Key {
    fn jwk(&self, number: u32) -> serde_json::Value {
        // SEC 1, 2.3.3: a byte, and the two coordinates.
        let point = self.0.public_key().as_ref();
        let (x, y) = (point.get(1..33).unwrap_or_default(), point.get(33..).unwrap_or_default());
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({ "kty": "EC", "crv": "P-256", "kid": Issuer::name_of(number), "x": part(x), "y": part(y) })
    }
}

fn numbers(bits: u32) -> impl Iterator<Item = u32> {
    (0..MOST_KEYS).filter(move |number| bits & (1 << number) != 0)
}
