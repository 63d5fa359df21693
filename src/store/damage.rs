//! Bytes of the store that are not what was written, and why.

/// Bytes that are not what was written; says what is wrong with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Damaged(pub(super) &'static str);

/// Sealed, and there is no key.
pub(super) const NO_KEY: Damaged = Damaged("it is sealed, and no key_file is set");
/// Sealed with another key (the CRC fits, so it is what was written).
pub(super) const WRONG_KEY: Damaged = Damaged("it was sealed with another key than that of key_file");
