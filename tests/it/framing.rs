//! Framing: any split of the stream gives the same frames, and garbage never costs a good frame after it.

use std::time::Duration;

use biogate::interpret::link::{
    BitAt, ChecksumKind, ChecksumSpec, Cut, FrameSpec, Gather, LengthField, LengthKind, SyncByte, Unpack,
};
use biogate::source::framing::{Framer, Tally};
use bytes::Bytes;
use proptest::prelude::*;

fn spec(cut: Cut, max: usize) -> FrameSpec {
    FrameSpec { cut, max, timeout: None, checksum: None, gather: None, unpack: None }
}

fn line(max: usize) -> FrameSpec {
    spec(Cut::Line { end: Bytes::from_static(b"\n") }, max)
}

fn delimited() -> FrameSpec {
    spec(Cut::Delimiter { delimiter: Bytes::from_static(b"\x7e\x7d") }, 16)
}

/// Five bytes, the top bit set in the first only: the CMS50's form.
fn synced() -> FrameSpec {
    let mut sync = vec![SyncByte { mask: 0x80, value: 0 }; 5];
    sync[0].value = 0x80;
    spec(Cut::Fixed { length: 5, sync }, 5)
}

fn summed(frame: FrameSpec) -> FrameSpec {
    let checksum = ChecksumSpec { kind: ChecksumKind::Sum8, over: (0, -2), at: -1, big_endian: false };
    FrameSpec { checksum: Some(checksum), ..frame }
}

fn headed() -> FrameSpec {
    let length = LengthField { at: 2, kind: LengthKind::U8, plus: 4 };
    summed(spec(Cut::Header { header: Bytes::from_static(b"\xaa\x55"), length }, 64))
}

fn gathered() -> FrameSpec {
    let gather = Gather { frames: 3, first_if: BitAt { byte: 1, bit: 0 } };
    FrameSpec { gather: Some(gather), ..summed(spec(Cut::Fixed { length: 3, sync: Vec::new() }, 3)) }
}

fn cut(spec: &FrameSpec, pieces: &[&[u8]]) -> (Vec<Bytes>, Tally) {
    let (mut framer, mut frames) = (Framer::new(spec.clone()), Vec::new());
    for piece in pieces {
        framer.push(piece, 0, &mut frames);
    }
    (frames, framer.take_tally())
}

fn texts(frames: &[Bytes]) -> Vec<String> {
    frames.iter().map(|frame| String::from_utf8_lossy(frame).into_owned()).collect()
}

#[test]
fn lines_lose_their_end_and_empty_ones_are_none() {
    let (frames, tally) = cut(&line(120), &[b"HR:72\r\n\n\r\nHR", b":73\nrest"]);
    assert_eq!(texts(&frames), ["HR:72", "HR:73"]);
    assert_eq!(tally, Tally::default());
}

#[test]
fn a_line_over_the_limit_is_skipped_with_its_tail() {
    let long = [b"x".repeat(500), b"HR:99\nHR:72\n".to_vec()].concat();
    let (frames, tally) = cut(&line(20), &[&long]);
    assert_eq!(texts(&frames), ["HR:72"]);
    assert_eq!((tally.oversized, tally.garbage_bytes), (1, 506));
}

#[test]
fn a_stream_that_begins_in_the_middle_loses_its_first_line() {
    let (mut framer, mut frames) = (Framer::new(line(120)), Vec::new());
    framer.begin_in_the_middle();
    framer.push(b"72\n173\n", 0, &mut frames);
    assert_eq!(texts(&frames), ["173"]);
    assert_eq!(framer.take_tally().garbage_bytes, 3);
}

#[test]
fn a_synced_frame_finds_its_feet_after_garbage() {
    let (frames, tally) = cut(&synced(), &[&[1, 2, 0x80, 3, 0x81, 1, 2, 3, 4, 0x82, 5, 6, 7, 8]]);
    assert_eq!(frames, [&[0x81, 1, 2, 3, 4][..], &[0x82, 5, 6, 7, 8]]);
    assert_eq!(tally.garbage_bytes, 4);
}

#[test]
fn a_wrong_checksum_costs_one_frame_and_is_counted() {
    let good = [0xaa, 0x55, 1, 7, 0x07];
    let bad = [0xaa, 0x55, 1, 7, 0x08];
    let (frames, tally) = cut(&headed(), &[&bad, &good]);
    assert_eq!(frames, [&good[..]]);
    assert_eq!((tally.checksum_failures, tally.garbage_bytes), (1, 5));
}

#[test]
fn an_impossible_length_does_not_swallow_what_follows() {
    let good = [0xaa, 0x55, 1, 7, 0x07];
    let (frames, _) = cut(&headed(), &[&[0xaa, 0x55, 0xff], &good]);
    assert_eq!(frames, [&good[..]]);
}

#[test]
fn what_stands_before_the_first_delimiter_is_no_frame() {
    let (frames, tally) = cut(&delimited(), &[b"ab\x7e\x7dcd\x7e\x7d\x7e\x7def\x7e\x7d"]);
    assert_eq!(texts(&frames), ["cd", "ef"]);
    assert_eq!(tally.garbage_bytes, 4);
}

#[test]
fn stuffed_frames_are_unstuffed() {
    let cobs = spec(Cut::Cobs, 300);
    let (frames, tally) = cut(&cobs, &[&[3, 0x11, 0x22, 2, 0x33, 0, 1, 1, 0, 9, 1, 0, 2, 5, 0]]);
    assert_eq!(frames, [&[0x11, 0x22, 0, 0x33][..], &[0], &[5]]);
    assert_eq!(tally.garbage_bytes, 3);
}

#[test]
fn frames_are_gathered_from_their_first_one() {
    let frame = |first: u8, sum_of: u8| [sum_of, first, sum_of.wrapping_add(first)];
    let (frames, tally) = cut(&gathered(), &[&[frame(0, 9), frame(1, 2), frame(0, 3), frame(0, 4)].concat()]);
    assert_eq!(frames, [&[2, 1, 3, 3, 0, 3, 4, 0, 4][..]]);
    assert_eq!(tally.ungathered, 1);
}

#[test]
fn high_bits_are_unpacked() {
    let fixed = spec(Cut::Fixed { length: 3, sync: Vec::new() }, 3);
    let (frames, _) = cut(&FrameSpec { unpack: Some(Unpack::HighBits), ..fixed }, &[&[1, 0x81, 0x85]]);
    assert_eq!(frames, [&[1, 0x85][..]]);
}

#[test]
fn a_pause_inside_a_frame_drops_what_came_of_it() {
    let spec = FrameSpec { timeout: Some(Duration::from_millis(50)), ..synced() };
    let (mut framer, mut frames) = (Framer::new(spec), Vec::new());
    framer.push(&[0x80, 1, 2], 100, &mut frames);
    framer.push(&[0x81, 1, 2, 3, 4], 150, &mut frames);
    assert_eq!(frames, [&[0x81, 1, 2, 3, 4][..]]);
    assert_eq!(framer.take_tally().garbage_bytes, 3);
}

/// Bytes that look like frames of every kind, and garbage between.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        "[A-Z:0-9]{0,12}\r?\n".prop_map(String::into_bytes),
        Just(vec![0xaa, 0x55, 1, 7, 0x07]),
        Just(vec![0xaa, 0x55, 0, 0xff]),
        Just(b"\x7e\x7dabc\x7e\x7d".to_vec()),
        Just(vec![0x81, 1, 2, 3, 4]),
        Just(vec![3, 0x11, 0x22, 2, 0x33, 0]),
        Just(vec![5, 1, 6, 2, 0, 2, 9, 0, 9]),
        prop::collection::vec(any::<u8>(), 0..40),
    ];
    prop::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_split_gives_the_same_frames_and_counts(
        stream in stream(),
        splits in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut at: Vec<usize> = splits.iter().map(|index| index.index(stream.len() + 1)).collect();
        at.extend([0, stream.len()]);
        at.sort_unstable();
        let pieces: Vec<&[u8]> = at.windows(2).map(|ends| &stream[ends[0]..ends[1]]).collect();
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        for spec in [line(10), delimited(), synced(), headed(), gathered(), spec(Cut::Cobs, 12)] {
            let (whole, tally) = cut(&spec, &[&stream]);
            let (split, split_tally) = cut(&spec, &pieces);
            prop_assert_eq!(&whole, &split);
            prop_assert_eq!(&whole, &cut(&spec, &bytes).0);
            // What is still undecided at the end of the stream may be counted later in one cut than in the other.
            prop_assert_eq!(tally.checksum_failures, split_tally.checksum_failures);
            prop_assert!(whole.iter().all(|frame| frame.len() <= spec.max * 3));
        }
    }
}
