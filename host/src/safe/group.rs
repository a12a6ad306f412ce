//! Group commit: who waits for whom, so that many writers share one sync.
//!
//! Writers queue. The one whose arrival makes the group complete leads: it takes what is queued, commits it and
//! tells everybody the result. So there is no thread to start, a writer alone pays for no hand-off, and in a
//! steady group nobody is woken but to be told its result.
//!
//! A group is complete with as many writers as were seen around the last commit: in it, or come while it ran.
//! A lone writer expects itself only, so it never waits. Of those who wait for an incomplete group one watches:
//! it leads after half the time a commit takes, and at most after [`PATIENCE`].
//!
//! # Invariants
//!
//! - At most one leader. While nobody leads, and a writer sleeps on its ticket, one of the sleepers watches.
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
    /// Signalled when there is something for the safe's own thread to do.
    work: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Pending>,
    /// Weight of `waiting`.
    bytes: usize,
    is_led: bool,
    /// Whether one of those who wait leads when patience ends. Its write is in `waiting`, and nobody leads.
    is_watched: bool,
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
    /// Queued; its writer does other things, or is about to look at the queue.
    Away,
    /// Its writer sleeps, or is about to.
    Waiting,
    /// In a batch that is being made, or was made and is about to be told.
    Taken,
    Done(Outcome),
}

/// What a writer does next.
enum Look {
    Done(Outcome),
    /// It commits these.
    Lead(Vec<Pending>),
    /// It waits for news until then.
    Sleep(Instant),
}

impl Queue {
    /// Whether all have come that were seen around the last commit.
    fn is_complete(&self) -> bool {
        self.waiting.len() >= self.expected
    }

    /// How long those who have come wait for the others.
    fn patience(&self) -> Instant {
        Instant::now() + (self.commit_time / 2).min(PATIENCE)
    }

    /// Takes the lead, and what one commit takes.
    fn take(&mut self) -> Vec<Pending> {
        (self.is_led, self.is_watched) = (true, false);
        let mut taken = 0;
        let fits = |pending: &&Pending| {
            taken += pending.write.weight();
            taken <= BATCH_BYTES
        };
        // At least one, however large.
        let count = self.waiting.iter().take_while(fits).count().max(1).min(self.waiting.len());
        let batch: Vec<Pending> = self.waiting.drain(..count).collect();
        self.bytes -= batch.iter().map(|pending| pending.write.weight()).sum::<usize>();
        self.unattended -= batch.iter().filter(|pending| pending.tell.is_some()).count();
        for pending in &batch {
            *pending.ticket.turn.lock() = Turn::Taken;
        }
        batch
    }

    /// Has one of those who sleep look again, if nobody leads or watches.
    fn call_one(&mut self) {
        for pending in &self.waiting {
            let mut turn = pending.ticket.turn.lock();
            if matches!(*turn, Turn::Waiting) {
                *turn = Turn::Away;
                pending.ticket.changed.notify_one();
                return;
            }
        }
    }

    /// Takes a late write back.
    fn take_back(&mut self, ticket: &Arc<Ticket>, is_watching: bool) {
        let place = self.waiting.iter().position(|pending| Arc::ptr_eq(&pending.ticket, ticket));
        let Some(pending) = place.and_then(|place| self.waiting.remove(place)) else { return };
        self.bytes -= pending.write.weight();
        if is_watching {
            self.is_watched = false;
        }
        // Also if it was just called: somebody else has to look, then.
        if !self.is_led && !self.is_watched {
            self.call_one();
        }
    }
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
        // It has to know of the first, to be patient, and of the last.
        if !queue.is_led && queue.unattended > 0 && (queue.unattended == 1 || queue.is_complete()) {
            self.work.notify_one();
        }
        Ok(ticket)
    }

    /// Makes the writes that nobody waits for, until told to stop and none is left.
    pub(super) fn serve(&self, commit: impl Fn(&[&Write]) -> Vec<Outcome>) {
        let mut queue = self.queue.lock();
        let mut patience = None;
        loop {
            if queue.unattended == 0 || queue.is_led {
                patience = None;
                if queue.unattended == 0 && queue.is_stopping {
                    return;
                }
                self.work.wait(&mut queue);
                continue;
            }
            let until = *patience.get_or_insert_with(|| queue.patience());
            if queue.is_complete() || queue.is_stopping || Instant::now() >= until {
                patience = None;
                let batch = queue.take();
                drop(queue);
                self.lead(batch, &commit);
                queue = self.queue.lock();
            } else {
                self.work.wait_until(&mut queue, until);
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
        let mut patience = None;
        loop {
            let until = match self.look(ticket, &mut patience, deadline) {
                Look::Done(outcome) => return outcome,
                Look::Lead(batch) => {
                    patience = None;
                    self.lead(batch, &commit);
                    continue;
                }
                Look::Sleep(until) => until,
            };
            let mut turn = ticket.turn.lock();
            while matches!(*turn, Turn::Waiting | Turn::Taken) {
                if ticket.changed.wait_until(&mut turn, until).timed_out() {
                    break;
                }
            }
        }
    }

    /// What the writer of a ticket does next. `patience` is when it leads if it is the one that watches.
    fn look(&self, ticket: &Arc<Ticket>, patience: &mut Option<Instant>, deadline: Instant) -> Look {
        let mut queue = self.queue.lock();
        let mut turn = ticket.turn.lock();
        let now = Instant::now();
        match &*turn {
            Turn::Done(outcome) => return Look::Done(outcome.clone()),
            // It is not in the queue any more, and neither leads nor watches.
            Turn::Taken if now < deadline => {
                *patience = None;
                return Look::Sleep(deadline);
            }
            Turn::Taken => {
                let reason = "it was still under way at the deadline".to_owned();
                return Look::Done(Err(WriteError::Indeterminate { reason }));
            }
            Turn::Away | Turn::Waiting => {}
        }
        if !queue.is_led && (queue.is_complete() || patience.is_some_and(|until| now >= until)) {
            drop(turn);
            return Look::Lead(queue.take());
        }
        if now >= deadline {
            drop(turn);
            queue.take_back(ticket, patience.is_some());
            return Look::Done(Err(WriteError::TimedOut));
        }
        *turn = Turn::Waiting;
        if queue.is_led {
            *patience = None;
            return Look::Sleep(deadline);
        }
        if patience.is_none() && !queue.is_watched {
            queue.is_watched = true;
            *patience = Some(queue.patience());
        }
        Look::Sleep(patience.map_or(deadline, |until| until.min(deadline)))
    }

    /// Commits a batch and tells everybody.
    fn lead(&self, batch: Vec<Pending>, commit: &impl Fn(&[&Write]) -> Vec<Outcome>) {
        let writes: Vec<&Write> = batch.iter().map(|pending| &pending.write).collect();
        let begun = Instant::now();
        let outcomes = crate::panic::catch(|| commit(&writes))
            .unwrap_or_else(|reason| vec![Err(WriteError::Indeterminate { reason }); writes.len()]);
        {
            // Before anybody is told: who comes back with another write finds the queue free.
            let mut queue = self.queue.lock();
            queue.expected = batch.len() + queue.waiting.len();
            queue.commit_time = begun.elapsed();
            queue.numbers.batches += 1;
            queue.numbers.writes += batch.len() as u64;
            queue.is_led = false;
            queue.call_one();
            if queue.unattended > 0 || queue.is_stopping {
                self.work.notify_all();
            }
        }
        for (pending, outcome) in batch.into_iter().zip(outcomes) {
            if let Some(tell) = pending.tell {
                // Whoever listens is none of ours; a panic of theirs must not take the lead along.
                let _ = crate::panic::catch(|| tell(&outcome));
                continue;
            }
            *pending.ticket.turn.lock() = Turn::Done(outcome);
            pending.ticket.changed.notify_one();
        }
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
