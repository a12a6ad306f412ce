//! How cargo is called: which program, and in which environment.
//!
//! Owns the cleaning of the environment. The host may itself be a child of `cargo run` or `cargo test`,
//! which describe *their* package in variables; handed on, they would reach the plugin's build scripts
//! and make the same build differ between `cargo run` and a plain start.
//!
//! Deliberately kept are the operator's own choices: `RUSTFLAGS`, `RUSTC_WRAPPER`, `CARGO_HOME`,
//! `RUSTUP_*`, `CARGO_BUILD_*`, `CARGO_PROFILE_*` and all that cargo does not set for its children.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Set by cargo for the programs it runs, whatever their package.
const SET_BY_CARGO: &[&str] = &[
    "CARGO",
    "CARGO_BIN_NAME",
    "CARGO_CRATE_NAME",
    "CARGO_MAKEFLAGS",
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_LINKS",
    "CARGO_MANIFEST_PATH",
    "CARGO_PRIMARY_PACKAGE",
    "CARGO_TARGET_TMPDIR",
    "OUT_DIR",
];

/// Families of the same.
const SET_BY_CARGO_PREFIXES: &[&str] = &["CARGO_BIN_EXE_", "CARGO_PKG_"];

/// The cargo program and the environment it runs in.
#[derive(Debug, Clone)]
pub struct Cargo {
    program: PathBuf,
    environment: Vec<(OsString, OsString)>,
}

impl Cargo {
    /// The cargo of this process: `$CARGO` (set under `cargo run`, so plugins get the toolchain that
    /// built the host), else `cargo` from the path, with this process's environment, cleaned.
    pub fn of_process() -> Cargo {
        let program = env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
        Cargo::new(program, env::vars_os())
    }

    /// `program` with `environment`, of which what cargo sets for its children is taken out.
    pub fn new(
        program: impl Into<PathBuf>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Cargo {
        let given: Vec<(OsString, OsString)> = environment.into_iter().collect();
        let cargo_of_caller = given.iter().find(|(name, _)| name == "CARGO").map(|(_, value)| value.clone());
        let environment = given
            .into_iter()
            .filter(|(name, _)| !is_set_by_cargo(name))
            .filter_map(|(name, value)| match name == "LD_LIBRARY_PATH" {
                true => own_search_path(&value, cargo_of_caller.as_deref()).map(|value| (name, value)),
                false => Some((name, value)),
            })
            .collect();
        Cargo { program: program.into(), environment }
    }

    /// The program as it will be looked up.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The user's own configuration files of cargo, whether they are there or not.
    pub(super) fn user_configuration(&self) -> Vec<PathBuf> {
        let value = |name: &str| {
            let of = |(key, value): &(OsString, OsString)| {
                (key == name && !value.is_empty()).then(|| value.into())
            };
            self.environment.iter().find_map(of)
        };
        let home: Option<PathBuf> = value("CARGO_HOME").or_else(|| {
            let home: PathBuf = value("HOME")?;
            Some(home.join(".cargo"))
        });
        home.into_iter().flat_map(|home| ["config.toml", "config"].map(|name| home.join(name))).collect()
    }

    /// A call of cargo in `directory`, so that its `.cargo/config.toml` and `rust-toolchain.toml` count.
    pub(super) fn command(&self, directory: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(directory).env_clear().envs(self.environment.iter().map(|(name, v)| (name, v)));
        command
    }
}

fn is_set_by_cargo(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    SET_BY_CARGO.contains(&&*name) || SET_BY_CARGO_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The library search path without the directories `cargo run` puts in front: its toolchain's, and
/// those below the directory of this very program. `None` when nothing is left.
fn own_search_path(value: &OsStr, cargo_of_caller: Option<&OsStr>) -> Option<OsString> {
    let Some(cargo) = cargo_of_caller else {
        return Some(value.to_owned());
    };
    let toolchain = Path::new(cargo).parent().and_then(Path::parent).map(Path::to_owned);
    let target = env::current_exe().ok().and_then(|program| {
        // `target/debug/host`, or `target/debug/deps/host-0123` for a test.
        let directory = program.parent()?;
        Some(if directory.ends_with("deps") { directory.parent()?.to_owned() } else { directory.to_owned() })
    });
    let kept = env::split_paths(value).filter(|directory| {
        ![&toolchain, &target].into_iter().flatten().any(|above| directory.starts_with(above))
    });
    // Joining what was split cannot fail, except for a name with a colon in it, which split made two of.
    let joined = env::join_paths(kept).unwrap_or_else(|_| value.to_owned());
    (!joined.is_empty()).then_some(joined)
}
