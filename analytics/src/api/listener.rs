//! Connections: how many, how slow, and how they end.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutStream;
use tracing::{debug, info, warn};

use super::{Api, FOLLOW_TOKENS, router};

/// A request's head may be this long; hyper answers 431 to a longer one.
const HEAD: usize = 16 * 1024;

/// How many headers it may have.
const HEADERS: usize = 64;

/// After an accept that failed, for want of file descriptors mostly.
const AFTER_TROUBLE: Duration = Duration::from_millis(200);

/// Serves until `stop`; then requests in hand are answered, and nobody else.
pub async fn serve(api: Arc<Api>, listener: TcpListener, stop: impl Future<Output = ()>) -> io::Result<()> {
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() {
        warn!("listening at {address}, off loopback: tokens and health values pass in clear; put TLS in front");
    }
    info!("answers at http://{address}; /openapi.json says what");
    let app = router(&api);
    let places = Arc::new(Semaphore::new(usize::from(api.settings.connections)));
    let graceful = GracefulShutdown::new();
    let follow = tokio::spawn(api.gate.clone().follow(FOLLOW_TOKENS));
    let mut stop = pin!(stop);
    loop {
        let accepted = async {
            // A connection beyond the number waits in the kernel's queue.
            let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((place, listener.accept().await?.0))
        };
        let (place, stream) = tokio::select! {
            () = &mut stop => break,
            accepted = accepted => match accepted {
                Ok(accepted) => accepted,
                Err(why) => {
                    warn!("cannot accept a connection: {why}");
                    tokio::time::sleep(AFTER_TROUBLE).await;
                    continue;
                }
            },
        };
        connection(&api, &graceful, app.clone(), place, stream);
    }
    drop(listener);
    follow.abort();
    info!("stopping: requests in hand are answered");
    if tokio::time::timeout(api.settings.shutdown_timeout, graceful.shutdown()).await.is_err() {
        warn!("requests in hand were cut off after {:?}", api.settings.shutdown_timeout);
    }
    Ok(())
}

/// One connection as a task of its own.
fn connection(
    api: &Arc<Api>,
    graceful: &GracefulShutdown,
    app: axum::Router,
    place: OwnedSemaphorePermit,
    stream: TcpStream,
) {
    if let Err(why) = stream.set_nodelay(true) {
        debug!("no TCP_NODELAY: {why}");
    }
    let patience = api.settings.client_timeout;
    // A client that reads nothing holds its answer no longer than this.
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(patience));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_buf_size(HEAD)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(app));
    let served = graceful.watch(served);
    let open = api.clone();
    open.metrics.connections.inc();
    tokio::spawn(async move {
        let _place = place;
        if let Err(why) = served.await {
            debug!("a connection ended: {why}");
        }
        open.metrics.connections.dec();
    });
}
