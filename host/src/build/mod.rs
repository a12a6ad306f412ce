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
//!   look (see `compiled`).
//! - At most one cargo runs in a target directory, and one that was cancelled or took too long is gone, its compilers
//!   with it, when [`Builder::build`] returns.
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
mod seed;
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
use run::{DISK_FULL, Ended, NO_ROOM, Outcome};
use turn::{Queue, Turn};

/// How long a build may take, without a word in the settings.
pub const BUILD_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// How much longer a build may take in a target directory in which nothing was built before: it fetches and compiles
/// every dependency.
const FIRST_BUILD: u32 = 3;

/// How often cargo is run for one build at most: once more where it took something for fresh that was not, and once
/// more for what that brings to light.
const MOST_RUNS: usize = 3;

/// Builds source plugins, each target directory one at a time.
pub struct Builder {
    /// The cargo that is run.
    cargo: Cargo,
    /// Which packages are built in directories of their own.
    target_dirs: TargetDirs,
    /// The operator's choice; `None` is the profile made for turnaround.
    profile: Option<String>,
    /// How long a build may take.
    timeout: Duration,
    /// The target directories below the host's state directory, and the queue of builds for them.
    queue: Queue,
}

/// The right to build a package now.
pub struct BuildTurn(Turn);

/// A sign of life of a build in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// It waits for its turn.
    Queued {
        /// The plugins that are being built, by name.
        behind: &'a str,
    },
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
    /// Nothing was said for a while; these processes run.
    Running {
        /// `the build script of shop`.
        what: &'a str,
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
    /// It took too long and was ended; nothing of it runs any more.
    #[error(
        "it did not finish within {} s{}: it was ended, so that other builds go on; if it needs longer, set \
         build_timeout_ms in the [limits] table of host.toml, then try again with `host reload`",
        allowed.as_secs_f64(), at(doing)
    )]
    Late {
        /// How long it might take.
        allowed: Duration,
        /// What ran at last; empty if that is not known.
        doing: String,
    },
    /// It printed more than any build has to say, and was ended before it filled the memory.
    #[error(
        "it prints without end{}, and was ended; mend that, then try again with `host reload`",
        at(doing)
    )]
    Flood {
        /// What ran at last; empty if that is not known.
        doing: String,
    },
    /// The build was cancelled; nothing of it runs any more.
    #[error("the build was cancelled")]
    Cancelled,
}

fn at(doing: &str) -> String {
    if doing.is_empty() { String::new() } else { format!(" ({doing} was running)") }
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
        let queue = Queue::new(&target_dir.into(), 1);
        Builder { cargo, target_dirs: TargetDirs::new(), profile, timeout: BUILD_TIMEOUT, queue }
    }

    /// The same, but up to `most` packages are built at a time, in target directories beside the main one.
    #[must_use]
    pub fn side_by_side(self, most: usize) -> Builder {
        let queue = Queue::new(self.queue.main(), most);
        Builder { queue, ..self }
    }

    /// The same, but a build is ended after `timeout`; a first one after three times that.
    #[must_use]
    pub fn ended_after(self, timeout: Duration) -> Builder {
        Builder { timeout, ..self }
    }

    /// Takes the names of `package` for it, so that no other one is built where it is. The first package of a name is
    /// built in the main directory, so callers claim packages in an order that is the same each time.
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

    /// Waits until `package` may be built, and tells `step` what for. `None` if it was cancelled first.
    pub fn wait(
        &self,
        package: &Package,
        step: &mut dyn FnMut(Step<'_>),
        cancel: &Cancel,
    ) -> Option<BuildTurn> {
        let queued = |behind: &str| step(Step::Queued { behind });
        self.queue.wait(&package.name, &package.url, cancel, queued).map(BuildTurn)
    }

    /// Builds `package`, whose turn it is, and tells `step` how it goes. Blocks until done, cancelled or ended for
    /// taking too long.
    ///
    /// # Errors
    ///
    /// [`BuildError`] when there is no new library, whatever the reason.
    pub fn build(
        &self,
        turn: BuildTurn,
        package: &Package,
        step: &mut dyn FnMut(Step<'_>),
        cancel: &Cancel,
    ) -> Result<Built, BuildError> {
        let BuildTurn(turn) = turn;
        let begun = Instant::now();
        if let Some(model) = turn.model() {
            seed::seed(model, turn.directory());
        }
        let started = SystemTime::now();
        let allowed = if turn.is_first() { self.timeout.saturating_mul(FIRST_BUILD) } else { self.timeout };
        // Up to the reading of what cargo leaves behind nobody else builds there: the next cargo may replace it.
        let compiled = self.compile(package, turn.directory(), allowed, step, cancel);
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
            duration: begun.elapsed(),
        })
    }

    /// Runs cargo until nothing that it takes for fresh has changed.
    fn compile(
        &self,
        package: &Package,
        shared: &Path,
        allowed: Duration,
        step: &mut dyn FnMut(Step<'_>),
        cancel: &Cancel,
    ) -> Result<(Outcome, Inputs), BuildError> {
        let target_dir = &*self.target_dirs.of(package, shared);
        let deadline = Instant::now() + allowed;
        let mut runs = 1;
        loop {
            let known = Inputs::of_package(package).with_ignored();
            let run = target_dir.compiled.begin(package, &known);
            let left = deadline.saturating_duration_since(Instant::now());
            let mut command = self.command(package, target_dir);
            let outcome = match run::run(&mut command, &package.url, left, step, cancel) {
                Ok(outcome) if !cancel.is_cancelled() && outcome.ended.is_none() => outcome,
                Ok(outcome) => {
                    target_dir.compiled.break_off(&run);
                    return Err(match outcome.ended {
                        Some(Ended::Late(doing)) => BuildError::Late { allowed, doing },
                        Some(Ended::Flood(doing)) => BuildError::Flood { doing },
                        None => BuildError::Cancelled,
                    });
                }
                Err(source) => {
                    target_dir.compiled.break_off(&run);
                    return Err(BuildError::Spawn { program: self.cargo.program().to_owned(), source });
                }
            };
            let left = LeftBehind::read(package, &outcome, [shared, &target_dir.path]);
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
        // The compiler tells of it as of an error in the code.
        Some(_) if outcome.diagnostics.rendered.contains(NO_ROOM) => {
            let plain = outcome.diagnostics.plain();
            BuildError::Cargo { words: format!("{DISK_FULL}\n{plain}"), inputs }
        }
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
