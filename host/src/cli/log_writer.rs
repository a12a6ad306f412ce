//! Writes text to standard error and standard output of a serving process without ever making a caller wait.
//!
//! A pipe that is not read takes 64 KiB, and then a write to it blocks. So text is written at once only where
//! there is room for it. Else it is queued, within a bound, and a thread of its own writes it. What does not fit is
//! dropped and counted; the count is written once the reader takes text again.
//!
//! # Invariants
//!
//! - [`LogWriter::put`] never blocks.
//! - The queue holds at most [`MOST_BYTES`] and one text more.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec};

/// Most bytes that wait to be written.
const MOST_BYTES: usize = 1 << 20;

/// What a pipe that is not full takes without blocking, and in one piece (`PIPE_BUF`).
const PIPE_ROOM: usize = 4096;

/// Queues text for a descriptor.
#[derive(Debug)]
pub(super) struct LogWriter {
    /// For what can be written at once. Held for a write that does not block.
    direct: Mutex<Option<File>>,
    queue: Sender<Item>,
    shared: Arc<Backlog>,
}

/// What a writer and its thread share.
#[derive(Debug, Default)]
struct Backlog {
    bytes: AtomicUsize,
    /// Texts that were dropped and not yet told of.
    dropped: AtomicU64,
}

enum Item {
    Text(String),
    /// Answered once everything before it has been written.
    Flush(Sender<()>),
}

impl LogWriter {
    /// A writer to standard error as it is now.
    pub(super) fn stderr() -> LogWriter {
        LogWriter::to(io::stderr().as_fd().try_clone_to_owned().map(File::from))
    }

    /// A writer to standard output as it is now.
    pub(super) fn stdout() -> LogWriter {
        LogWriter::to(io::stdout().as_fd().try_clone_to_owned().map(File::from))
    }

    /// Without a descriptor or a thread, nothing is written.
    fn to(file: io::Result<File>) -> LogWriter {
        let direct = Mutex::new(file.as_ref().ok().and_then(|file| file.try_clone().ok()));
        let (queue, items) = channel();
        let shared = Arc::new(Backlog::default());
        if let Ok(file) = file {
            let shared = Arc::clone(&shared);
            let body = move || write_all(&items, file, &shared);
            let _ = std::thread::Builder::new().name("log".to_owned()).spawn(body);
        }
        LogWriter { direct, queue, shared }
    }

    /// Writes `text` if that does not block, else queues it, or drops it where too much waits already.
    pub(super) fn put(&self, text: String) {
        let mut direct = self.direct.lock();
        let is_next = self.shared.bytes.load(Relaxed) == 0 && text.len() <= PIPE_ROOM;
        if is_next && let Some(file) = direct.as_mut().filter(|file| has_room(file)) {
            // A log that cannot be written has nobody to complain to.
            let _ = file.write_all(text.as_bytes());
            return;
        }
        drop(direct);
        let length = text.len();
        let waiting = self.shared.bytes.fetch_add(length, Relaxed);
        if waiting > MOST_BYTES || self.queue.send(Item::Text(text)).is_err() {
            self.shared.bytes.fetch_sub(length, Relaxed);
            self.shared.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Waits until what was queued has been written, at most `patience`.
    pub(super) fn flush(&self, patience: Duration) {
        let (done, is_done) = channel();
        if self.queue.send(Item::Flush(done)).is_ok() {
            // Late or not, there is nothing more to be done.
            let _ = is_done.recv_timeout(patience);
        }
    }
}

/// Whether a pipe, a terminal or a file takes so much at once.
fn has_room(file: &File) -> bool {
    let mut fds = [PollFd::new(file, PollFlags::OUT)];
    let ready = rustix::event::poll(&mut fds, Some(&Timespec::default()));
    ready.is_ok_and(|ready| ready > 0) && fds[0].revents().contains(PollFlags::OUT)
}

/// The life of the thread that writes.
fn write_all(items: &Receiver<Item>, mut file: File, shared: &Backlog) {
    for item in items {
        match item {
            Item::Text(text) => {
                // A log that cannot be written has nobody to complain to.
                let _ = file.write_all(text.as_bytes());
                shared.bytes.fetch_sub(text.len(), Relaxed);
                let dropped = shared.dropped.swap(0, Relaxed);
                if dropped > 0 {
                    let _ = writeln!(
                        file,
                        "WARN  {dropped} lines of the log were dropped: its reader did not take them"
                    );
                }
            }
            Item::Flush(done) => drop(done.send(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_reader_that_stops_blocks_nobody_and_is_told_what_it_missed() {
        let (mut reader, writer) = io::pipe().unwrap();
        let log = LogWriter::to(Ok(File::from(std::os::fd::OwnedFd::from(writer))));
        let line = format!("{}\n", "x".repeat(1023));
        for _ in 0..4096 {
            log.put(line.clone());
        }
        drop(log);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let told = text
            .lines()
            .filter_map(|line| line.strip_prefix("WARN  ")?.split(' ').next()?.parse::<u64>().ok());
        let dropped: u64 = told.sum();
        assert!((2_500..4_000).contains(&dropped), "a pipe and a queue hold little: {dropped}");
        assert_eq!(text.matches(&line).count() as u64, 4096 - dropped, "the others are whole");
    }

    #[test]
    fn what_was_queued_is_written_by_a_flush() {
        let (mut reader, writer) = io::pipe().unwrap();
        let log = LogWriter::to(Ok(File::from(std::os::fd::OwnedFd::from(writer))));
        log.put("one\n".to_owned());
        log.put("two\n".to_owned());
        log.flush(Duration::from_secs(20));
        let mut bytes = [0; 8];
        reader.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"one\ntwo\n");
    }
}
