//! `host logs`: the newest lines of a running host's log, and with `--follow` those that come.
//!
//! The host keeps the lines in its memory, about two thousand of them, and only those that its own log has
//! (`--log`). They are gone with the process; a log for good is what standard error is written to.

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use super::args::LogsArgs;
use super::log::{Format, has_colours};
use super::settings::state_dir;
use super::{CliError, write_out};
use crate::admin::{Client, ClientError, LogLine};
use crate::build::plain;

/// How often `--follow` asks.
const EVERY: Duration = Duration::from_millis(200);

/// `host logs`.
pub(super) fn logs(args: &LogsArgs) -> Result<ExitCode, CliError> {
    let mut log = Log::of(&state_dir(&args.ask.place)?);
    let is_terminal = std::io::stdout().is_terminal();
    let format = Format { has_colours: has_colours(is_terminal), has_date: true };
    let mut most = args.lines;
    loop {
        let lines: Vec<LogLine> = log.next()?.into_iter().filter(|line| is_asked_for(line, args)).collect();
        let shown = &lines[lines.len().saturating_sub(most)..];
        let text: String = shown.iter().map(|line| rendered(line, format, args.ask.json)).collect();
        // A reader that has gone away has read enough.
        if !write_out(&text)? || !args.follow {
            return Ok(ExitCode::SUCCESS);
        }
        most = usize::MAX;
        std::thread::sleep(EVERY);
    }
}

/// Where the reading of a log stands.
struct Log {
    client: Client,
    /// The process that numbers the lines.
    pid: u64,
    /// The last line that was read.
    last: u64,
}

impl Log {
    fn of(state_dir: &Path) -> Log {
        Log { client: Client::new(state_dir), pid: 0, last: 0 }
    }

    /// The lines that have come since.
    fn next(&mut self) -> Result<Vec<LogLine>, ClientError> {
        let (mut pid, mut lines) = self.after(self.last)?;
        if pid != self.pid && self.last != 0 {
            // Another process serves, and has begun to count anew.
            self.last = 0;
            (pid, lines) = self.after(0)?;
        }
        self.pid = pid;
        self.last = lines.last().map_or(self.last, |line| line.seq);
        Ok(lines)
    }

    fn after(&self, seq: u64) -> Result<(u64, Vec<LogLine>), ClientError> {
        let path = format!("/api/logs?after={seq}");
        let mut answer = match self.client.get(&path) {
            // A process that ends answers no more; the next one does, or nobody is there.
            Err(ClientError::Io { .. } | ClientError::Answer { .. }) if self.pid != 0 => {
                self.client.get(&path)?
            }
            other => other?,
        };
        let lines = serde_json::from_value(answer["lines"].take())
            .map_err(|error| ClientError::Answer { path, reason: error.to_string() })?;
        Ok((answer["pid"].as_u64().unwrap_or_default(), lines))
    }
}

/// Whether a line is about the plugin, and as bad as the level, that was asked for.
fn is_asked_for(line: &LogLine, args: &LogsArgs) -> bool {
    let is_of_plugin = args.name.as_ref().is_none_or(|name| line.plugin == *name);
    let is_at_level = args.level.as_ref().is_none_or(|level| {
        // The level was written by a host, which knows no others.
        line.level.parse::<LevelFilter>().is_ok_and(|of_line| of_line <= level.0)
    });
    is_of_plugin && is_at_level
}

fn rendered(line: &LogLine, format: Format, json: bool) -> String {
    if json {
        let plain = LogLine { message: plain(&line.message), ..line.clone() };
        let line = serde_json::to_string(&plain).expect("a line is text and numbers");
        return format!("{line}\n");
    }
    format.line(line)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::{LogLine, is_asked_for};
    use crate::cli::args::{Cli, Command, LogsArgs};

    fn asked(words: &[&str]) -> LogsArgs {
        match Cli::parse_from(["host", "logs"].iter().chain(words)).command {
            Command::Logs(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn lines_are_chosen_by_plugin_and_by_level() {
        let line = |plugin: &str, level: &str| LogLine {
            plugin: plugin.to_owned(),
            level: level.to_owned(),
            ..LogLine::default()
        };
        let lines = [line("a", "error"), line("a", "info"), line("b", "warn"), line("", "debug")];
        let chosen = |words: &[&str]| {
            let args = asked(words);
            lines.iter().map(|line| is_asked_for(line, &args)).collect::<Vec<_>>()
        };
        assert_eq!(chosen(&[]), [true, true, true, true]);
        assert_eq!(chosen(&["a"]), [true, true, false, false]);
        assert_eq!(chosen(&["--level", "warn"]), [true, false, true, false]);
        assert_eq!(chosen(&["a", "--level", "error"]), [true, false, false, false]);
    }
}
