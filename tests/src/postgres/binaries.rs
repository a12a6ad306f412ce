//! Finding PostgreSQL's server binaries, and a user who may run them.
//!
//! Owns: where they may lie; who runs them when root tests. Does not own: installing them, which is
//! the work of `./tests/run`.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The server's programs.
#[derive(Clone, Debug)]
pub(super) struct Binaries {
    /// Holds `initdb` and `postgres`.
    pub(super) dir: PathBuf,
    /// User and group that run them; none: whoever runs the tests.
    pub(super) owner: Option<(u32, u32)>,
}

impl Binaries {
    /// Looks in `PATH`, in Debian's directories and where `pg_config` points.
    ///
    /// # Panics
    ///
    /// When they are not there.
    pub(super) fn find() -> Binaries {
        let dir =
            candidates().into_iter().find(|dir| dir.join("initdb").exists() && dir.join("postgres").exists());
        let Some(dir) = dir else {
            panic!("no PostgreSQL server binaries (initdb, postgres): `./tests/run` installs them")
        };
        Binaries { dir, owner: owner() }
    }
}

fn candidates() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = env::split_paths(&path).collect();
    let mut debian: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|version| Some(version.ok()?.path().join("bin")))
        .collect();
    // The newest version first.
    debian.sort_by_key(|dir| std::cmp::Reverse(version(dir)));
    dirs.extend(debian);
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        dirs.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    dirs
}

fn version(bin: &Path) -> u32 {
    let name = bin.parent().and_then(Path::file_name).and_then(|name| name.to_str());
    name.and_then(|name| name.parse().ok()).unwrap_or(0)
}

/// Whom to become: nobody else, unless we are root, as whom the server refuses to run.
fn owner() -> Option<(u32, u32)> {
    let root = fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0);
    if !root {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("/etc/passwd is readable");
    let find = |wanted: &str| {
        users.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let is_wanted = fields.first() == Some(&wanted);
            is_wanted.then(|| Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?)))?
        })
    };
    let owner = find("postgres").or_else(|| find("nobody"));
    Some(owner.expect("a user `postgres` or `nobody` to run the server as, for root may not"))
}
