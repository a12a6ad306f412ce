//! The line between a serving process and its supervisor: a socket that carries lines of text.
//!
//! The serving process says `ready` when every plugin had its first outcome, `done` before it ends in
//! order, and, from the signal handler, the record of a crash. The supervisor says `stop` and `rescan`. Either
//! end is closed by the system when its process ends, in whatever way.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crate::pins::Crash;

/// Most bytes of one saying. A crash's record has less than half of it.
const LONGEST: u64 = 16 * 1024;

/// The serving process's end.
#[derive(Debug, Clone)]
pub struct Line {
    stream: Arc<UnixStream>,
}

impl Line {
    /// The line behind an inherited descriptor.
    pub fn new(socket: OwnedFd) -> Line {
        Line { stream: Arc::new(UnixStream::from(socket)) }
    }

    /// Says that every plugin had its first outcome.
    pub fn ready(&self) {
        self.say("ready\n");
    }

    /// Says that the process ends in order, with whatever exit code.
    pub fn done(&self) {
        self.say("done\n");
    }

    /// Where a signal handler may write. Open for as long as the process lives, if a clone of the line is.
    pub fn number(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// Passes on what the supervisor says, on a thread of its own; its own end comes last.
    ///
    /// # Errors
    ///
    /// When there is no thread for that.
    pub fn listen(&self, tell: impl Fn(Order) + Send + 'static) -> io::Result<()> {
        let stream = Arc::clone(&self.stream);
        let hear = move || {
            for line in BufReader::new(&*stream).lines() {
                match line.as_deref() {
                    Ok("stop") => tell(Order::Stop),
                    Ok("rescan") => tell(Order::Rescan),
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
            tell(Order::Left);
        };
        std::thread::Builder::new().name("supervisor".to_owned()).spawn(hear).map(drop)
    }

    fn say(&self, words: &str) {
        // A supervisor that is gone is noticed elsewhere.
        let _ = (&*self.stream).write_all(words.as_bytes());
    }
}

/// What the supervisor says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// It was asked to stop.
    Stop,
    /// It was asked to look at every source again.
    Rescan,
    /// It is gone.
    Left,
}

impl Order {
    /// The line that says it.
    pub(super) fn words(self) -> &'static str {
        match self {
            Order::Stop => "stop\n",
            Order::Rescan => "rescan\n",
            Order::Left => "",
        }
    }
}

/// What a serving process has said.
#[derive(Debug)]
pub(super) enum Words {
    Ready,
    Done,
    Crash(Crash),
    /// Nothing more will come.
    End,
}

/// Passes on what comes along the line, until `tell` says that nobody wants to know.
pub(super) fn listen(line: UnixStream, tell: impl Fn(Words) -> bool + Send + 'static) -> io::Result<()> {
    let hear = move || {
        let mut lines = BufReader::new(line);
        let mut crash = None;
        let mut text = Vec::new();
        loop {
            text.clear();
            match lines.by_ref().take(LONGEST).read_until(b'\n', &mut text) {
                Ok(1..) => {}
                Ok(0) | Err(_) => break,
            }
            let said = String::from_utf8_lossy(&text);
            let wanted = match (said.trim_end(), &mut crash) {
                ("ready", _) => tell(Words::Ready),
                ("done", _) => tell(Words::Done),
                ("crash", _) => {
                    crash = Some(Crash::default());
                    true
                }
                (field, Some(crash)) => {
                    crash.take_in(field);
                    true
                }
                (_, None) => true,
            };
            if !wanted {
                return;
            }
        }
        // What was written before the process died is whole, or has lost its last fields.
        if let Some(crash) = crash {
            tell(Words::Crash(crash));
        }
        tell(Words::End);
    };
    std::thread::Builder::new().name("line".to_owned()).spawn(hear).map(drop)
}
