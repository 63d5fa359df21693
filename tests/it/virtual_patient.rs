//! Virtual patients through the real sources: over a pty, and through a real mosquitto.

use std::time::Duration;

use biogate::interpret::link::{Cut, FrameSpec, LinkSpec};
use biogate::source::context::Stop;
use biogate::source::mqtt::publisher::publisher;
use biogate::source::mqtt::{self, MqttBroker, MqttDevice};
use biogate::source::serial::port_name::PortName;
use biogate::source::serial::{self, SILENCE, SerialSettings};
use biogate::source::virtual_patient::{PatientLine, PatientSettings, run_mqtt, run_serial};
use bytes::Bytes;

use crate::rig::mosquitto::Mosquitto;
use crate::rig::source::Rig;
use crate::rig::until;

fn patient() -> PatientSettings {
    PatientSettings { every: Duration::from_millis(20), ..PatientSettings::new(1) }
}

#[tokio::test]
async fn a_patient_is_heard_over_a_serial_line() {
    let (context, mut rig) = Rig::new();
    let line = PatientLine::open().unwrap();
    let settings = SerialSettings {
        device: "anna".into(),
        entry: "anna".into(),
        port: PortName::Path(line.port().to_owned()),
        link: LinkSpec::default(),
        frame: FrameSpec {
            cut: Cut::Line { end: Bytes::from_static(b"\n") },
            max: 120,
            timeout: None,
            checksum: None,
            gather: None,
            unpack: None,
        },
        silence: SILENCE,
    };
    let stop: Stop = context.stop.clone();
    let sources = [tokio::spawn(serial::run(settings, context)), tokio::spawn(run_serial(patient(), line, stop))];
    for _ in 0..20 {
        let text = rig.next_text().await;
        let parts: Vec<&str> = text.split(',').collect();
        assert!(
            matches!(parts[..], [heart, warmth, steps]
            if heart.starts_with("HR:") && warmth.starts_with("T:3") && steps.starts_with("S:")),
            "{text}"
        );
    }
    rig.stop.send(true).unwrap();
    for source in sources {
        source.await.unwrap();
    }
}

#[tokio::test]
async fn a_patient_is_heard_through_a_broker() {
    let Some(broker) = Mosquitto::start() else { return };
    let (context, mut rig) = Rig::new();
    let stop = context.stop.clone();
    let device = |topic: &str| MqttDevice { entry: "ward".into(), topic: topic.parse().unwrap() };
    let devices = vec![device("demo/{device}/vitals"), device("demo/{device}/steps")];
    let _source = tokio::spawn(mqtt::run(MqttBroker::new("ward", &broker.url(), "hub", devices), context));
    until("the source is connected", || rig.state("broker ward").starts_with("connected")).await;
    let (publisher, carry) = publisher(&broker.url(), "patients", stop.clone()).unwrap();
    let _carry = tokio::spawn(carry);
    let _patient = tokio::spawn(run_mqtt(patient(), "demo".to_owned(), "ben".to_owned(), publisher, stop));
    for _ in 0..10 {
        let delivery = rig.next().await;
        assert_eq!(&*delivery.reading.device, "ben");
        let payload: serde_json::Value = serde_json::from_slice(&delivery.reading.bytes).unwrap();
        let keys: Vec<&str> = payload.as_object().unwrap().keys().map(String::as_str).collect();
        assert!(keys == ["hr", "seq", "temp", "ts"] || keys == ["steps", "ts"], "{keys:?}");
    }
}
