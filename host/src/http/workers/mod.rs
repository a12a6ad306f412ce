//! The worker threads that run blocking handlers.
//!
//! To wake a thread costs more than most handlers do. So whoever brings jobs wakes once for all that it brings, and
//! one idle worker is woken at a time, the one that became idle last, whose stack and caches are warm; when it has
//! found a job and there is another one, it wakes the next worker. Jobs that are short are done by few workers that
//! are awake anyway, and behind jobs that block all workers are awake within moments. (tokio's scheduler wakes its
//! threads one by one too.) The room owns threads and jobs; it knows nothing of HTTP, and of whose a job is no more
//! than the [`Account`] that it is booked on.
//!
//! # Invariants
//!
//! - A job waits in line only while no worker is idle and no further one may be started, or while its share
//!   has as many threads as it may. Else it is ready: booked, with an idle worker or the woken one to spare for it.
//! - While a job is ready, a worker has been woken and has not looked yet, or whoever brought the job is about to
//!   wake one.
//! - `enqueue` never waits: the lines are bounded, and what does not fit is turned away.
//! - A job that is given up does not count as a thread: another one may take its place. There are never
//!   more of these than the limit and the threads of their share together.
//! - A panic in a job ends the job, never the worker.
//! - Who waits for a job is told when its worker is free again: one who asks again and again uses one thread.
//! - A worker that is nudged drains what it keeps of retired code, at once or after its job.
//! - Workers that nobody needs for a while end, the coldest first; so a burst leaves no threads behind for good,
//!   each with its stacks. Who goes idle and comes back pays nothing for that: no worker waits by the clock.

mod line;
mod state;
mod thread;
mod ticket;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use self::state::{Shared, State, Task};
pub(super) use self::thread::afterwards;
use self::thread::{Next, start};
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
    /// Threads running a job that is not late, or about to.
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

impl Workers {
    /// A pool whose threads are started on demand.
    pub fn new(limits: WorkerLimits) -> Self {
        Self::with(limits, false)
    }

    fn with(limits: WorkerLimits, is_fixed: bool) -> Self {
        let limits = WorkerLimits { threads: limits.threads.max(1), ..limits };
        let state = Mutex::new(State::new(limits.threads));
        let shared = Arc::new(Shared { limits, is_fixed, state, quiet: Condvar::new() });
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

    /// Has `job` run on a worker, as soon as its share may have one, once [`Workers::wake`] is called, which the
    /// caller owes. The ticket is for giving it up.
    ///
    /// # Errors
    ///
    /// [`Refused`]; the job was dropped.
    pub fn enqueue(&self, account: &Arc<Account>, job: Job) -> Result<Arc<Ticket>, Refused> {
        let ticket = Ticket::new(Arc::clone(account));
        let mut task = Task { job, ticket: Arc::clone(&ticket) };
        let limits = &self.shared.limits;
        let mut state = self.shared.state.lock();
        if state.stopping {
            return Err(state.refuse(Refused::Stopping));
        }
        if account.is_full(limits.late) {
            return Err(state.refuse(Refused::Late));
        }
        if account.share().may_run(limits.threads.saturating_sub(state.busy)) {
            state.begin(&task);
            match self.shared.place(&mut state, task) {
                Ok(()) => return Ok(ticket),
                Err((unstarted, _)) => {
                    state.end(&unstarted.ticket);
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

    /// Wakes a worker, if one is needed for what was enqueued.
    pub fn wake(&self) {
        let woken = self.shared.state.lock().wake();
        woken.inspect(|slot| slot.hand(Next::Look));
    }

    /// Says that nobody waits for a job any more. One that has not begun never will; one that runs is late
    /// from now on, and its thread is replaced.
    pub fn give_up(&self, ticket: &Arc<Ticket>) -> GivenUp {
        let mut state = self.shared.state.lock();
        match ticket.stage() {
            Stage::Waiting => {
                let task = self.shared.take_back(&mut state, ticket);
                drop(state);
                // Outside the lock: a job's captures are somebody else's code.
                drop(task);
                GivenUp::Waiting
            }
            Stage::Running => {
                ticket.set(Stage::Late);
                ticket.account.begin_late();
                state.end(ticket);
                state.threads -= 1;
                state.late += 1;
                self.shared.top_up(&mut state);
                GivenUp::Running
            }
            Stage::Late | Stage::Done => GivenUp::Ended,
        }
    }

    /// Drops a job that has not begun, because its client has gone. Returns false for one that has begun: it goes
    /// on, and counts as any other one.
    pub fn withdraw(&self, ticket: &Arc<Ticket>) -> bool {
        let mut state = self.shared.state.lock();
        if ticket.stage() != Stage::Waiting {
            return false;
        }
        let task = self.shared.take_back(&mut state, ticket);
        drop(state);
        // Outside the lock: a job's captures are somebody else's code.
        drop(task);
        true
    }

    /// Ends the workers that were not needed since the last look, if that was [`REST`] ago; one always stays.
    /// To be called now and then, also while nothing happens for as long as there [are any](Workers::has_spare).
    pub(super) fn end_spare(&self, now: Instant) {
        let mut state = self.shared.state.lock();
        if self.shared.is_fixed || now.saturating_duration_since(state.looked_at) < REST {
            return;
        }
        let spare = state.spare.min(state.unneeded()).min(state.idle.len().saturating_sub(1));
        let ended: Vec<_> = state.idle.drain(..spare).collect();
        state.threads -= ended.len();
        (state.spare, state.looked_at) = (state.unneeded(), now);
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
        let mut unrun = state.lines.take();
        while let Some(task) = state.ready.pop_front() {
            state.end(&task.ticket);
            unrun.push(task);
        }
        let still_busy = state.busy;
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
