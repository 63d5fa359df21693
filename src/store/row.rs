//! A row of generations on disk, the queue's, the one set aside or that of the reports: how a generation opens, is born and dies.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use super::chunk::{Codec, Header};
use super::folder::{self, RESERVE_BYTES, named};
use super::generation::{Generation, NotOpened};
use super::ledger::{OWN, Own};
use super::record::{self, Kind, Place};
use super::salvage::{self, Found, Part};
use super::view::View;
use super::{Error, StateChange};

/// An open that takes longer ends the process: systemd starts it again, and after three such opens the generation is
/// taken for damaged.
const OPEN_DEADLINE: Duration = Duration::from_secs(120);
/// So many opens in a row that did not end mean that the next would not either.
const MAX_MARKERS: u32 = 3;
/// How often an open waits for the lock of a database that this process has dropped, and how long each time.
const LOCK_WAITS: u32 = 100;
const LOCK_WAIT: Duration = Duration::from_millis(10);

/// One row.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) dir: PathBuf,
    pub(super) kind: Kind,
    /// The folder with the ballast.
    pub(super) root: PathBuf,
}

/// The state of a generation's records, folded.
#[derive(Debug, Default)]
pub(super) struct Folded {
    pub(super) own: Own,
    pub(super) view: View,
}

impl Folded {
    fn apply(&mut self, changes: Vec<StateChange>) {
        let (own, others) = changes.into_iter().partition::<Vec<_>, _>(|change| change.key.starts_with(OWN));
        own.iter().for_each(|change| self.own.apply(change));
        self.view.apply(others);
    }

    /// All of it, as a birth writes it.
    pub(super) fn whole(&self) -> Vec<StateChange> {
        self.own.whole().into_iter().chain(self.view.whole()).collect()
    }
}

/// A generation that opened, and what its records say where that was asked for.
pub(super) struct Opened {
    pub(super) generation: Generation,
    pub(super) folded: Folded,
    /// It was damaged, and this is what could be saved of it.
    pub(super) healed: bool,
    /// Earlier ones that were read for the state that a damaged one no longer had. They are handed on, because sled may
    /// hold the lock of a dropped database for longer than anybody can wait.
    pub(super) before: Vec<Generation>,
}

impl Row {
    pub(super) fn new(root: &Path, kind: Kind) -> Row {
        let dir = match kind {
            Kind::Queue => root.to_owned(),
            Kind::Aside => root.join("aside"),
            Kind::Reports => root.join("reports"),
        };
        Row { dir, kind, root: root.to_owned() }
    }

    fn unavailable(&self, doing: &'static str) -> impl Fn(io::Error) -> Error + '_ {
        move |error| Error::unavailable(doing, &self.dir, error)
    }

    /// Makes the folder, ends half-done births, deaths and repairs, and lists the generations.
    pub(super) fn prepare(&self) -> Result<Vec<u64>, Error> {
        let prepare = || {
            fs::create_dir_all(&self.dir)?;
            folder::sweep(&self.dir)?;
            for number in folder::numbered(&self.dir, "heal")? {
                self.finish_heal(number)?;
            }
            for number in folder::numbered(&self.dir, "kept")? {
                if !named(&self.dir, "gen", number).exists() {
                    fs::remove_file(named(&self.dir, "kept", number))?;
                }
            }
            folder::numbered(&self.dir, "gen")
        };
        prepare()
            .or_else(|_| {
                folder::give_up_ballast(&self.root);
                prepare()
            })
            .map_err(self.unavailable("preparing the store at"))
    }

    /// Opens a generation, saves what can be saved of a damaged one, and answers `None` when that is nothing.
    pub(super) fn open(&self, number: u64, codec: &mut Codec, fold: bool) -> Result<Option<Opened>, Error> {
        self.open_beside(&BTreeMap::new(), number, codec, fold)
    }

    /// The same where some are open already: of those none is opened a second time, for sled would find its own lock.
    pub(super) fn open_beside(
        &self,
        open: &BTreeMap<u64, Generation>,
        number: u64,
        codec: &mut Codec,
        fold: bool,
    ) -> Result<Option<Opened>, Error> {
        let (found, was_cut) = self.found(number).map_err(self.unavailable("reading a generation in"))?;
        let kept = named(&self.dir, "kept", number);
        // sled cuts a log off at its first broken item as soon as it opens it: a kill before the repair is finished would
        // leave nothing to repair from. So what is seen to be broken is repaired before sled has it, and of what is not a
        // copy lies beside it meanwhile.
        let opened = match was_cut || found.is_broken() {
            true => Err(format!("{} whole records of {}", found.whole(), found.end())),
            false => {
                found.keep(&kept);
                self.open_watched(number, codec, fold)?
            }
        };
        let fault = match opened {
            Ok(opened) if opened.generation.records >= found.end() => {
                drop(fs::remove_file(kept));
                return Ok(Some(opened));
            }
            Ok(opened) => format!("{} of {} records", opened.generation.records, found.end()),
            Err(fault) => fault,
        };
        tracing::error!(generation = number, %fault, "a generation of the store is damaged");
        let before = self.heal(open, number, codec, found)?;
        self.unmark(number);
        drop(fs::remove_file(kept));
        let Some(before) = before else { return Ok(None) };
        match self.open_watched(number, codec, fold)? {
            Ok(opened) => Ok(Some(Opened { healed: true, before, ..opened })),
            Err(fault) => Err(Error::fatal("opening what was saved of a generation", fault)),
        }
    }

    /// What a generation's file holds, or what the copy holds that an open left which did not end, where that is more:
    /// then sled has cut the file off, which is said too.
    fn found(&self, number: u64) -> io::Result<(Found, bool)> {
        let found = salvage::scan(&named(&self.dir, "gen", number).join("db"), self.kind, number)?;
        let kept = salvage::scan(&named(&self.dir, "kept", number), self.kind, number)?;
        Ok(match kept.whole() > found.whole() {
            true => (kept, true),
            false => (found, false),
        })
    }

    /// The inner result's error is what the damage is.
    #[expect(clippy::disallowed_methods, reason = "an open that hangs leaves nobody who could return from main")]
    fn open_watched(&self, number: u64, codec: &mut Codec, fold: bool) -> Result<Result<Opened, String>, Error> {
        let markers = self.markers(number);
        if markers >= MAX_MARKERS {
            return Ok(Err(format!("{markers} opens in a row did not end")));
        }
        self.mark(number, markers + 1);
        let (ended, watch) = mpsc::sync_channel::<()>(1);
        let watchdog = std::thread::spawn(move || {
            if watch.recv_timeout(OPEN_DEADLINE) == Err(mpsc::RecvTimeoutError::Timeout) {
                tracing::error!("opening the store does not end: ending the process");
                std::process::exit(1);
            }
        });
        let result = self.open_twice(number, codec, fold);
        drop(ended);
        drop(watchdog.join());
        self.unmark(number);
        result
    }

    #[expect(clippy::disallowed_methods, reason = "an open blocks as it is, and for at most a second here")]
    fn open_twice(&self, number: u64, codec: &mut Codec, fold: bool) -> Result<Result<Opened, String>, Error> {
        let dir = named(&self.dir, "gen", number);
        let mut gave_up_ballast = false;
        let mut is_second = false;
        let mut waits = 0..LOCK_WAITS;
        loop {
            folder::reach("open");
            match open_once(&dir, self, number, codec, fold) {
                Ok(opened) => return Ok(Ok(opened)),
                Err(NotOpened::Sealed(what)) => return Err(Error::Sealed { what }),
                Err(NotOpened::Damage(fault)) if is_second => return Ok(Err(fault)),
                Err(NotOpened::Damage(fault)) => {
                    tracing::warn!(generation = number, %fault, "opening once more without sled's snapshots");
                    is_second = true;
                    let moved = set_snapshots_aside(&dir);
                    moved.map_err(self.unavailable("setting snapshots aside in"))?;
                }
                Err(NotOpened::Refused(error)) if is_held(&error) && waits.next().is_some() => {
                    std::thread::sleep(LOCK_WAIT);
                }
                Err(NotOpened::Refused(error)) => {
                    let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
                    if !is_full || gave_up_ballast || !folder::give_up_ballast(&self.root) {
                        return Err(Error::unavailable("opening the store's generation", &dir, error));
                    }
                    gave_up_ballast = true;
                }
            }
        }
    }

    fn marker(&self, number: u64) -> PathBuf {
        named(&self.dir, "opening", number)
    }

    fn markers(&self, number: u64) -> u32 {
        fs::read_to_string(self.marker(number)).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    /// A marker that cannot be written (a full disk) is no reason not to open.
    fn mark(&self, number: u64, count: u32) {
        if let Err(error) = fs::write(self.marker(number), count.to_string()) {
            tracing::warn!(%error, "no marker for this open");
        }
    }

    fn unmark(&self, number: u64) {
        drop(fs::remove_file(self.marker(number)));
    }

    /// Makes generation `number` whose first records hold `state`. It counts once it has its name.
    pub(super) fn birth(&self, number: u64, codec: &mut Codec, state: &[StateChange]) -> Result<Generation, Error> {
        crash_point!("store.birth.before");
        let records = split_state(codec, state)?;
        let mut generation = self.build(number, &state_parts(codec, records))?;
        crash_point!("store.birth.made");
        // The database stays open while its folder gets its name: sled uses the path only for snapshots, which it writes
        // in an open, and for blobs, which there must never be.
        match folder::finish_birth(&self.dir, number) {
            Ok(()) => {
                crash_point!("store.birth.after");
                generation.dir = named(&self.dir, "gen", number);
                Ok(generation)
            }
            Err(error) => {
                generation.forget();
                Err(Error::fatal("naming a generation", error))
            }
        }
    }

    /// Makes `new-N` of these chunks and tails and syncs its database.
    fn build(&self, number: u64, parts: &[Part]) -> Result<Generation, Error> {
        let dir = named(&self.dir, "new", number);
        let doing = "making a generation";
        if dir.exists() {
            fs::remove_dir_all(&dir).map_err(|error| Error::fatal(doing, error))?;
        }
        if folder::free_bytes(&self.dir).is_ok_and(|free| free < RESERVE_BYTES) {
            folder::give_up_ballast(&self.root);
        }
        let mut generation = Generation::open(&dir, number).map_err(|fault| Error::fatal(doing, fault))?;
        folder::reach("birth-empty");
        let mut put_all = || -> Result<(), Error> {
            for (record, part) in parts.iter().enumerate() {
                let place = Place { kind: self.kind, generation: number, record: record as u32 };
                let header = Header::read(&part.chunk).ok();
                generation.put(&record::build(place, part.sealed, &part.chunk, &part.tail), header.as_ref())?;
            }
            generation.sync()
        };
        if let Err(error) = put_all() {
            generation.forget();
            return Err(error);
        }
        folder::reach("birth-synced");
        Ok(generation)
    }

    /// Saves what the raw file still holds of a damaged generation under the same number, so that sequences and cursors
    /// keep their meaning, and moves the damaged one to `damaged/`. `None` when nothing was saved, else what was opened
    /// for it.
    fn heal(
        &self,
        open: &BTreeMap<u64, Generation>,
        number: u64,
        codec: &mut Codec,
        found: Found,
    ) -> Result<Option<Vec<Generation>>, Error> {
        folder::reach("heal-begin");
        let mut parts = found.parts();
        let mut opened = Vec::new();
        tracing::warn!(generation = number, records = parts.len(), "saved from the damaged generation");
        if self.kind == Kind::Queue && !found.has_birth() && !parts.is_empty() {
            let (state, before) = self.state_before(open, number, codec)?;
            opened = before;
            let state = split_state(codec, &state)?;
            parts.splice(0..0, state_parts(codec, state));
        }
        if parts.is_empty() {
            folder::set_aside(&self.dir, number).map_err(self.unavailable("moving a damaged generation in"))?;
            return Ok(None);
        }
        drop(self.build(number, &parts)?);
        let end = || {
            folder::sync_new(&self.dir, number)?;
            fs::rename(named(&self.dir, "new", number), named(&self.dir, "heal", number))?;
            folder::sync_dir(&self.dir)?;
            folder::reach("heal");
            self.finish_heal(number)
        };
        end().map_err(self.unavailable("repairing a damaged generation in"))?;
        Ok(Some(opened))
    }

    /// A `heal-N` is whole: it takes the place of what it was made from.
    fn finish_heal(&self, number: u64) -> io::Result<()> {
        if named(&self.dir, "gen", number).exists() {
            folder::set_aside(&self.dir, number)?;
        }
        fs::rename(named(&self.dir, "heal", number), named(&self.dir, "gen", number))?;
        folder::sync_dir(&self.dir)
    }

    /// The state as the generation before `number` has it, and the generations that were opened for it.
    fn state_before(
        &self,
        open: &BTreeMap<u64, Generation>,
        number: u64,
        codec: &mut Codec,
    ) -> Result<(Vec<StateChange>, Vec<Generation>), Error> {
        let all = folder::numbered(&self.dir, "gen").map_err(self.unavailable("listing the store at"))?;
        for earlier in all.into_iter().rev().filter(|earlier| *earlier < number) {
            if let Some(generation) = open.get(&earlier) {
                return Ok((folded_of(generation, codec).whole(), Vec::new()));
            }
            if let Some(Opened { generation, folded, mut before, .. }) = self.open_beside(open, earlier, codec, true)? {
                before.push(generation);
                return Ok((folded.whole(), before));
            }
        }
        Ok((Vec::new(), Vec::new()))
    }
}

/// The state of an open generation's records.
fn folded_of(generation: &Generation, codec: &mut Codec) -> Folded {
    let mut folded = Folded::default();
    for number in 0..generation.records {
        let record = generation.get(number);
        match record.and_then(|record| record::parse(&record)?.changes(codec)) {
            Ok(changes) => folded.apply(changes),
            Err(damaged) => tracing::error!(generation = generation.number, number, %damaged, "a state cannot be read"),
        }
    }
    folded
}

fn state_parts(codec: &Codec, tails: Vec<Vec<u8>>) -> Vec<Part> {
    let sealed = codec.key().is_some();
    tails.into_iter().map(|tail| Part { chunk: Vec::new(), tail, sealed }).collect()
}

fn open_once(dir: &Path, row: &Row, number: u64, codec: &mut Codec, fold: bool) -> Result<Opened, NotOpened> {
    // An unfinished snapshot makes later opens fail.
    for path in snapshots(dir).map_err(NotOpened::Refused)? {
        if path.extension().is_some_and(|extension| extension == "generating") {
            fs::remove_file(path).map_err(NotOpened::Refused)?;
        }
    }
    match fs::metadata(dir.join("db")) {
        Ok(meta) if meta.len() > 0 => {}
        Ok(_) => return Err(NotOpened::Damage("its file is empty".to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(NotOpened::Damage("its file is missing".to_owned()));
        }
        Err(error) => return Err(NotOpened::Refused(error)),
    }
    // A database that could not be read is dropped here, not forgotten: a forgotten one keeps its lock, and the second try
    // would find it. Should a drop hang, the open's deadline and markers end it.
    let mut generation = Generation::open(dir, number)?;
    let mut folded = Folded::default();
    generation.scan(|_, bytes| {
        let record = record::parse(bytes)?;
        if fold && row.kind == Kind::Queue {
            folded.apply(record.changes(codec)?);
        }
        record.header()
    })?;
    if generation.records == 0 {
        return Err(NotOpened::Damage("it holds no record".to_owned()));
    }
    Ok(Opened { generation, folded, healed: false, before: Vec::new() })
}

/// Whether sled's own lock is held. The store's lock is ours, so it is by a database that this process has dropped, whose
/// threads still end: one that was read for the state before a damaged generation.
fn is_held(error: &io::Error) -> bool {
    error.to_string().starts_with("could not acquire lock")
}

fn snapshots(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with("snap.")) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Snapshots are only a short cut through the log, and `conf` holds only what this program sets anyway.
fn set_snapshots_aside(dir: &Path) -> io::Result<()> {
    let aside = dir.join("set-aside");
    fs::create_dir_all(&aside)?;
    for path in snapshots(dir)?.into_iter().chain([dir.join("conf")]) {
        if let Some(name) = path.file_name()
            && path.exists()
        {
            fs::rename(&path, aside.join(name))?;
        }
    }
    Ok(())
}

/// The tails of as many records as these changes need.
pub(super) fn split_state(codec: &mut Codec, state: &[StateChange]) -> Result<Vec<Vec<u8>>, Error> {
    const MAX_PLAIN_BYTES: usize = 48 * 1024;
    let mut tails = Vec::new();
    let mut rest = state;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fitting = rest.iter().take_while(|change| {
            bytes += change.key.len() + change.value.as_ref().map_or(0, Vec::len);
            bytes <= MAX_PLAIN_BYTES
        });
        let (group, after) = rest.split_at(fitting.count().max(1));
        let tail = record::tail(codec, group)?;
        if tail.len() > record::MAX_TAIL_BYTES {
            let (key, bytes) = (&group[0].key, tail.len());
            return Err(Error::Refused { what: format!("the state value of {key} has {bytes} bytes compressed") });
        }
        tails.push(tail);
        rest = after;
    }
    if tails.is_empty() {
        tails.push(Vec::new());
    }
    Ok(tails)
}
