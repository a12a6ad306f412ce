//! Building source plugins: from a package's directory to a library file, by cargo.
//!
//! A [`Builder`] runs cargo in the host's own target directory, so that it never waits for, nor disturbs,
//! the author's own builds and language server. The plugin's files are never touched, with one exception
//! that is cargo's: the first build writes a missing `Cargo.lock`. Owns everything about cargo; does not
//! watch, load or judge a library, and keeps no state of any plugin.
//!
//! # Invariants
//!
//! - One build is one cargo process: what it was made of is read from files that it leaves behind.
//! - A library is made of the content that its inputs have: where cargo would go by the time of a file, it is made to
//!   look (see [`compiled`]).
//! - At most one cargo runs at a time, and a cancelled one is gone, its compilers with it, when
//!   [`Builder::build`] returns.
//! - The path of the library is cargo's own word, never guessed. The file is replaced by the next build
//!   of the same plugin, so it must be copied before another one is started, and never be loaded in place.

mod apart;
mod cancel;
mod cargo;
mod compiled;
mod dep_info;
mod diagnostics;
mod fingerprint;
mod inputs;
mod left_behind;
mod package;
mod process;
mod run;
#[cfg(test)]
mod tests;
mod tree;
mod turn;

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

pub use cancel::Cancel;
pub use cargo::Cargo;
pub use diagnostics::{Diagnostics, plain};
pub use fingerprint::{Content, Fingerprint};
pub use inputs::Inputs;
pub use package::{DescribeError, Package};
pub use tree::WatchRules;

use apart::{TargetDir, TargetDirs};
use compiled::Compiled;
use left_behind::LeftBehind;
use run::Outcome;
use turn::Queue;

/// How often cargo is run for one build at most: once more where it took something for fresh that was not, and once
/// more for what that brings to light.
const MOST_RUNS: usize = 3;

/// Builds source plugins, one at a time, in one target directory.
pub struct Builder {
    /// The cargo that is run.
    cargo: Cargo,
    /// Where cargo puts what it makes: below the host's state directory.
    target_dir: PathBuf,
    target_dirs: TargetDirs,
    /// The operator's choice; `None` is the profile made for turnaround.
    profile: Option<String>,
    queue: Queue,
}

/// A sign of life of a build in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// Another plugin is being built; this one waits for its turn.
    Queued,
    /// cargo waits for another cargo on this machine.
    Blocked {
        /// What it waits for, in cargo's words.
        words: &'a str,
    },
    /// cargo is resolving or fetching dependencies.
    Fetching {
        /// What it does, in cargo's words.
        words: &'a str,
    },
    /// The compilation of a crate has begun.
    Compiling {
        /// The crate's package.
        name: &'a str,
    },
    /// The compilation of a crate, or of its build script, is done.
    Compiled {
        /// The crate's package.
        name: &'a str,
        /// How many that makes so far in this build. cargo tells nobody how many there will be.
        done: usize,
    },
}

/// A library, built.
#[derive(Debug, Clone)]
pub struct Built {
    /// The library file. Copy it before the next build: cargo will replace it.
    pub library: PathBuf,
    /// Every file it was made of, to be watched.
    pub inputs: Inputs,
    /// Whether the library had been up to date already.
    pub fresh: bool,
    /// How many crates were compiled.
    pub compiled: usize,
    /// What the compiler had to say: warnings, at this point.
    pub diagnostics: Diagnostics,
    /// When cargo was started: what changed later may not be in the library.
    pub started: SystemTime,
    /// How long it waited for other builds of this host.
    pub queued: Duration,
    /// How long cargo took.
    pub duration: Duration,
}

/// Why there is no new library. The last one built may be gone, as cargo removes it before it links.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// cargo could not be started.
    #[error("cannot start `{}`: install cargo or put it on the PATH", program.display())]
    Spawn {
        /// The program that was tried.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The code does not compile or link.
    #[error("does not compile: {first}{}", more(*errors))]
    Compile {
        /// The compiler's words, coloured with ANSI sequences.
        rendered: String,
        /// The same without colours.
        plain: String,
        /// How many errors there are.
        errors: usize,
        /// The first one: `src/lib.rs:12:5: mismatched types`.
        first: String,
        /// What is known of the files involved, to be watched for the repair.
        inputs: Box<Inputs>,
    },
    /// cargo failed before or beside compiling: manifest, lock file, network, a build script.
    #[error("cargo failed: {}", words.lines().next().unwrap_or_default())]
    Cargo {
        /// cargo's own words, all of them.
        words: String,
        /// What is known of the files involved, to be watched for the repair.
        inputs: Box<Inputs>,
    },
    /// cargo succeeded without making a library that can be loaded.
    #[error("package `{package}` made no loadable library: add `crate-type = [\"cdylib\"]` to [lib]")]
    NoLibrary {
        /// The package.
        package: String,
    },
    /// cargo takes a package for unchanged although it has changed. Its library is not used.
    #[error(
        "cargo takes package `{name}` for unchanged although its files have changed: delete {} and reload",
        target_dir.display()
    )]
    Stale {
        /// The package.
        name: String,
        /// Where cargo keeps what it goes by.
        target_dir: PathBuf,
    },
    /// The build was cancelled; nothing of it runs any more.
    #[error("the build was cancelled")]
    Cancelled,
}

fn more(errors: usize) -> String {
    match errors {
        0 | 1 => String::new(),
        2 => " (and 1 more error)".to_owned(),
        _ => format!(" (and {} more errors)", errors - 1),
    }
}

impl Builder {
    /// A builder that keeps what it makes in `target_dir`. `profile` is one of cargo's or of the
    /// plugins' workspaces; without it plugins are built by the `dev` profile, less what costs time.
    pub fn new(cargo: Cargo, target_dir: impl Into<PathBuf>, profile: Option<String>) -> Builder {
        Builder {
            cargo,
            target_dir: target_dir.into(),
            target_dirs: TargetDirs::new(),
            profile,
            queue: Queue::default(),
        }
    }

    /// Takes the names of `package` for it, so that no other one is built where it is. Whoever comes first is built
    /// where most are; so whoever makes plugins of packages claims them in an order that is the same each time.
    pub fn claim(&self, package: &Package) {
        self.target_dirs.claim(package);
    }

    /// Gives the names of the package in `directory` back: it is a plugin no more.
    pub fn release(&self, directory: &Path) {
        self.target_dirs.release(directory);
    }

    /// The cargo in use, for [`Package::describe`].
    pub fn cargo(&self) -> &Cargo {
        &self.cargo
    }

    /// Builds `package` and tells `step` how it goes. Blocks until done or cancelled.
    ///
    /// # Errors
    ///
    /// [`BuildError`] when there is no new library, whatever the reason.
    pub fn build(
        &self,
        package: &Package,
        step: &mut dyn FnMut(Step<'_>),
        cancel: &Cancel,
    ) -> Result<Built, BuildError> {
        let asked = Instant::now();
        let turn = self.queue.wait(cancel, || step(Step::Queued)).ok_or(BuildError::Cancelled)?;
        let queued = asked.elapsed();
        let started = SystemTime::now();
        let target_dir = self.target_dirs.of(package, &self.target_dir);
        // Up to the reading of what cargo leaves behind nobody else builds: the next cargo may replace it.
        let compiled = self.compile(package, &target_dir, step, cancel);
        drop(turn);
        if cancel.is_cancelled() {
            return Err(BuildError::Cancelled);
        }
        let (outcome, inputs) = compiled?;
        if !outcome.success {
            return Err(refusal(outcome, inputs));
        }
        let Some((library, fresh)) = outcome.library else {
            return Err(BuildError::NoLibrary { package: package.name.clone() });
        };
        Ok(Built {
            library,
            inputs,
            fresh,
            compiled: outcome.compiled,
            diagnostics: outcome.diagnostics,
            started,
            queued,
            duration: asked.elapsed().saturating_sub(queued),
        })
    }

    /// Runs cargo until nothing that it takes for fresh has changed.
    fn compile(
        &self,
        package: &Package,
        target_dir: &TargetDir,
        step: &mut dyn FnMut(Step<'_>),
        cancel: &Cancel,
    ) -> Result<(Outcome, Inputs), BuildError> {
        let mut runs = 1;
        loop {
            let known = Inputs::of_package(package).with_ignored();
            let run = target_dir.compiled.begin(package, &known);
            let outcome = match run::run(&mut self.command(package, target_dir), &package.url, step, cancel) {
                Ok(outcome) if !cancel.is_cancelled() => outcome,
                Ok(_) => {
                    target_dir.compiled.break_off(&run);
                    return Err(BuildError::Cancelled);
                }
                Err(source) => {
                    target_dir.compiled.break_off(&run);
                    return Err(BuildError::Spawn { program: self.cargo.program().to_owned(), source });
                }
            };
            let left = LeftBehind::read(package, &outcome, [self.target_dir.as_path(), &target_dir.path]);
            let inputs = left.inputs(target_dir.compiled.last_inputs(&package.directory));
            let compiled = Compiled { root: &package.directory, packages: left.packages() };
            let stale = target_dir.compiled.end(&run, compiled);
            if let Some(name) = stale.resisting.filter(|_| outcome.success) {
                return Err(BuildError::Stale { name, target_dir: target_dir.path.clone() });
            }
            if stale.names.is_empty() || runs == MOST_RUNS {
                return Ok((outcome, inputs));
            }
            let names: Vec<String> = stale.names.into_iter().collect();
            tracing::debug!(package = package.name, stale = names.join(", "), "cargo is run again");
            runs += 1;
        }
    }

    fn command(&self, package: &Package, target_dir: &TargetDir) -> Command {
        let mut command = self.cargo.command(&package.directory);
        command.args(["build", "--lib", "--color=never", "--message-format=json-diagnostic-rendered-ansi"]);
        command.arg("--manifest-path").arg(&package.manifest_path);
        command.arg("--package").arg(package.spec());
        command.arg("--target-dir").arg(&target_dir.path);
        // A user's configuration may put what is not final elsewhere, where the author's own builds are.
        command.env("CARGO_BUILD_BUILD_DIR", &target_dir.path);
        match &self.profile {
            Some(profile) => command.arg("--profile").arg(profile),
            // Given to cargo alone, so the user's files stay as they are. Without debug information a thin
            // plugin builds a tenth faster and is a tenth of the size to copy and load; names in
            // backtraces and the places of panics remain. To debug a plugin, the operator says `dev`.
            None => command.args(["--config", "profile.dev.debug=0"]),
        };
        command
    }
}

fn refusal(outcome: Outcome, inputs: Inputs) -> BuildError {
    let inputs = Box::new(inputs);
    match outcome.diagnostics.first_error {
        Some(ref first) => BuildError::Compile {
            plain: outcome.diagnostics.plain(),
            errors: outcome.diagnostics.errors,
            first: first.clone(),
            rendered: outcome.diagnostics.rendered,
            inputs,
        },
        None => BuildError::Cargo { words: outcome.words, inputs },
    }
}
