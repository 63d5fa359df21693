//! Serial devices over ptys: frames arrive, an unplugged device comes back, and none can starve another.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use biogate::interpret::link::{Cut, FrameSpec, LinkSpec, Parity, Repeated};
use biogate::reading::Channel;
use biogate::source::delivery::PLACES;
use biogate::source::health::Count;
use biogate::source::serial::port_name::{NotFound, PortName};
use biogate::source::serial::{self, SILENCE, SerialSettings};
use biogate::source::supervise::supervise;
use bytes::Bytes;
use tempfile::TempDir;

use crate::rig::pty::Pty;
use crate::rig::source::Rig;
use crate::rig::until;

fn settings(device: &str, port: &Path) -> SerialSettings {
    let cut = Cut::Line { end: Bytes::from_static(b"\n") };
    SerialSettings {
        device: device.into(),
        entry: device.into(),
        port: PortName::Path(port.to_owned()),
        link: LinkSpec { baud: Some(115_200), parity: Parity::Odd, ..LinkSpec::default() },
        frame: FrameSpec { cut, max: 120, timeout: None, checksum: None, gather: None, unpack: None },
        silence: SILENCE,
    }
}

#[tokio::test]
async fn frames_of_a_line_arrive_in_order() {
    let folder = TempDir::new().unwrap();
    let name = folder.path().join("strap");
    let mut pty = Pty::plug(&name);
    let (context, mut rig) = Rig::new();
    let source = tokio::spawn(serial::run(settings("strap", &name), context));
    pty.send(b"HR:72\r\nHR:7");
    pty.send(b"3\n");
    let first = rig.next().await;
    assert_eq!((&*first.reading.device, &first.reading.channel), ("strap", &Channel::Frame));
    assert_eq!(first.reading.bytes, "HR:72");
    assert_eq!(rig.next_text().await, "HR:73");
    assert_eq!(rig.count("strap", Count::Frames), 2);
    rig.stop.send(true).unwrap();
    source.await.unwrap();
    assert_eq!(rig.state("strap"), "stopped");
}

#[tokio::test]
async fn an_unplugged_device_is_heard_again_when_it_returns() {
    let folder = TempDir::new().unwrap();
    let name = folder.path().join("strap");
    let (context, mut rig) = Rig::new();
    let _source = tokio::spawn(serial::run(settings("strap", &name), context));
    until("the missing port is said", || rig.state("strap").starts_with("cannot open")).await;
    for turn in 0..3u64 {
        let mut pty = Pty::plug(&name);
        until("the port is open", || rig.state("strap") == "open").await;
        pty.send(format!("HR:{turn}\n").as_bytes());
        assert_eq!(rig.next_text().await, format!("HR:{turn}"));
        drop(pty);
        until("the disconnect is counted", || rig.count("strap", Count::Disconnects) == turn + 1).await;
    }
}

#[tokio::test]
async fn garbage_is_counted_and_the_next_line_arrives() {
    let folder = TempDir::new().unwrap();
    let name = folder.path().join("strap");
    let mut pty = Pty::plug(&name);
    let (context, mut rig) = Rig::new();
    let _source = tokio::spawn(serial::run(settings("strap", &name), context));
    pty.send(&[0xf5; 300]);
    pty.send(b"\nHR:72\n");
    assert_eq!(rig.next_text().await, "HR:72");
    assert_eq!(rig.count("strap", Count::Oversized), 1);
    assert_eq!(rig.count("strap", Count::GarbageBytes), 301);
}

#[tokio::test]
async fn a_flooding_device_waits_alone() {
    let folder = TempDir::new().unwrap();
    let (loud, quiet) = (folder.path().join("loud"), folder.path().join("quiet"));
    let (flooder, mut pty) = (Pty::plug(&loud), Pty::plug(&quiet));
    let (context, mut rig) = Rig::new();
    let _sources = [
        tokio::spawn(serial::run(settings("loud", &loud), context.clone())),
        tokio::spawn(serial::run(settings("quiet", &quiet), context)),
    ];
    let mut master = flooder.master();
    std::thread::spawn(move || while master.write_all(b"HR:200\n").is_ok() {});
    until("the flooder's places are taken", || rig.deliveries.len() == PLACES).await;
    pty.send(b"HR:60\n");
    until("the other device has a place of its own", || rig.deliveries.len() == PLACES + 1).await;
    for _ in 0..PLACES {
        assert_eq!(&*rig.next().await.reading.device, "loud");
    }
    assert_eq!(&*rig.next().await.reading.device, "quiet");
    drop(flooder);
}

#[tokio::test]
async fn the_profile_s_writes_reach_the_device() {
    let folder = TempDir::new().unwrap();
    let name = folder.path().join("oximeter");
    let mut pty = Pty::plug(&name);
    let (context, rig) = Rig::new();
    let mut settings = settings("oximeter", &name);
    let every = Duration::from_millis(20);
    let repeated = |byte: &'static [u8]| Some(Repeated { send: vec![Bytes::from_static(byte)], every });
    settings.link.init = vec![Bytes::from_static(b"in"), Bytes::from_static(b"it")];
    settings.link.poll = repeated(b"?");
    let _source = tokio::spawn(serial::run(settings, context));
    let read = tokio::task::spawn_blocking(move || pty.read(7)).await.unwrap();
    assert_eq!(read, b"init???");
    drop(rig);
}

#[tokio::test]
async fn silence_is_reported_once_and_ends_with_a_frame() {
    let folder = TempDir::new().unwrap();
    let name = folder.path().join("strap");
    let mut pty = Pty::plug(&name);
    let (context, mut rig) = Rig::new();
    let mut settings = settings("strap", &name);
    settings.silence = Duration::from_millis(100);
    let _source = tokio::spawn(serial::run(settings, context));
    until("the silence is said", || rig.state("strap").starts_with("silent")).await;
    rig.nothing_comes().await;
    assert_eq!(rig.count("strap", Count::Silences), 1);
    pty.send(b"HR:72\n");
    assert_eq!(rig.next_text().await, "HR:72");
    until("it is heard again", || rig.count("strap", Count::Silences) == 2).await;
}

#[test]
fn a_usb_device_is_found_by_what_it_says_of_itself() {
    let root = TempDir::new().unwrap();
    let (sys, dev) = (root.path().join("sys"), Path::new("/dev"));
    let plug = |usb: &str, tty: &str, serial: &str| {
        let device = sys.join("devices").join(usb);
        let port = device.join("1:1.0").join(tty);
        std::fs::create_dir_all(&port).unwrap();
        for (file, text) in [("idVendor", "10c4"), ("idProduct", "ea60"), ("serial", serial)] {
            std::fs::write(device.join(file), format!("{text}\n")).unwrap();
        }
        let class = sys.join("class/tty").join(tty);
        std::fs::create_dir_all(&class).unwrap();
        std::os::unix::fs::symlink(port, class.join("device")).unwrap();
    };
    std::fs::create_dir_all(sys.join("class/tty/tty0")).unwrap();
    let find = |name: &str| name.parse::<PortName>().unwrap().resolve(&sys, dev);
    assert!(matches!(find("usb:10C4:EA60"), Err(NotFound::Absent(_))));
    plug("1-1", "ttyUSB0", "A1");
    assert_eq!(find("usb:10C4:EA60").unwrap(), dev.join("ttyUSB0"));
    plug("1-2", "ttyUSB1", "B2");
    assert!(matches!(find("usb:10c4:ea60"), Err(NotFound::Several { .. })));
    assert_eq!(find("usb:10c4:ea60:B2").unwrap(), dev.join("ttyUSB1"));
    for bad in ["ttyUSB0", "usb:10c4", "usb:10c4:xyz0", "usb:10c4:ea60:", ""] {
        assert!(bad.parse::<PortName>().is_err(), "{bad}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_panics_is_started_again() {
    let (context, rig) = Rig::new();
    let starts = std::sync::atomic::AtomicU32::new(0);
    let source = supervise("strap", context, |mut context| {
        let first = starts.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
        async move {
            assert!(!first, "as a broken library would");
            context.stop.wait().await;
        }
    });
    let stop = async {
        until("it is started again", || starts.load(std::sync::atomic::Ordering::Relaxed) == 2).await;
        rig.stop.send(true).unwrap();
    };
    tokio::join!(source, stop);
    assert_eq!(rig.state("strap"), "its task panicked and is started again");
}
