//! How a transaction begins.

/// What is said of a transaction before its first statement. The default says nothing: the database decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransactionOptions {
    /// What it sees of others'. SQLite's are serializable, whatever is asked for.
    pub isolation: Option<Isolation>,
    /// What it may do.
    pub access: Option<Access>,
    /// A serializable transaction that only reads waits until it cannot fail. PostgreSQL's.
    pub is_deferrable: bool,
}

/// What a transaction sees of others'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Each statement sees what was committed before it.
    ReadCommitted,
    /// All statements see what was committed before the first one.
    RepeatableRead,
    /// As if transactions ran one after the other.
    Serializable,
}

/// What a transaction may do, and when it takes the right to write where a database has but one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It reads: a statement that writes is refused.
    ReadOnly,
    /// The right to write is taken when it begins.
    Immediate,
    /// The right to write is taken with the first statement that writes. Readers then run side by side; one that reads
    /// first and writes later may be told to begin again (40001).
    Deferred,
}

impl TransactionOptions {
    /// The statement that begins such a transaction of PostgreSQL.
    pub(super) fn postgres_text(&self) -> String {
        let mut text = "BEGIN".to_owned();
        let isolation = self.isolation.map(|isolation| match isolation {
            Isolation::ReadCommitted => " ISOLATION LEVEL READ COMMITTED",
            Isolation::RepeatableRead => " ISOLATION LEVEL REPEATABLE READ",
            Isolation::Serializable => " ISOLATION LEVEL SERIALIZABLE",
        });
        let access = (self.access == Some(Access::ReadOnly)).then_some(" READ ONLY");
        let deferrable = self.is_deferrable.then_some(" DEFERRABLE");
        text.extend([isolation, access, deferrable].into_iter().flatten());
        text
    }

    /// The statement that begins such a transaction of SQLite.
    pub(super) fn sqlite_text(&self) -> &'static str {
        match self.access {
            Some(Access::ReadOnly | Access::Deferred) => "BEGIN DEFERRED",
            // One that begins as a reader and then writes can fail at once, whatever the busy time-out.
            Some(Access::Immediate) | None => "BEGIN IMMEDIATE",
        }
    }
}
