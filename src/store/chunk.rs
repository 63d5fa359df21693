//! The form of a chunk: the observations of one commit, as bytes. Pure.
//!
//! ```text
//! offset  bytes  what (integers little-endian)
//!      0      8  magic, so that a damaged file can be scanned for chunks
//!      8      1  version, 1
//!      9      1  flags: 1 = the body is sealed
//!     10      2  zero
//!     12      4  length of the body in the file
//!     16      4  length of the body's CBOR before compression
//!     20      4  number of observations
//!     24      8  sequence of the first observation
//!     32     16  run id
//!     48      4  CRC-32 of bytes 0..48 and of the body
//!     52         body: zstd of `[[text ...], [boot id ...], [observation ...]]`, then sealed if a key is set
//! ```
//!
//! A chunk that is for one destination only has the destination's name as a fourth part.
//!
//! What an observation looks like is in `rows`.

use uuid::Uuid;
use zstd::bulk::{Compressor, Decompressor};

use super::cbor::Writer;
use super::damage::{Damaged, NO_KEY};
use super::rows::{Reading, Texts, write_observations};
use super::seal::Key;
use super::{Chunk, Error, Sequence};
use crate::observation::Observation;
use crate::reading::RunId;

/// What a chunk begins with. The control character and the high byte keep it out of any text.
pub(super) const MAGIC: [u8; 8] = *b"\xb1bgchnk\x1a";
/// The largest chunk in the file: below sled's 131,052 bytes for one log item with room for the state beside it.
pub(super) const MAX_CHUNK_BYTES: usize = 96 * 1024;
/// The length of the header.
pub(super) const HEADER_BYTES: usize = 52;
/// No body expands to more than this: a commit is 4,096 observations of a few hundred bytes.
const MAX_RAW_BYTES: usize = 16 << 20;
const VERSION: u8 = 1;
const SEALED: u8 = 1;

/// A chunk's header, checked but for the CRC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) sealed: bool,
    pub(super) body: usize,
    pub(super) raw: usize,
    pub(super) count: u64,
    pub(super) first: Sequence,
    pub(super) run: RunId,
    crc: u32,
}

impl Header {
    /// The header at the start of `bytes`.
    pub(super) fn read(bytes: &[u8]) -> Result<Header, Damaged> {
        let bytes = bytes.get(..HEADER_BYTES).ok_or(Damaged("shorter than a chunk's header"))?;
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if bytes[..8] != MAGIC {
            return Err(Damaged("not a chunk"));
        }
        if bytes[8] != VERSION {
            return Err(Damaged("a chunk of an unknown version"));
        }
        let (mut first, mut run) = ([0; 8], [0; 16]);
        first.copy_from_slice(&bytes[24..32]);
        run.copy_from_slice(&bytes[32..48]);
        let header = Header {
            sealed: bytes[9] & SEALED != 0,
            body: u32_at(12) as usize,
            raw: u32_at(16) as usize,
            count: u64::from(u32_at(20)),
            first: u64::from_le_bytes(first),
            run: RunId(Uuid::from_bytes(run)),
            crc: u32_at(48),
        };
        let plausible = header.body <= MAX_CHUNK_BYTES && header.raw <= MAX_RAW_BYTES && header.count > 0;
        let sequences = header.first > 0 && header.first.checked_add(header.count).is_some();
        if plausible && sequences { Ok(header) } else { Err(Damaged("an implausible chunk header")) }
    }

    /// The length of the whole chunk.
    pub(super) fn length(&self) -> usize {
        HEADER_BYTES + self.body
    }

    /// The header of `chunk`, which must be whole: length and CRC are checked.
    pub(super) fn verify(chunk: &[u8]) -> Result<Header, Damaged> {
        let header = Header::read(chunk)?;
        let body = chunk.get(HEADER_BYTES..header.length()).ok_or(Damaged("a chunk is cut off"))?;
        if crc(&chunk[..48], body) == header.crc { Ok(header) } else { Err(Damaged("a chunk's CRC is wrong")) }
    }
}

fn crc(header: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(body);
    hasher.finalize()
}

/// Makes and reads chunks, with one compression context and one set of buffers for all of them.
pub(super) struct Codec {
    compressor: Compressor<'static>,
    decoder: Decoder,
    texts: Texts,
    observations: Vec<u8>,
    raw: Vec<u8>,
}

impl Codec {
    pub(super) fn new(key: Option<Key>) -> Result<Codec, Error> {
        Ok(Codec {
            compressor: Compressor::new(1).map_err(no_memory)?,
            decoder: Decoder::new(key)?,
            texts: Texts::default(),
            observations: Vec::new(),
            raw: Vec::new(),
        })
    }

    pub(super) fn key(&self) -> Option<&Key> {
        self.decoder.key.as_ref()
    }

    /// A decoder of its own for somebody else.
    pub(super) fn decoder(&self) -> Result<Decoder, Error> {
        Decoder::new(self.decoder.key.clone())
    }

    /// The chunk of these observations. It may be longer than [`MAX_CHUNK_BYTES`]: then the caller splits.
    pub(super) fn encode(
        &mut self,
        run: RunId,
        first: Sequence,
        only_for: Option<&str>,
        observations: &[Observation],
    ) -> Result<Vec<u8>, Error> {
        self.texts.clear();
        self.observations.clear();
        let boots = write_observations(&mut self.observations, &mut self.texts, observations);
        self.raw.clear();
        let mut writer = Writer(&mut self.raw);
        writer.array(3 + usize::from(only_for.is_some()));
        self.texts.write(&mut writer);
        writer.array(boots.len());
        boots.iter().for_each(|boot| writer.bytes(boot.0.as_bytes()));
        self.raw.extend_from_slice(&self.observations);
        if let Some(destination) = only_for {
            Writer(&mut self.raw).text(destination);
        }

        let mut header = [0u8; HEADER_BYTES];
        header[..8].copy_from_slice(&MAGIC);
        header[8] = VERSION;
        header[9] = if self.key().is_some() { SEALED } else { 0 };
        header[16..20].copy_from_slice(&(self.raw.len() as u32).to_le_bytes());
        header[20..24].copy_from_slice(&(observations.len() as u32).to_le_bytes());
        header[24..32].copy_from_slice(&first.to_le_bytes());
        header[32..48].copy_from_slice(run.0.as_bytes());
        let body = self.pack(&header)?;
        header[12..16].copy_from_slice(&(body.len() as u32).to_le_bytes());
        let sum = crc(&header[..48], &body);
        header[48..].copy_from_slice(&sum.to_le_bytes());
        let mut chunk = Vec::with_capacity(HEADER_BYTES + body.len());
        chunk.extend_from_slice(&header);
        chunk.extend_from_slice(&body);
        Ok(chunk)
    }

    fn pack(&mut self, header: &[u8; HEADER_BYTES]) -> Result<Vec<u8>, Error> {
        let packed = self.compressor.compress(&self.raw).map_err(|error| Error::fatal("compressing a chunk", error))?;
        match self.key() {
            // Everything of the header that decides what the body means is bound to it.
            Some(key) => key.seal(&packed, &header[16..48]),
            None => Ok(packed),
        }
    }

    /// Compresses and seals anything else that lies in the store.
    pub(super) fn wrap(&mut self, plain: &[u8]) -> Result<Vec<u8>, Error> {
        let packed = self.compressor.compress(plain).map_err(|error| Error::fatal("compressing a record", error))?;
        match self.key() {
            Some(key) => key.seal(&packed, &[]),
            None => Ok(packed),
        }
    }

    /// Undoes [`Codec::wrap`].
    pub(super) fn unwrap(&mut self, wrapped: &[u8], sealed: bool) -> Result<Vec<u8>, Damaged> {
        self.decoder.unwrap(wrapped, sealed)
    }

    /// [`Decoder::decode`] with its own.
    pub(super) fn decode(&mut self, chunk: &[u8]) -> Result<Chunk, Damaged> {
        self.decoder.decode(chunk)
    }
}

fn no_memory(error: std::io::Error) -> Error {
    Error::fatal("making a compression context", error)
}

/// Reads what a [`Codec`] of the same key made.
pub(super) struct Decoder {
    decompressor: Decompressor<'static>,
    key: Option<Key>,
}

impl Decoder {
    fn new(key: Option<Key>) -> Result<Decoder, Error> {
        Ok(Decoder { decompressor: Decompressor::new().map_err(no_memory)?, key })
    }

    fn unwrap(&mut self, wrapped: &[u8], sealed: bool) -> Result<Vec<u8>, Damaged> {
        let unsealed;
        let packed = if sealed {
            unsealed = self.key.as_ref().ok_or(NO_KEY)?.open(wrapped, &[])?;
            &unsealed[..]
        } else {
            wrapped
        };
        self.decompressor.decompress(packed, MAX_RAW_BYTES).map_err(|_| Damaged("it does not decompress"))
    }

    /// The observations of a chunk. Total: any bytes give a chunk or say what is wrong.
    pub(super) fn decode(&mut self, chunk: &[u8]) -> Result<Chunk, Damaged> {
        let mut raw = Vec::new();
        let (header, mut reading) = self.unpack(chunk, &mut raw)?;
        let observations = reading.next(&raw, header.count)?;
        Ok(Chunk { run: header.run, first: header.first, only_for: reading.end(&raw)?, observations })
    }

    /// Puts a chunk's body into `raw`, from which its observations can be read one after the other.
    pub(super) fn unpack(&mut self, chunk: &[u8], raw: &mut Vec<u8>) -> Result<(Header, Reading), Damaged> {
        let header = Header::verify(chunk)?;
        let body = &chunk[HEADER_BYTES..header.length()];
        let unsealed;
        let packed = if header.sealed {
            let key = self.key.as_ref().ok_or(NO_KEY)?;
            unsealed = key.open(body, &chunk[16..48])?;
            &unsealed[..]
        } else {
            body
        };
        raw.clear();
        raw.reserve(header.raw);
        self.decompressor.decompress_to_buffer(packed, raw).map_err(|_| Damaged("it does not decompress"))?;
        let reading = Reading::begin(raw, header.count)?;
        Ok((header, reading))
    }
}
