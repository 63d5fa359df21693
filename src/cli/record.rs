//! `biogate record`: the running gateway's raw frames into a file, one JSON line each, within bounds.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use http_body_util::BodyExt;
use tokio::signal::ctrl_c;
use tokio::time::{Instant, timeout_at};

use crate::config::Config;
use crate::local::client;

/// Arguments of `record`.
#[derive(Debug, Args)]
pub(super) struct RecordArgs {
    /// Where to write; an existing file is not touched
    file: PathBuf,
    /// Only this device
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// End after this time
    #[arg(long, value_name = "TIME", default_value = "1 h", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// End at this size
    #[arg(long, value_name = "SIZE", default_value = "64 MiB")]
    max_bytes: bytesize::ByteSize,
}

/// Records until the time or the size is reached, Ctrl-C, or the gateway stops.
#[allow(clippy::print_stdout, reason = "this command reports to a person")]
pub(super) async fn run(arguments: RecordArgs, file: &Path) -> anyhow::Result<ExitCode> {
    let socket = Config::load(file)?.control_socket();
    let Some(response) = client::open(&socket, "/record").await? else {
        bail!("no gateway listens at {}; start `biogate run` first", socket.display());
    };
    let path = &arguments.file;
    let output = std::fs::File::create_new(path).with_context(|| format!("creating {}", path.display()))?;
    let mut recording = Recording { output, written: 0, frames: 0 };
    let ending = follow(response.into_body(), &arguments, &mut recording).await?;
    recording.output.sync_all().with_context(|| format!("writing {}", path.display()))?;
    println!(
        "recorded frames={} bytes={} file={} ended=\"{ending}\"",
        recording.frames,
        recording.written,
        path.display()
    );
    Ok(ExitCode::SUCCESS)
}

struct Recording {
    output: std::fs::File,
    written: u64,
    frames: u64,
}

async fn follow(
    mut body: hyper::body::Incoming,
    arguments: &RecordArgs,
    recording: &mut Recording,
) -> anyhow::Result<&'static str> {
    let end = Instant::now() + arguments.duration;
    let mut held = Vec::new();
    loop {
        let frame = tokio::select! {
            frame = timeout_at(end, body.frame()) => frame,
            _ = ctrl_c() => return Ok("interrupted"),
        };
        let bytes = match frame {
            Err(_elapsed) => return Ok("time"),
            Ok(None) => return Ok("the gateway stopped"),
            Ok(Some(frame)) => frame.context("the gateway went away")?.into_data().unwrap_or_default(),
        };
        held.extend_from_slice(&bytes);
        while let Some(end_of_line) = held.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = held.drain(..=end_of_line).collect();
            if arguments.device.as_deref().is_some_and(|device| !is_of(&line, device)) {
                continue;
            }
            if recording.written + line.len() as u64 > arguments.max_bytes.as_u64() {
                return Ok("size");
            }
            recording.output.write_all(&line).context("writing the recording")?;
            recording.written += line.len() as u64;
            recording.frames += 1;
        }
    }
}

fn is_of(line: &[u8], device: &str) -> bool {
    let parsed: Option<serde_json::Value> = serde_json::from_slice(line).ok();
    parsed.is_some_and(|frame| frame["device"] == device)
}
