//! The directory under `--plugins`, as a developer or a deployment would change it.
//!
//! Owns: putting libraries and sources there, well or badly. Does not own: what the host makes of it.
//!
//! # Invariants
//!
//! - Unless a method says otherwise, a file appears whole: it is written under a hidden name beside its
//!   place and renamed.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::fixture;
use crate::source::SourcePlugin;

/// A directory of plugins.
#[derive(Clone, Debug)]
pub struct PluginsDir {
    path: PathBuf,
}

impl PluginsDir {
    /// Makes the directory.
    pub(super) fn create(path: PathBuf) -> PluginsDir {
        fs::create_dir(&path).expect("the test's directory is writable");
        PluginsDir { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the library of a plugin is or would be.
    pub fn library(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.so"))
    }

    /// Whether the plugin is there as source.
    pub fn is_source(&self, name: &str) -> bool {
        self.path.join(name).is_dir()
    }

    /// Adds a prebuilt plugin: a fixture's library under the name `name`.
    ///
    /// # Panics
    ///
    /// When it is there already.
    #[track_caller]
    pub fn install(&self, name: &str, fixture: &str) {
        assert!(!self.library(name).exists(), "`{name}` is installed already: replace it");
        self.put(name, &read_fixture(fixture));
    }

    /// Replaces a prebuilt plugin's library by a fixture's.
    ///
    /// # Panics
    ///
    /// When it is not there.
    #[track_caller]
    pub fn replace(&self, name: &str, fixture: &str) {
        assert!(self.library(name).exists(), "`{name}` is not installed: install it");
        self.put(name, &read_fixture(fixture));
    }

    /// Puts a library that the test has built itself under the name `name`, in the place of what is there.
    pub fn put_library(&self, name: &str, library: &[u8]) {
        self.put(name, library);
    }

    /// Replaces a library by what another build of the fixture would yield: other bytes, the same code.
    ///
    /// # Panics
    ///
    /// When it is not there.
    #[track_caller]
    pub fn rebuild(&self, name: &str, fixture: &str, build: usize) {
        assert!(self.library(name).exists(), "`{name}` is not installed: install it");
        let mut bytes = read_fixture(fixture);
        // Behind the end of what the headers describe, where nobody looks.
        bytes.extend_from_slice(format!("build {build}").as_bytes());
        self.put(name, &bytes);
    }

    /// Puts the first part of a fixture's library there, as a full disk would leave it.
    #[track_caller]
    pub fn write_truncated(&self, name: &str, fixture: &str, percent: usize) {
        let bytes = read_fixture(fixture);
        self.put(name, &bytes[..bytes.len() * percent / 100]);
    }

    /// Puts bytes there that are no library, or hardly one.
    pub fn write_garbage(&self, name: &str, bytes: &[u8]) {
        self.put(name, bytes);
    }

    /// Begins to write a fixture's library in place, as `cp` does, and stops half way.
    #[track_caller]
    pub fn begin_write(&self, name: &str, fixture: &str) -> HalfWritten {
        let bytes = read_fixture(fixture);
        let (first, rest) = bytes.split_at(bytes.len() / 2);
        let path = self.library(name);
        let mut file = File::create(&path).expect("the test's directory is writable");
        file.write_all(first).expect("the test's directory is writable");
        HalfWritten { file, rest: rest.to_vec() }
    }

    /// Deletes a plugin, library or source.
    ///
    /// # Panics
    ///
    /// When it is not there.
    #[track_caller]
    pub fn remove(&self, name: &str) {
        let removed = if self.is_source(name) {
            fs::remove_dir_all(self.path.join(name))
        } else {
            fs::remove_file(self.library(name))
        };
        removed.unwrap_or_else(|error| panic!("removing `{name}`: {error}"));
    }

    /// Adds a copy of one of the shipped plugins, as source.
    #[track_caller]
    pub fn copy_source(&self, name: &str) -> SourcePlugin {
        SourcePlugin::copy(name, &self.path)
    }

    /// Adds a plugin of the test's own, as source.
    #[track_caller]
    pub fn write_source(&self, name: &str, text: &str) -> SourcePlugin {
        SourcePlugin::write(name, text, &self.path)
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        let hidden = self.path.join(format!(".{name}.so.partial"));
        fs::write(&hidden, bytes).expect("the test's directory is writable");
        fs::rename(&hidden, self.library(name)).expect("a rename within one directory");
    }
}

/// A library of which the second half is still to come.
#[derive(Debug)]
pub struct HalfWritten {
    file: File,
    rest: Vec<u8>,
}

impl HalfWritten {
    /// Writes the rest.
    pub fn finish(mut self) {
        self.file.write_all(&self.rest).expect("the test's directory is writable");
    }
}

#[track_caller]
fn read_fixture(name: &str) -> Vec<u8> {
    let path = fixture::library(name);
    fs::read(&path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()))
}
