//! Which target directory a package is built in.
//!
//! All plugins share one, so that a crate that several of them use is compiled once. cargo names what it makes by the
//! name of the library or, where two packages are each a workspace of their own, by the name of the package: two
//! plugins with the same name there would overwrite each other's files. The second one gets a directory of its own.
//!
//! # Invariants
//!
//! - No two packages that are in use and share a name of an artifact share a target directory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use super::compiled::CompiledPackages;
use super::package::Package;

/// Below the shared target directory, the others.
const APART: &str = "apart";

/// The target directories of a host.
pub(super) struct TargetDirs {
    /// By the package's directory.
    claims: Mutex<BTreeMap<PathBuf, Claim>>,
    /// Those that were built in, by path.
    open: Mutex<BTreeMap<PathBuf, Arc<TargetDir>>>,
}

/// One target directory.
pub(super) struct TargetDir {
    pub(super) path: PathBuf,
    pub(super) compiled: CompiledPackages,
}

/// The names that a package goes by.
struct Claim {
    artifacts: BTreeSet<String>,
    /// Whether another one has one of them where most packages are built.
    is_apart: bool,
}

impl TargetDirs {
    pub(super) fn new() -> TargetDirs {
        TargetDirs { claims: Mutex::default(), open: Mutex::default() }
    }

    /// The directory for `package`, in `shared` or below it: the same one as long as the package goes by the same names.
    pub(super) fn of(&self, package: &Package, shared: &Path) -> Arc<TargetDir> {
        let path = match self.claim(package) {
            true => {
                let hash = xxh3_64(package.directory.as_os_str().as_encoded_bytes());
                shared.join(APART).join(format!("{}-{hash:016x}", package.name))
            }
            false => shared.to_owned(),
        };
        let mut open = self.open.lock();
        let at = |path: &PathBuf| {
            Arc::new(TargetDir { compiled: CompiledPackages::of(path.clone()), path: path.clone() })
        };
        Arc::clone(open.entry(path).or_insert_with_key(at))
    }

    /// Takes the names of `package` for it, and tells whether it has to be built apart.
    pub(super) fn claim(&self, package: &Package) -> bool {
        let mut claims = self.claims.lock();
        if let Some(claim) =
            claims.get(&package.directory).filter(|claim| claim.artifacts == package.artifacts)
        {
            return claim.is_apart;
        }
        claims.remove(&package.directory);
        // What was deleted is in nobody's way.
        claims.retain(|directory, _| directory.join("Cargo.toml").exists());
        let is_apart =
            claims.values().any(|claim| !claim.is_apart && !claim.artifacts.is_disjoint(&package.artifacts));
        claims.insert(package.directory.clone(), Claim { artifacts: package.artifacts.clone(), is_apart });
        is_apart
    }

    /// Gives back the names of the package in `directory`, which is a plugin no more.
    pub(super) fn release(&self, directory: &Path) {
        self.claims.lock().remove(directory);
    }
}
