//! `host check`: everything that is done to new code short of serving it.
//!
//! Describes, builds, reads the descriptor and probes, as a reload does. Does not run `on_load`, which
//! may write to databases, and needs no running host.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use super::args::CheckArgs;
use super::itself::program;
use super::settings::state_dir;
use super::text::{Table, count, harmless};
use super::{CliError, print, print_json};
use crate::build::{BuildError, Builder, Cancel, Cargo, Package};
use crate::config::FileConfig;
use crate::plugin::descriptor::{self, Descriptor};
use crate::plugin::is_kept_out;
use crate::plugin::probe::Probe;
use crate::plugin::router::{mount_taken, normal_mount};
use crate::report::chain;
use crate::watch::scan::{Candidate, scan};

/// How long the probe may take, as in a reload.
const PROBE_DEADLINE: Duration = Duration::from_secs(10);

/// Checks a library, a source plugin, or all plugins of a directory.
pub(super) fn check(args: &CheckArgs) -> Result<ExitCode, CliError> {
    let path = &args.path;
    let metadata = fs::metadata(path).map_err(|error| {
        let words = "name a .so file, the directory of a plugin, or a plugins directory";
        CliError::Usage(format!("cannot check {}: {error}; {words}", path.display()))
    })?;
    let file = FileConfig::find(args.place.config.as_deref())?;
    let checker = Checker {
        builder: Builder::new(
            Cargo::of_process(),
            target_dir(&state_dir(&args.place)?)?,
            args.profile.clone().or(file.profile),
        ),
        probe: Probe { program: program()?, deadline: PROBE_DEADLINE },
        state_dir: state_dir(&args.place)?,
        mounts: file.mounts,
        is_talkative: !args.json,
    };
    let is_one = metadata.is_file() || path.join("Cargo.toml").exists();
    let mut found = if metadata.is_file() {
        vec![checker.library(path, path, &file_name(path))]
    } else if is_one {
        vec![checker.directory(path)]
    } else {
        let candidates = scan(path)?;
        if candidates.is_empty() {
            return Err(CliError::Usage(format!(
                "{0} holds no plugins: neither a .so file nor a directory with a Cargo.toml; make one with `host new hello --plugins {0}`",
                path.display()
            )));
        }
        candidates.iter().map(|candidate| checker.candidate(candidate)).collect()
    };
    refuse_clashes(&mut found);

    let is_refused = found.iter().any(|finding| finding.refused.is_some());
    if args.json {
        print_json(&json!({ "plugins": found }))?;
    } else {
        print(&if is_one { details(&found[0]) } else { table(&found) })?;
        // Nobody is left to be told when this fails.
        let _ = io::stderr().write_all(found.iter().map(complaint).collect::<String>().as_bytes());
    }
    Ok(ExitCode::from(u8::from(is_refused)))
}

/// Where a host with this state directory builds, made as the host would make it.
fn target_dir(state_dir: &Path) -> Result<PathBuf, CliError> {
    let doing = format!("use the state directory {}; name another with --state", state_dir.display());
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(state_dir);
    made.and_then(|()| state_dir.canonicalize())
        .map(|dir| dir.join("target"))
        .map_err(CliError::system(doing))
}

/// What was found out about one plugin.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub(super) struct Finding {
    /// Where it is.
    pub(super) path: PathBuf,
    /// Its name, as far as that is known.
    pub(super) name: String,
    /// What the library says of itself.
    pub(super) descriptor: Option<Descriptor>,
    /// Where it would answer.
    pub(super) mount: Option<String>,
    /// Its routes.
    pub(super) routes: Vec<String>,
    /// Why it would not be loaded.
    pub(super) refused: Option<Refusal>,
}

/// Why a plugin would not be loaded.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub(super) struct Refusal {
    /// The step that refuses it.
    pub(super) step: &'static str,
    /// One sentence.
    pub(super) reason: String,
    /// The compiler's words, without colours.
    pub(super) details: Option<String>,
}

impl Finding {
    fn refuse(mut self, step: &'static str, reason: String, details: Option<String>) -> Finding {
        self.refused = Some(Refusal { step, reason, details });
        self
    }
}

/// Does the checking.
struct Checker {
    builder: Builder,
    probe: Probe,
    /// Of the host that runs or would run.
    state_dir: PathBuf,
    mounts: BTreeMap<String, String>,
    /// Whether to say on standard error what is being built.
    is_talkative: bool,
}

impl Checker {
    fn candidate(&self, candidate: &Candidate) -> Finding {
        let finding = match candidate {
            Candidate::Source { directory, .. } => self.directory(directory),
            Candidate::Library { path, name, .. } => self.library(path, path, name),
        };
        match candidate.check() {
            Err(error) if finding.refused.is_none() => finding.refuse("scan", chain(&error), None),
            _ => finding,
        }
    }

    fn directory(&self, directory: &Path) -> Finding {
        let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let finding = Finding { path: directory.to_owned(), name, ..Finding::default() };
        let package = match Package::describe(self.builder.cargo(), directory) {
            Ok(package) => package,
            Err(error) => return finding.refuse("build", chain(&error), None),
        };
        if self.is_talkative {
            // Progress is a courtesy.
            let _ = writeln!(io::stderr(), "building {}", package.name);
        }
        let finding = Finding { name: package.name.clone(), ..finding };
        let cancel = Cancel::new();
        let turn = self.builder.wait(&package, &mut |_| {}, &cancel);
        let turn = turn.expect("nothing cancels it");
        match self.builder.build(turn, &package, &mut |_| {}, &cancel) {
            Ok(built) => self.library(&built.library, directory, &package.name),
            Err(error) => {
                let details = match &error {
                    BuildError::Compile { plain, .. } => Some(plain.clone()),
                    BuildError::Cargo { words, .. } => Some(words.clone()),
                    _ => None,
                };
                finding.refuse("build", chain(&error), details)
            }
        }
    }

    /// Checks the library in `file`, made from `source`, as that of the plugin called `name`: as the host names it.
    fn library(&self, file: &Path, source: &Path, name: &str) -> Finding {
        let mut finding = Finding { path: source.to_owned(), name: name.to_owned(), ..Finding::default() };
        let bytes = match fs::read(file) {
            Ok(bytes) => bytes,
            Err(error) => return finding.refuse("read", format!("cannot read it: {error}"), None),
        };
        match descriptor::read(&bytes) {
            Ok(descriptor) => finding.descriptor = Some(descriptor),
            Err(error) => return finding.refuse("vet", error.to_string(), None),
        }
        // A path without a slash would be looked up like a system library.
        let file = file.canonicalize().unwrap_or_else(|_| file.to_owned());
        let report = match self.probe.run(&file, file.parent().unwrap_or(Path::new("/"))) {
            Ok(report) => report,
            Err(error) => return finding.refuse("probe", chain(&error), None),
        };
        finding.routes = report.routes;
        let mount = self.mounts.get(name).cloned().or(report.mount);
        let mount = mount.unwrap_or_else(|| format!("/{name}"));
        let conflict = normal_mount(&mount).err().map(|error| error.to_string()).or(report.conflict);
        finding.mount = Some(mount);
        if let Some(reason) = conflict {
            return finding.refuse("open", reason, None);
        }
        let source = source.canonicalize().unwrap_or_else(|_| source.to_owned());
        match is_kept_out(&self.state_dir, name, &source, &bytes) {
            Some(reason) => finding.refuse("quarantine", reason, None),
            None => finding,
        }
    }
}

/// What the host calls a plugin in this file.
fn file_name(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    stem.strip_prefix("lib").filter(|rest| !rest.is_empty()).unwrap_or(&stem).to_owned()
}

/// Refuses a plugin that has the name or the mount of one before it.
fn refuse_clashes(found: &mut [Finding]) {
    for later in 1..found.len() {
        let (before, rest) = found.split_at_mut(later);
        let finding = &mut rest[0];
        let mount_of = |of: &Finding| of.mount.as_deref().and_then(|mount| normal_mount(mount).ok());
        let clash = before.iter().find_map(|other| {
            if other.name == finding.name {
                let path = other.path.display();
                return Some(format!("{path} is named `{}` too; rename one of them", finding.name));
            }
            // A plugin that is refused has no code that could answer there.
            let mount = mount_of(other).filter(|_| other.refused.is_none())?;
            (mount_of(finding)? == mount).then(|| mount_taken(&finding.name, &mount, &other.name).to_string())
        });
        if let (Some(reason), None) = (clash, &finding.refused) {
            finding.refused = Some(Refusal { step: "publish", reason, details: None });
        }
    }
}

/// All about one plugin.
pub(super) fn details(finding: &Finding) -> String {
    let mut text = String::new();
    let mut line = |what: &str, value: &str| {
        if !value.is_empty() {
            text.push_str(&format!("{what:<9}{}\n", harmless(value)));
        }
    };
    line("plugin", &finding.name);
    if let Some(descriptor) = &finding.descriptor {
        line("version", &descriptor.version);
        line("abi", &descriptor.abi.to_string());
        line("api", &descriptor.api);
        line("compiler", &descriptor.rustc);
        line("target", &descriptor.target);
    }
    line("mount", finding.mount.as_deref().unwrap_or_default());
    line("routes", &finding.routes.join("\n").replace('\n', ", "));
    line("result", if finding.refused.is_some() { "refused" } else { "can be loaded" });
    text
}

/// Why a plugin is refused, for standard error; nothing when it is not.
pub(super) fn complaint(finding: &Finding) -> String {
    let Some(refusal) = &finding.refused else { return String::new() };
    let (path, reason) = (finding.path.display(), harmless(&refusal.reason));
    let mut text = format!("error: {path} is refused at {}: {reason}\n", refusal.step);
    if let Some(details) = &refusal.details {
        text.push_str(details.trim_end());
        text.push('\n');
    }
    text
}

/// All plugins of a directory.
pub(super) fn table(found: &[Finding]) -> String {
    let mut table = Table::new(&["PLUGIN", "RESULT", "VERSION", "ABI", "MOUNT", "ROUTES"]);
    for finding in found {
        let descriptor = finding.descriptor.as_ref();
        let result = if finding.refused.is_some() { "refused" } else { "can be loaded" };
        table.row([
            finding.name.clone(),
            result.to_owned(),
            descriptor.map(|d| d.version.clone()).unwrap_or_default(),
            descriptor.map(|d| d.abi.to_string()).unwrap_or_default(),
            finding.mount.clone().unwrap_or_default(),
            finding.routes.len().to_string(),
        ]);
    }
    let refused = found.iter().filter(|finding| finding.refused.is_some()).count();
    let sum = match refused {
        0 => format!("\n{}, all can be loaded\n", count(found.len(), "plugin")),
        _ => format!("\n{refused} of {} refused\n", count(found.len(), "plugin")),
    };
    table.render("") + &sum
}
