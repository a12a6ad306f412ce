//! The libraries of a plugin that have served, and the note of them that survives a crash.
//!
//! # Invariants
//!
//! - A kept library is a private copy, and is used only if its content is still what has served.
//! - The note is replaced whole, and durably where it says that code was left. A process that was started anew begins
//!   without one, unless that says so; a process that goes on after a crash begins with it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::rollback::OrderError;
use super::stage::{BuildId, Image, StageError};
use crate::report::chain;

/// How many libraries of a plugin are kept, the current one included.
const KEPT: usize = 3;

/// Where in the state directory they are.
const GOOD: &str = "good";

/// A library that has served.
#[derive(Debug)]
pub(super) struct Good {
    pub(super) build_id: BuildId,
    /// A private copy.
    pub(super) path: PathBuf,
    /// The directory that it was made for.
    pub(super) origin: PathBuf,
    /// The generations that were made from it, the first one first; never empty.
    pub(super) generations: Vec<u64>,
    /// Whether somebody went away from it because it did not serve well.
    pub(super) is_left: bool,
}

/// The libraries of one plugin that have served, the newest last.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) dir: PathBuf,
    /// What they were made from.
    pub(super) source: PathBuf,
    pub(super) goods: Vec<Good>,
    /// Why the newest code does not serve; `None`: it does, or was never live.
    pub(super) refusal: Option<String>,
    /// What the process before this one had made of the source at last. Known after a crash only.
    pub(super) tried: Option<BuildId>,
    /// The first number that was not given to any of them.
    pub(super) next_generation: u64,
    /// What serves.
    pub(super) current: Option<BuildId>,
}

impl Kept {
    /// None yet. What an earlier process left behind belongs to generations that nobody can name any more, unless
    /// `is_resuming`: then this process goes on where that one has crashed. It also goes on where newer code was rolled
    /// back: that stays out until its content changes.
    pub(super) fn of(plugin: &str, source: &Path, state_dir: &Path, is_resuming: bool) -> Kept {
        let dir = state_dir.join(GOOD).join(plugin);
        let found = Manifest::read(&dir).filter(|found| is_resuming || found.is_rolled_back());
        if let Some(kept) = found.and_then(|found| found.kept(&dir, source)) {
            return kept;
        }
        // Mostly there is nothing; what cannot be removed is overwritten or stays unused.
        let _ = fs::remove_dir_all(&dir);
        let _ = fs::remove_file(manifest_of(&dir));
        Kept {
            dir,
            source: source.to_owned(),
            goods: Vec::new(),
            refusal: None,
            tried: None,
            next_generation: 1,
            current: None,
        }
    }

    /// Forgets everything: the plugin is deleted.
    pub(super) fn clear(&mut self) {
        self.goods.clear();
        // Left-overs are removed by the next plugin of that name.
        let _ = fs::remove_dir_all(&self.dir);
        let _ = fs::remove_file(manifest_of(&self.dir));
    }

    /// Whether the newest code was left for earlier code, which serves.
    pub(super) fn is_rolled_back(&self) -> bool {
        self.refusal.is_some() && self.current.is_some() && self.current != self.tried
    }

    /// What to go on with after a crash: what served, or what is best where that is `out`.
    pub(super) fn to_resume(&self, is_out: impl Fn(BuildId) -> bool) -> Option<usize> {
        let current = self.current?;
        let place = self.goods.iter().position(|good| good.build_id == current)?;
        if !is_out(current) {
            return Some(place);
        }
        self.goods.iter().rposition(|good| !good.is_left && !is_out(good.build_id))
    }

    /// Writes down what is kept, for a process that goes on after a crash of this one.
    fn save(&self) -> io::Result<()> {
        let path = manifest_of(&self.dir);
        let new = path.with_extension("new");
        let parent = path.parent().unwrap_or(Path::new("."));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(&Manifest::of(self)).expect("it is text and numbers"))?;
        let is_lasting = self.is_rolled_back();
        if is_lasting {
            file.sync_all()?;
        }
        fs::rename(&new, &path)?;
        if is_lasting { File::open(parent)?.sync_all() } else { Ok(()) }
    }

    /// Keeps the library of a generation that has gone live, and lets go of what is too much.
    pub(super) fn keep(
        &mut self,
        number: u64,
        build_id: BuildId,
        staged: &Path,
        origin: &Path,
    ) -> io::Result<()> {
        (self.current, self.tried, self.refusal) = (Some(build_id), Some(build_id), None);
        self.next_generation = number + 1;
        let mut generations = Vec::new();
        if let Some(at) = self.goods.iter().position(|good| good.build_id == build_id) {
            generations = self.goods.remove(at).generations;
        }
        generations.push(number);
        let path = self.dir.join(format!("{build_id}.so"));
        if !path.exists() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
            // Nobody writes to a staged file, so a second name for it is a copy that costs nothing.
            fs::hard_link(staged, &path).or_else(|_| fs::copy(staged, &path).map(drop))?;
        }
        let origin = origin.to_owned();
        self.goods.push(Good { build_id, path, origin, generations, is_left: false });
        if self.goods.len() > KEPT {
            let left = self.goods.iter().position(|good| good.is_left);
            let dropped = self.goods.remove(left.unwrap_or(0));
            // A file that is already gone is fine.
            let _ = fs::remove_file(dropped.path);
        }
        self.save()
    }

    /// Where a roll-back from `current` goes.
    pub(super) fn target(
        &self,
        plugin: &Arc<str>,
        current: BuildId,
        to: Option<u64>,
    ) -> Result<usize, OrderError> {
        let plugin = Arc::clone(plugin);
        let Some(generation) = to else {
            let earlier = |good: &Good| !good.is_left && good.build_id != current;
            let found = self.goods.iter().rposition(earlier);
            return found.ok_or_else(|| OrderError::NothingEarlier { plugin, kept: self.words() });
        };
        match self.goods.iter().position(|good| good.generations.contains(&generation)) {
            Some(at) if self.goods[at].build_id == current => {
                Err(OrderError::ServesAlready { plugin, generation })
            }
            Some(at) => Ok(at),
            None => Err(OrderError::UnknownGeneration { plugin, generation, kept: self.words() }),
        }
    }

    /// Notes that generation `number` was made from the library at `at`; what is newer was gone away from,
    /// if there is a `refusal` of it.
    pub(super) fn went_to(&mut self, at: usize, number: u64, refusal: Option<&str>) -> io::Result<()> {
        self.goods[at].generations.push(number);
        if let Some(refusal) = refusal {
            for (place, good) in self.goods.iter_mut().enumerate().skip(at) {
                good.is_left = place > at;
            }
            self.refusal = Some(refusal.to_owned());
        }
        self.current = Some(self.goods[at].build_id);
        self.next_generation = number + 1;
        self.save()
    }

    /// `generation 1, generations 2 and 4`, or `no generation`.
    pub(super) fn words(&self) -> String {
        let of = |good: &Good| {
            let numbers: Vec<String> = good.generations.iter().map(u64::to_string).collect();
            let noun = if numbers.len() == 1 { "generation" } else { "generations" };
            format!("{noun} {}", numbers.join(" and "))
        };
        let goods: Vec<String> = self.goods.iter().map(of).collect();
        if goods.is_empty() { "no generation".to_owned() } else { goods.join(", ") }
    }
}

impl Good {
    /// Takes the library in by `take`, one of the ways of [`Stage`](super::stage::Stage), if it is still what served.
    pub(super) fn stage(
        &self,
        take: impl FnOnce(&Path) -> Result<Image, StageError>,
    ) -> Result<Image, OrderError> {
        let failed = |reason: String| OrderError::Kept { path: self.path.clone(), reason };
        let image = take(&self.path).map_err(|error| failed(chain(&error)))?;
        if image.build_id == self.build_id {
            Ok(Image { origin: self.origin.clone(), ..image })
        } else {
            Err(failed("its content has changed".to_owned()))
        }
    }
}

/// The note, as it is written.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Manifest {
    source: PathBuf,
    current: Option<String>,
    tried: Option<String>,
    refusal: Option<String>,
    next_generation: u64,
    goods: Vec<Noted>,
}

/// A kept library in the note.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Noted {
    build: String,
    #[serde(default)]
    origin: PathBuf,
    generations: Vec<u64>,
    is_left: bool,
}

impl Manifest {
    fn of(kept: &Kept) -> Manifest {
        let text = |build: Option<BuildId>| build.map(|build| build.to_string());
        let noted = |good: &Good| Noted {
            build: good.build_id.to_string(),
            origin: good.origin.clone(),
            generations: good.generations.clone(),
            is_left: good.is_left,
        };
        Manifest {
            source: kept.source.clone(),
            current: text(kept.current),
            tried: text(kept.tried),
            refusal: kept.refusal.clone(),
            next_generation: kept.next_generation,
            goods: kept.goods.iter().map(noted).collect(),
        }
    }

    /// Whether the newest code was left for earlier code.
    fn is_rolled_back(&self) -> bool {
        self.refusal.is_some() && self.current.is_some() && self.current != self.tried
    }

    /// The note beside `dir`; `None` where there is none that can be read.
    fn read(dir: &Path) -> Option<Manifest> {
        serde_json::from_slice(&fs::read(manifest_of(dir)).ok()?).ok()
    }

    /// What it says, if it is about `source`.
    fn kept(self, dir: &Path, source: &Path) -> Option<Kept> {
        let build = |text: &Option<String>| text.as_deref().and_then(BuildId::parse);
        let good = |noted: Noted| {
            let build_id = BuildId::parse(&noted.build)?;
            let path = dir.join(format!("{build_id}.so"));
            let generations = Some(noted.generations).filter(|numbers| !numbers.is_empty())?;
            let origin = noted.origin;
            Some(Good { build_id, path, origin, generations, is_left: noted.is_left })
        };
        (self.source == source).then(|| Kept {
            dir: dir.to_owned(),
            current: build(&self.current),
            tried: build(&self.tried),
            refusal: self.refusal,
            next_generation: self.next_generation,
            source: self.source,
            goods: self.goods.into_iter().filter_map(good).collect(),
        })
    }
}

fn manifest_of(dir: &Path) -> PathBuf {
    dir.with_added_extension("json")
}

/// The plugin that was made from `source` before the process crashed. Asking cargo takes longer than all
/// else that is between a crash and the next answer.
pub(super) fn name_of(source: &Path, state_dir: &Path) -> Option<String> {
    let notes = fs::read_dir(state_dir.join(GOOD)).ok()?.flatten().map(|entry| entry.path());
    let mut names = notes.filter(|path| path.extension().is_some_and(|of| of == "json"));
    names.find_map(|path| {
        let dir = path.with_extension("");
        let is_it = Manifest::read(&dir)?.source == source;
        is_it.then(|| dir.file_name().unwrap_or_default().to_string_lossy().into_owned())
    })
}

/// Why this content of a plugin stays out, if it was rolled back.
pub(super) fn rolled_back(state_dir: &Path, plugin: &str, source: &Path, build: BuildId) -> Option<String> {
    let manifest = Manifest::read(&state_dir.join(GOOD).join(plugin))?;
    let is_it =
        manifest.source == source && manifest.tried.as_deref().and_then(BuildId::parse) == Some(build);
    if is_it && manifest.is_rolled_back() { manifest.refusal } else { None }
}

/// What of a plugin can serve in the place of code that crashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replacement {
    /// Other code that has served.
    Other,
    /// None: it is the only code there is.
    Nothing,
    /// It has never been live: what serves is not in question.
    NotNeeded,
}

/// What can serve in the place of `build`.
pub(super) fn replacement(
    plugin: &str,
    build: BuildId,
    state_dir: &Path,
    is_out: impl Fn(BuildId) -> bool,
) -> Replacement {
    let dir = state_dir.join(GOOD).join(plugin);
    let Some(manifest) = Manifest::read(&dir) else { return Replacement::NotNeeded };
    let is = |noted: &Noted| BuildId::parse(&noted.build) == Some(build);
    if !manifest.goods.iter().any(is) {
        return Replacement::NotNeeded;
    }
    let serves = |noted: &Noted| {
        !is(noted) && !noted.is_left && BuildId::parse(&noted.build).is_some_and(|b| !is_out(b))
    };
    if manifest.goods.iter().any(serves) { Replacement::Other } else { Replacement::Nothing }
}
