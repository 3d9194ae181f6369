//! A panic is one task's fault: it ends the work that it was met in, and what that work holds for others is given back.
//! Where nothing more than a task ends, tokio catches it; here is for work whose end must be tended to.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::watch;

/// How long a duty rests after a panic: what broke it is likely to be there still.
const REST: Duration = Duration::from_secs(30);

/// What a panic said. Where it was is in the log already.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a fault of the service: {0}")]
pub struct Panicked(String);

/// Does the work up to its end, or to its panic. What it borrows is whole in memory's sense but may be half changed: look at
/// no more of it than must be given back. (Locks are taken in spite of a panic everywhere, `PoisonError::into_inner`.)
pub async fn caught<F: Future>(work: F) -> Result<F::Output, Panicked> {
    let mut work = pin!(work);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(done)) => Poll::Ready(Ok(done)),
        Err(said) => {
            let text = said.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| said.downcast_ref::<String>().cloned());
            Poll::Ready(Err(Panicked(text.unwrap_or_else(|| "a panic without words".into()))))
        }
    })
    .await
}

/// Does a duty for as long as the service runs: where a panic ends it, it begins again after a rest.
pub async fn kept<F: Future<Output = ()>>(duty: &'static str, stop: watch::Receiver<bool>, begin: impl FnMut() -> F) {
    kept_after(REST, duty, stop, begin).await;
}

async fn kept_after<F: Future<Output = ()>>(
    rest: Duration,
    duty: &'static str,
    mut stop: watch::Receiver<bool>,
    mut begin: impl FnMut() -> F,
) {
    while let Err(panicked) = caught(begin()).await {
        tracing::error!(duty, "{panicked}; the duty begins again in {} s", rest.as_secs());
        let stopped = async { stop.wait_for(|stop| *stop).await.map(drop) };
        if tokio::time::timeout(rest, stopped).await.is_ok() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A panic in a duty on the main task ended the process, and every request with it.
    #[tokio::test]
    async fn a_duty_that_panics_begins_again_and_ends_with_the_service() {
        let (stop, stopping) = watch::channel(false);
        let mut times = 0;
        kept_after(Duration::from_millis(1), "count", stopping.clone(), || {
            times += 1;
            let times = times;
            async move { assert!(times == 3, "the {times}. time") }
        })
        .await;
        assert_eq!(times, 3);

        let broken = kept("break", stopping, || async { panic!("always") });
        let ended = async { stop.send(true).unwrap() };
        // Within the first rest.
        tokio::time::timeout(REST / 2, async { tokio::join!(broken, ended) }).await.expect("it ends with the service");
    }

    #[tokio::test]
    async fn work_ends_with_what_it_made_or_with_its_panic() {
        assert_eq!(caught(async { 7 }).await, Ok(7));
        let number = 5;
        let broken = caught(async {
            tokio::task::yield_now().await;
            if number > 4 {
                panic!("more than {}", 4);
            }
            number
        });
        assert_eq!(broken.await.unwrap_err().to_string(), "a fault of the service: more than 4");
    }
}
