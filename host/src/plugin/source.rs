//! Where a plugin comes from: a package to be built, or a library.

use std::path::{Path, PathBuf};

use crate::watch::scan::Candidate;

/// Where a plugin comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A cargo package, to be built.
    Directory {
        /// Where it lies in the plugins directory, which may be a symlink.
        path: PathBuf,
    },
    /// A library, already built.
    Library {
        /// Where it lies in the plugins directory, which may be a symlink.
        path: PathBuf,
    },
}

impl Source {
    /// The directory or file.
    pub fn path(&self) -> &Path {
        match self {
            Source::Directory { path } | Source::Library { path } => path,
        }
    }

    pub(super) fn is(&self, candidate: &Candidate) -> bool {
        match (self, candidate) {
            (Source::Directory { path }, Candidate::Source { path: other, .. }) => path == other,
            (Source::Library { path }, Candidate::Library { path: other, .. }) => path == other,
            _ => false,
        }
    }

    pub(super) fn exists(&self) -> bool {
        match self {
            Source::Directory { path } => path.join("Cargo.toml").exists(),
            Source::Library { path } => path.is_file(),
        }
    }
}
