//! Builds that change what they are made from: a build script that writes into `src`, say.
//!
//! Such a change looks like an edit, and an edit cancels the build and starts another one, which changes the file again.
//! A file that changed during several builds in a row and at no other time counts as written by the build: it cancels no
//! build any more, and the builds that only it asks for come at growing distances. None of its changes is passed over, so an
//! author who saves that often loses nothing but time; and a change of it between two builds is an edit like any other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::build::Fingerprint;

/// In how many builds in a row a file may change before it counts as written by the build.
const BY_CHANCE: u32 = 2;

/// How long the first build for such a file alone is put off; each further one twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// How long one is put off at most.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// The files that a plugin's builds change.
#[derive(Debug, Default)]
pub(super) struct OwnOutput {
    /// In how many builds in a row each has changed.
    builds: BTreeMap<PathBuf, u32>,
    /// What was there when the last build ended.
    at_end: Fingerprint,
    ended: Option<Instant>,
}

/// A build that is put off.
#[derive(Debug)]
pub(super) struct PutOff {
    /// Until when.
    pub(super) until: Instant,
    /// The file that asks for it.
    pub(super) file: PathBuf,
}

impl OwnOutput {
    /// Notes the end of a build that began with `before`. Returns the files that have just come to count as written by
    /// the build.
    pub(super) fn build_ended(&mut self, before: &Fingerprint, now: Fingerprint) -> Vec<PathBuf> {
        let changed: BTreeSet<PathBuf> =
            now.changed_since(before).into_iter().filter(|file| !is_lock(file)).map(Path::to_owned).collect();
        let was = std::mem::take(&mut self.builds);
        self.builds =
            changed.into_iter().map(|file| (file.clone(), was.get(&file).map_or(1, |n| n + 1))).collect();
        (self.at_end, self.ended) = (now, Some(Instant::now()));
        let is_new = |(_, builds): &(&PathBuf, &u32)| **builds == BY_CHANCE + 1;
        self.builds.iter().filter(is_new).map(|(file, _)| file.clone()).collect()
    }

    /// The files whose changes do not cancel a build.
    pub(super) fn files(&self) -> BTreeSet<PathBuf> {
        self.builds.iter().filter(|(_, builds)| **builds >= BY_CHANCE).map(|(file, _)| file.clone()).collect()
    }

    /// Whether a build of `now` is to be put off, as all that is new since `tried` was written by the last build.
    pub(super) fn puts_off(&mut self, now: &Fingerprint, tried: &Fingerprint) -> Option<PutOff> {
        // What changed after the build is an edit.
        for file in now.changed_since(&self.at_end) {
            self.builds.remove(file);
        }
        let mut changed = now.changed_since(tried);
        changed.retain(|file| !is_lock(file));
        let builds = changed.iter().map(|file| self.builds.get(*file).copied().unwrap_or(0)).min()?;
        let file = changed.first().filter(|_| builds > BY_CHANCE).map(|file| (*file).to_owned())?;
        let wait = FIRST_WAIT.saturating_mul(1 << (builds - BY_CHANCE - 1).min(16)).min(LONGEST_WAIT);
        Some(PutOff { until: self.ended? + wait, file })
    }
}

/// cargo writes the lock file itself.
fn is_lock(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name == "Cargo.lock")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::build::Inputs;

    /// A package whose build writes `src/made.rs`.
    struct Package {
        directory: tempfile::TempDir,
        inputs: Inputs,
    }

    impl Package {
        fn new() -> Package {
            let directory = tempfile::tempdir().unwrap();
            fs::create_dir(directory.path().join("src")).unwrap();
            let inputs = Inputs::of_directory(directory.path(), "");
            Package { directory, inputs }
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let file = self.directory.path().join("src").join(name);
            fs::write(&file, text).unwrap();
            file
        }

        fn now(&self) -> Fingerprint {
            Fingerprint::of(&self.inputs)
        }
    }

    #[test]
    fn file_that_changes_in_each_build_is_named_and_its_builds_are_put_off() {
        let package = Package::new();
        let mut own = OwnOutput::default();
        package.write("lib.rs", "one");
        let mut named = Vec::new();
        let mut waits = Vec::new();
        for build in 0..5 {
            let before = package.now();
            let made = package.write("made.rs", &format!("build {build}"));
            named.push(own.build_ended(&before, package.now()) == [made.clone()]);
            // What a build has not seen is tried again.
            let off = own.puts_off(&package.now(), &before);
            waits.push(
                off.map(|off| (off.until.saturating_duration_since(Instant::now()).as_millis() + 500) / 1000),
            );
            assert_eq!(own.files().contains(&made), build > 0);
        }
        assert_eq!(named, [false, false, true, false, false]);
        assert_eq!(waits, [None, None, Some(1), Some(2), Some(4)]);
    }

    #[test]
    fn edit_beside_such_a_file_and_of_it_between_two_builds_is_built_at_once() {
        let package = Package::new();
        let mut own = OwnOutput::default();
        let mut before = package.now();
        for build in 0..4 {
            before = package.now();
            package.write("made.rs", &format!("build {build}"));
            own.build_ended(&before, package.now());
        }
        assert!(own.puts_off(&package.now(), &before).is_some());
        package.write("lib.rs", "an edit");
        assert!(own.puts_off(&package.now(), &before).is_none());
        fs::remove_file(package.directory.path().join("src/lib.rs")).unwrap();
        package.write("made.rs", "an edit");
        assert!(own.puts_off(&package.now(), &before).is_none());
        assert!(own.files().is_empty(), "and it is an author's file from then on");
    }

    #[test]
    fn file_that_is_saved_during_two_builds_is_not_named() {
        let package = Package::new();
        let mut own = OwnOutput::default();
        for build in 0..6 {
            let before = package.now();
            if build % 3 != 0 {
                package.write("lib.rs", &format!("save {build}"));
            }
            assert_eq!(own.build_ended(&before, package.now()), [] as [PathBuf; 0]);
        }
    }
}
