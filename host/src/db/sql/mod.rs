//! What a statement may leave behind, judged by its words.
//!
//! Owns [`effect`]. Does not parse SQL: it looks at the first word of each statement and at a few
//! telling words after it, outside of literals and comments.
//!
//! # Invariants
//!
//! - Unknown means dirty. A wrong guess may cost a needless reset, never a connection that is lent
//!   with somebody's settings. The exception is a function that changes settings in its own body,
//!   which no text shows.

mod session;
mod words;

pub(super) use self::session::Session;
pub(super) use self::words::Dialect;
use self::words::{Token, Words};

/// What it takes to undo what statements left behind in a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Dirt {
    /// Nothing is left behind.
    #[default]
    None,
    /// Settings, temporary tables, locks, cursors: the session can be reset.
    Session,
    /// What no reset undoes: the connection has to be closed.
    Connection,
}

/// What a text may do to its session, beside its work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Effect {
    /// What is left behind.
    pub(super) dirt: Dirt,
    /// Begins or ends a transaction.
    pub(super) ends_transaction: bool,
    /// Does more than read, by its words. A function that is called in a query does not count.
    pub(super) writes: bool,
}

impl Effect {
    fn add(&mut self, dirt: Dirt) {
        self.dirt = self.dirt.max(dirt);
    }
}

/// Statements that work and leave nothing behind in the session.
const CLEAN: &[&str] = &[
    "select",
    "insert",
    "update",
    "delete",
    "with",
    "values",
    "table",
    "merge",
    "explain",
    "create",
    "alter",
    "drop",
    "truncate",
    "comment",
    "grant",
    "revoke",
    "copy",
    "analyze",
    "vacuum",
    "reindex",
    "cluster",
    "refresh",
    "show",
    "lock",
    "notify",
    "import",
    "security",
    "checkpoint",
    "close",
    "fetch",
    "move",
    "reassign",
    "replace",
    "savepoint",
    "release",
];

/// Statements that only read.
const READING: &[&str] = &["select", "values", "table", "explain", "show", "fetch", "move", "close"];

/// Statements that begin or end a transaction. `ROLLBACK TO` is not among them.
const TRANSACTION: &[&str] = &["begin", "start", "commit", "end", "rollback", "abort"];

/// What `sql` may do to the session it runs in.
pub(super) fn effect(dialect: Dialect, sql: &str) -> Effect {
    let mut effect = Effect::default();
    let mut statement = Statement::default();
    for token in Words::new(dialect, sql) {
        match token {
            Token::Word(word) => statement.word(dialect, word, &mut effect),
            Token::Semicolon => std::mem::take(&mut statement).end(&mut effect),
        }
    }
    statement.end(&mut effect);
    effect
}

/// Whether a text holds no statement: nothing, blanks, comments, semicolons.
pub(super) fn is_blank(sql: &str) -> bool {
    // What is a comment is one for both.
    !Words::new(Dialect::Postgres, sql).any(|token| matches!(token, Token::Word(_)))
}

/// What is known of the statement so far.
#[derive(Default)]
struct Statement<'a> {
    first: Option<&'a str>,
    last: &'a str,
    /// `ROLLBACK`, until it turns out to be `ROLLBACK TO`.
    is_rollback: bool,
}

impl<'a> Statement<'a> {
    fn word(&mut self, dialect: Dialect, word: &'a str, effect: &mut Effect) {
        let is = |known: &str| word.eq_ignore_ascii_case(known);
        match self.first {
            None => {
                self.first = Some(word);
                self.first_word(dialect, word, effect);
            }
            Some(_) if self.is_rollback && is("to") => {
                self.is_rollback = false;
            }
            Some(first) => {
                let made = is_any(self.last, &["create", "into", "local", "global", "replace"])
                    || (dialect == Dialect::Sqlite && first.eq_ignore_ascii_case("create"));
                if made && (is("temp") || is("temporary")) {
                    effect.add(undoing(dialect));
                } else if dialect == Dialect::Postgres
                    && (is("pg_temp")
                        || is("set_config")
                        || has_prefix(word, "pg_advisory_lock")
                        || has_prefix(word, "pg_try_advisory_lock"))
                {
                    effect.add(Dirt::Session);
                }
            }
        }
        self.last = word;
    }

    fn first_word(&mut self, dialect: Dialect, word: &str, effect: &mut Effect) {
        effect.writes |= !is_any(word, READING);
        if word.eq_ignore_ascii_case("rollback") {
            self.is_rollback = true;
        } else if is_any(word, TRANSACTION) {
            effect.ends_transaction = true;
        } else if is_any(word, &["prepare", "deallocate", "discard", "load"]) {
            effect.add(Dirt::Connection);
        } else if !is_any(word, CLEAN) {
            effect.add(undoing(dialect));
        }
    }

    fn end(self, effect: &mut Effect) {
        effect.ends_transaction |= self.is_rollback;
    }
}

/// SQLite has nothing that resets a session.
fn undoing(dialect: Dialect) -> Dirt {
    match dialect {
        Dialect::Postgres => Dirt::Session,
        Dialect::Sqlite => Dirt::Connection,
    }
}

fn is_any(word: &str, known: &[&str]) -> bool {
    known.iter().any(|known| word.eq_ignore_ascii_case(known))
}

fn has_prefix(word: &str, prefix: &str) -> bool {
    word.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests;
