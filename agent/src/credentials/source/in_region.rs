//! What a source needs and can be made only when the region is known: its client, and how it is named.
//!
//! Owns: that it is made once, and that nobody goes on without it. Must not know: what it is.

use std::fmt;
use std::sync::{Arc, OnceLock};

use super::{OwnIdentityFault, SourceError};
use crate::aws::region::AwsRegion;

/// Something for the region of this process. Clones share it.
pub(super) struct InRegion<T> {
    region: AwsRegion,
    make: Arc<dyn Fn(&str) -> T + Send + Sync>,
    made: Arc<OnceLock<T>>,
}

impl<T> InRegion<T> {
    /// Made by `make` as soon as the region is known and it is needed.
    pub(super) fn new(region: AwsRegion, make: impl Fn(&str) -> T + Send + Sync + 'static) -> Self {
        Self { region, make: Arc::new(make), made: Arc::default() }
    }

    /// What a call needs; the region is read again at once where it is not known.
    ///
    /// # Errors
    /// [`OwnIdentityFault::RegionUnknown`].
    pub(super) fn get(&self) -> Result<&T, SourceError> {
        let name = self.region.needed();
        let name = name.ok_or(SourceError::OwnIdentity(OwnIdentityFault::RegionUnknown))?;
        Ok(self.made.get_or_init(|| (self.make)(&name)))
    }

    /// Whether the region is known.
    pub(super) fn is_known(&self) -> bool {
        self.region.get().is_some()
    }

    /// What has been made, for those who only speak of it.
    pub(super) fn made(&self) -> Option<&T> {
        self.made.get()
    }
}

impl<T> Clone for InRegion<T> {
    fn clone(&self) -> Self {
        Self { region: self.region.clone(), make: Arc::clone(&self.make), made: Arc::clone(&self.made) }
    }
}

impl<T> fmt::Debug for InRegion<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InRegion").field("region", &self.region).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::InRegion;
    use crate::aws::canned::{self, Canned};
    use crate::aws::own_identity::imds::InstanceRole;
    use crate::aws::region::AwsRegion;
    use crate::clock::{Clock, Simulated};
    use crate::rng::Rng;

    #[tokio::test(start_paused = true)]
    async fn it_is_made_for_the_region_that_was_read_and_once() {
        let region = AwsRegion::unknown();
        let one = InRegion::new(region.clone(), |name| Box::new(name.to_owned()));
        let other = one.clone();
        assert_eq!(one.get().unwrap_err().label(), "region_unknown");
        assert!(!one.is_known() && one.made().is_none());
        let clock = Clock::simulated(Simulated::starting_at(UNIX_EPOCH + Duration::from_secs(1_800_000_000)));
        let says = |_: &str| Canned {
            status: 200,
            headers: vec![("x-aws-ec2-metadata-token-ttl-seconds", "21600".to_owned())],
            body: b"eu-west-1".to_vec(),
        };
        let instance = InstanceRole::through(canned::client(says), None, false, &clock);
        region.learn(instance, clock, Rng::seeded(7), |_| {}).await;
        assert!(one.is_known());
        assert_eq!(one.get().unwrap().as_str(), "eu-west-1");
        assert!(std::ptr::eq(&**one.get().unwrap(), &**other.get().unwrap()));
    }
}
