//! The file destination: NDJSON, one event a line (contract v1), for archives, demos and sites without a warehouse.
//!
//! Files are `events-YYYYMMDDTHHMMSSZ-N.ndjson` (reports: `gateway-status-...` and the like), written as `.part` and
//! renamed when they are closed. A batch counts as
//! delivered once its bytes and its file's name are on the disk (fsync of both). All disk work runs on a blocking
//! thread; a disk that hangs is reported while the batch waits, and is never written to by two threads.

mod part;
mod resume;
mod writer;

use std::path::PathBuf;
use std::time::Duration;

use tokio::task::JoinHandle;
use tracing::error;

use crate::forward::health::Health;
use crate::forward::refusal::{Refusal, Trouble};
use crate::forward::rows::Batch;
use crate::forward::{BatchLimit, Delivery};
use crate::report::{Kind, Report};

use writer::Writer;

/// A disk that has not answered for so long is said to hang.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where and how the files are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The folder. It is made at the start; one that goes missing later is waited for.
    pub dir: PathBuf,
    /// A file is closed when it has this many bytes.
    pub rotate_bytes: u64,
    /// A file is closed when it is this old, also when nothing arrives.
    pub rotate_age: Duration,
    /// The size of a batch.
    pub batch: BatchLimit,
}

impl Settings {
    /// The usual sizes: 64 MiB or an hour.
    pub fn new(dir: PathBuf) -> Self {
        Settings {
            dir,
            rotate_bytes: 64 << 20,
            rotate_age: Duration::from_secs(3600),
            batch: BatchLimit { usual_rows: 8_192, most_rows: 8_192, bytes: 4 << 20 },
        }
    }
}

/// Finds out whether a file can be made in the folder.
pub(super) async fn probe(settings: &Settings) -> Result<(), Refusal> {
    let path = settings.dir.join(".biogate-probe");
    let tried =
        tokio::task::spawn_blocking(move || std::fs::write(&path, b"").and_then(|()| std::fs::remove_file(&path)));
    let why = match tried.await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => panic.to_string(),
    };
    let reason = format!("no file can be made in {}: {why}", settings.dir.display());
    Err(Refusal::new(Trouble::Disk, reason).not_arrived())
}

/// The destination's way in from async code. The writer lives here or on the blocking thread, never on both.
#[derive(Debug)]
pub struct File {
    settings: Settings,
    health: Health,
    writer: Option<Writer>,
    /// A try that its caller gave up on; it still owns the writer.
    working: Option<JoinHandle<Work>>,
}

/// What comes back from the blocking thread: the writer, and after a success the batch.
type Work = (Writer, Result<Option<Batch>, Refusal>);

impl File {
    /// A destination that has not touched the disk yet.
    pub fn new(settings: Settings, health: Health) -> Self {
        File { writer: Some(Writer::new(settings.clone())), settings, health, working: None }
    }

    /// Writes the rows of a batch. A batch that failed is consumed: its range is read again for the next try.
    pub async fn deliver(&mut self, mut batch: Batch) -> Delivery {
        match self.run(move |writer| writer.write(&mut batch).map(|()| Some(batch))).await {
            Ok(Some(batch)) => Delivery::Done(batch),
            Ok(None) => Delivery::Again(Refusal::new(Trouble::Internal, "the batch went missing".to_owned())),
            Err(refusal) => Delivery::Again(refusal),
        }
    }

    /// Writes reports of one kind, one a line, into files of their own.
    pub async fn report(&mut self, kind: Kind, reports: &[Report]) -> Result<(), Refusal> {
        let reports = reports.to_vec();
        self.run(move |writer| writer.report(kind, &reports).map(|()| None)).await.map(|_| ())
    }

    /// When the file in hand will be old enough to be closed.
    pub fn due(&self) -> Option<Duration> {
        self.writer.as_ref().and_then(Writer::due_in)
    }

    /// Closes the file in hand if it is due. `Err` says why that has to wait.
    pub async fn rotate(&mut self) -> Result<(), Refusal> {
        self.run(|writer| writer.rotate_if_due().map(|()| None)).await.map(|_| ())
    }

    async fn run(
        &mut self,
        work: impl FnOnce(&mut Writer) -> Result<Option<Batch>, Refusal> + Send + 'static,
    ) -> Result<Option<Batch>, Refusal> {
        self.reclaim().await;
        // After a panic of the writer a new one takes up the part file that the old one left.
        let mut writer = self.writer.take().unwrap_or_else(|| Writer::new(self.settings.clone()));
        self.working = Some(tokio::task::spawn_blocking(move || {
            let result = work(&mut writer);
            (writer, result)
        }));
        self.reclaim().await.unwrap_or_else(|| {
            Err(Refusal::new(Trouble::Internal, "writing the file ended unexpectedly; see the log".to_owned()))
        })
    }

    /// Waits until the blocking thread gives the writer back. Cancel-safe: a dropped call leaves the handle in place.
    async fn reclaim(&mut self) -> Option<Result<Option<Batch>, Refusal>> {
        let handle = self.working.as_mut()?;
        let joined = loop {
            match tokio::time::timeout(PATIENCE, &mut *handle).await {
                Ok(joined) => break joined,
                Err(_) => {
                    let reason = format!("the disk under {} has not answered for 30 s", self.settings.dir.display());
                    self.health.retrying(Trouble::Disk.name(), &reason, 1);
                }
            }
        };
        self.working = None;
        match joined {
            Ok((writer, result)) => {
                self.writer = Some(writer);
                Some(result)
            }
            Err(panic) => {
                error!("the file writer ended: {panic}");
                None
            }
        }
    }
}
