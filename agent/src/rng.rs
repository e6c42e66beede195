//! The one source of chance: jitter and nothing else.
//!
//! Owns: a generator that a simulation can seed. Must not know: what is jittered. Nothing secret may ever be
//! drawn here.

use std::sync::Arc;

use parking_lot::Mutex;

/// A random number generator that all clones share.
#[derive(Clone, Debug)]
pub struct Rng {
    generator: Arc<Mutex<fastrand::Rng>>,
}

impl Rng {
    /// Seeded by the machine.
    pub fn from_entropy() -> Self {
        Self { generator: Arc::new(Mutex::new(fastrand::Rng::new())) }
    }

    /// The same story every time.
    pub fn seeded(seed: u64) -> Self {
        Self { generator: Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))) }
    }

    /// Any number.
    pub fn number(&self) -> u64 {
        self.generator.lock().u64(..)
    }

    /// A number in `0.0..1.0`.
    pub fn fraction(&self) -> f64 {
        self.generator.lock().f64()
    }
}
