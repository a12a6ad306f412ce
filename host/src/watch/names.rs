//! Which names are never a plugin's business, and what a path is really called.
//!
//! Owns the list of editors' temporary files. Does not know what is watched.

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

/// `path` made absolute and free of symlinks as far as it exists; the rest is kept as written.
pub fn resolved(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let real = absolute.ancestors().find_map(|above| above.canonicalize().ok().zip(Some(above)));
    match real.and_then(|(real, above)| Some(real.join(absolute.strip_prefix(above).ok()?))) {
        // Joining an empty rest would add a slash.
        Some(path) => path.components().collect(),
        None => absolute,
    }
}
