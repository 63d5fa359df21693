//! What can be read of a damaged generation: its raw file is scanned for records, and a new one is made of those that
//! are whole. The damaged folder is kept in `damaged/` until room is needed.

use std::collections::BTreeMap;
use std::path::Path;

use tracing::{error, warn};

use super::disk::{self, REPAIRED};
use super::generation::Generation;
use super::record;

/// Replaces the damaged `gen-N` by one made of its whole records. The bytes of each are given to `each`, in order.
pub(super) fn rebuild(
    row: &Path,
    number: u64,
    why: &str,
    mut each: impl FnMut(&[u8]),
) -> Result<Generation, sled::Error> {
    let folder = disk::folder(row, number);
    let records = scan(&folder.join("db"))?;
    error!(
        generation = number,
        records = records.len(),
        "a part of the store is damaged ({why}); what can be read of it is saved"
    );
    records.values().for_each(|bytes| each(bytes));
    let records: Vec<Vec<u8>> = records.into_values().collect();
    let attic = row.join("damaged");
    // The copy is whole and durable before the damaged folder leaves: a cut between the two renames is mended by `sweep`.
    Generation::birth(row, REPAIRED, number, &records, || {
        std::fs::create_dir_all(&attic)?;
        let kept = (0..1_000).map(|turn| attic.join(format!("gen-{number}-{turn}"))).find(|path| !path.exists());
        disk::rename(&folder, &kept.unwrap_or_else(|| attic.join(format!("gen-{number}-last"))))?;
        disk::sync(&attic)
    })
}

/// Every whole record in a raw file, by number. A file that is missing holds none.
pub(super) fn scan(file: &Path) -> std::io::Result<BTreeMap<u64, Vec<u8>>> {
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(why) => return Err(why),
    };
    let mut found = BTreeMap::new();
    let mut at = 0;
    while let Some(step) = next_magic(&bytes[at..]) {
        at += step;
        match record::chunk_of(&bytes[at..]) {
            Some((number, ..)) => {
                let length =
                    u32::from_le_bytes([bytes[at + 8], bytes[at + 9], bytes[at + 10], bytes[at + 11]]) as usize;
                found.insert(number, bytes[at..at + length].to_vec());
                at += length;
            }
            None => at += 1,
        }
    }
    if found.is_empty() {
        warn!(file = %file.display(), "nothing can be read of it");
    }
    Ok(found)
}

fn next_magic(bytes: &[u8]) -> Option<usize> {
    bytes.windows(record::MAGIC.len()).position(|window| window == record::MAGIC)
}
