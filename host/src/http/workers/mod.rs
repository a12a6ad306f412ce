//! The worker threads that run blocking handlers.
//!
//! A job goes to the worker that became idle last, because its stack and caches are warm and the
//! others can sleep on. Measured against a first-in-first-out channel this halves the CPU time per
//! request. It owns threads and jobs; it knows nothing of HTTP, and of whose a job is no more than
//! the [`Account`] that it is booked on.
//!
//! # Invariants
//!
//! - A job waits only while no worker is idle and no further one may be started, or while its share
//!   has as many threads as it may.
//! - `submit` never waits: the lines are bounded, and what does not fit is turned away.
//! - A job that is given up does not count as a thread: another one may take its place. There are never
//!   more of these than the limit and the threads of their share together.
//! - A panic in a job ends the job, never the worker.
//! - Who waits for a job is told when its worker is free again: one who asks again and again uses one thread.
//! - A worker that is nudged drains what it keeps of retired code, at once or after its job.
//! - Workers that nobody needs for a while end, the coldest first; so a burst leaves no threads behind for good,
//!   each with its stacks. Who goes idle and comes back pays nothing for that: no worker waits by the clock.

mod line;
mod thread;
mod ticket;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use self::line::Lines;
pub(super) use self::thread::afterwards;
use self::thread::{After, Next, Slot, start};
use self::ticket::Stage;
pub use self::ticket::Ticket;
use crate::share::Account;

/// After so long without need a worker may end.
pub(super) const REST: Duration = Duration::from_secs(60);

/// Something to run on a worker.
pub type Job = Box<dyn FnOnce() + Send>;

/// A pool of worker threads. Clones share it; the threads end with [`Workers::stop`] or the last clone.
#[derive(Clone)]
pub struct Workers {
    shared: Arc<Shared>,
    /// Ends the idle threads when the last clone goes.
    _end: Arc<EndOnDrop>,
}

/// How many threads there may be, and how many jobs may wait or be late.
#[derive(Debug, Clone, Copy)]
pub struct WorkerLimits {
    /// Most threads, those of late jobs not counted.
    pub threads: usize,
    /// Most jobs that wait for a thread.
    pub queue: usize,
    /// From so many late jobs of an account on, none of it is begun; those that run by then may become late too.
    pub late: usize,
}

/// How the workers are doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct WorkerNumbers {
    /// Threads started, those of late jobs not counted.
    pub threads: usize,
    /// Most threads there may be.
    pub max_threads: usize,
    /// Threads running a job that is not late.
    pub busy: usize,
    /// Jobs waiting for a thread.
    pub queued: usize,
    /// Jobs that still run after their deadline, each on a thread that has been replaced.
    pub late: usize,
    /// Jobs turned away because too many wait or are late, or because the pool is stopping; only grows.
    pub refused: u64,
}

/// Why a job was not taken. It was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Too many wait already.
    Full,
    /// Too many of its account, or of its share, are late.
    Late,
    /// The pool is stopping.
    Stopping,
}

/// What became of a job that is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenUp {
    /// It was waiting for a thread and will never run.
    Waiting,
    /// It runs, and its thread has been replaced.
    Running,
    /// It has just ended.
    Ended,
}

struct Shared {
    limits: WorkerLimits,
    /// Whether all threads stay, however long they are idle.
    is_fixed: bool,
    state: Mutex<State>,
    /// Signalled when the last busy worker finds nothing to do.
    quiet: Condvar,
}

struct State {
    /// Idle workers; the warmest is last.
    idle: Vec<Arc<Slot>>,
    /// The fewest that were idle at one time since `looked_at`: so many were not needed.
    spare: usize,
    looked_at: Instant,
    lines: Lines,
    /// Idle and busy threads.
    threads: usize,
    busy: usize,
    late: usize,
    /// Threads ever started, for their names.
    started: usize,
    refused: u64,
    stopping: bool,
    /// Whether the last `submit` was refused, so that an overload is logged once and not per request.
    overloaded: bool,
}

/// A job with its ticket.
struct Task {
    job: Job,
    ticket: Arc<Ticket>,
}

impl Workers {
    /// A pool whose threads are started on demand.
    pub fn new(limits: WorkerLimits) -> Self {
        Self::with(limits, false)
    }

    fn with(limits: WorkerLimits, is_fixed: bool) -> Self {
        let limits = WorkerLimits { threads: limits.threads.max(1), ..limits };
        let state = State {
            idle: Vec::with_capacity(limits.threads),
            spare: 0,
            looked_at: Instant::now(),
            lines: Lines::default(),
            threads: 0,
            busy: 0,
            late: 0,
            started: 0,
            refused: 0,
            stopping: false,
            overloaded: false,
        };
        let shared = Arc::new(Shared { limits, is_fixed, state: Mutex::new(state), quiet: Condvar::new() });
        Self { _end: Arc::new(EndOnDrop(Arc::clone(&shared))), shared }
    }

    /// A pool whose threads are all started now, and stay.
    pub fn fixed(limits: WorkerLimits) -> Self {
        let workers = Self::with(limits, true);
        for _ in 0..workers.shared.limits.threads {
            let mut state = workers.shared.state.lock();
            if let Err((_, error)) = start(&workers.shared, &mut state, Next::Wait) {
                drop(state);
                tracing::warn!(%error, "could not start every worker thread; going on with fewer");
                break;
            }
        }
        workers
    }

    /// Runs `job` on a worker, now or as soon as its share may have one. The ticket is for giving it up.
    ///
    /// # Errors
    ///
    /// [`Refused`]; the job was dropped.
    pub fn submit(&self, account: &Arc<Account>, job: Job) -> Result<Arc<Ticket>, Refused> {
        let ticket = Ticket::new(Arc::clone(account));
        let task = Task { job, ticket: Arc::clone(&ticket) };
        let limits = &self.shared.limits;
        let mut state = self.shared.state.lock();
        if state.stopping {
            return Err(state.refuse(Refused::Stopping));
        }
        if account.is_full(limits.late) {
            return Err(state.refuse(Refused::Late));
        }
        let mut task = task;
        if account.share().may_run(limits.threads.saturating_sub(state.busy)) {
            state.begin(&task);
            if let Some(slot) = state.wake() {
                drop(state);
                slot.hand(Next::Run(task));
                return Ok(ticket);
            }
            match start(&self.shared, &mut state, Next::Run(task)) {
                Ok(()) => return Ok(ticket),
                Err((unstarted, _)) => {
                    let Next::Run(unstarted) = unstarted else { unreachable!("it was a job") };
                    state.end(&unstarted);
                    task = unstarted;
                }
            }
        }
        let free = limits.queue.saturating_sub(state.lines.len());
        if state.threads + state.late > 0 && account.share().may_wait(free) {
            state.lines.push(task);
            return Ok(ticket);
        }
        let is_news = !std::mem::replace(&mut state.overloaded, true);
        let (threads, queued) = (state.threads, state.lines.len());
        let refused = state.refuse(Refused::Full);
        drop(state);
        if is_news {
            tracing::warn!(threads, queued, "all workers are busy and the queue is full; refusing requests");
        }
        Err(refused)
    }

    /// Says that nobody waits for a job any more. One that has not begun never will; one that runs is late
    /// from now on, and its thread is replaced.
    pub fn give_up(&self, ticket: &Arc<Ticket>) -> GivenUp {
        let mut state = self.shared.state.lock();
        match ticket.stage() {
            Stage::Waiting => {
                ticket.set(Stage::Done);
                let task = state.lines.remove(ticket);
                drop(state);
                // Outside the lock: a job's captures are somebody else's code.
                drop(task);
                GivenUp::Waiting
            }
            Stage::Running => {
                ticket.set(Stage::Late);
                ticket.account.begin_late();
                ticket.account.share().end();
                state.busy -= 1;
                state.threads -= 1;
                state.late += 1;
                self.shared.top_up(&mut state);
                GivenUp::Running
            }
            Stage::Late | Stage::Done => GivenUp::Ended,
        }
    }

    /// Ends the workers that were not needed since the last look, if that was [`REST`] ago; one always stays.
    /// To be called now and then, also while nothing happens for as long as there [are any](Workers::has_spare).
    pub(super) fn end_spare(&self, now: Instant) {
        let mut state = self.shared.state.lock();
        if self.shared.is_fixed || now.saturating_duration_since(state.looked_at) < REST {
            return;
        }
        let spare = state.spare.min(state.idle.len().saturating_sub(1));
        let ended: Vec<_> = state.idle.drain(..spare).collect();
        state.threads -= ended.len();
        (state.spare, state.looked_at) = (state.idle.len(), now);
        drop(state);
        ended.iter().for_each(|slot| slot.hand(Next::End));
    }

    /// Whether there are idle workers that may end.
    pub(super) fn has_spare(&self) -> bool {
        !self.shared.is_fixed && self.shared.state.lock().idle.len() > 1
    }

    /// How the workers are doing now.
    pub fn numbers(&self) -> WorkerNumbers {
        let state = self.shared.state.lock();
        WorkerNumbers {
            threads: state.threads,
            max_threads: self.shared.limits.threads,
            busy: state.busy,
            queued: state.lines.len(),
            late: state.late,
            refused: state.refused,
        }
    }

    /// Takes no more jobs, finishes those it has, and ends the threads.
    ///
    /// Returns how many threads were still running a job at `deadline`, late ones not counted; these are
    /// left to themselves.
    pub fn stop(&self, deadline: Instant) -> usize {
        let mut state = self.shared.state.lock();
        state.stopping = true;
        while state.busy > 0 {
            if self.shared.quiet.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        let still_busy = state.busy;
        let unrun = state.lines.take();
        let idle = std::mem::take(&mut state.idle);
        state.threads -= idle.len();
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

impl State {
    /// Takes the warmest of the idle workers.
    fn wake(&mut self) -> Option<Arc<Slot>> {
        let slot = self.idle.pop();
        self.spare = self.spare.min(self.idle.len());
        slot
    }

    fn refuse(&mut self, refused: Refused) -> Refused {
        self.refused += 1;
        refused
    }

    /// Books a job that is about to run.
    fn begin(&mut self, task: &Task) {
        self.busy += 1;
        task.ticket.set(Stage::Running);
        task.ticket.account.share().begin();
    }

    /// Takes that back.
    fn end(&mut self, task: &Task) {
        self.busy -= 1;
        task.ticket.set(Stage::Waiting);
        task.ticket.account.share().end();
    }
}

impl Shared {
    /// The next job that may run, booked.
    fn next(&self, state: &mut State) -> Option<Task> {
        let free = self.limits.threads.saturating_sub(state.busy);
        let task = state.lines.pop(free, self.limits.late)?;
        state.overloaded = false;
        state.begin(&task);
        Some(task)
    }

    /// Gives jobs that wait to idle workers and new ones, as far as they may run.
    fn top_up(self: &Arc<Self>, state: &mut State) {
        while let Some(task) = self.next(state) {
            if let Some(slot) = state.wake() {
                slot.hand(Next::Run(task));
                continue;
            }
            if let Err((Next::Run(task), error)) = start(self, state, Next::Run(task)) {
                tracing::warn!(%error, "could not replace a worker thread; going on with fewer");
                state.end(&task);
                state.lines.push(task);
                return;
            }
        }
    }

    /// Books the end of a worker's job, and says what it does next.
    fn after(self: &Arc<Self>, ticket: &Ticket, slot: &Arc<Slot>) -> After {
        let mut state = self.state.lock();
        let account = &ticket.account;
        if ticket.stage() == Stage::Late {
            account.end_late();
            state.late -= 1;
            if state.stopping || state.threads >= self.limits.threads {
                return After::End;
            }
            // It is back in time to be of use.
            state.threads += 1;
        } else {
            account.share().end();
            state.busy -= 1;
        }
        ticket.set(Stage::Done);
        if let Some(task) = self.next(&mut state) {
            // A share that may have more threads than before is served now and not at its next end.
            self.top_up(&mut state);
            return After::Run(task);
        }
        if state.busy == 0 {
            self.quiet.notify_all();
        }
        if state.stopping {
            state.threads -= 1;
            return After::End;
        }
        state.idle.push(Arc::clone(slot));
        After::Rest
    }
}

/// Lets the threads of a forgotten pool end.
struct EndOnDrop(Arc<Shared>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.stopping = true;
        let idle = std::mem::take(&mut state.idle);
        state.threads -= idle.len();
        drop(state);
        idle.iter().for_each(|slot| slot.hand(Next::End));
    }
}
