//! Which target directory a package is built in.
//!
//! All plugins share one, so that a crate that several of them use is compiled once. cargo names what it makes by the
//! name of the library or, where two packages are each a workspace of their own, by the name of the package: two
//! plugins whose names are the same there would overwrite each other's files. The second one gets a directory of its own.
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
    shared: Arc<TargetDir>,
    /// By the package's directory.
    claims: Mutex<BTreeMap<PathBuf, Claim>>,
}

/// One target directory.
pub(super) struct TargetDir {
    pub(super) path: PathBuf,
    pub(super) compiled: CompiledPackages,
}

struct Claim {
    artifacts: BTreeSet<String>,
    target_dir: Arc<TargetDir>,
}

impl TargetDir {
    fn at(path: PathBuf) -> Arc<TargetDir> {
        Arc::new(TargetDir { compiled: CompiledPackages::of(path.clone()), path })
    }
}

impl TargetDirs {
    /// All of them lie in `shared`.
    pub(super) fn of(shared: PathBuf) -> TargetDirs {
        TargetDirs { shared: TargetDir::at(shared), claims: Mutex::default() }
    }

    /// The directory that all share which have no reason not to.
    pub(super) fn shared(&self) -> &Path {
        &self.shared.path
    }

    /// The directory for `package`: the same one as long as the package goes by the same names.
    pub(super) fn claim(&self, package: &Package) -> Arc<TargetDir> {
        let mut claims = self.claims.lock();
        if let Some(claim) =
            claims.get(&package.directory).filter(|claim| claim.artifacts == package.artifacts)
        {
            return Arc::clone(&claim.target_dir);
        }
        claims.remove(&package.directory);
        let is_taken = claims.values().any(|claim| {
            Arc::ptr_eq(&claim.target_dir, &self.shared) && !claim.artifacts.is_disjoint(&package.artifacts)
        });
        let target_dir = match is_taken {
            true => {
                let hash = xxh3_64(package.directory.as_os_str().as_encoded_bytes());
                TargetDir::at(self.shared.path.join(APART).join(format!("{}-{hash:016x}", package.name)))
            }
            false => Arc::clone(&self.shared),
        };
        let claim = Claim { artifacts: package.artifacts.clone(), target_dir: Arc::clone(&target_dir) };
        claims.insert(package.directory.clone(), claim);
        target_dir
    }

    /// Gives back the names of the package in `directory`, which is a plugin no more.
    pub(super) fn release(&self, directory: &Path) {
        self.claims.lock().remove(directory);
    }
}
