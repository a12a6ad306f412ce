//! `host run`: starts the host, waits for signals, stops it.
//!
//! # Invariants
//!
//! - Signals are answered from the start, also while first builds run.
//! - The ready file exists from readiness to a clean stop, and not before.

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::args::RunArgs;
use super::log::{Terminal, install};
use super::ready::{Outcome, ReadyFile};
use super::screen::Screen;
use super::settings::RunSettings;
use super::text::program_name;
use super::{CliError, print};
use crate::config::FileConfig;
use crate::host::{Host, HostConfig};
use crate::watch::scan::{ScanError, scan};

/// How often readiness is looked for.
const POLL: Duration = Duration::from_millis(25);

/// Runs a host until a signal ends it.
pub(super) fn run(args: &RunArgs) -> Result<ExitCode, CliError> {
    let settings = RunSettings::of(args, FileConfig::find(args.config.as_deref())?)?;
    let config = settings.host;
    let directory = &config.plugins.plugins_dir;
    let candidates = scan(directory).map_err(|error| match error {
        ScanError::Missing { path } => CliError::Usage(format!(
            "plugins directory {0} does not exist; make it and a first plugin with `{1} new hello --plugins {0}`, or name another with --plugins",
            path.display(),
            program_name()
        )),
        other => CliError::Scan(other),
    })?;
    if candidates.is_empty() && !config.plugins.watch {
        return Err(CliError::Usage(format!(
            "no plugins in {0}, and none can come without watching; make one with `{1} new hello --plugins {0}`, or leave --no-watch or --freeze away",
            directory.display(),
            program_name()
        )));
    }
    let (tell, told) = channel();
    listen_to_signals(&tell).map_err(CliError::system("set up signal handling"))?;
    let terminal = Terminal::stderr();
    install(&terminal, settings.log.0);
    let screen = Screen::new(Arc::clone(&terminal), args.quiet);
    let started = Host::start(config.clone(), screen);
    if started.is_err() {
        // What was being built is of no interest any more, and the error gets a line of its own.
        terminal.show("");
    }
    let host = started?;
    let served = serve(&host, &told, args, &config);
    let stopped = stop(host, tell, &told);
    served.and(stopped)
}

/// What the main thread is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Rescan,
    /// The host has stopped, and cut so many requests off.
    Stopped(u64),
}

/// Passes signals on from now on, on a thread of its own.
fn listen_to_signals(tell: &Sender<Told>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let kinds = [
        (SignalKind::terminate(), Told::Stop),
        (SignalKind::interrupt(), Told::Stop),
        (SignalKind::hangup(), Told::Rescan),
    ];
    for (kind, what) in kinds {
        let _entered = runtime.enter();
        let mut signals = signal(kind)?;
        let tell = tell.clone();
        runtime.spawn(async move { while signals.recv().await.is_some() && tell.send(what).is_ok() {} });
    }
    let body = move || runtime.block_on(std::future::pending::<()>());
    std::thread::Builder::new().name("signals".to_owned()).spawn(body).map(drop)
}

/// From start until somebody asks to stop.
fn serve(host: &Host, told: &Receiver<Told>, args: &RunArgs, config: &HostConfig) -> Result<(), CliError> {
    if let Some(path) = &args.ready_file {
        // One that a killed host left behind would tell of that host.
        let _ = fs::remove_file(path);
    }
    // Removed when this function returns, which is when stopping begins.
    let mut ready_file = None;
    let mut is_ready = false;
    loop {
        let message = if is_ready { told.recv().ok().or(Some(Told::Stop)) } else { next_within_poll(told) };
        match message {
            Some(Told::Rescan) => {
                tracing::info!("looking at every source again");
                host.rescan();
            }
            Some(Told::Stop | Told::Stopped(_)) => break,
            None => {
                is_ready = host.wait_ready(Duration::ZERO);
                if is_ready {
                    ready_file = became_ready(host, args, config)?;
                }
            }
        }
    }
    drop(ready_file);
    tracing::info!("stopping: answering what was asked; a second signal stops at once");
    Ok(())
}

/// The next message, if one comes soon.
fn next_within_poll(told: &Receiver<Told>) -> Option<Told> {
    match told.recv_timeout(POLL) {
        Ok(message) => Some(message),
        Err(RecvTimeoutError::Timeout) => None,
        // Cannot be while this process holds a sender; stopping is the sound answer.
        Err(RecvTimeoutError::Disconnected) => Some(Told::Stop),
    }
}

/// Tells people and programs that start-up is over.
fn became_ready(host: &Host, args: &RunArgs, config: &HostConfig) -> Result<Option<ReadyFile>, CliError> {
    let state_dir = &config.plugins.state_dir;
    let plugins = host.plugins();
    let outcome = Outcome {
        listen: host.address(),
        admin: host.admin_address(),
        plugins_dir: &config.plugins.plugins_dir,
        state_dir: (state_dir != Path::new(".host")).then_some(state_dir),
        is_watching: config.plugins.watch,
        program: &program_name(),
        plugins: &plugins,
    };
    if !args.quiet {
        // A screen that cannot be written is no reason to stop serving.
        let _ = print(&outcome.screen());
    }
    let Some(path) = &args.ready_file else { return Ok(None) };
    let doing = format!("write the ready file {}; name another with --ready-file", path.display());
    ReadyFile::write(path, outcome.listen, outcome.admin).map(Some).map_err(CliError::system(doing))
}

/// Stops the host; a second signal ends the process at once.
fn stop(host: Host, tell: Sender<Told>, told: &Receiver<Told>) -> Result<ExitCode, CliError> {
    let body = move || {
        let cut_off = host.shutdown();
        // Nobody waits any more when a second signal came.
        let _ = tell.send(Told::Stopped(cut_off));
    };
    std::thread::Builder::new()
        .name("shutdown".to_owned())
        .spawn(body)
        .map_err(CliError::system("start a thread"))?;
    loop {
        match told.recv() {
            Ok(Told::Rescan) => {}
            Ok(Told::Stop) => {
                tracing::warn!("stopped at once by a second signal");
                return Ok(ExitCode::from(1));
            }
            Ok(Told::Stopped(0)) => {
                tracing::info!("stopped");
                return Ok(ExitCode::SUCCESS);
            }
            Ok(Told::Stopped(cut_off)) => {
                tracing::warn!("stopped; {cut_off} requests did not finish in time");
                return Ok(ExitCode::SUCCESS);
            }
            Err(_) => return Ok(ExitCode::from(1)),
        }
    }
}
