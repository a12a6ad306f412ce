//! What is known of a crash: written by the signal handler as lines of text, read by the supervisor.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

/// What is known of the end of a serving process.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Crash {
    /// The signal that ended it; 0: it exited.
    pub signal: i32,
    /// Its exit code, where it exited.
    pub code: Option<i32>,
    /// The address that could not be accessed or executed.
    pub address: Option<u64>,
    /// Whether the stack of the thread was used up.
    pub is_overflow: bool,
    /// Whether code of a plugin called `exit` on a thread that the host cannot do without.
    pub is_exit: bool,
    /// The thread's name.
    pub thread: Option<String>,
    /// Whose code was running; `None`: not a plugin's, as far as is known.
    pub plugin: Option<String>,
    /// Of which generation.
    pub generation: Option<u64>,
    /// Content id of its library.
    pub build: Option<String>,
    /// The route or hook that was running.
    pub route: Option<String>,
    /// The request's id.
    pub request: Option<String>,
    /// The stack, innermost first: `shop g4 +0x1234`.
    pub frames: Vec<String>,
}

impl Crash {
    /// All that can be said of a process that left no record.
    pub fn without_record(status: ExitStatus) -> Crash {
        Crash { signal: status.signal().unwrap_or_default(), code: status.code(), ..Crash::default() }
    }

    /// Takes in a line of a record; what is not understood is passed over.
    pub fn take_in(&mut self, line: &str) {
        let Some((field, value)) = line.split_once('=') else { return };
        let text = || Some(value.to_owned()).filter(|value| !value.is_empty());
        match field {
            "signal" => self.signal = value.parse().unwrap_or_default(),
            "address" => {
                self.address = u64::from_str_radix(value.trim_start_matches("0x"), 16).ok();
            }
            "overflow" => self.is_overflow = true,
            "exit" => self.is_exit = true,
            "thread" => self.thread = text(),
            "plugin" => self.plugin = text(),
            "generation" => self.generation = value.parse().ok(),
            "build" => self.build = text(),
            "route" => self.route = text(),
            "request" => self.request = text(),
            "frame" => self.frames.push(value.to_owned()),
            _ => {}
        }
    }

    /// What happened: `SIGSEGV at 0x10`, `stack overflow`, `exit code 0`.
    pub fn what(&self) -> String {
        match (self.is_overflow, self.signal, self.address) {
            (true, ..) => "stack overflow".to_owned(),
            _ if self.is_exit => "call of `exit`".to_owned(),
            (_, 0, _) => format!("exit code {} without a word", self.code.unwrap_or_default()),
            (_, signal, Some(address)) => format!("{} at address {address:#x}", signal_name(signal)),
            (_, signal, None) => signal_name(signal),
        }
    }

    /// What happened and where, in one sentence's part.
    pub fn words(&self) -> String {
        let mut words = self.what();
        if let Some(plugin) = &self.plugin {
            let generation = self.generation.unwrap_or_default();
            words.push_str(&format!(" in {plugin} generation {generation}"));
        }
        if let Some(route) = &self.route {
            words.push_str(&format!(", {route}"));
        }
        if let Some(request) = &self.request {
            words.push_str(&format!(", request {request}"));
        }
        if let Some(thread) = &self.thread {
            words.push_str(&format!(", thread {thread}"));
        }
        words
    }
}

/// What a signal is called.
pub fn signal_name(signal: i32) -> String {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    let known = usize::try_from(signal).ok().and_then(|number| NAMES.get(number.checked_sub(1)?));
    match known {
        Some(name) if cfg!(target_os = "linux") => format!("SIG{name}"),
        _ => format!("signal {signal}"),
    }
}
