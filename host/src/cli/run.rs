//! `host run`: supervises a process that serves; and that process: starts the host, waits for signals, stops it.
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

use super::CliError;
use super::args::RunArgs;
use super::log::{Terminal, install};
use super::log_writer::LogWriter;
use super::ready::{Outcome, ReadyFile};
use super::screen::Screen;
use super::settings::RunSettings;
use super::text::program_name;
use crate::config::FileConfig;
use crate::host::{Host, HostConfig, Sockets};
use crate::http::raise_descriptors;
use crate::memory;
use crate::pins::{Recorder, record_crashes, survive_ends};
use crate::plugin::CRASH_FILE;
use crate::supervisor::{Handover, Line, Order, Supervisor, notify};
use crate::watch::scan::{ScanError, scan};

/// How long the first screen may take to be written before the host goes on.
const SCREEN_PATIENCE: Duration = Duration::from_millis(500);

/// How often readiness is looked for.
const POLL: Duration = Duration::from_millis(25);

/// Runs a host until a signal ends it: supervises the process that serves, or is that process.
pub(super) fn run(args: &RunArgs) -> Result<ExitCode, CliError> {
    memory::bound_heaps();
    raise_descriptors();
    match &args.supervised {
        Some(text) => {
            memory::forget_bounds();
            let mut handover = Handover::take_over(text)?;
            let line = Line::new(handover.need("line")?);
            let outcome = host(args, Some((&mut handover, &line)));
            // An error is as orderly an end as any: the exit code says which.
            line.done();
            outcome
        }
        None if args.no_supervisor || !cfg!(target_os = "linux") => host(args, None),
        None => supervise(args),
    }
}

/// Holds the sockets and keeps a process running that serves.
fn supervise(args: &RunArgs) -> Result<ExitCode, CliError> {
    let settings = settings(args)?;
    let sockets = Sockets::bind(&settings.host)?;
    let terminal = Terminal::stderr();
    install(&terminal, settings.log.0, None);
    let _flush = FlushOnDrop(&terminal);
    let mut words = std::env::args_os();
    let supervisor = Supervisor {
        name: words.next().unwrap_or_else(|| "host".into()),
        args: words.collect(),
        program: settings.host.plugins.program,
        environment: memory::bounds_for_serving().into_iter().collect(),
        crash_file: sockets.state_dir().join(CRASH_FILE),
        sockets: sockets.into_descriptors(),
    };
    Ok(supervisor.run().map(ExitCode::from)?)
}

/// The settings, once it is clear that they can be used.
fn settings(args: &RunArgs) -> Result<RunSettings, CliError> {
    let settings = RunSettings::of(args, FileConfig::find(args.config.as_deref())?)?;
    let config = &settings.host;
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
    Ok(settings)
}

/// Runs a host in this process.
fn host(args: &RunArgs, supervised: Option<(&mut Handover, &Line)>) -> Result<ExitCode, CliError> {
    let settings = settings(args)?;
    let mut config = settings.host;
    let (tell, told) = channel();
    listen_to_signals(&tell).map_err(CliError::system("set up signal handling"))?;
    let (sockets, line) = match supervised {
        None => (Sockets::bind(&config)?, None),
        Some((handover, line)) => {
            let tell = tell.clone();
            let pass_on = move |order| {
                // A host that has stopped needs no telling.
                let _ = tell.send(Told::of(order));
            };
            line.listen(pass_on).map_err(CliError::system("start a thread"))?;
            config.plugins.is_after_crash = handover.restarts > 0;
            (Sockets::inherit(&config, handover)?, Some(line.clone()))
        }
    };
    let recorder = line.as_ref().map_or(Recorder::Words, |line| Recorder::Line(line.number()));
    record_crashes(recorder).map_err(CliError::system("set up signal handling"))?;
    survive_ends();
    let terminal = Terminal::stderr();
    install(&terminal, settings.log.0, Some(Arc::clone(&config.log)));
    let _flush = FlushOnDrop(&terminal);
    let screen = Screen::new(Arc::clone(&terminal), args.quiet);
    let started = Host::start_on(config.clone(), sockets, screen);
    if started.is_err() {
        // What was being built is of no interest any more, and the error gets a line of its own.
        terminal.show("");
    }
    let host = started?;
    let served = serve(&host, &told, args, &config, line.as_ref());
    if line.is_none() {
        notify("STOPPING=1");
    }
    let first = served.as_ref().copied().unwrap_or(Told::Left);
    let stopped = stop(host, tell, &told, first);
    served.and(stopped)
}

/// Has the last lines of the log written before the process ends, whatever it ends with.
struct FlushOnDrop<'a>(&'a Terminal);

impl Drop for FlushOnDrop<'_> {
    fn drop(&mut self) {
        self.0.flush();
    }
}

/// What the main thread is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// SIGTERM or SIGINT to this process.
    Stop,
    /// The same to the supervisor. Where both were signalled, as by the terminal, the two are one.
    StopAll,
    /// SIGHUP.
    Rescan,
    /// The supervisor is gone.
    Left,
    /// The host has stopped, and cut so many requests off.
    Stopped(u64),
}

impl Told {
    fn of(order: Order) -> Told {
        match order {
            Order::Stop => Told::StopAll,
            Order::Rescan => Told::Rescan,
            Order::Left => Told::Left,
        }
    }
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

/// From start until somebody asks to stop; returns who.
fn serve(
    host: &Host,
    told: &Receiver<Told>,
    args: &RunArgs,
    config: &HostConfig,
    line: Option<&Line>,
) -> Result<Told, CliError> {
    if let Some(path) = args.ready_file.as_ref().filter(|_| !config.plugins.is_after_crash) {
        // One that a killed host left behind would tell of that host.
        let _ = fs::remove_file(path);
    }
    // Removed when this function returns, which is when stopping begins.
    let mut ready_file = None;
    let mut is_ready = false;
    let first = loop {
        let message = if is_ready { told.recv().ok().or(Some(Told::Stop)) } else { next_within_poll(told) };
        match message {
            Some(Told::Rescan) => {
                tracing::info!("looking at every source again");
                host.rescan();
            }
            Some(Told::Left) => {
                tracing::error!("the supervisor is gone");
                break Told::Left;
            }
            Some(first @ (Told::Stop | Told::StopAll | Told::Stopped(_))) => break first,
            None => {
                is_ready = host.wait_ready(Duration::ZERO);
                if is_ready {
                    ready_file = became_ready(host, args, config, line)?;
                }
            }
        }
    };
    drop(ready_file);
    tracing::info!("stopping: answering what was asked; a second signal stops at once");
    Ok(first)
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
fn became_ready(
    host: &Host,
    args: &RunArgs,
    config: &HostConfig,
    line: Option<&Line>,
) -> Result<Option<ReadyFile>, CliError> {
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
    match line {
        Some(line) => line.ready(),
        None => notify("READY=1"),
    }
    if !args.quiet && !config.plugins.is_after_crash {
        // A screen that cannot be written is no reason to stop serving.
        let screen = LogWriter::stdout();
        screen.put(outcome.screen());
        screen.flush(SCREEN_PATIENCE);
    }
    let Some(path) = &args.ready_file else { return Ok(None) };
    let doing = format!("write the ready file {}; name another with --ready-file", path.display());
    // Signals are for the supervisor, which outlives this process.
    let pid = if line.is_some() { std::os::unix::process::parent_id() } else { std::process::id() };
    ReadyFile::write(path, outcome.listen, outcome.admin, pid).map(Some).map_err(CliError::system(doing))
}

/// Stops the host; a second signal of the kind of the `first`, or of one kind, ends the process at once.
fn stop(host: Host, tell: Sender<Told>, told: &Receiver<Told>, first: Told) -> Result<ExitCode, CliError> {
    let mut seen = vec![first];
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
            Ok(Told::Rescan | Told::Left) => {}
            Ok(again @ (Told::Stop | Told::StopAll)) if !seen.contains(&again) => seen.push(again),
            Ok(Told::Stop | Told::StopAll) => {
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
