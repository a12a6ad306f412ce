//! Facts about watching and scanning, on real directories.
//!
//! Nothing here sleeps: an event that must not come is shown absent by a later one that must.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::*;

/// Far beyond what any event takes; reached only by a failing test.
const DEADLINE: Duration = Duration::from_secs(20);

/// A watched temporary directory.
struct Watched {
    directory: TempDir,
    root: PathBuf,
    watcher: Watcher,
    changes: Receiver<Change>,
}

impl Watched {
    /// Watches the subdirectory `plugins`, prepared by `prepare`.
    fn new(depth: Depth, prepare: impl FnOnce(&Path)) -> Watched {
        Watched::started(depth, prepare, |sender| {
            Watcher::start(move |change| drop(sender.send(change))).unwrap()
        })
    }

    fn started(
        depth: Depth,
        prepare: impl FnOnce(&Path),
        start: impl FnOnce(mpsc::Sender<Change>) -> Watcher,
    ) -> Watched {
        let directory = TempDir::new().unwrap();
        let root = directory.path().canonicalize().unwrap().join("plugins");
        fs::create_dir(&root).unwrap();
        prepare(&root);
        let (sender, changes) = mpsc::channel();
        let watcher = start(sender);
        watcher.watch(&root, depth).unwrap();
        Watched { directory, root, watcher, changes }
    }

    /// Waits until `path` below the root, or everything, is reported; gives all that came before it too.
    fn wait_for(&self, path: &str) -> BTreeSet<PathBuf> {
        let path = self.root.join(path);
        let mut seen = BTreeSet::new();
        let until = Instant::now() + DEADLINE;
        while let Ok(change) = self.changes.recv_timeout(until.saturating_duration_since(Instant::now())) {
            match change {
                Change::Paths(paths) => seen.extend(paths),
                Change::Rescan => panic!("a rescan instead of {}, after {seen:?}", path.display()),
            }
            if seen.contains(&path) {
                return seen;
            }
        }
        panic!("no change of {}, only {seen:?}", path.display());
    }

    fn wait_for_rescan(&self) {
        let until = Instant::now() + DEADLINE;
        while self.changes.recv_timeout(until.saturating_duration_since(Instant::now())).unwrap()
            != Change::Rescan
        {}
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.root.join(name), text).unwrap();
    }
}

#[test]
fn rename_over_is_reported_under_the_final_name() {
    let watched = Watched::new(Depth::Flat, |root| fs::write(root.join("hello.so"), "1").unwrap());
    fs::write(watched.directory.path().join("new"), "2").unwrap();
    fs::rename(watched.directory.path().join("new"), watched.root.join("hello.so")).unwrap();

    assert_eq!(watched.wait_for("hello.so").len(), 1);
}

#[test]
fn write_in_place_and_delete_are_reported() {
    let watched = Watched::new(Depth::Flat, |root| fs::write(root.join("lib.rs"), "1").unwrap());
    watched.write("lib.rs", "2");
    watched.wait_for("lib.rs");
    fs::remove_file(watched.root.join("lib.rs")).unwrap();
    watched.wait_for("lib.rs");
}

#[test]
fn library_counts_when_it_is_closed_and_not_before() {
    use std::io::Write;

    let watched = Watched::new(Depth::Flat, |_| {});
    let mut file = fs::File::create(watched.root.join("slow.so")).unwrap();
    file.write_all(b"half").unwrap();
    // Whatever the library had caused would be reported no later than this.
    watched.write("marker", "");
    assert!(!watched.wait_for("marker").contains(&watched.root.join("slow.so")));

    drop(file);
    watched.wait_for("slow.so");
}

#[test]
fn linked_library_is_reported() {
    let watched = Watched::new(Depth::Flat, |_| {});
    let real = watched.directory.path().join("libhello.so");
    fs::write(&real, "1").unwrap();
    symlink(&real, watched.root.join("soft.so")).unwrap();
    watched.wait_for("soft.so");
    fs::hard_link(&real, watched.root.join("hard.so")).unwrap();
    watched.wait_for("hard.so");
}

#[test]
fn reading_and_noise_are_not_reported() {
    let watched = Watched::new(Depth::Tree, |root| {
        fs::write(root.join("lib.rs"), "1").unwrap();
        fs::write(root.join("Cargo.toml"), "").unwrap();
        for noise in ["target", ".git", ".host"] {
            fs::create_dir(root.join(noise)).unwrap();
        }
    });
    fs::read(watched.root.join("lib.rs")).unwrap();
    for noise in ["target/x.d", ".git/index", ".host/log", "lib.rs~", ".#lib.rs", ".lib.rs.swp", "4913"] {
        watched.write(noise, "noise");
    }
    watched.write(".goutputstream-X1", "noise");
    watched.write("lib.rs.tmp", "2");
    fs::rename(watched.root.join("lib.rs.tmp"), watched.root.join("lib.rs")).unwrap();

    assert_eq!(watched.wait_for("lib.rs"), BTreeSet::from([watched.root.join("lib.rs")]));
}

#[test]
fn source_directory_may_be_named_target() {
    let root = TempDir::new().unwrap();
    fs::create_dir(root.path().join("target")).unwrap();
    assert!(!is_ignored(root.path(), &root.path().join("target/mod.rs")));
    fs::write(root.path().join("target/CACHEDIR.TAG"), "").unwrap();
    assert!(is_ignored(root.path(), &root.path().join("target/mod.rs")));
}

#[test]
fn files_in_a_new_directory_are_reported() {
    let watched = Watched::new(Depth::Tree, |_| {});
    // Made elsewhere and moved in whole: the system tells of the directory alone.
    let elsewhere = watched.directory.path().join("made");
    fs::create_dir_all(elsewhere.join("deep")).unwrap();
    fs::write(elsewhere.join("deep/a.rs"), "1").unwrap();
    fs::rename(&elsewhere, watched.root.join("moved")).unwrap();
    watched.wait_for("moved");

    watched.write("moved/deep/a.rs", "2");
    watched.wait_for("moved/deep/a.rs");
}

#[test]
fn shared_helper_outside_the_directory_is_watched_until_let_go() {
    let watched = Watched::new(Depth::Flat, |_| {});
    let helper = watched.root.parent().unwrap().join("helper");
    fs::create_dir(&helper).unwrap();
    let both = BTreeMap::from([(watched.root.clone(), Depth::Flat), (helper.clone(), Depth::Tree)]);
    watched.watcher.sync(&both).unwrap();
    watched.watcher.sync(&both).unwrap();
    fs::write(helper.join("lib.rs"), "1").unwrap();
    // Absolute, so joining it to the root changes nothing.
    watched.wait_for(helper.join("lib.rs").to_str().unwrap());

    watched.watcher.sync(&BTreeMap::from([(watched.root.clone(), Depth::Flat)])).unwrap();
    fs::write(helper.join("lib.rs"), "2").unwrap();
    watched.write("marker", "");
    assert_eq!(watched.wait_for("marker"), BTreeSet::from([watched.root.join("marker")]));
}

#[test]
fn missing_directory_is_awaited_and_a_recreated_one_is_watched() {
    let watched = Watched::new(Depth::Flat, |_| {});
    let late = watched.root.join("a/b");
    watched.watcher.watch(&late, Depth::Tree).unwrap();
    fs::create_dir_all(&late).unwrap();
    watched.wait_for_rescan();

    // Several times, as the system likes to give the new directory the number of the old one.
    for _ in 0..5 {
        fs::remove_dir_all(&late).unwrap();
        fs::create_dir(&late).unwrap();
        watched.wait_for_rescan();
    }
    fs::write(late.join("lib.rs"), "1").unwrap();
    let until = Instant::now() + DEADLINE;
    loop {
        match watched.changes.recv_timeout(until.saturating_duration_since(Instant::now())).unwrap() {
            Change::Paths(paths) if paths.contains(&late.join("lib.rs")) => break,
            Change::Paths(_) => {}
            // Of the last directory made: the file may have come before its watch.
            Change::Rescan => fs::write(late.join("lib.rs"), "2").unwrap(),
        }
    }
}

#[test]
fn symlinked_directory_is_reported_by_its_real_name() {
    let watched = Watched::new(Depth::Flat, |_| {});
    let link = watched.directory.path().join("link");
    symlink(&watched.root, &link).unwrap();
    watched.watcher.sync(&BTreeMap::from([(link.clone(), Depth::Flat)])).unwrap();
    fs::write(link.join("lib.rs"), "1").unwrap();
    watched.wait_for("lib.rs");
}

#[test]
fn polling_sees_content_even_with_an_older_time() {
    let start = |sender: mpsc::Sender<Change>| {
        let interval = Duration::from_millis(10);
        Watcher::start_polling(interval, move |change| drop(sender.send(change))).unwrap()
    };
    let watched = Watched::started(Depth::Tree, |root| fs::write(root.join("a.so"), "1").unwrap(), start);
    assert!(watched.watcher.is_polling());
    let file = fs::File::create(watched.root.join("a.so")).unwrap();
    std::io::Write::write_all(&mut &file, b"2").unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();

    assert_eq!(watched.wait_for("a.so").len(), 1);
}

#[test]
fn polling_sees_what_comes_goes_and_is_written_twice_in_a_moment() {
    let start = |sender: mpsc::Sender<Change>| {
        Watcher::start_polling(Duration::from_millis(10), move |change| drop(sender.send(change))).unwrap()
    };
    let watched = Watched::started(Depth::Tree, |root| fs::write(root.join("a.rs"), "0").unwrap(), start);
    for text in ["1", "2", "3"] {
        watched.write("a.rs", text);
        watched.wait_for("a.rs");
    }
    watched.write("b.rs", "1");
    watched.wait_for("b.rs");
    fs::remove_file(watched.root.join("b.rs")).unwrap();
    watched.wait_for("b.rs");
    fs::create_dir(watched.root.join("deep")).unwrap();
    watched.wait_for("deep");
    watched.write("deep/c.rs", "1");
    watched.wait_for("deep/c.rs");
}

#[test]
fn way_to_a_file_names_every_link_on_it() {
    let directory = TempDir::new().unwrap();
    let root = directory.path().canonicalize().unwrap();
    fs::create_dir_all(root.join("..2024_1/deep")).unwrap();
    fs::write(root.join("..2024_1/deep/a.so"), "1").unwrap();
    symlink("..2024_1", root.join("..data")).unwrap();
    symlink("..data/deep", root.join("deep")).unwrap();
    symlink(root.join("deep/../deep/a.so"), root.join("a.so")).unwrap();
    let way = trail(&root.join("./a.so"));
    assert_eq!(way.real, root.join("..2024_1/deep/a.so"));
    assert_eq!(way.links, ["..data", "deep", "a.so"].map(|name| root.join(name)).into());
    assert_eq!(way.real, resolved(&root.join("a.so")));

    assert_eq!(resolved(&root.join("deep/missing/b.rs")), root.join("..2024_1/deep/missing/b.rs"));
    symlink("loop", root.join("loop")).unwrap();
    assert!(trail(&root.join("loop/x")).real.starts_with(&root));
}

/// A backend that takes so many watches and no more.
struct FullAfter(usize);

impl notify::Watcher for FullAfter {
    fn new<F: notify::EventHandler>(_: F, _: notify::Config) -> notify::Result<Self> {
        Ok(FullAfter(0))
    }

    fn watch(&mut self, _: &Path, _: notify::RecursiveMode) -> notify::Result<()> {
        self.0 = self.0.checked_sub(1).ok_or(notify::Error::new(ErrorKind::MaxFilesWatch))?;
        Ok(())
    }

    fn unwatch(&mut self, _: &Path) -> notify::Result<()> {
        Ok(())
    }

    fn kind() -> notify::WatcherKind {
        notify::WatcherKind::NullWatcher
    }
}

#[test]
fn system_limit_leads_to_polling_and_a_rescan() {
    let start = |sender: mpsc::Sender<Change>| {
        let sink = move |change| drop(sender.send(change));
        Watcher::with(Box::new(FullAfter(1)), false, mpsc::channel(), sink).unwrap()
    };
    let watched = Watched::started(Depth::Tree, |root| fs::create_dir(root.join("a")).unwrap(), start);
    assert!(watched.watcher.is_polling());
    watched.wait_for_rescan();
    watched.write("a/lib.rs", "1");
    watched.wait_for("a/lib.rs");
}

/// A plugins directory with one plugin of each kind.
fn plugins() -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let root = directory.path().canonicalize().unwrap();
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(root.join("source")).unwrap();
    fs::write(root.join("source/Cargo.toml"), "").unwrap();
    fs::write(root.join("libmy-plain_one.so"), "x").unwrap();
    (directory, root)
}

#[test]
fn scan_lists_packages_and_libraries_and_nothing_else() {
    let (_directory, root) = plugins();
    fs::create_dir(root.join("notes")).unwrap();
    fs::create_dir(root.join("dir.so")).unwrap();
    fs::create_dir(root.join(".hidden")).unwrap();
    fs::write(root.join(".hidden/Cargo.toml"), "").unwrap();
    for name in ["README.md", ".libx.so.1234", ".tmp.so", "x.so~", "x.so.tmp"] {
        fs::write(root.join(name), "x").unwrap();
    }
    symlink("nowhere.so", root.join("dangling.so")).unwrap();

    let path = root.join("libmy-plain_one.so");
    assert_eq!(
        scan(&root).unwrap(),
        [
            Candidate::Source { path: root.join("source"), directory: root.join("source") },
            Candidate::Library { real: path.clone(), path, name: "my-plain_one".to_owned() },
        ]
    );
}

#[test]
fn scan_counts_one_file_with_several_names_once() {
    let (_directory, root) = plugins();
    symlink(root.join("libmy-plain_one.so"), root.join("a.so")).unwrap();
    fs::hard_link(root.join("libmy-plain_one.so"), root.join("zz.so")).unwrap();
    symlink(root.join("source"), root.join("also-source")).unwrap();

    let found = scan(&root).unwrap();
    assert_eq!(found.len(), 2);
    assert!(matches!(&found[1], Candidate::Library { name, .. } if name == "my-plain_one"));
}

#[test]
fn scan_names_a_link_by_itself_and_its_file_by_the_target() {
    let (directory, root) = plugins();
    let builds = directory.path().join("builds");
    fs::create_dir(&builds).unwrap();
    fs::write(builds.join("libshop-3.so"), "x").unwrap();
    symlink(builds.join("libshop-3.so"), root.join("shop.so")).unwrap();

    let real = builds.canonicalize().unwrap().join("libshop-3.so");
    let expected = Candidate::Library { path: root.join("shop.so"), real, name: "shop".to_owned() };
    assert!(scan(&root).unwrap().contains(&expected));
}

#[test]
fn scan_says_what_is_wrong_with_the_directory() {
    let (_directory, root) = plugins();
    assert!(matches!(scan(&root.join("none")), Err(ScanError::Missing { .. })));
    assert!(matches!(scan(&root.join("libmy-plain_one.so")), Err(ScanError::NotDirectory { .. })));

    fs::set_permissions(&root, fs::Permissions::from_mode(0o777)).unwrap();
    let refusal = scan(&root).unwrap_err().to_string();
    assert!(refusal.ends_with(&format!("chmod o-w {}", root.display())), "{refusal}");
    fs::set_permissions(&root, fs::Permissions::from_mode(0o1777)).unwrap();
    assert!(scan(&root).is_ok());
}

#[test]
fn plugin_that_everyone_can_replace_is_refused_alone() {
    let (_directory, root) = plugins();
    let library = root.join("libmy-plain_one.so");
    fs::set_permissions(&library, fs::Permissions::from_mode(0o666)).unwrap();

    let refused = scan(&root).unwrap().into_iter().filter(|plugin| plugin.check().is_err());
    assert_eq!(refused.map(|plugin| plugin.real().to_owned()).collect::<Vec<_>>(), [library]);
}
