//! PURE Whose sensor a peripheral is: by address, by name, or by service where any sensor may be heard.

use std::sync::Arc;

/// Which peripheral an entry means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The one with this address, as `A0:9E:1A:00:11:22`.
    Address(Arc<str>),
    /// One whose advertised name fits, `*` for any text.
    Name(Arc<str>),
    /// Every one that advertises this service (four hexadecimal digits, or 128 bits with hyphens).
    Service(Arc<str>),
}
