//! The durable queue: what was acknowledged lies here until every destination has it.
//!
//! # Contract
//!
//! - **After `commit` answers, its observations and state are on the disk**, through a power cut. Before, the source may
//!   repeat; after, the house owes them.
//! - **Order is by sequence.** Each observation gets the next number, from 1; none is ever given twice.
//! - **Each destination has a cursor and at most one range in hand.** A range is whole chunks of one generation and is
//!   durable before [`Store::next_range`] returns it, so that a retry after a crash sends the same rows. It may be
//!   extended by the range behind it, durably as well, and settled from its front. A moved cursor may ride on the next
//!   record: a crash before it repeats what was in hand.
//! - **Readers see only what is durable.**
//! - **The ledger balances at every moment**: `stored = before + delivered + rejected + parked + passed_over +
//!   evicted + damaged + waiting` for each destination; totals are committed in the same record as what they count.
//! - A destination that is new in the configuration starts at the oldest observation still kept; `before` counts those
//!   that had already gone. One that was removed from the configuration holds nothing back: its totals are logged and
//!   dropped.
//! - **It always starts**, whatever lies on the disk. The refusals are another process that holds the lock, a format
//!   newer than this program, and a key that is not the store's (taking that for damage would destroy the store). A full
//!   disk, an IO error or a missing permission is said plainly and is no damage.
//! - **It never lies**: no receipt after an error, and the disk is never replaced by memory in silence.
//!
//! # Form
//!
//! A commit is one *record*: the observations as a *chunk*, the state keys that it changed, a CRC; one insert of one
//! value into one key, so no transaction is needed. Records lie in *generations*: small append-only sled databases, each
//! beginning with the whole state, in which nothing is ever removed. Open are only the newest and those under a cursor;
//! one below every cursor is deleted whole. State lives in memory; an open folds the newest generation.
//!
//! Durable means our own `fdatasync` of sled's file after sled's flush: sled's flush ends in `sync_file_range`, which
//! makes nothing durable. After any error from sled the database is never dropped (that can hang for ever) and never
//! used again: the error is [`Error::Fatal`], the process ends, and the next open tells what is there. A failed
//! fdatasync is never retried.
//!
//! # Reports
//!
//! Rows beside the events ([`crate::report`]) lie in `reports/`, a row of generations of the same form: durable when
//! [`Store::report`] answers, given to each destination at least once, in the order of their kind. They never endanger
//! events: a report is refused while the disk is nearly full, and of too many the oldest go.
//!
//! # Limits
//!
//! | what | limit | why |
//! | --- | --- | --- |
//! | record | 120 KiB | a log item over 131,052 bytes leaves sled's log for a file that nobody syncs |
//! | chunk | 96 KiB | leaves room for the state beside it; a commit of more is several records, state in the last |
//! | one state value | 64 KiB as the store's compression leaves it | it lies in one record |
//! | records in one tree | 8 | sled rewrites a leaf whole at its tenth link |
//! | records in a generation | 4,096, or `generation_bytes` | memory: sled keeps what was appended |
//! | bytes kept of an aside entry | 64 KiB | longer: the entry is kept without them and counted |
//! | commit, and closing | 10 s | then the disk is taken for dead |
//! | gaps kept | 1,024 | older ones become one |
//! | reports kept | 16 MiB | the oldest go first, counted |
//!
//! A single observation whose chunk is over its limit is kept without its metadata, which says so.

mod api;
mod aside;
mod aside_entry;
mod aside_read;
mod cbor;
mod chunk;
#[cfg(test)]
mod chunk_tests;
mod chunks;
mod commit;
mod damage;
mod drain;
mod error;
mod folder;
mod full;
mod generation;
mod handle;
mod inspect;
mod ledger;
mod open;
mod queue;
mod record;
mod removed;
mod reports;
mod row;
#[cfg(test)]
mod row_tests;
mod rows;
mod salvage;
mod seal;
mod sums;
mod thread;
mod view;

pub use api::*;
pub use aside_entry::*;
pub use chunks::Chunks;
pub use error::Error;
pub use handle::Store;

/// The format that this program writes; it reads all up to it.
const FORMAT: u32 = 1;

#[cfg(test)]
mod tests;
