//! Runs one source again when its task panics: a fault in one device never stops another, nor itself for good.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;
use tracing::error;

use crate::source::backoff::Backoff;
use crate::source::context::Context;
use crate::source::health::Count;

/// Runs `start` until it returns by itself, which sources do only at a stop. `name` is the device or `broker NAME`.
/// Dropping it ends the source.
pub async fn supervise<S, F>(name: &str, context: Context, start: S)
where
    S: Fn(Context) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let health = context.health.device(name);
    let mut stop = context.stop.clone();
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    loop {
        let mut task = JoinSet::new();
        task.spawn(start(context.clone()));
        let ended = tokio::select! {
            ended = task.join_next() => ended,
            () = stop.wait() => {
                // The intake sees its end only when every way in is gone, this one too.
                drop(context);
                let _last_words = task.join_next().await;
                return;
            }
        };
        match ended {
            Some(Err(panic)) if panic.is_panic() => {
                health.count(Count::Disconnects, 1);
                health.set_trouble("its task panicked and is started again");
                error!(source = name, "a source panicked: {panic}");
            }
            Some(Ok(()) | Err(_)) | None => return,
        }
        if stop.wait_at_most(backoff.next_wait(fastrand::f64())).await {
            return;
        }
    }
}
