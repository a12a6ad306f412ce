//! `host new`: a plugin to begin with.
//!
//! # Invariants
//!
//! - The new directory appears whole: a running host that watches never sees half of it.
//! - Nothing that exists is touched, the manifest of a surrounding workspace included.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use toml::{Table, Value};

use super::args::NewArgs;
use super::text::program_name;
use super::{CliError, print};
use crate::config::FileConfig;

/// Where plugin-api was when this host was built.
const PLUGIN_API: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugin-api");

/// Makes a plugin and says what to do with it.
pub(super) fn new(args: &NewArgs) -> Result<ExitCode, CliError> {
    check_name(&args.name)?;
    let plugins = match &args.plugins {
        Some(plugins) => plugins.clone(),
        None => FileConfig::find(args.config.as_deref())?.plugins.unwrap_or_else(|| "plugins".into()),
    };
    let target = plugins.join(&args.name);
    if target.symlink_metadata().is_ok() {
        return Err(CliError::Usage(format!(
            "{} exists already; choose another name, or remove it",
            target.display()
        )));
    }
    let writing = || format!("make {}", target.display());
    fs::create_dir_all(&plugins).map_err(CliError::system(writing()))?;
    let real = plugins.canonicalize().map_err(CliError::system(writing()))?;
    let surroundings = Surroundings::of(&real.join(&args.name));
    let manifest = manifest(&args.name, &surroundings)?;

    let unseen = plugins.join(format!(".{}.new", args.name));
    let written = write(&unseen, &manifest, &source(&args.name)).and_then(|()| fs::rename(&unseen, &target));
    written.map_err(|error| {
        // What is left of it is of no use.
        let _ = fs::remove_dir_all(&unseen);
        CliError::system(writing())(error)
    })?;
    print(&format!(
        "made {target}\n\n  run   {program} run --plugins {plugins}\n  try   curl http://127.0.0.1:8080/{name}\n  edit  {target}/src/lib.rs and save: it is served without a restart\n",
        target = target.display(),
        plugins = plugins.display(),
        name = args.name,
        program = program_name(),
    ))
}

fn write(directory: &Path, manifest: &str, source: &str) -> io::Result<()> {
    fs::create_dir_all(directory.join("src"))?;
    fs::write(directory.join("Cargo.toml"), manifest)?;
    fs::write(directory.join("src/lib.rs"), source)
}

/// Words that cargo refuses as the name of a package, or that mean another crate to a plugin.
const TAKEN: &[&str] = &[
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "core",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "host",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "plugin-api",
    "plugin_api",
    "priv",
    "proc_macro",
    "proc-macro",
    "pub",
    "ref",
    "return",
    "self",
    "static",
    "std",
    "struct",
    "super",
    "target",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "yield",
];

/// Refuses what cannot be the name of a package and a part of a path.
pub(super) fn check_name(name: &str) -> Result<(), CliError> {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(is_plain) || name.len() > 64 {
        return Err(CliError::Usage(format!(
            "`{name}` cannot name a plugin; use small letters, digits, `-` and `_`, a letter first, 64 at most"
        )));
    }
    if TAKEN.contains(&name) {
        return Err(CliError::Usage(format!(
            "`{name}` cannot name a plugin, as it means something else to Rust or cargo; try `my-{name}`"
        )));
    }
    Ok(())
}

/// What lies around a package that is to be.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Surroundings {
    /// Whether a workspace lists its directory.
    pub(super) is_member: bool,
    /// Whether that workspace shares a dependency on plugin-api.
    pub(super) shares_plugin_api: bool,
}

impl Surroundings {
    /// Looks for the workspace that cargo would find from `package`.
    pub(super) fn of(package: &Path) -> Surroundings {
        let workspace = package.ancestors().skip(1).find_map(|directory| {
            let manifest: Table = fs::read_to_string(directory.join("Cargo.toml")).ok()?.parse().ok()?;
            let workspace = manifest.get("workspace")?.as_table()?.clone();
            Some((directory.to_owned(), workspace))
        });
        let Some((root, workspace)) = workspace else { return Surroundings::default() };
        let Ok(relative) = package.strip_prefix(&root) else { return Surroundings::default() };
        let listed = |key: &str| {
            let patterns = workspace.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
            patterns.iter().filter_map(Value::as_str).any(|pattern| covers(pattern, relative))
        };
        let is_member = listed("members") && !listed("exclude");
        let shared = workspace.get("dependencies").and_then(|shared| shared.get("plugin-api"));
        Surroundings { is_member, shares_plugin_api: is_member && shared.is_some() }
    }
}

/// Whether a pattern of `members`, such as `plugins/*`, covers a path.
pub(super) fn covers(pattern: &str, path: &Path) -> bool {
    let pattern: Vec<&str> = pattern.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let path: Vec<String> =
        path.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    pattern.len() == path.len() && pattern.iter().zip(&path).all(|(pattern, part)| matches(pattern, part))
}

/// Whether `text` is what `pattern` says, in which `*` stands for any characters and `?` for one.
fn matches(pattern: &str, text: &str) -> bool {
    let Some(first) = pattern.chars().next() else { return text.is_empty() };
    let rest = &pattern[first.len_utf8()..];
    if first == '*' {
        return text
            .char_indices()
            .map(|(at, _)| at)
            .chain([text.len()])
            .any(|at| matches(rest, &text[at..]));
    }
    let mut characters = text.chars();
    characters.next().is_some_and(|c| first == '?' || c == first) && matches(rest, characters.as_str())
}

fn manifest(name: &str, surroundings: &Surroundings) -> Result<String, CliError> {
    let dependency = if surroundings.shares_plugin_api {
        "plugin-api.workspace = true".to_owned()
    } else {
        let path = PathBuf::from(PLUGIN_API);
        let path = path.canonicalize().ok().filter(|path| path.join("Cargo.toml").exists()).ok_or_else(|| {
            CliError::Usage(format!(
                "plugin-api is not at {PLUGIN_API} any more; name a directory with --plugins that lies in a workspace with `plugin-api` in its [workspace.dependencies]"
            ))
        })?;
        let path = Value::String(path.display().to_string());
        format!("plugin-api = {{ path = {path} }}")
    };
    Ok(render_manifest(name, &dependency, surroundings.is_member))
}

/// The text of the manifest.
pub(super) fn render_manifest(name: &str, dependency: &str, is_member: bool) -> String {
    let workspace =
        if is_member { "" } else { "\n# Its own workspace, whatever lies around it.\n[workspace]\n" };
    format!(
        "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\npublish = false\n\n\
         [lib]\ncrate-type = [\"cdylib\"]\n\n[dependencies]\n{dependency}\n{workspace}"
    )
}

/// The text of `src/lib.rs`.
pub(super) fn source(name: &str) -> String {
    SOURCE.replace("NAME", name)
}

const SOURCE: &str = r#"//! The plugin NAME: say here what it is for.
#![forbid(unsafe_code)]
use plugin_api::prelude::*;

plugin! {
    routes: { GET "/" => index, GET "/{name}" => greet },
}

fn index(_: &Request) -> &'static str {
    "NAME is here; edit this text, save, and ask again\n"
}

// Every reload begins with fresh statics. What has to outlive the code is kept by the host:
//     let db = registry::get_or_init("db", || db::Pool::open("sqlite:NAME.db"))?;
fn greet(req: &Request) -> Result<String> {
    let name: String = req.param("name")?;
    Ok(format!("hello, {name}\n"))
}

// `cargo test` here runs handlers without a host.
#[cfg(test)]
mod tests {
    #[test]
    fn greets_by_name() {
        let app = plugin_api::testing::app!();
        assert_eq!(app.get("/mars").text(), "hello, mars\n");
    }
}
"#;
