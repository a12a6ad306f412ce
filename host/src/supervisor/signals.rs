//! The supervisor's signals, each passed on as it comes.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// A signal to the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Rescan,
    /// SIGCHLD: the serving process may have ended.
    Child,
}

/// Passes every signal to `tell`, from now on, on a thread of its own.
pub(super) fn listen(tell: impl Fn(Heard) -> bool + Clone + Send + 'static) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let kinds = [
        (SignalKind::terminate(), Heard::Stop),
        (SignalKind::interrupt(), Heard::Stop),
        (SignalKind::hangup(), Heard::Rescan),
        (SignalKind::child(), Heard::Child),
    ];
    for (kind, what) in kinds {
        let _entered = runtime.enter();
        let mut signals = signal(kind)?;
        let tell = tell.clone();
        runtime.spawn(async move { while signals.recv().await.is_some() && tell(what) {} });
    }
    let body = move || runtime.block_on(std::future::pending::<()>());
    std::thread::Builder::new().name("signals".to_owned()).spawn(body).map(drop)
}
