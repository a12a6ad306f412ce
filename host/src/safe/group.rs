//! Group commit: who waits for whom, so that many writers share one sync.
//!
//! Writers queue. The first to find nobody leading leads: it gathers, commits what is queued, tells
//! everybody the result and hands the lead to one of those who came meanwhile. So there is no thread
//! to start, and a writer alone pays for no hand-off.
//!
//! Gathering: the leader waits for as many writers as were seen around the last commit (in it, or come
//! while it ran), for half the time a commit takes, and at most for [`PATIENCE`]. A lone writer expects
//! itself only, so it never waits.
//!
//! # Invariants
//!
//! - At most one leader. Whoever may lead is waiting on its own ticket, so a lead is never handed to
//!   somebody who does not look.
//! - No lock of the queue is held during a commit.
//! - A write that nobody waits for (its writer is told later, or never) is made by the safe's own thread,
//!   which runs [`Group::serve`], unless somebody leads anyway.
//! - A ticket gets one result, after the commit has returned.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::backend::Outcome;
use super::error::WriteError;
use super::write::Write;

/// Longest wait for others.
const PATIENCE: Duration = Duration::from_micros(500);
/// Most that may wait for the disk.
const QUEUE_BYTES: usize = 64 << 20;
/// Likewise.
const QUEUE_WRITES: usize = 16 << 10;
/// Most that one commit takes.
const BATCH_BYTES: usize = 16 << 20;

/// Is told what became of a write that nobody waits for. Runs on the thread that committed it.
pub(super) type Tell = Box<dyn FnOnce(&Outcome) + Send>;

/// The queue of one safe.
#[derive(Debug, Default)]
pub(super) struct Group {
    queue: Mutex<Queue>,
    /// Signalled when as many wait as the leader expects.
    arrived: Condvar,
    /// Signalled when there is something for the safe's own thread to do.
    work: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Pending>,
    /// Weight of `waiting`.
    bytes: usize,
    is_led: bool,
    /// How many of `waiting` nobody waits for.
    unattended: usize,
    /// Whether the safe's own thread ends when it has nothing left to do.
    is_stopping: bool,
    /// How many writers the leader waits for. Written by leaders.
    expected: usize,
    /// How long the last commit took. Written by leaders.
    commit_time: Duration,
    numbers: Numbers,
}

/// What a group has done since the safe was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Numbers {
    /// Batches that were tried.
    pub batches: u64,
    /// Writes in them.
    pub writes: u64,
}

struct Pending {
    write: Write,
    ticket: Arc<Ticket>,
    /// Of a write that nobody waits for.
    tell: Option<Tell>,
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending").field("write", &self.write).finish_non_exhaustive()
    }
}

/// A writer's place in the queue.
#[derive(Debug)]
pub(super) struct Ticket {
    turn: Mutex<Turn>,
    changed: Condvar,
}

#[derive(Debug)]
enum Turn {
    /// Queued; its writer does other things.
    Away,
    /// Its writer waits on it.
    Waiting,
    /// Its writer has to lead.
    Lead,
    Done(Outcome),
}

impl Group {
    /// Queues a write. It is made when somebody waits: for this one or for another.
    pub(super) fn submit(&self, write: Write) -> Result<Arc<Ticket>, WriteError> {
        self.enqueue(write, None)
    }

    /// Queues a write that nobody waits for. It is made by [`serve`](Group::serve), if not by a leader.
    pub(super) fn submit_unattended(&self, write: Write, tell: Tell) -> Result<(), WriteError> {
        self.enqueue(write, Some(tell)).map(drop)
    }

    fn enqueue(&self, write: Write, tell: Option<Tell>) -> Result<Arc<Ticket>, WriteError> {
        let weight = write.weight();
        let mut queue = self.queue.lock();
        if queue.waiting.len() >= QUEUE_WRITES || queue.bytes + weight > QUEUE_BYTES {
            return Err(WriteError::Overloaded);
        }
        if tell.is_some() && queue.is_stopping {
            return Err(WriteError::Closed);
        }
        let ticket = Arc::new(Ticket { turn: Mutex::new(Turn::Away), changed: Condvar::new() });
        queue.bytes += weight;
        queue.unattended += usize::from(tell.is_some());
        queue.waiting.push_back(Pending { write, ticket: Arc::clone(&ticket), tell });
        if queue.is_led && queue.waiting.len() >= queue.expected {
            self.arrived.notify_one();
        }
        if !queue.is_led && queue.unattended > 0 {
            self.work.notify_one();
        }
        Ok(ticket)
    }

    /// Makes the writes that nobody waits for, until told to stop and none is left.
    pub(super) fn serve(&self, commit: impl Fn(&[&Write]) -> Vec<Outcome>) {
        let mut queue = self.queue.lock();
        loop {
            if queue.unattended > 0 && !queue.is_led {
                queue.is_led = true;
                drop(queue);
                self.lead(&commit);
                queue = self.queue.lock();
            } else if queue.unattended == 0 && queue.is_stopping {
                return;
            } else {
                self.work.wait(&mut queue);
            }
        }
    }

    /// Lets [`serve`](Group::serve) return when it has nothing left to do.
    pub(super) fn stop(&self) {
        self.queue.lock().is_stopping = true;
        self.work.notify_all();
    }

    /// Waits for a write's result, leading where nobody does. `commit` makes a batch.
    ///
    /// A write whose turn has not come at the deadline is taken back.
    pub(super) fn wait(
        &self,
        ticket: &Arc<Ticket>,
        deadline: Instant,
        commit: impl Fn(&[&Write]) -> Vec<Outcome>,
    ) -> Outcome {
        loop {
            {
                let mut queue = self.queue.lock();
                let mut turn = ticket.turn.lock();
                match &*turn {
                    Turn::Done(outcome) => return outcome.clone(),
                    Turn::Lead => {}
                    Turn::Away | Turn::Waiting if queue.is_led => *turn = Turn::Waiting,
                    Turn::Away | Turn::Waiting => {
                        queue.is_led = true;
                        *turn = Turn::Lead;
                    }
                }
            }
            let mut turn = ticket.turn.lock();
            while matches!(*turn, Turn::Waiting) {
                if ticket.changed.wait_until(&mut turn, deadline).timed_out() {
                    break;
                }
            }
            match &*turn {
                Turn::Done(outcome) => return outcome.clone(),
                Turn::Lead => {
                    *turn = Turn::Away;
                    drop(turn);
                    self.lead(&commit);
                }
                Turn::Waiting | Turn::Away => {
                    drop(turn);
                    if let Some(outcome) = self.give_up(ticket) {
                        return outcome;
                    }
                }
            }
        }
    }

    /// Takes a late write back. `None`: its writer was given the lead meanwhile.
    fn give_up(&self, ticket: &Arc<Ticket>) -> Option<Outcome> {
        let mut queue = self.queue.lock();
        let turn = ticket.turn.lock();
        match &*turn {
            Turn::Done(outcome) => return Some(outcome.clone()),
            Turn::Lead => return None,
            Turn::Waiting | Turn::Away => {}
        }
        let place = queue.waiting.iter().position(|pending| Arc::ptr_eq(&pending.ticket, ticket));
        let Some(pending) = place.and_then(|place| queue.waiting.remove(place)) else {
            let reason = "it was still under way at the deadline".to_owned();
            return Some(Err(WriteError::Indeterminate { reason }));
        };
        queue.bytes -= pending.write.weight();
        Some(Err(WriteError::TimedOut))
    }

    /// Commits what is queued, once, and hands the lead on.
    fn lead(&self, commit: &impl Fn(&[&Write]) -> Vec<Outcome>) {
        let batch = self.gather();
        let writes: Vec<&Write> = batch.iter().map(|pending| &pending.write).collect();
        let begun = Instant::now();
        let outcomes = crate::panic::catch(|| commit(&writes))
            .unwrap_or_else(|reason| vec![Err(WriteError::Indeterminate { reason }); writes.len()]);
        let took = begun.elapsed();
        let size = batch.len();
        for (pending, outcome) in batch.into_iter().zip(outcomes) {
            if let Some(tell) = pending.tell {
                // Whoever listens is none of ours; a panic of theirs must not take the lead along.
                let _ = crate::panic::catch(|| tell(&outcome));
                continue;
            }
            *pending.ticket.turn.lock() = Turn::Done(outcome);
            pending.ticket.changed.notify_one();
        }
        let mut queue = self.queue.lock();
        queue.expected = size + queue.waiting.len();
        queue.commit_time = took;
        queue.numbers.batches += 1;
        queue.numbers.writes += size as u64;
        let next = queue.waiting.iter().find(|pending| {
            let mut turn = pending.ticket.turn.lock();
            let is_waiting = matches!(*turn, Turn::Waiting);
            if is_waiting {
                *turn = Turn::Lead;
                pending.ticket.changed.notify_one();
            }
            is_waiting
        });
        queue.is_led = next.is_some();
        if !queue.is_led && queue.unattended > 0 {
            self.work.notify_one();
        }
        if queue.is_stopping {
            self.work.notify_all();
        }
    }

    /// Waits a little for others and takes what is queued.
    fn gather(&self) -> Vec<Pending> {
        let mut queue = self.queue.lock();
        let until = Instant::now() + (queue.commit_time / 2).min(PATIENCE);
        while queue.waiting.len() < queue.expected {
            if self.arrived.wait_until(&mut queue, until).timed_out() {
                break;
            }
        }
        let mut taken = 0;
        let fits = |pending: &&Pending| {
            taken += pending.write.weight();
            taken <= BATCH_BYTES
        };
        // At least one, however large.
        let count = queue.waiting.iter().take_while(fits).count().max(1).min(queue.waiting.len());
        let batch: Vec<Pending> = queue.waiting.drain(..count).collect();
        let weight: usize = batch.iter().map(|pending| pending.write.weight()).sum();
        queue.bytes -= weight;
        queue.unattended -= batch.iter().filter(|pending| pending.tell.is_some()).count();
        batch
    }

    #[cfg(test)]
    pub(super) fn is_led(&self) -> bool {
        self.queue.lock().is_led
    }

    /// How many wait for the disk, and what was done so far.
    pub(super) fn numbers(&self) -> (usize, Numbers) {
        let queue = self.queue.lock();
        (queue.waiting.len(), queue.numbers)
    }
}
