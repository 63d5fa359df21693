//! Where to go on in a part file after a crash. Pure.
//!
//! A range renders the same bytes at every try, so the file's tail can be compared with them byte by byte: exact, and
//! it finds what a power cut leaves (a torn line, zeros where data blocks never came) without any marks in the file.

/// What of a part file's tail stays, and how much of the batch stands in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Resume {
    /// Bytes of the tail that stay; the rest is cut off.
    pub(super) keep: usize,
    /// Bytes of the batch that are there already: whole lines.
    pub(super) written: usize,
}

/// Compares a file's tail with the batch that may have been written there. The tail begins anywhere (`at_start`: at the
/// file's start) and is longer than the batch where the file is.
pub(super) fn resume(tail: &[u8], at_start: bool, batch: &[u8]) -> Resume {
    let mut start = if at_start { Some(0) } else { whole_first_line(tail) };
    while let Some(at) = start {
        let same = tail[at..].iter().zip(batch).take_while(|(there, ours)| there == ours).count();
        let written = whole_lines(&batch[..same]);
        if written > 0 && is_torn(&tail[at + written..]) {
            return Resume { keep: at + written, written };
        }
        start = whole_first_line(&tail[at..]).map(|length| at + length);
    }
    // Not even the batch's first line is there. Only this batch was ever unsynced, so zeros are its lost blocks.
    let sound = tail.iter().position(|&byte| byte == 0).unwrap_or(tail.len());
    Resume { keep: whole_lines(&tail[..sound]), written: 0 }
}

/// Whether nothing whole follows. A sound line that is none of ours was delivered before: a device with an identity of
/// its own may have sent the same reading twice, and what stands behind the first of them must stay.
fn is_torn(rest: &[u8]) -> bool {
    !rest.iter().take_while(|&&byte| byte != 0).any(|&byte| byte == b'\n')
}

/// The length of the first line with its line feed.
fn whole_first_line(text: &[u8]) -> Option<usize> {
    text.iter().position(|&byte| byte == b'\n').map(|at| at + 1)
}

/// The length up to and with the last line feed.
pub(super) fn whole_lines(text: &[u8]) -> usize {
    text.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cut_anywhere_the_file_ends_as_if_never_cut(
            before in proptest::collection::vec("[a-c]{0,4}", 0..6),
            ours in proptest::collection::vec("[d-f]{1,5}", 1..8),
            cut: prop::sample::Index,
            zeros in 0usize..5,
        ) {
            let text = |lines: &[String]| lines.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect::<Vec<u8>>();
            let (before, batch) = (text(&before), text(&ours));
            let whole = [before.clone(), batch.clone()].concat();
            let cut = before.len() + cut.index(batch.len() + 1);
            let mut file = whole[..cut].to_vec();
            file.extend(std::iter::repeat_n(0, zeros));
            let Resume { keep, written } = resume(&file, true, &batch);
            file.truncate(keep);
            file.extend_from_slice(&batch[written..]);
            prop_assert_eq!(file, whole);
        }
    }

    proptest! {
        #[test]
        fn lines_that_were_there_before_stay_though_they_look_like_ours(
            before in proptest::collection::vec("[ab]{0,2}", 0..8),
            ours in proptest::collection::vec("[ab]{1,2}", 1..4),
        ) {
            let text = |lines: &[String]| lines.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect::<Vec<u8>>();
            let (before, batch) = (text(&before), text(&ours));
            let Resume { keep, written } = resume(&before, true, &batch);
            prop_assert_eq!(keep, before.len());
            prop_assert!(before.ends_with(&batch[..written]));
        }
    }

    #[test]
    fn lost_blocks_before_good_ones_are_cut_off() {
        let batch = b"one\ntwo\nthree\n";
        let tail = b"old\n\0\0\0\0two\nthree\n";
        assert_eq!(resume(tail, true, batch), Resume { keep: 4, written: 0 });
    }

    #[test]
    fn a_tail_that_begins_within_a_line_is_read_from_the_next() {
        let batch = b"one\ntwo\n";
        assert_eq!(resume(b"one\none\ntw", false, batch), Resume { keep: 8, written: 4 });
    }
}
