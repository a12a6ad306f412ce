//! A driver for tests: does what its script says, and writes down what it was asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::{
    ConnectError, Connection, Driver, Outcome, QueryError, Reset, ThreadSafety, TransactionOptions, Value,
};

/// How the connections of a script behave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Behaviour {
    /// They work.
    #[default]
    Works,
    /// Each breaks at the statement after so many.
    FailsAfter(u64),
    /// A commit breaks the connection before it was sent.
    FailsCommit,
    /// A commit is sent, and the connection breaks before its answer. What became of it:
    LosesCommit(Outcome),
    /// A rollback breaks the connection.
    FailsRollback,
}

/// What the fake database does, and what happened to it.
#[derive(Debug, Default)]
pub(super) struct Script {
    pub(super) is_down: AtomicBool,
    /// Idle connections no longer answer a ping.
    pub(super) are_dead: AtomicBool,
    pub(super) reset_closes: AtomicBool,
    pub(super) has_no_ping: AtomicBool,
    pub(super) is_unshareable: AtomicBool,
    pub(super) behaviour: Mutex<Behaviour>,
    pub(super) made: AtomicU64,
    events: Mutex<Vec<String>>,
    statements: Mutex<Vec<String>>,
    /// `connect` waits while this is true.
    is_slow: Mutex<bool>,
    hurry: Condvar,
}

impl Script {
    pub(super) fn behaving(behaviour: Behaviour) -> Arc<Script> {
        Arc::new(Script { behaviour: Mutex::new(behaviour), ..Script::default() })
    }

    fn note(&self, event: String) {
        self.events.lock().push(event);
    }

    /// What happened to connections: `connect 1`, `ask 1`, `roll back 1`, `close 1`.
    pub(super) fn events(&self) -> Vec<String> {
        self.events.lock().clone()
    }

    /// How many events begin with `what`.
    pub(super) fn count(&self, what: &str) -> usize {
        self.events.lock().iter().filter(|event| event.starts_with(what)).count()
    }

    /// The texts that ran, each with the number of its connection.
    pub(super) fn statements(&self) -> Vec<String> {
        self.statements.lock().clone()
    }

    pub(super) fn set_slow(&self, is_slow: bool) {
        *self.is_slow.lock() = is_slow;
        self.hurry.notify_all();
    }

    pub(super) fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::SeqCst);
    }

    pub(super) fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock() = behaviour;
    }
}

/// Makes connections that follow the script.
#[derive(Debug)]
pub(super) struct Scripted(pub(super) Arc<Script>);

impl Driver for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn address(&self) -> &str {
        "scripted:"
    }

    fn thread_safety(&self) -> ThreadSafety {
        if self.0.is_unshareable.load(Ordering::SeqCst) {
            ThreadSafety::Driver
        } else {
            ThreadSafety::Connection
        }
    }

    fn has_ping(&self) -> bool {
        !self.0.has_no_ping.load(Ordering::SeqCst)
    }

    fn connect(&self) -> Result<Box<dyn Connection>, ConnectError> {
        let mut is_slow = self.0.is_slow.lock();
        while *is_slow {
            self.0.hurry.wait(&mut is_slow);
        }
        drop(is_slow);
        if self.0.is_down.load(Ordering::SeqCst) {
            return Err(ConnectError::Unreachable {
                address: "scripted:".to_owned(),
                reason: "down".to_owned(),
                sqlstate: None,
            });
        }
        let number = self.0.made.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.note(format!("connect {number}"));
        Ok(Box::new(Fake {
            script: self.0.clone(),
            number,
            runs: 0,
            is_broken: false,
            depth: 0,
            is_dirty: false,
        }))
    }
}

struct Fake {
    script: Arc<Script>,
    number: u64,
    runs: u64,
    is_broken: bool,
    depth: u32,
    is_dirty: bool,
}

impl Fake {
    fn lost(&mut self) -> QueryError {
        self.is_broken = true;
        QueryError::Lost { reason: "cut".to_owned(), sqlstate: String::new() }
    }

    /// The text decides: `break` breaks after it ran, `lose` while it runs, `refuse CODE` is refused,
    /// `set` leaves a setting behind; anything else runs.
    fn run(&mut self, sql: &str) -> Result<(), QueryError> {
        if self.is_broken {
            return Err(self.lost());
        }
        self.script.statements.lock().push(format!("{}: {sql}", self.number));
        let behaviour = *self.script.behaviour.lock();
        if matches!(behaviour, Behaviour::FailsAfter(most) if self.runs >= most) {
            return Err(self.lost());
        }
        self.runs += 1;
        match sql.split_once(' ').unwrap_or((sql, "")) {
            ("break", _) => self.is_broken = true,
            ("lose", _) => return Err(self.lost()),
            ("set", _) => self.is_dirty = true,
            ("panic", _) => panic!("the driver panicked"),
            ("refuse", code) => {
                return Err(QueryError::database("no", code));
            }
            _ => {}
        }
        Ok(())
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.script.note(format!("close {}", self.number));
    }
}

impl Connection for Fake {
    fn query(&mut self, sql: &str, _: &[Value<'_>]) -> Result<Vec<u8>, QueryError> {
        self.run(sql).map(|()| Vec::new())
    }

    fn execute(&mut self, sql: &str, _: &[Value<'_>]) -> Result<u64, QueryError> {
        self.run(sql).map(|()| 0)
    }

    fn batch_execute(&mut self, sql: &str) -> Result<(), QueryError> {
        self.run(sql)
    }

    fn begin_with(&mut self, _: &TransactionOptions) -> Result<(), QueryError> {
        if self.is_broken {
            return Err(self.lost());
        }
        self.depth += 1;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), QueryError> {
        self.depth -= 1;
        match *self.script.behaviour.lock() {
            Behaviour::FailsCommit => {}
            Behaviour::LosesCommit(_) if self.depth == 0 => {
                self.is_broken = true;
                let (reason, transaction) = ("cut".to_owned(), format!("tx {}", self.number));
                return Err(QueryError::OutcomeUnknown { reason, transaction });
            }
            _ => return Ok(()),
        }
        Err(self.lost())
    }

    fn rollback(&mut self) -> Result<(), QueryError> {
        self.depth -= 1;
        if *self.script.behaviour.lock() == Behaviour::FailsRollback {
            return Err(self.lost());
        }
        Ok(())
    }

    fn has_broken(&self) -> bool {
        self.is_broken
    }

    fn is_valid(&mut self, _: Duration) -> bool {
        self.script.note(format!("ask {}", self.number));
        !self.script.are_dead.load(Ordering::SeqCst)
    }

    fn is_clean(&self) -> bool {
        self.depth == 0 && !self.is_dirty
    }

    fn reset(&mut self) -> Reset {
        if std::mem::take(&mut self.depth) > 0 {
            self.script.note(format!("roll back {}", self.number));
        }
        if self.script.reset_closes.load(Ordering::SeqCst) || self.is_broken {
            return Reset::Close;
        }
        if std::mem::take(&mut self.is_dirty) {
            self.script.note(format!("reset {}", self.number));
            return Reset::Bare;
        }
        Reset::Ready
    }

    fn distrust(&mut self) {
        self.is_dirty = true;
    }

    fn settle(&mut self) {
        self.is_dirty = false;
    }

    fn outcome_of(&mut self, transaction: &str) -> Outcome {
        self.script.note(format!("outcome of {transaction} on {}", self.number));
        match *self.script.behaviour.lock() {
            Behaviour::LosesCommit(outcome) => outcome,
            _ => Outcome::Unknown,
        }
    }

    fn backend_id(&self) -> Option<u64> {
        Some(self.number)
    }
}
