//! A disk in memory, with a file for the engine and one for the journal, that loses power, fails and fills up when told.
//!
//! What was written is seen at once, as through a page cache; what was synced survives. When the power
//! goes, of what was not synced each sector survives by chance, some of them torn. A sync that fails does
//! what Linux does: what it was to write stays in the cache, counts as written, and is on no disk.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::{Builder, Database, DatabaseError, StorageBackend};

use crate::safe::Safe;
use crate::safe::disk::Disk;

const SECTOR: usize = 512;

/// Length of a journal: so short that a workload fills it.
const JOURNAL: u64 = 32 << 10;

/// The engine's file, and the journal.
const FILES: usize = 2;

/// Numbers by chance, the same for the same seed.
#[derive(Clone, Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

#[derive(Clone, Debug)]
pub(super) struct FakeDisk(Arc<Mutex<Core>>);

/// One of the disk's files.
#[derive(Debug)]
struct FakeFile {
    disk: FakeDisk,
    file: usize,
}

#[derive(Debug)]
struct Core {
    /// As processes see the files.
    image: [Vec<u8>; FILES],
    /// As a power cut leaves them.
    durable: [Vec<u8>; FILES],
    /// What the two differ by, in order.
    pending: VecDeque<Pending>,
    syncs: u64,
    /// Operations that changed something, syncs included.
    operations: u64,
    /// The power goes at this operation.
    cut_at: Option<u64>,
    is_off: bool,
    /// Whether a sync does what it says.
    syncs_work: bool,
    /// Writes, counted from 1, that fail once.
    failing_write: Option<u64>,
    writes: u64,
    /// The file whose next sync fails.
    fails_next_sync: Option<usize>,
    /// Whether the cache is dropped when the safe asks for it.
    distrust_works: bool,
    /// The files cannot grow beyond, together.
    capacity: u64,
    chance: Chance,
}

#[derive(Debug)]
struct Pending {
    file: usize,
    what: Operation,
}

#[derive(Debug)]
enum Operation {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl FakeDisk {
    /// An empty disk.
    pub(super) fn new() -> FakeDisk {
        FakeDisk::holding(Default::default(), 0)
    }

    fn holding(image: [Vec<u8>; FILES], seed: u64) -> FakeDisk {
        FakeDisk(Arc::new(Mutex::new(Core {
            durable: image.clone(),
            image,
            pending: VecDeque::new(),
            syncs: 0,
            operations: 0,
            cut_at: None,
            is_off: false,
            syncs_work: true,
            failing_write: None,
            writes: 0,
            fails_next_sync: None,
            distrust_works: true,
            capacity: u64::MAX,
            chance: Chance::new(seed),
        })))
    }

    pub(super) fn safe(&self) -> Safe {
        Safe::on("tested", Box::new(self.clone())).expect("the safe opens")
    }

    /// The power goes when so many operations have been made from now on.
    pub(super) fn cut_after(&self, operations: u64, seed: u64) {
        let mut core = self.0.lock();
        core.cut_at = Some(core.operations + operations);
        core.chance = Chance::new(seed);
    }

    pub(super) fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    /// From now on a sync only says that it is one.
    pub(super) fn break_syncs(&self) {
        self.0.lock().syncs_work = false;
    }

    /// The machine after the power came back.
    pub(super) fn after_power_cut(&self) -> FakeDisk {
        let mut core = self.0.lock();
        if !core.is_off {
            core.cut_power();
        }
        FakeDisk::holding(core.durable.clone(), 0)
    }

    /// The `n`-th write from now on fails, once.
    pub(super) fn fail_write(&self, n: u64) {
        let mut core = self.0.lock();
        core.failing_write = Some(core.writes + n);
    }

    /// The next sync of the engine's file fails.
    pub(super) fn fail_next_sync(&self) {
        self.0.lock().fails_next_sync = Some(0);
    }

    /// The next sync of the journal fails.
    pub(super) fn fail_next_sync_of_the_journal(&self) {
        self.0.lock().fails_next_sync = Some(1);
    }

    /// From now on the cache keeps what it has, whatever the safe says.
    pub(super) fn keep_cache(&self) {
        self.0.lock().distrust_works = false;
    }

    /// The disk is full, or no longer.
    pub(super) fn set_full(&self, is_full: bool) {
        let mut core = self.0.lock();
        core.capacity = if is_full { core.len() } else { u64::MAX };
    }

    /// Flips a bit of the only place where these bytes are.
    pub(super) fn flip_bit_of(&self, bytes: &[u8], bit: usize) {
        let mut core = self.0.lock();
        let places: Vec<usize> = core.image[0]
            .windows(bytes.len())
            .enumerate()
            .filter_map(|(at, found)| (found == bytes).then_some(at))
            .collect();
        assert!(!places.is_empty(), "those bytes are not on the disk");
        for at in places {
            core.image[0][at + bit / 8] ^= 1 << (bit % 8);
            core.durable = core.image.clone();
        }
    }
}

impl Core {
    /// Length of all files.
    fn len(&self) -> u64 {
        self.image.iter().map(|image| image.len() as u64).sum()
    }

    /// Counts an operation; the error of a machine without power.
    fn begin(&mut self) -> io::Result<()> {
        if self.is_off {
            return Err(io::Error::other("no power"));
        }
        if self.cut_at == Some(self.operations) {
            self.cut_power();
            return Err(io::Error::other("no power"));
        }
        self.operations += 1;
        Ok(())
    }

    /// Lets chance decide what of the pending operations reached the medium.
    fn cut_power(&mut self) {
        self.is_off = true;
        let survives = self.chance.below(5);
        let mut pending = std::mem::take(&mut self.pending);
        for Pending { file, what } in pending.drain(..) {
            match what {
                Operation::Length(len) if self.chance.below(4) < survives => {
                    self.durable[file].resize(usize::try_from(len).unwrap(), 0);
                }
                Operation::Length(_) => {}
                Operation::Write(offset, data) => {
                    let offset = usize::try_from(offset).unwrap();
                    for (index, sector) in data.chunks(SECTOR).enumerate() {
                        if self.chance.below(4) < survives {
                            let is_torn = self.chance.below(16) == 0;
                            let len = if is_torn { self.chance.below(SECTOR as u64) } else { SECTOR as u64 };
                            let len = sector.len().min(usize::try_from(len).unwrap());
                            write(&mut self.durable[file], offset + index * SECTOR, &sector[..len]);
                        }
                    }
                }
            }
        }
    }

    fn sync(&mut self, synced: usize) {
        for Pending { file, what } in std::mem::take(&mut self.pending) {
            match what {
                _ if file != synced => self.pending.push_back(Pending { file, what }),
                Operation::Length(len) => self.durable[file].resize(usize::try_from(len).unwrap(), 0),
                Operation::Write(offset, data) => {
                    write(&mut self.durable[file], usize::try_from(offset).unwrap(), &data);
                }
            }
        }
    }
}

fn write(image: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if image.len() < offset + data.len() {
        image.resize(offset + data.len(), 0);
    }
    image[offset..offset + data.len()].copy_from_slice(data);
}

impl Disk for FakeDisk {
    fn open(&self, builder: &Builder) -> Result<Database, DatabaseError> {
        builder.create_with_backend(FakeFile { disk: self.clone(), file: 0 })
    }

    fn journal(&self) -> io::Result<Option<Box<dyn StorageBackend>>> {
        let is_there = !self.0.lock().image[1].is_empty();
        Ok(is_there.then(|| Box::new(FakeFile { disk: self.clone(), file: 1 }) as Box<dyn StorageBackend>))
    }

    fn make_journal(&self) -> io::Result<Box<dyn StorageBackend>> {
        let file = FakeFile { disk: self.clone(), file: 1 };
        if file.len()? != JOURNAL {
            file.set_len(JOURNAL)?;
        }
        file.sync_data()?;
        Ok(Box::new(file))
    }

    fn distrust(&self) {
        let mut core = self.0.lock();
        if core.distrust_works && !core.is_off {
            (0..FILES).for_each(|file| core.sync(file));
            core.image = core.durable.clone();
        }
    }

    fn close(&self) {}

    fn path(&self) -> &Path {
        Path::new("/fake")
    }

    fn syncs(&self) -> u64 {
        self.0.lock().syncs
    }
}

impl StorageBackend for FakeFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().image[self.file].len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let core = self.disk.0.lock();
        let offset = usize::try_from(offset).unwrap();
        let found = core.image[self.file].get(offset..offset + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut core = self.disk.0.lock();
        core.begin()?;
        let old = core.image[self.file].len() as u64;
        if core.len() + len.saturating_sub(old) > core.capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        core.image[self.file].resize(usize::try_from(len).unwrap(), 0);
        core.pending.push_back(Pending { file: self.file, what: Operation::Length(len) });
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut core = self.disk.0.lock();
        core.begin()?;
        if core.fails_next_sync == Some(self.file) {
            core.fails_next_sync = None;
            core.pending.retain(|pending| pending.file != self.file);
            return Err(io::Error::other("the sync failed"));
        }
        core.syncs += 1;
        if core.syncs_work {
            core.sync(self.file);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut core = self.disk.0.lock();
        core.begin()?;
        core.writes += 1;
        if core.failing_write == Some(core.writes) {
            return Err(io::Error::other("the write failed"));
        }
        write(&mut core.image[self.file], usize::try_from(offset).unwrap(), data);
        core.pending.push_back(Pending { file: self.file, what: Operation::Write(offset, data.to_vec()) });
        Ok(())
    }
}
