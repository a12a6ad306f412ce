//! A worker thread: how it is started, where it finds its next job, and how it ends.
//!
//! Owns one thread's life. What it does next after a job is decided by the pool.

use std::cell::Cell;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::Job;
use super::state::{Shared, State, Task};
use crate::pins;

/// Where an idle worker finds its next job.
#[derive(Default)]
pub(super) struct Slot {
    next: Mutex<Next>,
    wake: Condvar,
}

#[derive(Default)]
pub(super) enum Next {
    #[default]
    Wait,
    /// There may be a job for it.
    Look,
    Run(Task),
    End,
}

thread_local! {
    /// What the job on this worker has left to be done when the worker is free again.
    static AFTERWARDS: Cell<Option<Job>> = const { Cell::new(None) };
}

/// Has `tell` run on this worker once it counts as free, right after the job that asks for it.
///
/// Whoever is told that a job is done may bring the next one at once, and is to find this worker then: told
/// earlier, they would now and then have another thread started, up to the limit.
pub(in crate::http) fn afterwards(tell: Job) {
    AFTERWARDS.set(Some(tell));
}

/// Runs what the job has left to be done, if anything.
fn tell() {
    if let Some(tell) = AFTERWARDS.take() {
        run(tell);
    }
}

/// What an idle worker finds in its slot.
enum Found {
    Job(Task),
    Sign,
    End,
}

/// What a worker does after a job, or when it has looked for one.
pub(super) enum After {
    Run(Task),
    Rest,
    End,
}

/// Starts a worker that begins with `first`. What runs is booked already; the thread is booked here.
pub(super) fn start(
    shared: &Arc<Shared>,
    state: &mut State,
    first: Next,
) -> Result<(), (Next, std::io::Error)> {
    let is_idle = matches!(first, Next::Wait);
    // Through a slot, so that the job comes back when the thread cannot be started.
    let slot = Arc::new(Slot { next: Mutex::new(first), wake: Condvar::new() });
    let spawned = std::thread::Builder::new().name(format!("worker-{}", state.started)).spawn({
        let (shared, slot) = (Arc::clone(shared), Arc::clone(&slot));
        move || work(&shared, &slot)
    });
    match spawned {
        Ok(_) => {
            state.started += 1;
            state.threads += 1;
            if is_idle {
                state.idle.push(slot);
            }
            Ok(())
        }
        Err(error) => Err((std::mem::take(&mut *slot.next.lock()), error)),
    }
}

/// A worker's life. That it ends is booked by whoever decides so.
fn work(shared: &Arc<Shared>, slot: &Arc<Slot>) {
    let _drain = pins::DrainOnDrop;
    let nudged = Arc::downgrade(slot);
    pins::attend(move || {
        if let Some(slot) = nudged.upgrade() {
            slot.nudge();
        }
    });
    loop {
        let mut task = match slot.wait() {
            Found::Job(task) => task,
            Found::Sign => match shared.look(slot) {
                After::Run(task) => task,
                After::Rest => continue,
                After::End => return,
            },
            Found::End => break,
        };
        loop {
            let Task { job, ticket } = task;
            run(job);
            if pins::is_due() {
                // Destructors of a plugin may take their time, and nobody is to wait for them.
                tell();
                pins::drain_if_due();
            }
            let after = shared.after(&ticket, slot);
            tell();
            match after {
                After::Run(next) => task = next,
                After::Rest => break,
                After::End => return,
            }
        }
    }
}

fn run(job: Job) {
    if let Err(message) = crate::panic::catch(job) {
        tracing::error!(panic = message, "the host panicked on a worker thread");
    }
}

impl Slot {
    pub(super) fn hand(&self, next: Next) {
        *self.next.lock() = next;
        self.wake.notify_one();
    }

    /// Makes an idle worker look whether it has something to drain.
    fn nudge(&self) {
        // With the lock held, so that a worker which has just looked is waiting by now.
        let _next = self.next.lock();
        self.wake.notify_one();
    }

    /// Waits for something to be handed.
    fn wait(&self) -> Found {
        let mut next = self.next.lock();
        loop {
            match std::mem::take(&mut *next) {
                Next::Wait if pins::is_due() => MutexGuard::unlocked(&mut next, pins::drain_if_due),
                Next::Wait => self.wake.wait(&mut next),
                Next::Look => return Found::Sign,
                Next::Run(task) => return Found::Job(task),
                Next::End => return Found::End,
            }
        }
    }
}
