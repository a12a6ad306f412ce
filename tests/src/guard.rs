//! Makes sure that nothing the tests start outlives them.
//!
//! Owns: a temporary directory and the processes that live in it. A small shell waits at the end of a
//! pipe whose other end only this process holds. When that end closes, because the guard is dropped
//! or because the test process died in whatever way, the shell ends the processes and removes the
//! directory. Does not own: stopping a process in an orderly way.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

/// Reads `SIGNAL PID` lines. Numbers are reused, so the list holds only processes nobody waited for yet.
/// It sleeps between looks, which is all a shell can do.
const SCRIPT: &str = r#"
read -r _
while read -r signal pid; do
    kill -s CONT -- "$pid" 2>/dev/null
    kill -s "$signal" -- "$pid" 2>/dev/null || continue
    tries=0
    while kill -s 0 -- "$pid" 2>/dev/null && [ "$tries" -lt 100 ]; do sleep 0.05; tries=$((tries + 1)); done
    kill -s KILL -- "$pid" 2>/dev/null
done < "$1/guarded"
rm -rf "$1"
"#;

/// A temporary directory, and the end of the processes in it.
#[derive(Debug)]
pub struct Guard {
    dir: PathBuf,
    /// What the shell will end: signal and process (negative: the group). Mirrored in the file `guarded`.
    processes: Mutex<Vec<(&'static str, i64)>>,
    shell: Child,
}

impl Guard {
    /// Makes a directory `/tmp/PREFIX-XXXXXX` and its guard.
    ///
    /// Not in `TMPDIR`: a Unix socket's path must be short.
    ///
    /// # Errors
    ///
    /// Those of the file system and of starting `sh`.
    pub fn new(prefix: &str) -> io::Result<Guard> {
        let dir = tempfile::Builder::new().prefix(&format!("{prefix}-")).tempdir_in("/tmp")?.keep();
        fs::write(dir.join("guarded"), "")?;
        let shell = Command::new("sh")
            .args(["-c", SCRIPT, "guard"])
            .arg(&dir)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Its own group: an interrupt from the keyboard must not end the guard before its work.
            .process_group(0)
            .spawn()?;
        Ok(Guard { dir, processes: Mutex::new(Vec::new()), shell })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Ends the process with `signal` when the guard goes.
    pub fn watch_process(&self, signal: &'static str, pid: u32) {
        self.change(|list| list.push((signal, i64::from(pid))));
    }

    /// As `watch_process`, for the whole process group that `pid` leads.
    pub fn watch_group(&self, signal: &'static str, pid: u32) {
        self.change(|list| list.push((signal, -i64::from(pid))));
    }

    /// Forgets a process that has ended and was waited for: its number may soon name another.
    pub fn forget(&self, pid: u32) {
        self.change(|list| list.retain(|(_, number)| number.unsigned_abs() != u64::from(pid)));
    }

    fn change(&self, change: impl FnOnce(&mut Vec<(&'static str, i64)>)) {
        let mut list = self.processes.lock().expect("nothing panics under this lock");
        change(&mut list);
        let text: String = list.iter().map(|(signal, pid)| format!("{signal} {pid}\n")).collect();
        // By rename: the shell may read at any moment.
        let new = self.dir.join("guarded.new");
        fs::write(&new, text).expect("the guarded directory is writable");
        fs::rename(&new, self.dir.join("guarded")).expect("a rename within one directory");
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        // Nothing to do about a shell that cannot be waited for: the directory is in /tmp.
        let _ = self.shell.wait();
    }
}

/// Sends a signal to processes; those that are gone already are fine.
///
/// # Panics
///
/// When there is no `sh`.
pub fn signal(name: &str, pids: &[u32]) {
    send(name, &pids.iter().map(u32::to_string).collect::<Vec<_>>());
}

/// Sends a signal to the process group that `leader` leads or led.
///
/// # Panics
///
/// When there is no `sh`.
pub fn signal_group(name: &str, leader: u32) {
    send(name, &[format!("-{leader}")]);
}

fn send(name: &str, targets: &[String]) {
    let script = r#"signal=$1; shift; for pid; do kill -s "$signal" -- "$pid" 2>/dev/null; done; true"#;
    let status = Command::new("sh").args(["-c", script, "kill", name]).args(targets).status();
    assert!(status.expect("there is a shell").success(), "kill -{name} {targets:?}");
}

/// Whether a process exists and is not merely waiting to be waited for.
pub fn is_running(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z')
}

/// The process and everything it started, as far as it is still there.
pub fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let everyone: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, stat(pid)?.1)))
        .collect();
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        family.extend(everyone.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    family
}

/// State and parent of a process. The name before them is in parentheses and may contain any.
fn stat(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut rest = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    Some((rest.next()?.chars().next()?, rest.next()?.parse().ok()?))
}
