//! One run of cargo: its two outputs read as they come, its end, and what they amount to.
//!
//! Owns the threads that read and the reading of cargo's JSON. Does not decide what a failed run means
//! to the plugin; that is [`super::Builder`].
//!
//! # Invariants
//!
//! - Nothing of the run outlives [`run`] but what was asked to (a daemon that a build script started):
//!   the group is reaped, and after a cancellation killed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use cargo_metadata::{Artifact, CrateType, Message, PackageId};

use super::Step;
use super::cancel::Cancel;
use super::diagnostics::Diagnostics;
use super::process::Group;

/// How long the rest of cargo's error output may take once cargo has ended. It is there already; the
/// limit is for a daemon of a build script that inherited the pipe and never closes it.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How long nothing may be heard before the processes are looked at.
const SILENCE: Duration = Duration::from_secs(1);

/// How much text of each output is kept; the rest is read and thrown away. A thousand errors have less.
const MOST_WORDS: usize = 4 << 20;

/// How much of one line is kept. cargo says all that it has to say about one error in one line.
const LONGEST_LINE: u64 = 4 << 20;

/// How much memory cargo itself may take. It has some tens of megabytes, and all that build scripts print.
const MOST_MEMORY: u64 = 1 << 30;

/// Why a run was ended before it was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// It took too long, and was at this.
    Late(String),
    /// A build script, or a macro, prints without end.
    Flood(String),
}

/// The signal that a process which takes too much memory is ended by.
const KILLED: i32 = libc::SIGKILL;

/// What a run of cargo came to.
#[derive(Default)]
pub(super) struct Outcome {
    /// Why it was ended, if it did not end by itself.
    pub(super) ended: Option<Ended>,
    /// Whether cargo ended well.
    pub(super) success: bool,
    pub(super) diagnostics: Diagnostics,
    /// The plugin's own library and whether it was up to date already.
    pub(super) library: Option<(PathBuf, bool)>,
    /// How many crates were compiled, not counting those that were fresh.
    pub(super) compiled: usize,
    /// All packages on this machine's disk that cargo mentioned, by directory.
    pub(super) local_packages: BTreeMap<PathBuf, LocalPackage>,
    /// Files that the compiler's errors point at.
    pub(super) blamed: BTreeSet<PathBuf>,
    /// cargo's own words: the errors, without its reports of progress.
    pub(super) words: String,
}

/// A package that cargo reads in place.
#[derive(Debug, Default)]
pub(super) struct LocalPackage {
    pub(super) name: String,
    /// Whether anything of it was compiled, and not found fresh.
    pub(super) is_compiled: bool,
    /// What cargo has made of it.
    pub(super) artifacts: BTreeSet<PathBuf>,
    /// Where its build scripts have put what they make.
    pub(super) script_outputs: BTreeSet<PathBuf>,
}

enum Line {
    Out(String),
    OutEnd,
    Err(String),
    ErrEnd,
}

/// Runs `command`, which builds the package at `url`, for at most as long as `allowed`.
///
/// # Errors
///
/// When the process cannot be started.
pub(super) fn run(
    command: &mut Command,
    url: &str,
    allowed: Duration,
    step: &mut dyn FnMut(Step<'_>),
    cancel: &Cancel,
) -> io::Result<Outcome> {
    let mut group = Group::spawn(command)?;
    let id = group.id();
    let hook = cancel.on_cancel(move || id.kill());
    let lines = read_both(&mut group)?;
    let mut outcome = Outcome::default();
    let mut errors = Vec::new();
    let mut err_ended = false;
    // A day is as good as never.
    let deadline = Instant::now() + allowed.min(Duration::from_secs(24 * 60 * 60));
    let mut look_at = Instant::now() + SILENCE;
    loop {
        match lines.recv_timeout(look_at.min(deadline).saturating_duration_since(Instant::now())) {
            Ok(Line::Out(line)) => {
                if outcome.take(&line, url, step) {
                    break;
                }
            }
            Ok(Line::OutEnd) | Err(RecvTimeoutError::Disconnected) => break,
            Ok(Line::Err(line)) => errors.extend(note(line, step)),
            Ok(Line::ErrEnd) => err_ended = true,
            Err(RecvTimeoutError::Timeout) => {
                let doing = id.busy_with();
                if let Some(what) = &doing {
                    step(Step::Running { what });
                }
            }
        }
        let now = Instant::now();
        if now >= look_at {
            look_at = now + SILENCE;
            if id.memory_of_leader().is_some_and(|bytes| bytes > MOST_MEMORY) {
                outcome.ended = Some(Ended::Flood(id.busy_with().unwrap_or_default()));
            }
        }
        if now >= deadline {
            outcome.ended = Some(Ended::Late(id.busy_with().unwrap_or_default()));
        }
        if outcome.ended.is_some() {
            id.kill();
            break;
        }
    }
    // From here on cargo has nothing left to do but to exit, and its number may be given away.
    drop(hook);
    let status = group.wait()?;
    while !err_ended && let Ok(line) = lines.recv_timeout(LAST_WORDS) {
        match line {
            Line::Err(line) => errors.extend(note(line, step)),
            Line::ErrEnd => err_ended = true,
            Line::Out(_) | Line::OutEnd => {}
        }
    }
    outcome.success = status.success() && outcome.ended.is_none();
    outcome.words = words(&errors, status);
    Ok(outcome)
}

fn read_both(group: &mut Group) -> io::Result<Receiver<Line>> {
    let (out, err) = group.outputs().ok_or(io::ErrorKind::BrokenPipe)?;
    let (sender, lines) = mpsc::channel();
    let out_sender = sender.clone();
    let reader = |name: &str| thread::Builder::new().name(name.to_owned());
    reader("cargo-stdout").spawn(move || read(out, &out_sender, Line::Out, Line::OutEnd))?;
    reader("cargo-stderr").spawn(move || read(err, &sender, Line::Err, Line::ErrEnd))?;
    Ok(lines)
}

/// Sends what `pipe` says line by line. Nobody listening any more is not an error: the run is over. What is too much
/// is read, so that nobody waits for it to be read, and left out.
fn read(pipe: impl Read, lines: &Sender<Line>, wrap: fn(String) -> Line, end: Line) {
    let mut pipe = BufReader::new(pipe);
    let mut bytes = Vec::new();
    // Of what is kept for long; progress is not.
    let mut kept = 0;
    while (&mut pipe).take(LONGEST_LINE).read_until(b'\n', &mut bytes).is_ok_and(|length| length > 0) {
        let line = String::from_utf8_lossy(&bytes).trim_end_matches(['\r', '\n']).to_owned();
        kept += if line.starts_with("{\"reason\":\"compiler-artifact\"") { 0 } else { line.len() + 1 };
        let is_last = line.starts_with("{\"reason\":\"build-finished\"");
        if kept <= MOST_WORDS || is_last {
            let _ = lines.send(wrap(line));
        }
        bytes.clear();
    }
    let _ = lines.send(end);
}

impl Outcome {
    /// Takes in one line of JSON; true at the last one. What is not JSON a build tool has printed.
    fn take(&mut self, line: &str, url: &str, step: &mut dyn FnMut(Step<'_>)) -> bool {
        match serde_json::from_str(line) {
            Ok(Message::CompilerArtifact(artifact)) => self.artifact(artifact, url, step),
            Ok(Message::CompilerMessage(message)) => {
                let is_local = self.local_package(&message.package_id).is_some();
                let foreign = (!is(&message.package_id, url)).then(|| package_name(&message.package_id));
                self.diagnostics.add(&message.message, foreign);
                let named = message.message.spans.iter().map(|span| Path::new(&span.file_name));
                if is_local {
                    self.blamed.extend(named.filter(|f| f.is_absolute()).map(Path::to_owned));
                    self.blamed.insert(message.target.src_path.into_std_path_buf());
                }
            }
            Ok(Message::BuildScriptExecuted(script)) => {
                if let Some(package) = self.local_package(&script.package_id) {
                    package.script_outputs.insert(script.out_dir.into_std_path_buf());
                }
            }
            Ok(Message::BuildFinished(_)) => return true,
            _ => {}
        }
        false
    }

    /// What is known of the package, if cargo reads it in place.
    fn local_package(&mut self, id: &PackageId) -> Option<&mut LocalPackage> {
        let package = self.local_packages.entry(local_directory(id)?).or_default();
        package_name(id).clone_into(&mut package.name);
        Some(package)
    }

    fn artifact(&mut self, artifact: Artifact, url: &str, step: &mut dyn FnMut(Step<'_>)) {
        if !artifact.fresh {
            self.compiled += 1;
            step(Step::Compiled { name: package_name(&artifact.package_id), done: self.compiled });
        }
        if let Some(package) = self.local_package(&artifact.package_id) {
            package.is_compiled |= !artifact.fresh;
            package.artifacts.extend(artifact.filenames.iter().map(|file| file.clone().into_std_path_buf()));
        }
        if is(&artifact.package_id, url) && artifact.target.crate_types.contains(&CrateType::CDyLib) {
            let library = artifact
                .filenames
                .iter()
                .find(|file| file.extension().is_some_and(|e| e == std::env::consts::DLL_EXTENSION));
            self.library = library.map(|file| (file.clone().into_std_path_buf(), artifact.fresh));
        }
    }
}

/// Whether `id` is the package at `url`, which is an id without its fragment.
fn is(id: &PackageId, url: &str) -> bool {
    id.repr.split('#').next() == Some(url)
}

/// The name in `url#name@version`, or of the directory where that is the name: `url/name#version`.
fn package_name(id: &PackageId) -> &str {
    let (url, fragment) = id.repr.split_once('#').unwrap_or((&id.repr, ""));
    match fragment.split_once('@') {
        Some((name, _)) => name,
        None => url.rsplit('/').next().unwrap_or(url),
    }
}

/// The directory of a package that cargo reads in place, not from a registry.
fn local_directory(id: &PackageId) -> Option<PathBuf> {
    let url = id.repr.strip_prefix("path+file://")?;
    let encoded = url.split('#').next()?;
    let path = percent_encoding::percent_decode_str(encoded).decode_utf8().ok()?;
    Some(PathBuf::from(path.into_owned()))
}

/// Reports a line of progress, or gives back a line that says something else.
fn note(line: String, step: &mut dyn FnMut(Step<'_>)) -> Option<String> {
    let Some((verb, rest)) = status(&line) else {
        return Some(line);
    };
    match verb {
        "Compiling" => step(Step::Compiling { name: rest.split(' ').next().unwrap_or(rest) }),
        "Blocking" => step(Step::Blocked { words: rest }),
        "Updating" | "Locking" | "Downloading" | "Downloaded" => step(Step::Fetching { words: line.trim() }),
        _ => {}
    }
    None
}

/// Splits `   Compiling serde v1.0`: cargo's reports have their verb right-aligned to twelve columns.
fn status(line: &str) -> Option<(&str, &str)> {
    let (head, rest) = line.split_at_checked(12)?;
    let verb = head.trim_start();
    let is_verb = verb.starts_with(char::is_uppercase) && verb.chars().all(char::is_alphabetic);
    is_verb.then_some(verb).zip(rest.strip_prefix(' '))
}

/// What cargo has to say beyond progress and warnings, or how it ended if it said nothing. Where the reason is not in
/// the code, it says so in its first line.
fn words(lines: &[String], status: ExitStatus) -> String {
    let error = lines.iter().position(|line| line.starts_with("error")).unwrap_or(0);
    let words = lines[error..].join("\n").trim().trim_start_matches("error: ").to_owned();
    let killed = "was killed, as it is when memory runs out; then try again with `host reload`";
    if status.signal() == Some(KILLED) {
        return format!("cargo {killed}\n{words}").trim_end().to_owned();
    }
    if words.contains("(signal: 9, SIGKILL") {
        return format!("a compiler or build script {killed}\n{words}");
    }
    if words.contains("(os error 28)") {
        return format!("the disk is full; make room, then try again with `host reload`\n{words}");
    }
    if words.is_empty() { format!("cargo ended without a word ({status})") } else { words }
}
