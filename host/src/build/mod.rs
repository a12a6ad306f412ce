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
//! - At most one cargo runs in a target directory, and one that was cancelled or took too long is gone, its compilers
//!   with it, when [`Builder::build`] returns.
//! - The path of the library is cargo's own word, never guessed. The file is replaced by the next build
//!   of the same plugin, so it must be copied before another one is started, and never be loaded in place.

mod cancel;
mod cargo;
mod diagnostics;
mod fingerprint;
mod inputs;
mod package;
mod process;
mod run;
mod seed;
#[cfg(test)]
mod tests;
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

use run::{Ended, Outcome};
use turn::{Queue, Turn};

/// How long a build may take, without a word in the settings.
pub const BUILD_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// How much longer a build may take in a target directory in which nothing was built before: it fetches and compiles
/// every dependency.
const FIRST_BUILD: u32 = 3;

/// Builds source plugins, each target directory one at a time.
pub struct Builder {
    /// The cargo that is run.
    cargo: Cargo,
    /// The operator's choice; `None` is the profile made for turnaround.
    profile: Option<String>,
    /// How long a build may take.
    timeout: Duration,
    /// Where cargo puts what it makes, below the host's state directory, and who may.
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
        Builder { cargo, profile, timeout: BUILD_TIMEOUT, queue }
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
        let target_dir = turn.directory().to_owned();
        let mut command = self.command(package, &target_dir);
        let outcome = run::run(&mut command, &package.url, allowed, step, cancel);
        // Read while nobody else builds there: the next cargo may replace the list of sources.
        let inputs = outcome.as_ref().ok().map(|outcome| inputs(package, &target_dir, outcome));
        drop(turn);
        if cancel.is_cancelled() {
            return Err(BuildError::Cancelled);
        }
        let outcome = outcome
            .map_err(|source| BuildError::Spawn { program: self.cargo.program().to_owned(), source })?;
        match outcome.ended {
            Some(Ended::Late(doing)) => return Err(BuildError::Late { allowed, doing }),
            Some(Ended::Flood(doing)) => return Err(BuildError::Flood { doing }),
            None => {}
        }
        let inputs = inputs.unwrap_or_else(|| Inputs::of_package(package));
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

    fn command(&self, package: &Package, target_dir: &Path) -> Command {
        let mut command = self.cargo.command(&package.directory);
        command.args(["build", "--lib", "--color=never", "--message-format=json-diagnostic-rendered-ansi"]);
        command.arg("--manifest-path").arg(&package.manifest_path);
        command.arg("--package").arg(package.spec());
        command.arg("--target-dir").arg(target_dir);
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

fn inputs(package: &Package, target_dir: &Path, outcome: &Outcome) -> Inputs {
    let mut inputs = Inputs::of_package(package);
    inputs.add_packages(&outcome.local_packages);
    inputs.add_files(&outcome.blamed);
    if let Some((library, _)) = outcome.library.as_ref().filter(|_| outcome.success) {
        inputs.add_dep_info(&library.with_extension("d"), package, target_dir);
    }
    inputs
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
