//! One set of credentials, as it is kept. It never changes.
//!
//! Owns: the body that clients get, what it was issued for, and its life. Must not know: who may have it, or
//! when it is renewed (`record`).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Now;
use crate::credentials::issued::{Grant, Issued, Unservable};
use crate::credentials::policy::freshness::Expiry;

/// A set of credentials that is kept in memory.
pub struct CachedCredentials {
    body: Bytes,
    grant: Grant,
    expiry: Expiry,
    lifetime: Duration,
}

impl CachedCredentials {
    /// From what AWS issued just now.
    ///
    /// # Errors
    /// [`Unservable`], when no SDK could read it.
    pub fn new(issued: &Issued, now: Now) -> Result<Self, Unservable> {
        let since = issued.answered_at.unwrap_or(now.wall);
        let lifetime = issued.expiration.duration_since(since).unwrap_or_default();
        Ok(Self {
            body: issued.to_body()?,
            grant: issued.grant.clone(),
            expiry: Expiry {
                wall: issued.expiration,
                boot: now.boot.plus(lifetime),
                is_dated: issued.answered_at.is_some(),
            },
            lifetime,
        })
    }

    /// The body to send.
    pub fn body(&self) -> Bytes {
        self.body.clone()
    }

    /// What it was issued for.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// When it ends.
    pub fn expiry(&self) -> Expiry {
        self.expiry
    }

    /// The whole life it had when it arrived.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Whether it takes the place of an earlier set of the same identity: if it lives as long, because
    /// answers may overtake one another, or if it is of another association or role, which counts at once.
    pub fn replaces(&self, earlier: &Arc<Self>, now: Now) -> bool {
        self.grant != earlier.grant || self.expiry.left(now) >= earlier.expiry.left(now)
    }
}

impl fmt::Debug for CachedCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedCredentials")
            .field("grant", &self.grant)
            .field("expiry", &self.expiry)
            .finish_non_exhaustive()
    }
}
