//! A recording, read for what one device said on each of its channels.

use std::collections::BTreeMap;
use std::io::BufRead;

use anyhow::{Context, bail};
use bytes::Bytes;

use crate::reading::Channel;
use crate::source::recorded::RecordedFrame;

/// Frames of one channel that are kept for a look; a recording may be long.
const MOST_FRAMES: usize = 4_096;

/// The frames of one device by channel, in the order in which the channels came.
pub(super) type Channels = Vec<(Channel, Vec<Bytes>)>;

/// The frames of the wanted device, or of the only one.
pub(super) fn read(lines: impl BufRead, wanted: Option<&str>) -> anyhow::Result<(String, Channels)> {
    let mut devices: BTreeMap<String, Channels> = BTreeMap::new();
    for (number, line) in lines.split(b'\n').enumerate() {
        let line = line.context("reading the recording")?;
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let place = || format!("line {} of the recording", number + 1);
        let frame = RecordedFrame::parse(&line).with_context(place)?;
        let channels = devices.entry(frame.device.clone().into_owned()).or_default();
        let channel = frame.channel().with_context(place)?;
        let bytes = Bytes::from(frame.bytes().with_context(place)?);
        match channels.iter_mut().find(|(known, _)| is_same(known, &channel)) {
            Some((_, frames)) if frames.len() < MOST_FRAMES => frames.push(bytes),
            Some(_) => {}
            None => channels.push((channel, vec![bytes])),
        }
    }
    let names = devices.keys().cloned().collect::<Vec<_>>().join(", ");
    let device = match wanted {
        Some(name) => name.to_owned(),
        None if devices.len() > 1 => bail!("the recording has several devices ({names}); say which with --device"),
        None => devices.keys().next().cloned().context("the recording is empty")?,
    };
    let channels =
        devices.remove(&device).with_context(|| format!("the recording has no device \"{device}\"; it has {names}"))?;
    Ok((device, channels))
}

/// The address may rotate and a topic may name the bed: neither makes another channel.
pub(super) fn is_same(one: &Channel, other: &Channel) -> bool {
    match (one, other) {
        (Channel::Advertisement { element: one, .. }, Channel::Advertisement { element: other, .. }) => one == other,
        (Channel::Message { .. }, Channel::Message { .. }) => true,
        (one, other) => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_of_several_devices_or_of_none_is_said_so() {
        let line = |device: &str| format!("{{\"t\":1,\"device\":\"{device}\",\"channel\":\"2a19\",\"hex\":\"61\"}}\n");
        let says = |text: &str, device: Option<&str>| format!("{:#}", read(text.as_bytes(), device).unwrap_err());
        assert!(says(&(line("a") + &line("b")), None).contains("a, b"));
        assert!(says(&line("a"), Some("c")).contains("no device \"c\"; it has a"));
        assert!(says("", None).contains("empty"));
        assert!(says("{\"t\":1}", None).contains("line 1"));
    }
}
