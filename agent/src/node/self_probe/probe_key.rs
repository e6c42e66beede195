//! The answer to a probe, which only this process can compute: a keyed hash over the nonce and the client's
//! address.
//!
//! Owns: the nonce, the key, the text of an answer. Must not know: sockets and HTTP. The key never leaves the
//! process, and an answer contains only the client's own address, so every client may send a probe.

use std::net::SocketAddr;

use aws_lc_rs::hmac;
use zeroize::Zeroize as _;

/// What precedes the nonce in the path of a probe.
pub const PATH_PREFIX: &str = "/v1/probe/";
/// Bytes of a nonce: 128 bits cannot be guessed, and are never drawn twice.
const NONCE_BYTES: usize = 16;

/// The system has no random numbers. TLS would not work either.
#[derive(Debug, thiserror::Error)]
#[error("the system has no random numbers")]
pub struct ProbeKeyError(#[source] getrandom::Error);

/// A number that is used for one probe only, as 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nonce(String);

/// The client's address in an answer, no matter who made it; `None` if this is no answer.
pub(super) fn client_in(answer: &str) -> Option<SocketAddr> {
    answer.trim().split_once(' ')?.1.parse().ok()
}

/// The key of this process.
#[derive(Clone)]
pub struct ProbeKey {
    key: hmac::Key,
}

/// The content of an answer that was made with this process's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct VerifiedAnswer {
    /// The client's address, as the agent saw it.
    pub(super) peer: SocketAddr,
}

impl Nonce {
    /// A new nonce.
    ///
    /// # Errors
    /// [`ProbeKeyError`] if there are no random numbers.
    pub fn random() -> Result<Self, ProbeKeyError> {
        Ok(Self(hex(&random::<NONCE_BYTES>()?)))
    }

    /// Reads a nonce from the path of a request; `None` if the path is not that of a probe.
    pub fn from_path(path: &str) -> Option<Self> {
        Self::from_digits(path.strip_prefix(PATH_PREFIX)?)
    }

    /// Reads a nonce from its digits; `None` if they are not 32 hexadecimal ones.
    pub(in crate::node) fn from_digits(text: &str) -> Option<Self> {
        let is_one = text.len() == 2 * NONCE_BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_one.then(|| Self(text.to_owned()))
    }

    /// Its digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ProbeKey {
    /// A new, random key.
    ///
    /// # Errors
    /// [`ProbeKeyError`] if there are no random numbers.
    pub fn new() -> Result<Self, ProbeKeyError> {
        // As long as the hash (RFC 2104, section 3).
        let mut bytes = random::<32>()?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        bytes.zeroize();
        Ok(Self { key })
    }

    /// The body of the answer to `peer`: hash, space, address.
    pub fn answer(&self, nonce: &Nonce, peer: SocketAddr) -> String {
        format!("{} {peer}", self.hash(nonce, peer))
    }

    /// Checks an answer; `None` if it was not made with this key for this nonce.
    pub(super) fn verify(&self, nonce: &Nonce, body: &str) -> Option<VerifiedAnswer> {
        let (hash, _) = body.trim().split_once(' ')?;
        let peer = client_in(body)?;
        (hash == self.hash(nonce, peer)).then_some(VerifiedAnswer { peer })
    }

    /// Whether this process made the answer, no matter to whom.
    pub(in crate::node) fn made(&self, nonce: &Nonce, answer: &str) -> bool {
        self.verify(nonce, answer).is_some()
    }

    fn hash(&self, nonce: &Nonce, peer: SocketAddr) -> String {
        // The length of a nonce is fixed, so no two pairs of nonce and address give the same text.
        hex(hmac::sign(&self.key, format!("{}|{peer}", nonce.0).as_bytes()).as_ref())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Random bytes from the kernel. The generator of aws-lc first seeds itself from CPU jitter, which delays the
/// start by 30 ms, before anything listens (measured).
fn random<const N: usize>() -> Result<[u8; N], ProbeKeyError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(ProbeKeyError)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::{Nonce, PATH_PREFIX, ProbeKey, VerifiedAnswer};

    #[test]
    fn an_answer_is_valid_only_for_its_nonce_its_client_and_its_process() {
        let (probe_key, nonce) = (ProbeKey::new().unwrap(), Nonce::random().unwrap());
        let peer = "127.0.0.1:4711".parse().unwrap();
        let answer = probe_key.answer(&nonce, peer);
        assert_eq!(probe_key.verify(&nonce, &answer), Some(VerifiedAnswer { peer }));
        assert_eq!(probe_key.verify(&Nonce::random().unwrap(), &answer), None);
        assert_eq!(ProbeKey::new().unwrap().verify(&nonce, &answer), None);
        // The address in it cannot be changed.
        assert_eq!(probe_key.verify(&nonce, &answer.replace("4711", "4712")), None);
        for nothing in ["", " ", "ok", "0123 127.0.0.1:4711", nonce.as_str()] {
            assert_eq!(probe_key.verify(&nonce, nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn only_a_path_with_a_nonce_is_a_probe() {
        let nonce = Nonce::random().unwrap();
        assert_eq!(Nonce::from_path(&format!("{PATH_PREFIX}{}", nonce.as_str())), Some(nonce.clone()));
        for path in ["/v1/probe/", "/v1/probe/zz", "/v1/credentials", "/"] {
            assert_eq!(Nonce::from_path(path), None, "{path}");
        }
        assert_eq!(Nonce::from_path(&format!("{PATH_PREFIX}{}0", nonce.as_str())), None);
        assert_ne!(nonce, Nonce::random().unwrap());
    }
}
