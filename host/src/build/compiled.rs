//! What the packages in a target directory were compiled from, by content.
//!
//! cargo takes a crate for fresh by the times of its files, so a file put back with its older time is not seen. This
//! keeps, for each package that cargo reads in place, the content of all files that went into it. Before each build they
//! are compared, and where they differ cargo's own note of the package (its fingerprint, in the host's target
//! directory) is removed: then cargo compiles it again. The author's files are not touched.
//!
//! # Invariants
//!
//! - A package that cargo may take for fresh was compiled from the recorded content, in all its variants; where that is
//!   not certain, the record is invalid and the package is compiled again.
//! - What is recorded survives the process. A process that was killed in a build leaves a mark, and whatever has changed
//!   since then, or was no longer as recorded, is not trusted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use parking_lot::{Mutex, MutexGuard};
use xxhash_rust::xxh3::xxh3_64;

use super::fingerprint::{Content, Fingerprint, Snapshot, has_changed_since};
use super::inputs::Inputs;
use super::package::Package;
use super::run::LocalPackage;

/// Where in a target directory the records are.
const RECORDS: &str = "inputs";

/// A file there while a build runs.
const RUNNING: &str = "running";

/// The records of one target directory.
pub(super) struct CompiledPackages {
    target_dir: PathBuf,
    known: Mutex<Known>,
}

/// What is written down, as of the last look.
#[derive(Default)]
struct Known {
    /// By the package's directory.
    records: BTreeMap<PathBuf, Record>,
    /// The files that they were read from, or written to: `host check` may build in the same directory.
    files: BTreeMap<PathBuf, (u64, i64, i64)>,
    /// Files that were written during a run and had the same in them afterwards: builds do that, too.
    rewritten: BTreeSet<PathBuf>,
}

/// What one package was compiled from.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Record {
    name: String,
    directory: PathBuf,
    /// The files that cargo has made of it: another package that makes one of them has taken its place.
    artifacts: BTreeSet<PathBuf>,
    /// The packages that its last build was made of, by directory.
    packages: BTreeSet<PathBuf>,
    inputs: Inputs,
    content: Fingerprint,
    is_valid: bool,
}

/// One run of cargo, from the look at the files before it.
pub(super) struct Compilation {
    before: Snapshot,
    started: SystemTime,
    /// The packages of which cargo had a note.
    noted: BTreeSet<String>,
    /// The packages whose files were as recorded.
    as_recorded: BTreeSet<PathBuf>,
    /// The packages that cargo was made to compile.
    forced: BTreeSet<PathBuf>,
}

/// What a run of cargo has compiled, for the record.
pub(super) struct Compiled<'a> {
    /// The directory of the package that was asked for.
    pub(super) root: &'a Path,
    /// Every package that cargo reads in place, with what it was made from if that is known: not if it did not compile.
    pub(super) packages: BTreeMap<&'a PathBuf, (&'a LocalPackage, Inputs)>,
}

/// The packages that cargo took for fresh and that may not be: the next run has it compile them.
#[derive(Debug, Default)]
pub(super) struct StalePackages {
    /// Their names.
    pub(super) names: BTreeSet<String>,
    /// One that it took for fresh all the same.
    pub(super) resisting: Option<String>,
}

impl CompiledPackages {
    pub(super) fn of(target_dir: PathBuf) -> CompiledPackages {
        CompiledPackages { target_dir, known: Mutex::default() }
    }

    /// Looks at the files of `package`, `inputs` among them, and of those that it was made of, and has cargo compile what
    /// has changed.
    pub(super) fn begin(&self, package: &Package, inputs: &Inputs) -> Compilation {
        let mut guard = self.known();
        let records = &mut guard.records;
        let mut noted = self.noted();
        let mut run = Compilation {
            before: Snapshot::default(),
            started: SystemTime::now(),
            noted: BTreeSet::new(),
            as_recorded: BTreeSet::new(),
            forced: BTreeSet::new(),
        };
        let root = &package.directory;
        let mut checked = package.path_dependencies.clone();
        checked.insert(root.clone());
        checked.extend(records.get(root).into_iter().flat_map(|record| record.packages.iter().cloned()));
        run.before.read(inputs.every_file());
        let mut stale = BTreeSet::new();
        if !records.contains_key(root) && noted.contains(&package.name) {
            stale.insert(package.name.clone());
            run.forced.insert(root.clone());
        }
        for directory in checked {
            let Some(record) = records.get_mut(&directory) else { continue };
            if record.is_as_recorded(&mut run.before) {
                run.as_recorded.insert(directory);
            } else {
                record.is_valid = false;
                stale.insert(record.name.clone());
                run.forced.insert(directory);
            }
        }
        self.force(&stale);
        noted.retain(|name| !stale.contains(name));
        run.noted = noted;
        if let Err(error) = fs::create_dir_all(self.dir()).and_then(|()| fs::write(self.mark(), "")) {
            tracing::debug!(%error, "cannot mark the target directory as being in use");
        }
        run.started = SystemTime::now();
        run
    }

    /// Notes what a run has come to.
    pub(super) fn end(&self, run: &Compilation, compiled: Compiled<'_>) -> StalePackages {
        let mut guard = self.known();
        let Known { records, rewritten, .. } = &mut *guard;
        let mut stale = StalePackages::default();
        let all: BTreeSet<PathBuf> = compiled.packages.keys().map(|directory| (*directory).clone()).collect();
        for (directory, (package, inputs)) in compiled.packages {
            let record = records.get(directory);
            let is_as_recorded = run.as_recorded.contains(directory)
                || !run.forced.contains(directory)
                    && record.is_some_and(|record| record.is_as_recorded(&mut Snapshot::default()));
            let is_forced =
                run.forced.contains(directory) || record.is_none() && !run.noted.contains(&package.name);
            match (is_as_recorded, is_forced, package.is_compiled) {
                (true, _, false) => {}
                (true, _, true) | (false, true, true) => {
                    let mut inputs = inputs;
                    // Another variant of it may have been made of more.
                    let others = record.filter(|_| is_as_recorded);
                    others.iter().for_each(|record| inputs.add(&record.inputs));
                    let doubtful = self.note(records, directory, package, inputs, run);
                    if doubtful.into_iter().filter(|file| rewritten.insert(file.clone())).count() > 0 {
                        stale.names.insert(package.name.clone());
                    }
                }
                (false, true, false) if run.forced.contains(directory) => {
                    stale.resisting = Some(package.name.clone());
                }
                (false, _, _) => {
                    stale.names.insert(package.name.clone());
                    self.note(records, directory, package, inputs, run);
                    self.distrust(records, directory);
                }
            }
        }
        if let Some(root) = records.get_mut(compiled.root) {
            // A build that has failed has not met all of them.
            root.packages.extend(all);
        }
        self.settle(&mut guard, run);
        stale
    }

    /// Notes that a run was broken off: nobody knows what it has compiled.
    pub(super) fn break_off(&self, run: &Compilation) {
        self.settle(&mut self.known(), run);
    }

    /// What the package in `directory` and those below it were made from when it was compiled last, whatever became of
    /// them since.
    pub(super) fn last_inputs(&self, directory: &Path) -> Option<Inputs> {
        let known = self.known();
        let record = known.records.get(directory)?;
        let mut inputs = record.inputs.clone();
        inputs.add_packages(&record.packages);
        Some(inputs)
    }

    /// Takes back the trust in what was edited while cargo ran, writes down what has changed, and takes the mark away.
    fn settle(&self, known: &mut Known, run: &Compilation) {
        let records = &mut known.records;
        for directory in &run.as_recorded {
            let Some(record) = records.get_mut(directory).filter(|record| record.is_valid) else { continue };
            record.is_valid = record.content.files().all(|(path, content)| run.content_of(path) == content);
        }
        for directory in run.as_recorded.iter().chain(&run.forced) {
            records.get(directory).into_iter().for_each(|record| self.save(record));
        }
        known.files = self.files();
        // One that is already gone is fine.
        let _ = fs::remove_file(self.mark());
    }

    /// Notes what a package was compiled from. Returns the files that were written during the run and look as before: the
    /// compiler may have seen something that is there neither before nor after. Nobody else would notice that.
    fn note(
        &self,
        records: &mut BTreeMap<PathBuf, Record>,
        directory: &Path,
        package: &LocalPackage,
        inputs: Inputs,
        run: &Compilation,
    ) -> Vec<PathBuf> {
        let content = inputs.every_file().into_iter().map(|path| {
            let content = run.content_of(&path);
            (path, content)
        });
        let record = Record {
            name: package.name.clone(),
            directory: directory.to_owned(),
            artifacts: package.artifacts.clone(),
            packages: records.get(directory).map(|record| record.packages.clone()).unwrap_or_default(),
            content: content.collect(),
            inputs,
            is_valid: true,
        };
        let is_doubtful = |(path, content): &(&Path, Content)| {
            *content == Content::Unsure && run.before.content(path) == Some(Content::of(path))
        };
        let doubtful = record.content.files().filter(is_doubtful).map(|(path, _)| path.to_owned()).collect();
        let is_displaced = |other: &Record| {
            other.directory != directory && other.is_valid && !other.artifacts.is_disjoint(&record.artifacts)
        };
        let displaced = records.values().filter(|other| is_displaced(other));
        let displaced: Vec<PathBuf> = displaced.map(|other| other.directory.clone()).collect();
        displaced.iter().for_each(|other| self.distrust(records, other));
        self.save(&record);
        records.insert(directory.to_owned(), record);
        doubtful
    }

    fn distrust(&self, records: &mut BTreeMap<PathBuf, Record>, directory: &Path) {
        if let Some(record) = records.get_mut(directory) {
            record.is_valid = false;
            self.save(record);
        }
    }

    /// What is written down now.
    fn known(&self) -> MutexGuard<'_, Known> {
        let mut known = self.known.lock();
        let files = self.files();
        if known.files != files {
            known.records = self.load(&files);
            known.files = files;
        }
        known
    }

    /// The files of the records, each with what it is known by: a new one takes its place whenever it changes.
    fn files(&self) -> BTreeMap<PathBuf, (u64, i64, i64)> {
        let entries = fs::read_dir(self.dir()).into_iter().flatten().flatten();
        let identity = |entry: fs::DirEntry| {
            let metadata = entry.metadata().ok()?;
            let path = Some(entry.path()).filter(|path| path.extension().is_some_and(|of| of == "json"))?;
            Some((path, (metadata.ino(), metadata.ctime(), metadata.ctime_nsec())))
        };
        entries.filter_map(identity).collect()
    }

    fn load(&self, files: &BTreeMap<PathBuf, (u64, i64, i64)>) -> BTreeMap<PathBuf, Record> {
        let interrupted = fs::metadata(self.mark()).and_then(|mark| mark.modified()).ok();
        let read = |path: &PathBuf| serde_json::from_slice::<Record>(&fs::read(path).ok()?).ok();
        let records = files.keys().filter_map(read);
        let mut records: BTreeMap<PathBuf, Record> =
            records.map(|record| (record.directory.clone(), record)).collect();
        for record in records.values_mut().filter(|record| interrupted.is_some() && record.is_valid) {
            let is_untouched = |(path, content): (&Path, Content)| {
                !interrupted.is_some_and(|since| has_changed_since(path, since))
                    && Content::of(path) == content
            };
            record.is_valid = record.content.files().all(is_untouched);
            if !record.is_valid {
                self.save(record);
            }
        }
        records
    }

    fn save(&self, record: &Record) {
        let name =
            format!("{}-{:016x}.json", record.name, xxh3_64(record.directory.as_os_str().as_encoded_bytes()));
        let path = self.dir().join(name);
        let write = || {
            let bytes = serde_json::to_vec(record).map_err(io::Error::other)?;
            fs::create_dir_all(self.dir())?;
            let new = path.with_extension("new");
            fs::write(&new, bytes)?;
            fs::rename(&new, &path)
        };
        if let Err(error) = write() {
            // Without it the package is compiled once more by the next process.
            let _ = fs::remove_file(&path);
            tracing::debug!(%error, package = record.name, "cannot note what it was compiled from");
        }
    }

    /// Removes cargo's notes of the packages called `names`, in every profile and variant.
    fn force(&self, names: &BTreeSet<String>) {
        if names.is_empty() {
            return;
        }
        for (name, note) in self.notes().into_iter().filter(|(name, _)| names.contains(name)) {
            if let Err(error) = fs::remove_dir_all(&note) {
                tracing::warn!(%error, "cannot have cargo compile `{name}` anew: remove {}", note.display());
            }
        }
    }

    fn noted(&self) -> BTreeSet<String> {
        self.notes().into_iter().map(|(name, _)| name).collect()
    }

    /// cargo's notes: by the package's name, the directories `PROFILE/.fingerprint/NAME-HASH`, below one more where the
    /// target is named.
    fn notes(&self) -> Vec<(String, PathBuf)> {
        let list = |directory: &Path| {
            fs::read_dir(directory)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path())
                .collect::<Vec<_>>()
        };
        let profiles = list(&self.target_dir);
        let below = profiles.iter().filter(|path| path.is_dir()).flat_map(|path| list(path));
        let named = |path: PathBuf| {
            let name = path.file_name()?.to_str()?.rsplit_once('-')?.0.to_owned();
            Some((name, path))
        };
        let holders = profiles.iter().cloned().chain(below).map(|path| path.join(".fingerprint"));
        holders.flat_map(|holder| list(&holder)).filter_map(named).collect()
    }

    fn dir(&self) -> PathBuf {
        self.target_dir.join(RECORDS)
    }

    fn mark(&self) -> PathBuf {
        self.dir().join(RUNNING)
    }
}

impl Record {
    fn is_as_recorded(&self, snapshot: &mut Snapshot) -> bool {
        if !self.is_valid {
            return false;
        }
        let files = self.inputs.every_file();
        let is_known = |path: &PathBuf| self.content.has(path);
        if !files.iter().all(is_known) {
            return false;
        }
        snapshot.read(self.content.files().map(|(path, _)| path.to_owned()));
        self.content.files().all(|(path, content)| snapshot.content(path) == Some(content))
    }
}

impl Compilation {
    /// What cargo has read of a file, where that is certain.
    fn content_of(&self, path: &Path) -> Content {
        self.before.content_during(path, self.started)
    }
}
