//! Plugins as source, in a package of their own that a test may edit.
//!
//! Owns: a cargo package outside this workspace that depends on this repository's plugin-api, and its
//! edits. Does not own: building it, which is the host's work.

use std::fs;
use std::path::{Path, PathBuf};

use crate::fixture::repository;

/// A plugin's package.
#[derive(Clone, Debug)]
pub struct SourcePlugin {
    dir: PathBuf,
}

impl SourcePlugin {
    /// Copies a shipped plugin into `plugins`, made independent of this workspace.
    #[track_caller]
    pub(crate) fn copy(name: &str, plugins: &Path) -> SourcePlugin {
        let from = repository().join("plugins").join(name);
        let read = |path: &Path| {
            fs::read_to_string(path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()))
        };
        let workspace = read(&repository().join("Cargo.toml"));
        let manifest = standalone(&read(&from.join("Cargo.toml")), &workspace);
        let plugin = SourcePlugin::create(name, &manifest, plugins);
        for entry in fs::read_dir(from.join("src")).expect("a package has sources") {
            let file = entry.expect("a readable directory").path();
            let name = file.file_name().expect("an entry has a name");
            fs::copy(&file, plugin.dir.join("src").join(name)).expect("sources are plain files");
        }
        plugin
    }

    /// Writes a plugin of the test's own into `plugins`.
    #[track_caller]
    pub(crate) fn write(name: &str, text: &str, plugins: &Path) -> SourcePlugin {
        let api = repository().join("plugin-api");
        let manifest = format!(
            "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n\
             [lib]\ncrate-type = [\"cdylib\"]\n\n\
             [dependencies]\nplugin-api = {{ path = {api:?} }}\n\n[workspace]\n"
        );
        let plugin = SourcePlugin::create(name, &manifest, plugins);
        plugin.save(text);
        plugin
    }

    fn create(name: &str, manifest: &str, plugins: &Path) -> SourcePlugin {
        let dir = plugins.join(name);
        fs::create_dir_all(dir.join("src")).expect("the test's directory is writable");
        fs::write(dir.join("Cargo.toml"), manifest).expect("the test's directory is writable");
        // The versions this workspace was tested with; cargo drops what the plugin does not need.
        fs::copy(repository().join("Cargo.lock"), dir.join("Cargo.lock")).expect("there is a lock file");
        SourcePlugin { dir }
    }

    /// The package's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The main source file.
    pub fn file(&self) -> PathBuf {
        self.dir.join("src/lib.rs")
    }

    /// What the main source file says.
    pub fn text(&self) -> String {
        fs::read_to_string(self.file()).expect("the main source is there")
    }

    /// Saves the main source file as editors do: a new file, renamed into place.
    pub fn save(&self, text: &str) {
        let hidden = self.dir.join("src/.lib.rs.saving");
        fs::write(&hidden, text).expect("the test's directory is writable");
        fs::rename(hidden, self.file()).expect("a rename within one directory");
    }

    /// Saves it as other editors do: emptied and written again.
    pub fn save_in_place(&self, text: &str) {
        fs::write(self.file(), text).expect("the test's directory is writable");
    }

    /// Saves it with one passage changed.
    ///
    /// # Panics
    ///
    /// When the passage is not there: the edit would test nothing.
    #[track_caller]
    pub fn edit(&self, from: &str, to: &str) {
        let text = self.text();
        assert!(text.contains(from), "`{from}` is not in {}", self.file().display());
        self.save(&text.replacen(from, to, 1));
    }
}

/// The manifest with everything inherited written out, as the root of a workspace of its own.
fn standalone(manifest: &str, workspace: &str) -> String {
    let mut lines = Vec::new();
    let mut section = "";
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        }
        if section == "[lints]" {
            continue;
        }
        lines.push(match line.split_once(".workspace") {
            Some((key, _)) => inherited(key.trim(), section, workspace),
            None => line.to_owned(),
        });
    }
    lines.push("\n[workspace]\n".to_owned());
    lines.join("\n")
}

/// The line of the root manifest that `key` in `section` inherits.
fn inherited(key: &str, section: &str, workspace: &str) -> String {
    let kind = if section == "[package]" { "package" } else { "dependencies" };
    let table = workspace.split_once(&format!("[workspace.{kind}]")).map_or("", |(_, after)| after);
    let found = table
        .lines()
        .take_while(|line| !line.starts_with('['))
        .find(|line| line.split('=').next().is_some_and(|name| name.trim() == key));
    let line = found.unwrap_or_else(|| panic!("`{key}` is not in [workspace.{kind}]"));
    line.replace("path = \"", &format!("path = \"{}/", repository().display()))
}
