//! Trying a library in a process that may die: `host probe FILE`.
//!
//! The child vets, maps and enters the very file the host is about to open. Whatever kills it or hangs
//! it is a refused reload and not an outage.
//!
//! # Invariants
//!
//! - Success is a token on a socket, never an exit status: a constructor that calls `exit(0)` has not
//!   succeeded.
//! - The child is dead and reaped when [`Probe::run`] returns.
//! - It is spawned without `pre_exec`, so that the system can use `vfork` semantics however large the host is.
#![expect(unsafe_code, reason = "the child turns core dumps off")]

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::library::{self, Library};
use super::mapped_file::MappedFile;
use super::{descriptor, router, vetting};
use crate::hostcall::{Caller, OwnSafe};
use crate::pins::Code;
use crate::registry::{Overlay, Registry};

/// How a library is tried.
#[derive(Debug, Clone)]
pub struct Probe {
    /// The host's own executable.
    pub program: PathBuf,
    /// How long the child may take. Loading takes milliseconds.
    pub deadline: Duration,
}

/// Why the probe refused a library.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The child could not be started.
    #[error("cannot start the probe `{}`", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The library ended the child.
    #[error("loading it ends the process: {how}{}", words(.output))]
    Died {
        /// Signal or exit code.
        how: String,
        /// The last the child said.
        output: String,
    },
    /// The library did not let go of the child.
    #[error("loading it did not finish within {deadline:?}: one of its constructors hangs{}", words(.output))]
    Hung {
        /// The deadline.
        deadline: Duration,
        /// The last the child said.
        output: String,
    },
    /// The child found the reason itself.
    #[error("{0}")]
    Refused(String),
}

fn words(output: &str) -> String {
    if output.is_empty() { String::new() } else { format!("; it said: {output}") }
}

/// What the child found.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Report {
    /// The parent's token, so that nothing the library prints can pass for success.
    token: String,
    /// Why the library cannot be opened, if it cannot.
    refused: Option<String>,
    /// Where it wants to be mounted.
    pub mount: Option<String>,
    /// What is wrong with its routes, if anything is.
    pub conflict: Option<String>,
    /// Its routes as `GET /{id}`, inline ones with a leading `inline `.
    pub routes: Vec<String>,
}

impl Probe {
    /// Tries the library at `path`, a copy of one that lay in `origin`.
    ///
    /// # Errors
    ///
    /// [`ProbeError`].
    pub fn run(&self, path: &Path, origin: &Path) -> Result<Report, ProbeError> {
        let spawn = |source| ProbeError::Spawn { program: self.program.clone(), source };
        let token = token().map_err(spawn)?;
        let (ours, theirs) = UnixStream::pair().map_err(spawn)?;
        // Not a pipe: what was said can be read without waiting for the end, which a process that the library has
        // started may put off for ever.
        let (said, says) = UnixStream::pair().map_err(spawn)?;
        said.set_nonblocking(true).map_err(spawn)?;
        let mut child = Command::new(&self.program)
            .args(["probe", "--token", &token, "--origin"])
            .arg(origin)
            .arg(path)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::from(OwnedFd::from(says)))
            .spawn()
            .map_err(spawn)?;
        let line = read_line(&ours, Instant::now() + self.deadline);
        if let Ok(Some(line)) = &line
            && let Ok(report) = serde_json::from_str::<Report>(line)
            && report.token == token
        {
            // The child has said all it knows; what its destructors do is of no interest.
            end(&mut child);
            return match report.refused {
                Some(reason) => Err(ProbeError::Refused(reason)),
                None => Ok(report),
            };
        }
        let status = if line.is_err() { None } else { wait_briefly(&mut child) };
        end(&mut child);
        let mut output = Vec::new();
        // Ends with an error where there is no end; what came before is enough for a hint.
        let _ = said.take(2000).read_to_end(&mut output);
        let output = String::from_utf8_lossy(&output);
        let output = output.trim().lines().last().unwrap_or_default().to_owned();
        match status {
            Some(status) => Err(ProbeError::Died { how: describe(status), output }),
            None => Err(ProbeError::Hung { deadline: self.deadline, output }),
        }
    }
}

/// The child's side: vets, maps and enters `path`, and reports on standard input, which is the
/// parent's socket.
///
/// # Errors
///
/// When there is no socket to report to.
pub fn child(path: &Path, origin: &Path, token: &str) -> io::Result<()> {
    // A private descriptor: the library may do with 0, 1 and 2 what it likes.
    let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    no_core_dump();
    let mut report =
        Report { token: token.to_owned(), refused: None, mount: None, conflict: None, routes: Vec::new() };
    match enter(path, origin) {
        Ok(library) => {
            report.mount.clone_from(&library.mount);
            report.conflict = router::index(&library.routes).err().map(|error| error.to_string());
            report.routes =
                library
                    .routes
                    .iter()
                    .map(|route| {
                        if route.is_inline {
                            format!("inline {}", route.name)
                        } else {
                            route.name.to_string()
                        }
                    })
                    .collect();
        }
        Err(reason) => report.refused = Some(reason),
    }
    let mut line = serde_json::to_string(&report)?;
    line.push('\n');
    socket.write_all(line.as_bytes())
}

fn enter(path: &Path, origin: &Path) -> Result<Library, String> {
    let bytes = MappedFile::open(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let descriptor = descriptor::read(&bytes).map_err(|error| error.to_string())?;
    let vetted = vetting::vet(&bytes, origin, vetting::is_available).map_err(|error| error.to_string())?;
    for library in &vetted.beside {
        library::keep_beside(library)?;
    }
    let caller = Arc::new(Caller {
        plugin: descriptor.name.into(),
        generation: 0,
        registry: Arc::new(Registry::new()),
        overlay: Arc::new(Overlay::open()),
        handles: Arc::default(),
        data_dir: std::env::temp_dir(),
        safe: OwnSafe::none(),
        code: Code::new(path, || ()),
    });
    Library::open(path, caller, |_| false).map_err(|failure| crate::report::chain(&failure.error))
}

/// A line from the child; `Ok(None)` when it closed the socket, an error when the deadline passed.
fn read_line(socket: &UnixStream, deadline: Instant) -> io::Result<Option<String>> {
    let mut reader = BufReader::new(socket);
    let mut line = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        match reader.fill_buf() {
            Ok([]) => return Ok(None),
            Ok(bytes) => {
                let end = bytes.iter().position(|byte| *byte == b'\n');
                let used = end.map_or(bytes.len(), |at| at + 1);
                line.extend_from_slice(&bytes[..used]);
                reader.consume(used);
                if end.is_some() {
                    return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

/// The status of a child that has closed its socket: it is dead or about to be.
fn wait_briefly(child: &mut Child) -> Option<ExitStatus> {
    let deadline = Instant::now() + Duration::from_secs(1);
    while Instant::now() < deadline {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    None
}

/// Kills and reaps the child.
fn end(child: &mut Child) {
    // Errors say that it is dead already.
    let _ = child.kill();
    let _ = child.wait();
}

fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => match signal {
            libc::SIGSEGV => "segmentation fault (signal 11)".to_owned(),
            libc::SIGABRT => "abort (signal 6)".to_owned(),
            libc::SIGBUS => "bus error (signal 7)".to_owned(),
            libc::SIGILL => "illegal instruction (signal 4)".to_owned(),
            libc::SIGFPE => "arithmetic error (signal 8)".to_owned(),
            other => format!("signal {other}"),
        },
        (None, Some(code)) => format!("a constructor called `exit({code})`"),
        (None, None) => status.to_string(),
    }
}

/// Sixteen random bytes, in hexadecimal.
fn token() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A library that crashes the probe on purpose should not fill the disk.
fn no_core_dump() {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `none` is a valid limit; the call reads it and nothing else. Failure leaves core dumps on,
    // which is harmless.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) };
}
