//! Which names are never a plugin's business, and what a path is really called.
//!
//! Owns the list of editors' temporary files, and the following of symlinks. Does not know what is watched.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Whether `path` is noise below `root`: what cargo, git, an editor or this host writes for itself.
///
/// Only what lies below `root` is looked at, so a directory named `.host` or `target` that somebody asks
/// to watch is watched. `target` is noise beside a manifest or with cargo's tag in it, since a source
/// directory may well have that name.
pub fn is_ignored(root: &Path, path: &Path) -> bool {
    let Ok(below) = path.strip_prefix(root) else {
        return false;
    };
    let mut at = root.to_owned();
    for component in below.components() {
        let Component::Normal(name) = component else { continue };
        let beside_manifest = || at.join("Cargo.toml").exists();
        let has_tag = |directory: &Path| directory.join("CACHEDIR.TAG").exists();
        let name = name.to_string_lossy();
        match &*name {
            ".git" | ".host" | ".hg" | ".jj" => return true,
            "target" if beside_manifest() || has_tag(&at.join("target")) => return true,
            name if is_temporary(name) => return true,
            _ => {}
        }
        at.push(&*name);
    }
    false
}

/// Whether an editor or a copying tool names its half-finished or backup files like this.
fn is_temporary(name: &str) -> bool {
    // vim tests with `4913` whether it may create files; the others are swap, lock and backup files.
    let is_swap = name.starts_with('.')
        && [".swp", ".swo", ".swn", ".swx", ".kate-swp"].iter().any(|ending| name.ends_with(ending));
    is_swap
        || name == "4913"
        || name.ends_with('~')
        || name.starts_with(".#")
        || name.starts_with('#') && name.ends_with('#')
        || name.starts_with(".goutputstream")
        || name.ends_with(".tmp")
        || name.ends_with("___jb_tmp___")
        || name.ends_with("___jb_old___")
}

/// How many symlinks are followed on the way to one file, as in the kernel.
const MOST_LINKS: usize = 40;

/// `path` made absolute and free of symlinks as far as it exists; the rest is kept as written.
pub fn resolved(path: &Path) -> PathBuf {
    trail(path).real
}

/// The way to a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trail {
    /// Its path without symlinks as far as it exists; the rest is kept as written.
    pub real: PathBuf,
    /// Every symlink on the way, by a name that has none before its end: where one of them is replaced, the
    /// path leads elsewhere.
    pub links: BTreeSet<PathBuf>,
}

/// Follows `path` link by link.
pub fn trail(path: &Path) -> Trail {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let parts = |path: &Path| path.components().rev().map(|part| part.as_os_str().to_owned()).collect();
    let mut left: Vec<OsString> = parts(&absolute);
    let mut trail = Trail::default();
    let mut followed = 0;
    while let Some(part) = left.pop() {
        match part.as_encoded_bytes() {
            b"." => {}
            b".." => {
                trail.real.pop();
            }
            _ => {
                let at = trail.real.join(&part);
                match fs::read_link(&at) {
                    Ok(target) if followed < MOST_LINKS => {
                        followed += 1;
                        trail.links.insert(at);
                        left.extend(parts(&target));
                    }
                    // Joining the root, as an absolute target begins with, replaces all before it.
                    _ => trail.real = at,
                }
            }
        }
    }
    trail
}
