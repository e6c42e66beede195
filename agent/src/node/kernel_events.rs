//! Waiting for the kernel's news, with a longest rest.
//!
//! Owns: that a subscription which breaks is opened again, and that its lack is a slower pace and no failure. Must not
//! know: what the news are about.

use std::io;
use std::time::Duration;

use tokio::time::sleep;

/// Waits until `next` has news of `source`, or for `rest`. Where there is no source, or it breaks, `open` makes a new one
/// afterwards: so whoever looks after this call has subscribed before, and misses nothing.
pub(super) async fn wait<S>(
    source: &mut Option<S>,
    open: impl FnOnce() -> io::Result<S>,
    next: impl AsyncFnOnce(&mut S) -> io::Result<()>,
    rest: Duration,
) {
    let news = async {
        match source {
            Some(source) => next(source).await,
            None => std::future::pending().await,
        }
    };
    let is_broken = tokio::select! {
        () = sleep(rest) => false,
        news = news => news.is_err(),
    };
    if is_broken || source.is_none() {
        *source = open().ok();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};
    use std::time::Duration;

    use tokio::time::Instant;

    use super::wait;

    const REST: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn news_end_the_rest_and_without_any_it_is_slept_through() {
        let start = Instant::now();
        let mut source = Some(1);
        wait(&mut source, || Ok(2), async |_| Ok(()), REST).await;
        assert_eq!((start.elapsed(), source), (Duration::ZERO, Some(1)));
        wait(&mut source, || Ok(2), async |_| std::future::pending().await, REST).await;
        assert_eq!((start.elapsed(), source), (REST, Some(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_breaks_or_was_never_there_is_opened_again() {
        let mut source = Some(1);
        wait(&mut source, || Ok(2), async |_| Err(Error::from(ErrorKind::BrokenPipe)), REST).await;
        assert_eq!(source, Some(2));
        source = None;
        wait(&mut source, || Err(ErrorKind::PermissionDenied.into()), async |_| Ok(()), REST).await;
        assert_eq!(source, None);
        wait(&mut source, || Ok(3), async |_| Ok(()), REST).await;
        assert_eq!(source, Some(3));
    }
}
