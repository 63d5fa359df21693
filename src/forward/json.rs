//! An event as one line of JSON, contract v1.

use crate::event::Event;

/// Appends the line, with its line feed.
pub fn line(into: &mut Vec<u8>, event: &Event) {
    // Names as keys and finite numbers into a Vec: there is nothing that could fail.
    if serde_json::to_writer(&mut *into, event).is_ok() {
        into.push(b'\n');
    }
}
