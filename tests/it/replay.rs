//! Replay: recorded frames are heard again, at the time they were recorded, as fast as asked.

use std::fmt::Write;
use std::io::Write as _;
use std::time::Duration;

use biogate::reading::{BootId, Channel, Element, Heard};
use biogate::source::recorded::RecordedFrame;
use biogate::source::replay::{self, ReplayError, ReplaySettings, Replayed, Speed};
use tempfile::NamedTempFile;

use crate::rig::source::Rig;

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn settings(file: &NamedTempFile, speed: Speed) -> ReplaySettings {
    let entries = ["strap", "scale"].map(|name| (name.into(), name.into())).into();
    ReplaySettings { file: file.path().to_owned(), speed, entries }
}

const LINES: &str = r#"{"t":1000,"device":"strap","channel":"2A37","hex":"0048"}
{"t":1100,"device":"stranger","channel":"frame","hex":"00"}

{"t":1200,"device":"scale","channel":"advertisement","address":"A0:9E:1A:00:11:22","manufacturer":1177,"hex":"05"}
{"t":1300,"device":"strap","channel":"clinic/strap/vitals","hex":"7B7D"}
"#;

#[tokio::test]
async fn frames_are_heard_when_they_were_recorded() {
    let (context, mut rig) = Rig::new();
    let file = file(LINES);
    let replayed = replay::run(settings(&file, Speed::Full), context).await.unwrap();
    assert_eq!(replayed, Replayed { frames: 3, without_entry: 1 });
    let first = rig.next().await.reading;
    assert_eq!((&*first.device, &*first.bytes, first.channel), ("strap", &[0, 0x48][..], Channel::Gatt("2a37".into())));
    assert_eq!(first.heard, Heard { boot: BootId::WALL, ms: 1_000 });
    let element = Element::Manufacturer(1_177);
    let advertisement = Channel::Advertisement { address: "A0:9E:1A:00:11:22".into(), element };
    assert_eq!(rig.next().await.reading.channel, advertisement);
    assert_eq!(rig.next().await.reading.channel, Channel::Message { topic: "clinic/strap/vitals".into() });
}

#[tokio::test]
async fn what_was_replayed_can_be_recorded_again() {
    let (context, mut rig) = Rig::new();
    let file = file(LINES);
    replay::run(settings(&file, Speed::Full), context).await.unwrap();
    let mut lines = String::new();
    while let Some(delivery) = rig.deliveries.recv().await {
        let frame = RecordedFrame::from_reading(&delivery.reading, delivery.reading.heard.ms);
        writeln!(lines, "{}", serde_json::to_string(&frame).unwrap()).unwrap();
    }
    let of_entries = LINES.lines().filter(|line| !line.is_empty() && !line.contains("stranger"));
    let expected: Vec<String> = of_entries.map(|line| line.replace("2A37", "2a37").replace("7B7D", "7b7d")).collect();
    assert_eq!(lines.lines().collect::<Vec<_>>(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_factor_keeps_the_distances() {
    let (context, rig) = Rig::new();
    let file = file(LINES);
    let start = tokio::time::Instant::now();
    replay::run(settings(&file, Speed::Factor(0.5)), context).await.unwrap();
    let passed = start.elapsed();
    assert!((Duration::from_millis(600)..Duration::from_millis(620)).contains(&passed), "{passed:?}");
    drop(rig);
}

#[tokio::test]
async fn a_bad_line_is_named() {
    for (bad, message) in [
        ("{\"t\":1,\"device\":\"strap\",\"channel\":\"frame\",\"hex\":\"0\"}\n", "\"hex\" is not hex: 0"),
        ("{\"t\":1,\"device\":\"strap\",\"channel\":\"frame\",\"hx\":\"0\"}\n", "unknown field `hx`"),
        ("hello\n", "expected value"),
    ] {
        let (context, _rig) = Rig::new();
        let file = file(&format!("{LINES}{bad}"));
        let error = replay::run(settings(&file, Speed::Full), context).await.unwrap_err();
        assert!(matches!(error, ReplayError::Line { line: 6, .. }), "{error}");
        assert!(error.to_string().starts_with(&format!("{}:6: {message}", file.path().display())), "{error}");
    }
}

#[tokio::test]
async fn many_frames_pass_in_constant_memory() {
    const FRAMES: usize = 100_000;
    let mut text = String::new();
    for n in 0..FRAMES {
        writeln!(text, r#"{{"t":{n},"device":"strap","channel":"2a37","hex":"1648aabb"}}"#).unwrap();
    }
    let (context, mut rig) = Rig::new();
    let file = file(&text);
    let replayed = tokio::spawn(replay::run(settings(&file, Speed::Full), context));
    let mut heard = 0;
    while let Some(delivery) = rig.deliveries.recv().await {
        assert_eq!(delivery.reading.heard.ms, heard);
        heard += 1;
    }
    assert_eq!(replayed.await.unwrap().unwrap().frames, heard);
}
