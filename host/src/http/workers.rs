//! The worker threads that run blocking handlers.
//!
//! A job goes to the worker that became idle last, because its stack and caches are warm and the
//! others can sleep on. Measured against a first-in-first-out channel this halves the CPU time per
//! request. It owns threads and jobs; it knows nothing of HTTP.
//!
//! # Invariants
//!
//! - A job is queued only while no worker is idle and no further one may be started.
//! - `submit` never waits: the queue is bounded, and what does not fit is handed back.
//! - A panic in a job ends the job, never the worker.
//! - A worker that is nudged drains what it keeps of retired code, at once or after its job.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::pins;

/// Something to run on a worker.
pub type Job = Box<dyn FnOnce() + Send>;

/// A pool of worker threads. Clones share it; the threads end with [`Workers::stop`] or the last clone.
#[derive(Clone)]
pub struct Workers {
    shared: Arc<Shared>,
    /// Ends the idle threads when the last clone goes.
    _end: Arc<EndOnDrop>,
}

/// How the workers are doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct WorkerNumbers {
    /// Threads started.
    pub threads: usize,
    /// Most threads there may be.
    pub max_threads: usize,
    /// Threads running a job.
    pub busy: usize,
    /// Jobs waiting for a thread.
    pub queued: usize,
    /// Jobs handed back because the queue was full or the pool stopping; only grows.
    pub refused: u64,
}

struct Shared {
    max_threads: usize,
    queue_limit: usize,
    state: Mutex<State>,
    /// Signalled when the last busy worker finds nothing to do.
    quiet: Condvar,
}

struct State {
    /// Idle workers; the warmest is last.
    idle: Vec<Arc<Slot>>,
    queue: VecDeque<Job>,
    threads: usize,
    busy: usize,
    refused: u64,
    stopping: bool,
    /// Whether the last `submit` was refused, so that an overload is logged once and not per request.
    overloaded: bool,
}

/// Where an idle worker finds its next job.
#[derive(Default)]
struct Slot {
    next: Mutex<Next>,
    wake: Condvar,
}

#[derive(Default)]
enum Next {
    #[default]
    Wait,
    Run(Job),
    End,
}

impl Workers {
    /// A pool of at most `max_threads` threads, started on demand, with room for `queue_limit` waiting jobs.
    pub fn new(max_threads: usize, queue_limit: usize) -> Self {
        let state = State {
            idle: Vec::with_capacity(max_threads),
            queue: VecDeque::new(),
            threads: 0,
            busy: 0,
            refused: 0,
            stopping: false,
            overloaded: false,
        };
        let shared = Arc::new(Shared {
            max_threads: max_threads.max(1),
            queue_limit,
            state: Mutex::new(state),
            quiet: Condvar::new(),
        });
        Self { _end: Arc::new(EndOnDrop(Arc::clone(&shared))), shared }
    }

    /// A pool whose `threads` threads are all started now.
    pub fn fixed(threads: usize, queue_limit: usize) -> Self {
        let workers = Self::new(threads, queue_limit);
        for _ in 0..threads {
            let mut state = workers.shared.state.lock();
            state.busy += 1;
            if let Err((_, error)) = start(&workers.shared, &mut state, Box::new(|| ())) {
                state.busy -= 1;
                drop(state);
                tracing::warn!(%error, "could not start every worker thread; going on with fewer");
                break;
            }
        }
        workers
    }

    /// Runs `job` on a worker, now or as soon as one is free.
    ///
    /// # Errors
    ///
    /// The job itself, when the queue is full or the pool is stopping.
    pub fn submit(&self, job: Job) -> Result<(), Job> {
        let mut state = self.shared.state.lock();
        if state.stopping {
            state.refused += 1;
            return Err(job);
        }
        if let Some(slot) = state.idle.pop() {
            state.busy += 1;
            drop(state);
            slot.hand(Next::Run(job));
            return Ok(());
        }
        let mut job = job;
        if state.threads < self.shared.max_threads {
            state.busy += 1;
            match start(&self.shared, &mut state, job) {
                Ok(()) => return Ok(()),
                Err((unstarted, _)) => {
                    state.busy -= 1;
                    job = unstarted;
                }
            }
        }
        if state.threads > 0 && state.queue.len() < self.shared.queue_limit {
            state.queue.push_back(job);
            return Ok(());
        }
        state.refused += 1;
        let is_news = !std::mem::replace(&mut state.overloaded, true);
        let (threads, queued) = (state.threads, state.queue.len());
        drop(state);
        if is_news {
            tracing::warn!(threads, queued, "all workers are busy and the queue is full; refusing requests");
        }
        Err(job)
    }

    /// How the workers are doing now.
    pub fn numbers(&self) -> WorkerNumbers {
        let state = self.shared.state.lock();
        WorkerNumbers {
            threads: state.threads,
            max_threads: self.shared.max_threads,
            busy: state.busy,
            queued: state.queue.len(),
            refused: state.refused,
        }
    }

    /// Takes no more jobs, finishes those it has, and ends the threads.
    ///
    /// Returns how many threads were still running a job at `deadline`; these are left to themselves.
    pub fn stop(&self, deadline: Instant) -> usize {
        let mut state = self.shared.state.lock();
        state.stopping = true;
        while state.busy > 0 {
            if self.shared.quiet.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        let still_busy = state.busy;
        let unrun = std::mem::take(&mut state.queue);
        let idle = std::mem::take(&mut state.idle);
        drop(state);
        // Dropped outside the lock: a job's captures are somebody else's code.
        drop(unrun);
        idle.iter().for_each(|slot| slot.hand(Next::End));
        still_busy
    }
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Workers").field(&self.numbers()).finish()
    }
}

/// Starts a worker that begins with `job`. The caller counted it as busy.
fn start(shared: &Arc<Shared>, state: &mut State, job: Job) -> Result<(), (Job, std::io::Error)> {
    // Through a slot, so that the job comes back when the thread cannot be started.
    let slot = Arc::new(Slot { next: Mutex::new(Next::Run(job)), wake: Condvar::new() });
    let spawned = std::thread::Builder::new().name(format!("worker-{}", state.threads)).spawn({
        let (shared, slot) = (Arc::clone(shared), Arc::clone(&slot));
        move || work(&shared, &slot)
    });
    match spawned {
        Ok(_) => {
            state.threads += 1;
            Ok(())
        }
        Err(error) => match std::mem::take(&mut *slot.next.lock()) {
            Next::Run(job) => Err((job, error)),
            Next::Wait | Next::End => unreachable!("only the thread that never started empties the slot"),
        },
    }
}

/// A worker's life.
fn work(shared: &Shared, slot: &Arc<Slot>) {
    let _drain = pins::DrainOnDrop;
    let nudged = Arc::downgrade(slot);
    pins::attend(move || {
        if let Some(slot) = nudged.upgrade() {
            slot.nudge();
        }
    });
    while let Some(job) = slot.wait() {
        run(job);
        pins::drain_if_due();
        let mut state = shared.state.lock();
        while let Some(job) = state.queue.pop_front() {
            state.overloaded = false;
            drop(state);
            run(job);
            pins::drain_if_due();
            state = shared.state.lock();
        }
        state.busy -= 1;
        if state.busy == 0 {
            shared.quiet.notify_all();
        }
        if state.stopping {
            state.threads -= 1;
            return;
        }
        state.idle.push(Arc::clone(slot));
    }
    shared.state.lock().threads -= 1;
}

fn run(job: Job) {
    if let Err(message) = crate::panic::catch(job) {
        tracing::error!(panic = message, "the host panicked on a worker thread");
    }
}

impl Slot {
    fn hand(&self, next: Next) {
        *self.next.lock() = next;
        self.wake.notify_one();
    }

    /// Makes an idle worker look whether it has something to drain.
    fn nudge(&self) {
        // With the lock held, so that a worker which has just looked is waiting by now.
        let _next = self.next.lock();
        self.wake.notify_one();
    }

    /// The next job, or `None` at the end.
    fn wait(&self) -> Option<Job> {
        let mut next = self.next.lock();
        loop {
            match std::mem::take(&mut *next) {
                Next::Wait if pins::is_due() => MutexGuard::unlocked(&mut next, pins::drain_if_due),
                Next::Wait => self.wake.wait(&mut next),
                Next::Run(job) => return Some(job),
                Next::End => return None,
            }
        }
    }
}

/// Lets the threads of a forgotten pool end.
struct EndOnDrop(Arc<Shared>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.stopping = true;
        let idle = std::mem::take(&mut state.idle);
        drop(state);
        idle.iter().for_each(|slot| slot.hand(Next::End));
    }
}
