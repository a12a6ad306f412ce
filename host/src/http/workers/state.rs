//! Who of the workers is idle, which jobs have a thread, which wait: the state of a pool under its lock.
//!
//! Owns what follows from what: a job that is booked finds a thread, a worker that is free finds a job. Does not own
//! the threads' lives, nor what callers are told. The invariants are those of the pool.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::line::Lines;
use super::thread::{After, Next, Slot, start};
use super::ticket::Stage;
use super::{Job, Refused, Ticket, WorkerLimits};

/// What a pool and its threads share.
pub(super) struct Shared {
    pub(super) limits: WorkerLimits,
    /// Whether all threads stay, however long they are idle.
    pub(super) is_fixed: bool,
    pub(super) state: Mutex<State>,
    /// Signalled when the last busy worker finds nothing to do.
    pub(super) quiet: Condvar,
}

/// Who does what.
pub(super) struct State {
    /// Idle workers; the warmest is last.
    pub(super) idle: Vec<Arc<Slot>>,
    /// Whether a worker that was idle has been woken and has not looked yet.
    pub(super) waking: bool,
    /// Jobs that are booked and that the next worker which looks begins.
    pub(super) ready: VecDeque<Task>,
    /// The fewest that were not needed at one time since `looked_at`: so many were not needed at all.
    pub(super) spare: usize,
    pub(super) looked_at: Instant,
    pub(super) lines: Lines,
    /// Idle and busy threads.
    pub(super) threads: usize,
    pub(super) busy: usize,
    pub(super) late: usize,
    /// Threads ever started, for their names.
    pub(super) started: usize,
    pub(super) refused: u64,
    pub(super) stopping: bool,
    /// Whether the last job was refused, so that an overload is logged once and not per request.
    pub(super) overloaded: bool,
}

/// A job with its ticket.
pub(super) struct Task {
    pub(super) job: Job,
    pub(super) ticket: Arc<Ticket>,
}

impl State {
    /// Nobody is there yet.
    pub(super) fn new(threads: usize) -> State {
        State {
            idle: Vec::with_capacity(threads),
            waking: false,
            ready: VecDeque::new(),
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
        }
    }

    pub(super) fn refuse(&mut self, refused: Refused) -> Refused {
        self.refused += 1;
        refused
    }

    /// Books a job that a thread is found for now.
    pub(super) fn begin(&mut self, task: &Task) {
        self.busy += 1;
        task.ticket.account.share().begin();
    }

    /// Books that a job has no thread any more, or none that counts.
    pub(super) fn end(&mut self, ticket: &Ticket) {
        self.busy -= 1;
        ticket.account.share().end();
    }

    /// What a worker does for which there is nothing to do.
    fn rest(&mut self, slot: &Arc<Slot>) -> After {
        if self.stopping {
            self.threads -= 1;
            return After::End;
        }
        self.idle.push(Arc::clone(slot));
        After::Rest
    }

    /// How many workers are idle, or just woken, that no job is ready for.
    pub(super) fn unneeded(&self) -> usize {
        (self.idle.len() + usize::from(self.waking)).saturating_sub(self.ready.len())
    }

    /// The worker to be woken for the jobs that are ready, unless one is on its way.
    pub(super) fn wake(&mut self) -> Option<Arc<Slot>> {
        if self.waking || self.ready.is_empty() {
            return None;
        }
        let slot = self.idle.pop()?;
        self.waking = true;
        Some(slot)
    }

    /// Takes the next job that is ready, to be run now.
    fn take_ready(&mut self) -> Option<Task> {
        self.ready.pop_front().inspect(|task| task.ticket.set(Stage::Running))
    }

    /// Takes the job of this ticket, which nobody wants any more, from those that are ready.
    pub(super) fn unready(&mut self, ticket: &Arc<Ticket>) -> Option<Task> {
        let at = self.ready.iter().position(|task| Arc::ptr_eq(&task.ticket, ticket))?;
        let task = self.ready.remove(at)?;
        self.end(ticket);
        Some(task)
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

    /// Finds a thread for a job that is booked: a new one, or one that the caller is to wake.
    ///
    /// # Errors
    ///
    /// The system's, with the job, when it takes a new thread and there is none.
    pub(super) fn place(self: &Arc<Self>, state: &mut State, task: Task) -> Result<(), (Task, io::Error)> {
        if state.unneeded() > 0 {
            state.ready.push_back(task);
            state.spare = state.spare.min(state.unneeded());
            return Ok(());
        }
        task.ticket.set(Stage::Running);
        match start(self, state, Next::Run(task)) {
            Ok(()) => Ok(()),
            Err((Next::Run(task), error)) => {
                task.ticket.set(Stage::Waiting);
                Err((task, error))
            }
            Err(_) => unreachable!("it was a job"),
        }
    }

    /// Takes a job that has not begun out of the pool.
    pub(super) fn take_back(self: &Arc<Self>, state: &mut State, ticket: &Arc<Ticket>) -> Option<Task> {
        ticket.set(Stage::Done);
        state.lines.remove(ticket).or_else(|| {
            let task = state.unready(ticket);
            self.top_up(state);
            self.tell_if_quiet(state);
            task
        })
    }

    /// Finds threads for the jobs in line, as far as they may run.
    pub(super) fn top_up(self: &Arc<Self>, state: &mut State) {
        while let Some(task) = self.next(state) {
            if let Err((task, error)) = self.place(state, task) {
                tracing::warn!(%error, "could not replace a worker thread; going on with fewer");
                state.end(&task.ticket);
                state.lines.push(task);
                break;
            }
        }
        state.wake().inspect(|slot| slot.hand(Next::Look));
    }

    /// What a worker does that was idle and has been woken.
    pub(super) fn look(&self, slot: &Arc<Slot>) -> After {
        let mut state = self.state.lock();
        state.waking = false;
        let Some(task) = state.take_ready() else { return state.rest(slot) };
        let woken = state.wake();
        drop(state);
        woken.inspect(|slot| slot.hand(Next::Look));
        After::Run(task)
    }

    /// Books the end of a worker's job, and says what it does next.
    pub(super) fn after(self: &Arc<Self>, ticket: &Ticket, slot: &Arc<Slot>) -> After {
        let mut state = self.state.lock();
        if ticket.stage() == Stage::Late {
            ticket.account.end_late();
            state.late -= 1;
            if state.stopping || state.threads >= self.limits.threads {
                return After::End;
            }
            // It is back in time to be of use.
            state.threads += 1;
        } else {
            state.end(ticket);
        }
        ticket.set(Stage::Done);
        let next = state.take_ready();
        let next = next.or_else(|| self.next(&mut state).inspect(|task| task.ticket.set(Stage::Running)));
        if let Some(task) = next {
            // A share that may have more threads than before is served now and not at its next end.
            self.top_up(&mut state);
            return After::Run(task);
        }
        self.tell_if_quiet(&state);
        state.rest(slot)
    }

    /// Tells who waits for the end when no job has a thread any more.
    pub(super) fn tell_if_quiet(&self, state: &State) {
        if state.busy == 0 {
            self.quiet.notify_all();
        }
    }
}
