//! The drawing of `decode --explain`: bytes, and under them the fields that they are.

use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;

use crate::interpret::catalog::Explained;

/// One frame and what it said.
pub(super) struct Frame {
    pub(super) profile: Arc<str>,
    /// After unpacking, gathering and decryption; empty where the framing refused it.
    pub(super) bytes: Bytes,
    pub(super) said: Explained,
}

/// Bytes in a row.
const ROW: usize = 16;

/// Draws one frame.
pub(super) fn draw(frame: &Frame) -> String {
    let mut text = String::new();
    let said = &frame.said.interpretation;
    if frame.said.spans.iter().all(|span| span.bytes.is_empty()) {
        let _infallible = writeln!(text, "      {}", String::from_utf8_lossy(&frame.bytes));
        for (name, value) in &said.fields {
            let _infallible = writeln!(text, "      {name} = {}", json!(value));
        }
        return text;
    }
    let value = |name: &str| {
        let found = said.fields.iter().find(|(known, _)| **known == *name);
        found.map_or_else(String::new, |(_, value)| format!(" = {}", json!(value)))
    };
    for (row, bytes) in frame.bytes.chunks(ROW).enumerate() {
        let start = row * ROW;
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let _infallible = writeln!(text, "{start:4}  {}", hex.join(" "));
        for span in frame.said.spans.iter().filter(|span| span.bytes.start / ROW == row) {
            let from = span.bytes.start - start;
            // A field that runs into the next row is marked to this row's end.
            let to = span.bytes.end.min(start + ROW).saturating_sub(start).max(from);
            let marks = vec!["^^"; to - from].join(" ");
            let blank = " ".repeat(3 * from);
            let width = 3 * frame.bytes.len().min(ROW) + 1 - 3 * from;
            let bits = span.bits.map_or_else(String::new, |(high, low)| {
                if high == low { format!(" bit {high}") } else { format!(" bits {high}-{low}") }
            });
            let _infallible = writeln!(text, "      {blank}{marks:<width$}{}{bits}{}", span.name, value(&span.name));
        }
    }
    text
}
