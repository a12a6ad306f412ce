//! The jobs that wait for a thread: a line per account, served in turn.
//!
//! Owns the order. Does not decide how many may wait or run; that is the share's and the pool's.
//!
//! # Invariants
//!
//! - Jobs of one account are begun in the order they came; accounts that may have a thread take turns.
//! - An account has a line here only while a job of it waits.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Ticket;
use super::state::Task;
use crate::share::Account;

/// All lines.
#[derive(Default)]
pub(super) struct Lines {
    /// The account whose turn is next comes first.
    lines: VecDeque<(Arc<Account>, VecDeque<Task>)>,
    waiting: usize,
}

impl Lines {
    /// How many jobs wait.
    pub(super) fn len(&self) -> usize {
        self.waiting
    }

    pub(super) fn push(&mut self, task: Task) {
        let account = Arc::clone(&task.ticket.account);
        account.share().begin_wait();
        self.waiting += 1;
        match self.lines.iter_mut().find(|(of, _)| Arc::ptr_eq(of, &account)) {
            Some((_, line)) => line.push_back(task),
            None => self.lines.push_back((account, VecDeque::from([task]))),
        }
    }

    /// Takes the next job of an account that may have one of the `free` threads: its share may, and fewer
    /// than `most_late` of its jobs are late.
    pub(super) fn pop(&mut self, free: usize, most_late: usize) -> Option<Task> {
        if self.waiting == 0 {
            return None;
        }
        let may_run = |of: &Account| of.share().may_run(free) && !of.is_full(most_late);
        let at = self.lines.iter().position(|(account, _)| may_run(account))?;
        let (account, mut line) = self.lines.remove(at)?;
        let task = line.pop_front()?;
        account.share().end_wait();
        self.waiting -= 1;
        if !line.is_empty() {
            self.lines.push_back((account, line));
        }
        Some(task)
    }

    /// Takes the job of this ticket, which nobody wants any more.
    pub(super) fn remove(&mut self, ticket: &Arc<Ticket>) -> Option<Task> {
        let place = self.lines.iter().position(|(of, _)| Arc::ptr_eq(of, &ticket.account))?;
        let line = &mut self.lines[place].1;
        let at = line.iter().position(|task| Arc::ptr_eq(&task.ticket, ticket))?;
        let task = line.remove(at)?;
        if line.is_empty() {
            self.lines.remove(place);
        }
        ticket.account.share().end_wait();
        self.waiting -= 1;
        Some(task)
    }

    /// Takes every job, to be dropped outside the lock.
    pub(super) fn take(&mut self) -> Vec<Task> {
        self.waiting = 0;
        let lines = std::mem::take(&mut self.lines);
        let tasks: Vec<Task> = lines.into_iter().flat_map(|(_, line)| line).collect();
        tasks.iter().for_each(|task| task.ticket.account.share().end_wait());
        tasks
    }
}
