//! What is known of a connection's session: its transaction, and what a borrower left behind.

use super::{Dirt, Effect};
use crate::db::{QueryError, TransactionOptions};

/// The state of a session, as far as the texts that ran in it tell.
#[derive(Debug, Default)]
pub(in crate::db) struct Session {
    /// 0: no transaction, 1: a transaction, more: savepoints in it. Only `begin`, `commit` and
    /// `rollback` of the connection change it.
    pub(in crate::db) depth: u32,
    /// A text began or ended a transaction, so one may be open that `depth` does not count.
    pub(in crate::db) is_loose: bool,
    /// What the next borrower must not see.
    pub(in crate::db) dirt: Dirt,
    /// A text ran that may have done more than read.
    has_written: bool,
    /// Nothing has run in the transaction since it began, but beginnings of savepoints.
    is_fresh: bool,
    /// The text that began the transaction.
    begun_by: String,
    /// Nothing had run in it before the last text.
    was_fresh: bool,
    /// The author has made it read-only.
    pub(in crate::db) is_read_only: bool,
}

impl Session {
    /// Takes note of what a text is about to do.
    ///
    /// # Errors
    ///
    /// When the text would end the transaction that `depth` counts.
    pub(in crate::db) fn admit(&mut self, effect: Effect) -> Result<(), QueryError> {
        if effect.ends_transaction && self.depth > 0 {
            return Err(QueryError::TransactionText);
        }
        self.was_fresh = std::mem::take(&mut self.is_fresh);
        self.is_read_only |= effect.forbids_writing;
        self.is_loose |= effect.ends_transaction;
        self.has_written |= !effect.only_reads();
        self.dirt = self.dirt.max(effect.dirt);
        Ok(())
    }

    /// Whether a transaction may be open.
    pub(in crate::db) fn may_be_in_transaction(&self) -> bool {
        self.depth > 0 || self.is_loose
    }

    /// Whether nothing would be lost with the connection.
    pub(in crate::db) fn is_clean(&self) -> bool {
        !self.may_be_in_transaction() && self.dirt <= Dirt::Suspect
    }

    /// Whether the next borrower might see something of this one.
    pub(in crate::db) fn needs_reset(&self) -> bool {
        self.may_be_in_transaction() || self.dirt > Dirt::None
    }

    /// Counts all that a reset can undo as left behind.
    pub(in crate::db) fn distrust(&mut self) {
        self.is_loose = true;
        self.dirt = self.dirt.max(Dirt::Session);
    }

    /// Whether a text ran since the last call that may have done more than read.
    pub(in crate::db) fn take_wrote(&mut self) -> bool {
        std::mem::take(&mut self.has_written)
    }

    /// The text that begins a transaction or, inside one, a savepoint.
    ///
    /// # Errors
    ///
    /// When something is said of how a savepoint begins.
    pub(in crate::db) fn begin_text<T: Into<String>>(
        &self,
        options: &TransactionOptions,
        outermost: impl Fn(&TransactionOptions) -> T,
    ) -> Result<String, QueryError> {
        match self.depth {
            0 => Ok(outermost(options).into()),
            depth if *options == TransactionOptions::default() => Ok(format!("SAVEPOINT level_{depth}")),
            _ => Err(QueryError::SavepointOptions),
        }
    }

    /// Counts a transaction or savepoint that has begun.
    pub(in crate::db) fn enter(&mut self, text: String, is_read_only: bool) {
        self.is_read_only |= is_read_only;
        if self.depth == 0 {
            self.is_fresh = !self.is_loose;
            self.begun_by = text;
        }
        self.depth += 1;
    }

    /// What begins a transaction of which only the last text has run, as it was before that; `None` if more has run.
    pub(in crate::db) fn begin_again_text(&self) -> Option<String> {
        if !self.was_fresh {
            return None;
        }
        let savepoints = (1..self.depth).map(|depth| format!("; SAVEPOINT level_{depth}"));
        Some(format!("ROLLBACK; {}{}", self.begun_by, savepoints.collect::<String>()))
    }

    /// Counts the innermost transaction or savepoint as over.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub(in crate::db) fn leave(&mut self) -> Result<Level, QueryError> {
        self.depth = self.depth.checked_sub(1).ok_or(QueryError::NoTransaction)?;
        (self.is_fresh, self.was_fresh) = (false, false);
        Ok(Level(self.depth))
    }
}

/// The transaction or savepoint that is being ended: 0 is the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::db) struct Level(u32);

impl Level {
    /// The text that keeps it.
    pub(in crate::db) fn commit_text(self) -> String {
        match self.0 {
            0 => "COMMIT".to_owned(),
            depth => format!("RELEASE SAVEPOINT level_{depth}"),
        }
    }

    /// The text that undoes it.
    pub(in crate::db) fn rollback_text(self) -> String {
        match self.0 {
            0 => "ROLLBACK".to_owned(),
            depth => format!("ROLLBACK TO SAVEPOINT level_{depth}; RELEASE SAVEPOINT level_{depth}"),
        }
    }

    /// Whether it is the transaction itself.
    pub(in crate::db) fn is_outermost(self) -> bool {
        self.0 == 0
    }
}
