//! What comes after the last request: `on_unload`, the end of what the generation held, and `dlclose`.
//!
//! # Invariants
//!
//! - A generation arrives here once, when its last lease is gone: no request is in it and none will be.
//! - Hooks run on threads of their own, beside each other: one that hangs keeps nobody. So does the drop of what a
//!   generation still holds.
//! - Code is unmapped on this thread only, and only when it has no pin. A pin that goes later sends word,
//!   and the reaper tries again. Here it is also decided that retired code is used no more: before that, no thread
//!   destroys what it keeps of it.
//! - What is reported as unloaded is no longer in the loader's list.
#![expect(unsafe_code, reason = "unmaps libraries")]

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use plugin_api::abi::UNLOAD_SHUTDOWN;

use super::event::{Event, EventKind, Step, ms};
use super::invoke::HookError;
use super::library::Mapped;
use super::stage::Staged;
use super::{Generation, Shared, invoke, parting};
use crate::pins::{self, Code, DrainOnDrop, ProcessState};

/// How long `on_unload` may take.
const UNLOAD_DEADLINE: Duration = Duration::from_secs(10);

/// When to look again at a generation that has no pins and is still in somebody's hands: whoever it is
/// is about to let go of it, and says nothing when it does.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Something for the reaper to do.
#[derive(Debug)]
pub(super) enum Task {
    /// A generation that was published has lost its last lease. With it comes the way here, for its hook.
    Drained(Arc<Generation>, Sender<Task>),
    /// The `on_unload` of a generation has ended; with what went wrong, if anything.
    HookEnded { plugin: Arc<str>, generation: u64, problem: Option<String>, way: Sender<Task> },
    /// A generation was opened and refused.
    Refused(Arc<Generation>),
    /// A library was mapped, and no generation came of it.
    Mapped { plugin: Arc<str>, generation: u64, mapped: Mapped, staged: Staged },
    /// Retired code has lost a pin.
    Freed,
}

/// Starts the thread that retires generations.
pub(super) fn start(shared: Arc<Shared>, tasks: Receiver<Task>) -> io::Result<JoinHandle<()>> {
    let process = ProcessState::now();
    let mut reaper = Reaper { shared, unloading: Vec::new(), waiting: Vec::new(), process };
    std::thread::Builder::new().name("reaper".to_owned()).spawn(move || reaper.run(&tasks))
}

struct Reaper {
    shared: Arc<Shared>,
    /// Generations whose `on_unload` is running.
    unloading: Vec<Unloading>,
    /// What is to be unmapped and still held.
    waiting: Vec<Waiting>,
    /// What any code can change of the whole process, as it was last seen.
    process: ProcessState,
}

/// A generation whose `on_unload` is running.
struct Unloading {
    generation: Arc<Generation>,
    begun: Instant,
    /// What the hook's thread uses to say that it has ended. Taken by whoever comes first: that thread, or the
    /// reaper at the deadline, so that a hook that hangs does not keep the reaper's channel open.
    way: Arc<Mutex<Option<Sender<Task>>>>,
}

/// Code that is to be unmapped.
struct Waiting {
    plugin: Arc<str>,
    generation: u64,
    since: Instant,
    code: Arc<Code>,
    body: Body,
}

enum Body {
    Generation(Arc<Generation>),
    Mapped(Mapped, Staged),
}

/// What became of an attempt to unmap.
enum Attempt {
    Unmapped,
    /// It has to wait for a pin.
    Held(Waiting),
    /// It has to wait for somebody who is about to let go.
    Shared(Waiting),
    /// It stays, for good.
    Kept,
}

impl Reaper {
    fn run(&mut self, tasks: &Receiver<Task>) {
        let mut look_again = false;
        loop {
            let hook = self.unloading.iter().map(|unloading| unloading.begun + UNLOAD_DEADLINE).min();
            let hook = hook.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let task = match [hook, look_again.then_some(LOOK_AGAIN)].into_iter().flatten().min() {
                Some(patience) => tasks.recv_timeout(patience),
                None => tasks.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match task {
                Ok(Task::Drained(generation, way)) => self.begin_unload(generation, way),
                Ok(Task::HookEnded { plugin, generation, problem, way }) => {
                    let is_it = |unloading: &Unloading| {
                        (&unloading.generation.plugin, unloading.generation.number) == (&plugin, generation)
                    };
                    if let Some(at) = self.unloading.iter().position(is_it) {
                        let Unloading { generation, begun, .. } = self.unloading.swap_remove(at);
                        self.retire(generation, begun, problem, way);
                    }
                }
                Ok(Task::Refused(generation)) => self.add(generation),
                Ok(Task::Mapped { plugin, generation, mapped, staged }) => {
                    let code = Arc::clone(mapped.code());
                    let body = Body::Mapped(mapped, staged);
                    self.wait(Waiting { plugin, generation, since: Instant::now(), code, body });
                }
                Ok(Task::Freed) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.give_up_hooks();
            look_again = self.unmap_all();
            if pins::is_due() {
                // What the drop of a value may have left on this thread.
                pins::drain_if_due();
                look_again = true;
            }
        }
    }

    /// Starts `on_unload`, if there is one.
    fn begin_unload(&mut self, generation: Arc<Generation>, way: Sender<Task>) {
        let begun = Instant::now();
        if generation.library.hooks.on_unload.is_none() {
            return self.retire(generation, begun, None, way);
        }
        let reason = generation.unload_reason.lock().unwrap_or(UNLOAD_SHUTDOWN);
        let of_reaper = way.clone();
        let way = Arc::new(Mutex::new(Some(way)));
        match start_hook(&generation, reason, Arc::clone(&way)) {
            Ok(()) => self.unloading.push(Unloading { generation, begun, way }),
            Err(error) => {
                let problem = format!("cannot start a thread for `on_unload`: {error}");
                self.retire(generation, begun, Some(problem), of_reaper);
            }
        }
    }

    /// Waits no longer for hooks that are past their deadline.
    fn give_up_hooks(&mut self) {
        for unloading in std::mem::take(&mut self.unloading) {
            // Where the way is taken, the hook has ended in this moment, and its word is in the channel.
            let is_late = unloading.begun.elapsed() >= UNLOAD_DEADLINE;
            match if is_late { unloading.way.lock().take() } else { None } {
                Some(way) => {
                    let problem = format!("`on_unload` is still running after {UNLOAD_DEADLINE:?}");
                    self.retire(unloading.generation, unloading.begun, Some(problem), way);
                }
                None => self.unloading.push(unloading),
            }
        }
    }

    fn add(&mut self, generation: Arc<Generation>) {
        self.wait(Waiting {
            plugin: Arc::clone(&generation.plugin),
            generation: generation.number,
            since: Instant::now(),
            code: Arc::clone(generation.library.code()),
            body: Body::Generation(generation),
        });
    }

    fn wait(&mut self, waiting: Waiting) {
        if let Some(reason) = self.never(&waiting) {
            self.shared.parked.note(&waiting.code, vec![reason]);
        } else {
            waiting.code.retire();
            self.waiting.push(waiting);
        }
    }

    /// Why code will never be unmapped, if that is known.
    fn never(&self, waiting: &Waiting) -> Option<String> {
        if let Err(reason) = &self.shared.unmapping {
            return Some(format!("this host, which does not unmap code: {reason}"));
        }
        let Body::Generation(generation) = &waiting.body else { return None };
        generation.oddities.iter().find(|oddity| oddity.stays_mapped()).map(ToString::to_string)
    }

    /// Unmaps what can be; tells whether to look again soon.
    fn unmap_all(&mut self) -> bool {
        if self.shared.reaper.lock().is_none() {
            // The process is ending, which unmaps everything.
            return false;
        }
        let mut look_again = false;
        for waiting in std::mem::take(&mut self.waiting) {
            match self.unmap(waiting) {
                Attempt::Unmapped => self.shared.notify_progress(),
                Attempt::Held(waiting) => self.waiting.push(waiting),
                Attempt::Shared(waiting) => {
                    look_again = true;
                    self.waiting.push(waiting);
                }
                Attempt::Kept => {}
            }
        }
        look_again
    }

    fn unmap(&self, waiting: Waiting) -> Attempt {
        let Waiting { plugin, generation: number, since, code, body } = waiting;
        let again = |body| Waiting {
            plugin: Arc::clone(&plugin),
            generation: number,
            since,
            code: Arc::clone(&code),
            body,
        };
        pins::settle_handlers(&code);
        code.drain_unless_used();
        if code.pins() > 0 {
            return Attempt::Held(again(body));
        }
        let notes = code.range().map(leads).unwrap_or_default();
        if !notes.is_empty() {
            self.shared.parked.note(&code, notes);
            return Attempt::Held(again(body));
        }
        let (mapped, _staged, entry) = match body {
            Body::Mapped(mapped, staged) => (mapped, staged, None),
            Body::Generation(generation) => match Arc::try_unwrap(generation) {
                // Whoever let go of it a moment ago may have left a pin.
                Ok(generation) if code.pins() > 0 => {
                    return Attempt::Held(again(Body::Generation(Arc::new(generation))));
                }
                Ok(generation) => {
                    self.shared.parked.note_bytes(&plugin, generation.library.heap_bytes().unwrap_or(0));
                    let entry = generation.library.entry_address;
                    (generation.library.into_mapped(), generation.staged, Some(entry))
                }
                Err(generation) => return Attempt::Shared(again(Body::Generation(generation))),
            },
        };
        if let Some(entry) = entry {
            self.shared.entries.lock().remove(&entry);
        }
        let begun = Instant::now();
        // SAFETY: the generation was in nobody's hands but these, so no lease, no route and no call of it
        // exists, nor can another come to be. Threads, thread-locals, keys and whatever else keeps a
        // pointer into the code hold pins, and there was none after the last lease had gone; who could
        // make a new one would hold one.
        if unsafe { mapped.unmap() }.is_err() {
            self.shared
                .parked
                .note(&code, vec!["the dynamic loader, which does not let go of it".to_owned()]);
            return Attempt::Kept;
        }
        let steps = vec![
            Step { step: "drain", ms: ms(begun.duration_since(since)) },
            Step { step: "unmap", ms: ms(begun.elapsed()) },
        ];
        self.shared.parked.remove(&plugin, &code);
        self.record(EventKind::Unloaded, &plugin, number, None, steps, since);
        Attempt::Unmapped
    }

    /// Releases what a generation holds of the host, after its `on_unload`.
    fn retire(
        &mut self,
        generation: Arc<Generation>,
        begun: Instant,
        problem: Option<String>,
        way: Sender<Task>,
    ) {
        if generation.library.caller().handles.is_empty() {
            generation.library.caller().handles.retire();
        } else {
            release(&generation, way);
        }
        self.tell_process_changes(&generation);
        let steps = vec![Step { step: "unload", ms: ms(begun.elapsed()) }];
        self.record(EventKind::Retired, &generation.plugin, generation.number, problem, steps, begun);
        self.shared.notify_progress();
        self.add(generation);
    }

    /// Says what has changed of the whole process while a generation lived.
    fn tell_process_changes(&mut self, generation: &Generation) {
        let now = ProcessState::now();
        for change in now.changes_since(&self.process) {
            tracing::warn!(
                plugin = %generation.plugin, generation = generation.number,
                "{change}: code of a plugin has changed it for the whole process, and it stays so"
            );
        }
        self.process = now;
    }

    fn record(
        &self,
        event: EventKind,
        plugin: &Arc<str>,
        generation: u64,
        reason: Option<String>,
        steps: Vec<Step>,
        since: Instant,
    ) {
        let event = Event {
            id: 0,
            at_ms: 0,
            event,
            plugin: Arc::clone(plugin),
            generation: Some(generation),
            previous_generation: None,
            failed_step: None,
            reason,
            details: None,
            dropped: Vec::new(),
            steps,
            ms: ms(since.elapsed()),
        };
        self.shared.record(event, None);
    }
}

/// What leads into code beside what is counted.
fn leads(range: &Range<usize>) -> Vec<String> {
    let signals = pins::handlers_in(range).into_iter();
    let handlers = signals.map(|signal| format!("signal handler for {}", pins::signal_name(signal)));
    handlers.chain(pins::leads_into(range)).collect()
}

/// Takes back what a generation holds, on a thread of its own: the last holder of a value drops it. The reaper does not end
/// before this has, for `way` leads to it.
fn release(generation: &Arc<Generation>, way: Sender<Task>) {
    let of_thread = Arc::clone(generation);
    let pin = generation.pin("the drop of what it held");
    parting::part(Duration::ZERO, move || {
        let leaked = of_thread.library.caller().handles.retire();
        tracing::debug!(plugin = %of_thread.plugin, generation = of_thread.number, leaked, "released the handles it held");
        drop(of_thread);
        drop(pin);
        drop(way);
    });
}

/// Runs `on_unload` on a thread of its own, which says by `way` how it ended.
fn start_hook(
    generation: &Arc<Generation>,
    reason: u32,
    way: Arc<Mutex<Option<Sender<Task>>>>,
) -> io::Result<()> {
    let of_thread = Arc::clone(generation);
    let pin = generation.pin("`on_unload`, which is still running");
    let name = format!("unload {} g{}", generation.plugin, generation.number);
    let run = move || {
        let _drain = DrainOnDrop;
        let (plugin, generation) = (Arc::clone(&of_thread.plugin), of_thread.number);
        let tell = |problem| {
            // Nobody listens any more when the deadline has passed.
            if let Some(way) = way.lock().take() {
                let plugin = Arc::clone(&plugin);
                let _ = way.send(Task::HookEnded { plugin, generation, problem, way: way.clone() });
            }
        };
        let on_lost = |what: &str| tell(Some(format!("`on_unload` {}", HookError::Lost(what.to_owned()))));
        let outcome = pins::losable(&on_lost, || invoke::on_unload(&of_thread.library, reason));
        drop(of_thread);
        drop(pin);
        tell(outcome.err().map(|error| format!("`on_unload` {error}")));
    };
    std::thread::Builder::new().name(name).spawn(run).map(drop)
}
