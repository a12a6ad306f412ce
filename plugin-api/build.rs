//! Records what this copy of plugin-api is built from and for: the compiler and the target, which the descriptor carries, and
//! a number for the types that plugins share by layout.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The files whose types are part of shared values: their private fields are told by no layout.
const SHARED_TYPES: [&str; 2] = ["src/sync.rs", "src/sync"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for path in SHARED_TYPES {
        println!("cargo:rerun-if-changed={path}");
    }
    println!("cargo:rustc-env=PLUGIN_API_RUSTC={}", compiler());
    println!("cargo:rustc-env=PLUGIN_API_TARGET={}", std::env::var("TARGET").unwrap_or_default());
    println!("cargo:rustc-env=PLUGIN_API_SHARED_TYPES={:016x}", shared_types());
}

/// What the compiler calls itself. Values are shared between libraries whose compilers call themselves the same, so a
/// compiler without a name builds nothing.
fn compiler() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = match Command::new(&rustc).arg("--version").output() {
        Ok(output) => output,
        Err(error) => panic!("cannot run `{} --version`: {error}", rustc.display()),
    };
    let said = String::from_utf8_lossy(&output.stdout);
    let version = said.trim();
    let is_name =
        version.strip_prefix("rustc ").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    assert!(
        output.status.success() && is_name && version.lines().count() == 1,
        "`{} --version` says {version:?}, and not which compiler it is; set `RUSTC` to a compiler, or let the wrapper pass \
         `--version` on",
        rustc.display()
    );
    version.to_owned()
}

/// A number for the content of the files (FNV-1a).
fn shared_types() -> u64 {
    let mut files: Vec<PathBuf> = Vec::new();
    SHARED_TYPES.iter().for_each(|path| collect(Path::new(path), &mut files));
    files.sort();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for file in files {
        let content =
            std::fs::read(&file).unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()));
        for byte in content {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    if !path.is_dir() {
        files.push(path.to_owned());
        return;
    }
    let entries =
        std::fs::read_dir(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    for entry in entries {
        let entry = entry.unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
        // Tests are no part of a type.
        if entry.file_name() != "tests.rs" {
            collect(&entry.path(), files);
        }
    }
}
