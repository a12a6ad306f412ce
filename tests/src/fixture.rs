//! Finding what the tests need beside themselves: fixtures, the host's binary, this repository.
//!
//! Owns: the paths, and the sentences that say what to do when something is not there. Does not own:
//! building; cargo builds fixtures before the tests, `./tests/run` builds the host.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// The root of this repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository")
}

/// `target/<profile>`, from where the running program lies: there, or in its `deps` for a test binary.
pub(crate) fn profile_dir() -> PathBuf {
    let exe = env::current_exe().expect("a running process knows its file");
    let dir = exe.parent().expect("a file lies in a directory");
    if dir.ends_with("deps") {
        dir.parent().expect("`deps` lies in the profile's").to_owned()
    } else {
        dir.to_owned()
    }
}

/// The library of a fixture.
///
/// # Panics
///
/// When cargo has not built it.
pub fn library(name: &str) -> PathBuf {
    if let Some(flags) = c_flags(name) {
        let source = repository().join("tests/fixtures/c_plugin/plugin.c");
        return compile_c(&source, &format!("lib{name}.so"), flags);
    }
    if let Some(way) = name.strip_prefix("c_plants_") {
        let source = repository().join("tests/fixtures/c_plugin/plugin.c");
        let plant = format!("-DPLANT=plant_{way}");
        return compile_c(
            &source,
            &format!("lib{name}.so"),
            &["-shared", "-fPIC", "-Wno-deprecated-declarations", &plant],
        );
    }
    let path = profile_dir().join("examples").join(format!("lib{name}.so"));
    assert!(path.exists(), "fixture missing: run `cargo test -p tests` (no {})", path.display());
    path
}

/// The host's binary.
///
/// # Panics
///
/// When it is missing or older than a file it was built from.
pub fn host_binary() -> PathBuf {
    let path = profile_dir().join("host");
    let modified = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified());
    let Ok(built) = modified(&path) else {
        panic!("there is no {}: run the tests with `./tests/run`, which builds it", path.display());
    };
    for source in sources_of(&path) {
        let changed = modified(&source).unwrap_or(SystemTime::now());
        assert!(
            changed <= built,
            "{} is older than {}: run the tests with `./tests/run`, which builds it",
            path.display(),
            source.display()
        );
    }
    path
}

/// What cargo's dep-info beside a binary names as its sources.
fn sources_of(binary: &Path) -> Vec<PathBuf> {
    let info = fs::read_to_string(binary.with_extension("d")).unwrap_or_default();
    let files = info.split_once(": ").map_or("", |(_, files)| files);
    // A blank in a path is escaped.
    files.replace("\\ ", "\0").split_whitespace().map(|file| file.replace('\0', " ").into()).collect()
}

/// Compiles a C file against the header, to `target/<profile>/examples/NAME`.
///
/// # Panics
///
/// When there is no C compiler or it has something to say: warnings are errors. When cargo builds a fixture of
/// that name, which would be another library for all tests after this one.
pub fn compile_c(source: &Path, name: &str, flags: &[&str]) -> PathBuf {
    let target = profile_dir().join("examples").join(name);
    assert!(
        !target.with_extension("d").exists(),
        "cargo builds {name} already: name the C fixture otherwise"
    );
    // Under a name of its own first: tests compile in parallel.
    let scratch = tempfile::Builder::new()
        .prefix(".c-")
        .tempdir_in(profile_dir().join("examples"))
        .expect("the target directory is writable");
    let fresh = scratch.path().join(name);
    let output = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-I"])
        .arg(repository().join("plugin-api/include"))
        .args(flags)
        .arg(source)
        .arg("-o")
        .arg(&fresh)
        .output()
        .expect("no C compiler `cc`: run the tests with `./tests/run`, which installs it");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cc refused {}:\n{words}", source.display());
    fs::rename(&fresh, &target).expect("a rename within one file system");
    target
}

/// How the fixtures in C, libraries that never saw Rust, are linked; `None` for a name that is none.
fn c_flags(name: &str) -> Option<&'static [&'static str]> {
    match name {
        "c_plugin" => Some(&["-shared", "-fPIC"]),
        "c_plugin_nodelete" => Some(&["-shared", "-fPIC", "-Wl,-z,nodelete"]),
        "c_plugin_execstack" => Some(&["-shared", "-fPIC", "-Wl,-z,execstack"]),
        "c_plugin_constructor_aborts" => Some(&["-shared", "-fPIC", "-DCONSTRUCTOR=abort()"]),
        "c_plugin_constructor_crashes" => {
            Some(&["-shared", "-fPIC", "-DCONSTRUCTOR=*(volatile char *)host_table = 1"])
        }
        "c_plugin_constructor_exits" => Some(&["-shared", "-fPIC", "-DCONSTRUCTOR=exit(0)"]),
        "c_plugin_constructor_hangs" => Some(&["-shared", "-fPIC", "-DCONSTRUCTOR=for(;;)pause()"]),
        "c_plugin_ifunc_crashes" => Some(&["-shared", "-fPIC", "-DIFUNC_CRASHES"]),
        "c_plugin_missing_symbol" => Some(&["-shared", "-fPIC", "-DCALLS_WHAT_IS_NOT_THERE"]),
        "c_plugin_signal" => Some(&["-shared", "-fPIC", "-DHANDLES_A_SIGNAL"]),
        _ => None,
    }
}
