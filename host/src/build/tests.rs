//! Facts about building, with the smallest real builds, and about fingerprints.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::*;
use crate::watch;

mod content;
mod names;
mod queue;
mod repair;

/// Far beyond what any step takes; reached only by a failing test.
const DEADLINE: Duration = Duration::from_secs(60);

/// The smallest plugin: a library with one function and no dependency.
struct Project {
    directory: TempDir,
    root: PathBuf,
    builder: Builder,
    name: String,
}

impl Project {
    fn new() -> Project {
        Project::named("thin")
    }

    fn named(name: &str) -> Project {
        let directory = TempDir::new().unwrap();
        let root = directory.path().canonicalize().unwrap().join("thin plugin");
        let builder = Builder::new(Cargo::of_process(), directory.path().join("state/target"), None);
        let project = Project { directory, root, builder, name: name.to_owned() };
        project.manifest("");
        project
            .write("src/lib.rs", "#[unsafe(no_mangle)]\npub extern \"C\" fn answer() -> u32 {\n    42\n}\n");
        project
    }

    /// Writes a manifest with `more` at its end.
    fn manifest(&self, more: &str) {
        let text = format!(
            "[package]\nname = \"{}\"\nedition = \"2024\"\n\n[lib]\ncrate-type = [\"cdylib\"]\n",
            self.name
        );
        self.write("Cargo.toml", &format!("{text}{more}"));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn package(&self) -> Package {
        Package::describe(self.builder.cargo(), &self.root).unwrap()
    }

    fn build(&self) -> Result<Built, BuildError> {
        build(&self.builder, &self.package(), &mut |_| {}, &Cancel::new())
    }

    fn target_dir(&self) -> &Path {
        self.builder.queue.main()
    }
}

/// Waits for the package's turn, and builds it.
fn build(
    builder: &Builder,
    package: &Package,
    step: &mut dyn FnMut(Step<'_>),
    cancel: &Cancel,
) -> Result<Built, BuildError> {
    let turn = builder.wait(package, step, cancel).ok_or(BuildError::Cancelled)?;
    builder.build(turn, package, step, cancel)
}

#[test]
fn second_build_is_fresh_whatever_program_started_the_host() {
    let project = Project::new();
    let package = project.package();
    let target = project.target_dir().to_owned();
    let kept = ["PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"];
    let plain = std::env::vars_os().filter(|(name, _)| kept.iter().any(|kept| name == kept));
    let plain = Builder::new(Cargo::new("cargo", plain), target, None);

    let mut names = Vec::new();
    let mut step = |step: Step<'_>| {
        if let Step::Compiled { name, done } = step {
            names.push((name.to_owned(), done));
        }
    };
    // The first runs as under `cargo run`: this test is a child of cargo.
    let first = build(&project.builder, &package, &mut step, &Cancel::new()).unwrap();
    assert_eq!(names, [("thin".to_owned(), 1)]);
    assert!(!first.fresh && first.compiled == 1 && first.library.is_file());
    let second = build(&plain, &package, &mut |_| {}, &Cancel::new()).unwrap();
    assert!(second.fresh && second.compiled == 0);
    assert_eq!(second.library, first.library);
}

#[test]
fn compile_error_is_told_in_one_line_and_in_full() {
    let project = Project::new();
    project.write(
        "src/lib.rs",
        "fn a() -> u32 {\n    \"text\"\n}\nfn b() { missing() }\nfn c() { missing() }\n",
    );
    let Err(error) = project.build() else { panic!("it compiled") };

    let shown = error.to_string();
    let BuildError::Compile { rendered, plain, errors, first, inputs } = error else { panic!("{shown}") };
    assert_eq!(errors, 3);
    assert!(first.starts_with("src/lib.rs:"), "{first}");
    assert_eq!(shown, format!("does not compile: {first} (and 2 more errors)"));
    assert!(plain.contains("error[E0308]: mismatched types\n --> src/lib.rs:2:5"), "{plain}");
    assert!(rendered.contains('\u{1b}') && !plain.contains('\u{1b}'));
    assert!(inputs.concern(&project.path("src/lib.rs")));

    // Broken code is repaired by an edit of a file that could not be found before.
    project.write("src/lib.rs", "mod late;\n");
    let Err(BuildError::Compile { first, inputs, .. }) = project.build() else { panic!("it compiled") };
    assert_eq!(first, "src/lib.rs:1:1: file not found for module `late`");
    assert!(inputs.concern(&project.path("src/late.rs")));
}

#[test]
fn error_in_a_helper_names_the_helper() {
    let project = Project::new();
    project.manifest("[dependencies]\nhelper = { path = \"../helper\" }\n");
    project.write("../helper/Cargo.toml", "[package]\nname = \"helper\"\nedition = \"2024\"\n");
    project.write("../helper/src/lib.rs", "mod part;\n");
    project.write("../helper/src/part.rs", "oops\n");
    let Err(BuildError::Compile { first, .. }) = project.build() else { panic!("it compiled") };

    assert!(first.starts_with("helper: ") && first.contains("src/part.rs:1:"), "{first}");
}

#[test]
fn another_cargo_in_the_way_is_reported_and_waited_for() {
    let project = Project::new();
    project.build().unwrap();
    project.write("src/lib.rs", "");
    let lock = fs::File::open(project.target_dir().join("debug/.cargo-lock")).unwrap();
    lock.lock().unwrap();
    let mut blocked = None;
    let mut step = |step: Step<'_>| {
        if let Step::Blocked { words } = step {
            blocked = Some(words.to_owned());
            lock.unlock().unwrap();
        }
    };
    let built = build(&project.builder, &project.package(), &mut step, &Cancel::new()).unwrap();

    assert!(!built.fresh);
    assert!(blocked.is_some_and(|words| words.starts_with("waiting for file lock")));
}

#[test]
fn warnings_are_counted_and_kept() {
    let project = Project::new();
    project.write("src/lib.rs", "fn a() {}\nfn b() {}\n");
    for _ in 0..2 {
        let built = project.build().unwrap();
        assert_eq!((built.diagnostics.warnings, built.diagnostics.errors), (2, 0));
        assert!(built.diagnostics.plain().contains("function `b` is never used"));
    }
}

#[test]
fn inputs_are_all_files_that_count() {
    let project = Project::new();
    project.manifest("[dependencies]\nhelper = { path = \"../helper\" }\n");
    project.write("../helper/Cargo.toml", "[package]\nname = \"helper\"\nedition = \"2024\"\n");
    project.write("../helper/src/lib.rs", "mod part;\npub use part::PART;\n");
    project.write("../helper/src/part.rs", "pub const PART: u32 = 1;\n");
    project
        .write("../helper/build.rs", "fn main() { println!(\"cargo::rerun-if-changed=made from.txt\") }\n");
    project.write("../helper/made from.txt", "1");
    project.write("page two.html", "<p>");
    project.write(
        "src/lib.rs",
        "pub static PAGE: (&str, u32) = (include_str!(\"../page two.html\"), helper::PART);\n",
    );

    let before_any = Inputs::of_package(&project.package());
    let before = Fingerprint::of(&before_any);
    let built = project.build().unwrap();
    let helper = project.directory.path().canonicalize().unwrap().join("helper");
    let files: Vec<&Path> = built.inputs.files().collect();
    for own in ["src/lib.rs", "page two.html", "Cargo.toml", "Cargo.lock"] {
        assert!(files.contains(&project.path(own).as_path()), "no {own} in {files:?}");
    }
    for others in ["src/lib.rs", "src/part.rs", "build.rs", "made from.txt", "Cargo.toml"] {
        assert!(files.contains(&helper.join(others).as_path()), "no {others} in {files:?}");
    }
    assert!(!files.iter().any(|file| file.starts_with(project.target_dir())));
    // The repair of a helper that has never compiled must be noticed too.
    assert!(before_any.concern(&helper.join("src/part.rs")));

    let made_of = Fingerprint::after_build(&before, &built.inputs, built.started);
    assert_eq!(made_of, Fingerprint::of(&built.inputs));
    fs::write(helper.join("made from.txt"), "2").unwrap();
    let now = Fingerprint::of(&built.inputs);
    assert_eq!(now.changed_since(&made_of), [helper.join("made from.txt").as_path()].into());
    assert!(!project.build().unwrap().fresh);
}

#[test]
fn cancelled_build_ends_at_once_with_all_its_processes() {
    let project = Project::new();
    // A build script that announces itself and then waits for ever, holding on to a pipe.
    project.write("build.rs", "fn main() {\n    std::fs::write(\"pid\", std::process::id().to_string()).unwrap();\n    loop { std::thread::park() }\n}\n");
    let package = project.package();
    let (sender, changes) = mpsc::channel();
    let watcher = watch::Watcher::start(move |change| drop(sender.send(change))).unwrap();
    watcher.watch(&project.root, watch::Depth::Flat).unwrap();
    let cancel = Cancel::new();
    let (pid, result, took) = std::thread::scope(|scope| {
        let build = scope.spawn(|| build(&project.builder, &package, &mut |_| {}, &cancel));
        let pid = loop {
            changes.recv_timeout(DEADLINE).expect("the build script has started");
            match fs::read_to_string(project.path("pid")).unwrap_or_default() {
                pid if pid.is_empty() => {}
                pid => break pid,
            }
        };
        let asked = Instant::now();
        cancel.cancel();
        (pid, build.join().unwrap(), asked.elapsed())
    });

    assert!(matches!(result, Err(BuildError::Cancelled)));
    assert!(took < Duration::from_secs(2), "{took:?}");
    // A killed orphan may still have to be collected by whoever adopted it.
    let until = Instant::now() + DEADLINE;
    while is_running(&pid) {
        assert!(Instant::now() < until, "process {pid} survived its build");
        std::thread::yield_now();
    }
    // Nothing is locked or half recorded.
    fs::remove_file(project.path("build.rs")).unwrap();
    assert!(!project.build().unwrap().fresh);
}

/// Whether there is a process of that number which has not ended.
fn is_running(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name, which is in parentheses: Z and X are dead.
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

#[test]
fn cargos_own_errors_are_told_without_its_progress() {
    let project = Project::new();
    project.manifest("[dependencies]\nhelper = { path = \"../nowhere\" }\n");
    let Err(BuildError::Cargo { words, inputs }) = project.build() else { panic!("no error of cargo's") };
    assert!(words.starts_with("failed to ") && words.contains("nowhere"), "{words}");
    assert!(inputs.concern(&project.root.parent().unwrap().join("nowhere/Cargo.toml")));

    project.manifest("");
    project.write("build.rs", "fn main() { panic!(\"no such luck\") }\n");
    let Err(BuildError::Cargo { words, .. }) = project.build() else { panic!("no error of cargo's") };
    assert!(words.starts_with("failed to run custom build command for `thin"), "{words}");
    assert!(words.contains("no such luck") && !words.contains("Compiling"), "{words}");
}

#[test]
fn unusable_directory_is_refused_with_what_to_do() {
    let project = Project::new();
    let describe = |directory: &Path| Package::describe(project.builder.cargo(), directory).unwrap_err();
    let nowhere = describe(&project.path("none"));
    assert!(matches!(nowhere, DescribeError::NoManifest { .. }), "{nowhere}");

    project.write("Cargo.toml", "[package]\nname = \"thin\"\nedition = \"2024\"\n");
    let rlib = describe(&project.root).to_string();
    assert!(rlib.contains("add `crate-type = [\"cdylib\"]` to [lib]"), "{rlib}");

    project.write("Cargo.toml", "[package]\nname = \n");
    let broken = describe(&project.root);
    assert!(
        matches!(&broken, DescribeError::Manifest { words, .. } if words.contains("Cargo.toml:2:")),
        "{broken}"
    );

    project.manifest("");
    project.write("../Cargo.toml", "[workspace]\n");
    let unlisted = describe(&project.root);
    assert!(matches!(unlisted, DescribeError::Workspace { .. }), "{unlisted}");
    let above = describe(project.root.parent().unwrap());
    assert!(matches!(above, DescribeError::NoPackage { .. }), "{above}");

    let cargo = Cargo::new("no-such-cargo", std::env::vars_os());
    let error = Package::describe(&cargo, &project.root).unwrap_err();
    assert!(error.to_string().starts_with("cannot start `no-such-cargo`"), "{error}");
}

#[test]
fn package_is_known_by_its_real_directory_and_workspace() {
    let project = Project::new();
    project.write("../Cargo.toml", "[workspace]\nmembers = [\"thin plugin\"]\n");
    symlink(&project.root, project.directory.path().join("link")).unwrap();
    let link = project.directory.path().canonicalize().unwrap().join("link");
    let package = Package::describe(project.builder.cargo(), &link).unwrap();

    assert_eq!(Package { entry: project.root.clone(), ..package.clone() }, project.package());
    assert!(Inputs::of_package(&package).concern(&link));
    assert_eq!(package.name, "thin");
    assert_eq!(package.directory, project.root);
    assert_eq!(package.lock_path, project.root.parent().unwrap().join("Cargo.lock"));
}

#[test]
fn environment_of_a_caller_cargo_is_taken_out() {
    let given = [
        ("CARGO", "/toolchain/bin/cargo"),
        ("CARGO_MANIFEST_DIR", "/host"),
        ("CARGO_PKG_NAME", "host"),
        ("CARGO_BIN_EXE_host", "/target/debug/host"),
        ("OUT_DIR", "/target/out"),
        ("CARGO_HOME", "/home/me/.cargo"),
        ("RUSTFLAGS", "-g"),
        ("RUSTC_WRAPPER", "sccache"),
        ("LD_LIBRARY_PATH", "/toolchain/lib:/opt/lib"),
    ];
    let cargo = Cargo::new("cargo", given.map(|(name, value)| (name.into(), value.into())));
    let command = cargo.command(Path::new("/"));
    let left: Vec<_> =
        command.get_envs().map(|(name, value)| (name.to_str(), value.unwrap().to_str())).collect();
    let expected = [
        ("CARGO_HOME", "/home/me/.cargo"),
        ("LD_LIBRARY_PATH", "/opt/lib"),
        ("RUSTC_WRAPPER", "sccache"),
        ("RUSTFLAGS", "-g"),
    ];
    assert_eq!(left, expected.map(|(name, value)| (Some(name), Some(value))));
}

#[test]
fn fingerprint_sees_content_and_not_time() {
    let project = Project::new();
    let inputs = Inputs::of_package(&project.package());
    let before = Fingerprint::of(&inputs);
    let source = project.path("src/lib.rs");
    let touch = |time| fs::File::options().append(true).open(&source).unwrap().set_modified(time).unwrap();
    touch(SystemTime::now());
    assert_eq!(Fingerprint::of(&inputs), before);
    assert_eq!(Fingerprint::of(&inputs).digest(), before.digest());

    let original = fs::read(&source).unwrap();
    fs::write(&source, "// other").unwrap();
    touch(SystemTime::UNIX_EPOCH);
    let edited = Fingerprint::of(&inputs);
    assert_eq!(edited.changed_since(&before), [source.as_path()].into());
    assert_ne!(edited.digest(), before.digest());

    fs::write(&source, "").unwrap();
    let emptied = Fingerprint::of(&inputs);
    assert_eq!(emptied.unsettled_since(&before), Some(source.as_path()));
    assert_eq!(emptied.unsettled_since(&emptied), None);
    fs::remove_file(&source).unwrap();
    let deleted = Fingerprint::of(&inputs);
    assert_eq!(deleted.unsettled_since(&before), None);
    assert_eq!(deleted.changed_since(&before), [source.as_path()].into());

    fs::write(&source, original).unwrap();
    assert_eq!(Fingerprint::of(&inputs), before);
    project.write("src/deep/new.rs", "");
    project.write("src/lib.rs~", "an editor's");
    let new = project.path("src/deep/new.rs");
    assert_eq!(Fingerprint::of(&inputs).changed_since(&before), [new.as_path()].into());
}

#[test]
fn file_changed_during_the_build_that_found_it_is_not_trusted() {
    let project = Project::new();
    let package = project.package();
    let before = Fingerprint::of(&Inputs::of_package(&package));
    let mut inputs = Inputs::of_package(&package);
    project.write("page.html", "1");
    inputs.add_files([project.path("page.html")]);
    project.write("src/lib.rs", "// edited while it compiled");

    // A start before the page was written: the compiler may have read what was there before.
    let made_of = Fingerprint::after_build(&before, &inputs, SystemTime::UNIX_EPOCH);
    let changed = Fingerprint::of(&inputs);
    let (page, source) = (project.path("page.html"), project.path("src/lib.rs"));
    assert_eq!(changed.changed_since(&made_of), [page.as_path(), source.as_path()].into());
    // A start long after it.
    let later = SystemTime::now() + Duration::from_secs(3600);
    let made_of = Fingerprint::after_build(&before, &inputs, later);
    assert_eq!(changed.changed_since(&made_of), [source.as_path()].into());
}

#[test]
fn colours_and_links_are_taken_out() {
    assert_eq!(
        plain("\u{1b}[1m\u{1b}[38;5;9merror\u{1b}[0m: \u{1b}]8;;http://x\u{7}E1\u{1b}]8;;\u{1b}\\."),
        "error: E1."
    );
}
