//! What comes after the last request: `on_unload`, and the end of what the generation held.
//!
//! # Invariants
//!
//! - A generation arrives here once, when its last lease is gone: no request is in it and none will be.
//! - Hooks run on a thread of their own, so that one that hangs does not hold up the others.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use plugin_api::abi::UNLOAD_SHUTDOWN;

use super::event::{Event, EventKind, Step, ms};
use super::status::ParkedStatus;
use super::{Generation, Shared, invoke};

/// How long `on_unload` may take.
const UNLOAD_DEADLINE: Duration = Duration::from_secs(10);

/// Why retired code stays mapped.
const NOT_UNMAPPED: &str = "this version of the host does not unmap code";

/// Starts the thread that retires generations.
pub(super) fn start(shared: Arc<Shared>, drained: Receiver<Arc<Generation>>) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("reaper".to_owned()).spawn(move || {
        for generation in drained {
            retire(&shared, &generation);
        }
    })
}

fn retire(shared: &Shared, generation: &Arc<Generation>) {
    let begun = Instant::now();
    let reason = generation.unload_reason.lock().unwrap_or(UNLOAD_SHUTDOWN);
    let problem = unload(generation, reason);
    shared.draining.lock().retain(|draining| !Arc::ptr_eq(draining, generation));
    let caller = generation.library.caller();
    let leaked = caller.handles.clear();
    if leaked > 0 {
        tracing::debug!(plugin = %generation.plugin, generation = generation.number, leaked, "released the handles it held");
    }
    let mut held_by = vec![NOT_UNMAPPED.to_owned()];
    held_by.extend(problem.clone().filter(|words| words.contains("running")));
    shared.parked.lock().push(ParkedStatus::of(generation, held_by));
    shared.record(
        Event {
            id: 0,
            at_ms: 0,
            event: EventKind::Retired,
            plugin: Arc::clone(&generation.plugin),
            generation: Some(generation.number),
            previous_generation: None,
            failed_step: None,
            reason: problem,
            details: None,
            steps: vec![Step { step: "unload", ms: ms(begun.elapsed()) }],
            ms: ms(begun.elapsed()),
        },
        None,
    );
    shared.notify_progress();
}

/// Runs `on_unload`; what went wrong, if anything.
fn unload(generation: &Arc<Generation>, reason: u32) -> Option<String> {
    generation.library.on_unload?;
    let (done, outcome) = mpsc::channel();
    let of_thread = Arc::clone(generation);
    let name = format!("unload {} g{}", generation.plugin, generation.number);
    let spawned = std::thread::Builder::new().name(name).spawn(move || {
        // Nobody listens any more when the deadline has passed.
        let _ = done.send(invoke::on_unload(&of_thread.library, reason));
    });
    if let Err(error) = spawned {
        return Some(format!("cannot start a thread for `on_unload`: {error}"));
    }
    match outcome.recv_timeout(UNLOAD_DEADLINE) {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("`on_unload` {error}")),
        Err(_) => Some(format!("`on_unload` is still running after {UNLOAD_DEADLINE:?}")),
    }
}
