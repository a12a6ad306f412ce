//! A disk in memory that loses power, fails and fills up when told.
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

#[derive(Debug)]
struct Core {
    /// As processes see it.
    image: Vec<u8>,
    /// As a power cut leaves it.
    durable: Vec<u8>,
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
    fails_next_sync: bool,
    /// Whether the cache is dropped when the safe asks for it.
    distrust_works: bool,
    /// The file cannot grow beyond.
    capacity: u64,
    chance: Chance,
}

#[derive(Debug)]
enum Pending {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl FakeDisk {
    /// An empty disk.
    pub(super) fn new() -> FakeDisk {
        FakeDisk::holding(Vec::new(), 0)
    }

    fn holding(image: Vec<u8>, seed: u64) -> FakeDisk {
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
            fails_next_sync: false,
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

    pub(super) fn fail_next_sync(&self) {
        self.0.lock().fails_next_sync = true;
    }

    /// From now on the cache keeps what it has, whatever the safe says.
    pub(super) fn keep_cache(&self) {
        self.0.lock().distrust_works = false;
    }

    /// The disk is full, or no longer.
    pub(super) fn set_full(&self, is_full: bool) {
        let mut core = self.0.lock();
        core.capacity = if is_full { core.image.len() as u64 } else { u64::MAX };
    }

    /// Flips a bit of the only place where these bytes are.
    pub(super) fn flip_bit_of(&self, bytes: &[u8], bit: usize) {
        let mut core = self.0.lock();
        let places: Vec<usize> = core
            .image
            .windows(bytes.len())
            .enumerate()
            .filter_map(|(at, found)| (found == bytes).then_some(at))
            .collect();
        assert!(!places.is_empty(), "those bytes are not on the disk");
        for at in places {
            core.image[at + bit / 8] ^= 1 << (bit % 8);
            core.durable = core.image.clone();
        }
    }
}

impl Core {
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
        for operation in pending.drain(..) {
            match operation {
                Pending::Length(len) if self.chance.below(4) < survives => {
                    self.durable.resize(usize::try_from(len).unwrap(), 0);
                }
                Pending::Length(_) => {}
                Pending::Write(offset, data) => {
                    let offset = usize::try_from(offset).unwrap();
                    for (index, sector) in data.chunks(SECTOR).enumerate() {
                        if self.chance.below(4) < survives {
                            let is_torn = self.chance.below(16) == 0;
                            let len = if is_torn { self.chance.below(SECTOR as u64) } else { SECTOR as u64 };
                            let len = sector.len().min(usize::try_from(len).unwrap());
                            write(&mut self.durable, offset + index * SECTOR, &sector[..len]);
                        }
                    }
                }
            }
        }
    }

    fn sync(&mut self) {
        for operation in self.pending.drain(..) {
            match operation {
                Pending::Length(len) => self.durable.resize(usize::try_from(len).unwrap(), 0),
                Pending::Write(offset, data) => {
                    write(&mut self.durable, usize::try_from(offset).unwrap(), &data);
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
        builder.create_with_backend(self.clone())
    }

    fn distrust(&self) {
        let mut core = self.0.lock();
        if core.distrust_works && !core.is_off {
            core.sync();
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

impl StorageBackend for FakeDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().image.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let core = self.0.lock();
        let offset = usize::try_from(offset).unwrap();
        let found = core.image.get(offset..offset + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut core = self.0.lock();
        core.begin()?;
        if len > core.capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        core.image.resize(usize::try_from(len).unwrap(), 0);
        core.pending.push_back(Pending::Length(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut core = self.0.lock();
        core.begin()?;
        if std::mem::take(&mut core.fails_next_sync) {
            core.pending.clear();
            return Err(io::Error::other("the sync failed"));
        }
        core.syncs += 1;
        if core.syncs_work {
            core.sync();
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut core = self.0.lock();
        core.begin()?;
        core.writes += 1;
        if core.failing_write == Some(core.writes) {
            return Err(io::Error::other("the write failed"));
        }
        write(&mut core.image, usize::try_from(offset).unwrap(), data);
        core.pending.push_back(Pending::Write(offset, data.to_vec()));
        Ok(())
    }
}
