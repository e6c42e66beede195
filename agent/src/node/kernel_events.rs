//! Waiting for an event from the kernel, but no longer than a poll interval.
//!
//! Owns: reopening a subscription that failed. Without a subscription the caller polls, which is slower but
//! not a failure. Must not know: what the events are about.

use std::io;
use std::time::Duration;

use tokio::time::sleep;

/// Waits until `next` returns an event of `subscription`, at most for `poll_interval`. If there is no
/// subscription, or it fails, `open` makes a new one before this returns. So a caller that observes after
/// this call is already subscribed, and misses no change. Returns what `next` said of the event, if there was
/// one.
pub(super) async fn wait<S, E>(
    subscription: &mut Option<S>,
    open: impl FnOnce() -> io::Result<S>,
    next: impl AsyncFnOnce(&mut S) -> io::Result<E>,
    poll_interval: Duration,
) -> Option<E> {
    let event = async {
        match subscription {
            Some(subscription) => next(subscription).await,
            None => std::future::pending().await,
        }
    };
    let event = tokio::select! {
        () = sleep(poll_interval) => None,
        event = event => Some(event),
    };
    if matches!(event, Some(Err(_))) || subscription.is_none() {
        *subscription = open().ok();
    }
    event?.ok()
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind, Result};
    use std::time::Duration;

    use tokio::time::Instant;

    use super::wait;

    const POLL_INTERVAL: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn an_event_ends_the_wait_and_without_one_the_poll_interval_does() {
        let start = Instant::now();
        let mut subscription = Some(1);
        let event = wait(&mut subscription, || Ok(2), async |_| Ok('e'), POLL_INTERVAL).await;
        assert_eq!((event, start.elapsed(), subscription), (Some('e'), Duration::ZERO, Some(1)));
        let never = async |_: &mut i32| std::future::pending::<Result<char>>().await;
        let event = wait(&mut subscription, || Ok(2), never, POLL_INTERVAL).await;
        assert_eq!((event, start.elapsed(), subscription), (None, POLL_INTERVAL, Some(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_subscription_that_fails_or_was_never_there_is_opened_again() {
        let mut subscription = Some(1);
        let fails = async |_: &mut i32| Err::<(), _>(Error::from(ErrorKind::BrokenPipe));
        assert_eq!(wait(&mut subscription, || Ok(2), fails, POLL_INTERVAL).await, None);
        assert_eq!(subscription, Some(2));
        subscription = None;
        wait(&mut subscription, || Err(ErrorKind::PermissionDenied.into()), async |_| Ok(()), POLL_INTERVAL)
            .await;
        assert_eq!(subscription, None);
        wait(&mut subscription, || Ok(3), async |_| Ok(()), POLL_INTERVAL).await;
        assert_eq!(subscription, Some(3));
    }
}
