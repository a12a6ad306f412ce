//! Whether a transaction has ended otherwise than by the connection's own commit and rollback.
//!
//! SQLite rolls a whole transaction back by itself: on `OR ROLLBACK` and `RAISE(ROLLBACK)`, on a full disk, on a
//! statement that was interrupted while it wrote. What runs after that would be on its own and lasting.
//!
//! # Invariants
//!
//! - Its own state, asked after each statement, decides. The words of a text are never enough.
//! - Once a transaction has ended nothing runs in its place until it is given up.
//! - A text's `COMMIT` keeps nothing of a transaction that the connection counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::connection::Failed;
use crate::db::QueryError;

/// Watches the transaction of one connection.
pub(super) struct EndingWatch {
    hook: Arc<CommitHook>,
    /// How the transaction ended. Written after the statement that ended it, emptied when it is given up.
    reason: Option<String>,
}

/// What SQLite's hook and the connection tell each other.
#[derive(Default)]
struct CommitHook {
    /// A statement runs in a transaction that only the connection's own commit may keep.
    refuses: AtomicBool,
    /// The hook turned a commit into a rollback.
    has_refused: AtomicBool,
}

const BY_A_TEXT: &str = "a text in it ended it, so it was rolled back and nothing of it is kept: use the \
                         transaction's own commit and rollback";

impl EndingWatch {
    /// Watches a connection from now on.
    ///
    /// # Errors
    ///
    /// SQLite's.
    pub(super) fn new(db: &mut rusqlite::Connection) -> rusqlite::Result<EndingWatch> {
        let hook = Arc::new(CommitHook::default());
        let of_db = Arc::clone(&hook);
        db.commit_hook(Some(move || {
            let refuses = of_db.refuses.load(Ordering::Relaxed);
            of_db.has_refused.fetch_or(refuses, Ordering::Relaxed);
            refuses
        }))?;
        Ok(EndingWatch { hook, reason: None })
    }

    /// Whether a transaction has ended and has not been given up.
    pub(super) fn has_ended(&self) -> bool {
        self.reason.is_some()
    }

    /// Forgets the transaction that has ended.
    pub(super) fn give_up(&mut self) {
        self.reason = None;
    }

    /// Refuses what would run in the place of a transaction that has ended.
    ///
    /// # Errors
    ///
    /// How it ended.
    pub(super) fn check(&self) -> Result<(), QueryError> {
        match &self.reason {
            Some(reason) => Err(QueryError::TransactionEnded { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// Runs one statement, and looks at what became of the transaction around it. `is_counted`: it is one that
    /// only the connection's own commit may keep.
    pub(super) fn around<T>(
        &mut self,
        db: &rusqlite::Connection,
        is_counted: bool,
        body: impl FnOnce() -> Result<T, Failed>,
    ) -> Result<T, Failed> {
        let was_open = !db.is_autocommit();
        self.hook.refuses.store(is_counted, Ordering::Relaxed);
        let outcome = body();
        self.hook.refuses.store(false, Ordering::Relaxed);
        let has_refused = self.hook.has_refused.swap(false, Ordering::Relaxed);
        if !was_open || !db.is_autocommit() {
            return outcome;
        }
        let (reason, failed) = match outcome {
            // A transaction that a text began, and a text ended.
            Ok(value) if !is_counted => return Ok(value),
            Err(failed) if !has_refused => {
                let reason = format!(
                    "the database rolled it back when a statement failed ({failed}), so nothing of it is kept"
                );
                (reason, Some(failed))
            }
            Ok(_) | Err(_) => (BY_A_TEXT.to_owned(), None),
        };
        self.reason = Some(reason.clone());
        Err(failed.map_or_else(
            || QueryError::TransactionEnded { reason }.into(),
            |failed| Failed::Ending(Box::new(failed)),
        ))
    }
}
