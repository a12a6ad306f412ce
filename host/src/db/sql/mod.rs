//! What a statement may leave behind, judged by its words.
//!
//! Owns [`effect`]. Does not parse SQL: it looks at the first word of each statement and at a few
//! telling words after it, outside of literals and comments.
//!
//! # Invariants
//!
//! - Unknown means dirty. A wrong guess may cost a needless reset, never a connection that is lent
//!   with somebody's settings. The exception is a function that no text names and that reading runs: one of a
//!   view, an operator or a row security policy.

mod functions;
mod server_code;
mod session;
mod words;

use self::functions::is_harmless;
pub(super) use self::session::Session;
pub(super) use self::words::Dialect;
use self::words::{Token, Words};

/// What it takes to undo what statements left behind in a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Dirt {
    /// Nothing is left behind.
    #[default]
    None,
    /// Nothing by the text, but a function or a trigger ran that may do anything. The next borrower must not see
    /// it; the one who called it does not count on it.
    Suspect,
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
    /// Something is left behind for the next client of a pooler, whose transaction ends with the statement or with
    /// the transaction that it is in.
    pub(super) stays: bool,
    /// Begins or ends a transaction.
    pub(super) ends_transaction: bool,
    /// Does more than read, by its words. A function that is called in a query does not count.
    pub(super) writes: bool,
    /// Copies from or to the client, which only a call of its own can do.
    pub(super) copies: bool,
    /// Runs code that may commit in its middle.
    pub(super) may_commit: bool,
    /// Makes a transaction, or those that follow, read-only.
    pub(super) forbids_writing: bool,
    /// The highest number of a placeholder.
    pub(super) placeholders: u64,
}

impl Effect {
    fn add(&mut self, dirt: Dirt) {
        self.dirt = self.dirt.max(dirt);
        self.stays |= dirt >= Dirt::Session;
    }

    /// Whether nothing but reading happens, as far as the text and the functions that it names tell.
    pub(super) fn only_reads(&self) -> bool {
        !self.writes && self.dirt == Dirt::None && !self.ends_transaction
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

/// Statements that run no code of others.
const QUIET: &[&str] = &[
    "begin",
    "start",
    "commit",
    "end",
    "rollback",
    "abort",
    "savepoint",
    "release",
    "lock",
    "notify",
    "set",
    "declare",
];

/// Statements that begin or end a transaction. `ROLLBACK TO` is not among them.
const TRANSACTION: &[&str] = &["begin", "start", "commit", "end", "rollback", "abort"];

/// Words that make a `WITH` or an `EXPLAIN` more than reading.
const WRITING: &[&str] = &["insert", "update", "delete", "merge"];

/// What `sql` may do to the session it runs in.
pub(super) fn effect(dialect: Dialect, sql: &str) -> Effect {
    let mut effect = Effect::default();
    let mut statement = Statement::default();
    for token in Words::new(dialect, sql) {
        match token {
            Token::Word(word) => statement.word(dialect, word, &mut effect),
            Token::Literal(text) => statement.literal(text, &mut effect),
            Token::Placeholder(number) => effect.placeholders = effect.placeholders.max(number),
            Token::Sign(sign) => statement.sign(dialect, sign, &mut effect),
            Token::Semicolon => std::mem::take(&mut statement).end(&mut effect),
        }
    }
    statement.end(&mut effect);
    effect
}

/// The first word of a text that is one statement, and the statement without what follows its semicolon. A query in
/// parentheses begins with the first word inside.
pub(super) fn single_statement(dialect: Dialect, sql: &str) -> Option<(&str, &str)> {
    let mut words = Words::new(dialect, sql);
    let (mut first, mut end) = (None, None);
    while let Some(token) = words.next() {
        match token {
            Token::Semicolon => end = end.or(Some(words.position() - 1)),
            _ if end.is_some() => return None,
            Token::Word(word) => first = first.or(Some(word)),
            _ => {}
        }
    }
    Some((first?, sql.get(..end.unwrap_or(sql.len()))?))
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
    /// The word that came last, and whether a sign or a literal came after it.
    last: &'a str,
    is_apart: bool,
    /// Before the name that came last stands that of a schema which is not the system's.
    is_foreign: bool,
    /// The schema before a point.
    schema: Option<&'a str>,
    /// How many parentheses are open.
    depth: u32,
    /// `ROLLBACK`, until it turns out to be `ROLLBACK TO`.
    is_rollback: bool,
    /// A call of `set_config` whose arguments are being read.
    setting: Option<SettingCall<'a>>,
}

/// `set_config(name, value, is_local)`, as far as it has been read.
struct SettingCall<'a> {
    /// How many parentheses are open inside of it.
    depth: u32,
    /// Which argument, from 0.
    argument: u32,
    /// The only word of the last argument; empty if there were more.
    word: Option<&'a str>,
}

impl<'a> Statement<'a> {
    fn word(&mut self, dialect: Dialect, word: &'a str, effect: &mut Effect) {
        let is = |known: &str| word.eq_ignore_ascii_case(known);
        if let Some(call) = &mut self.setting {
            call.word = Some(if call.word.is_some() { "" } else { word });
        }
        match self.first {
            None => {
                self.first = Some(word);
                self.first_word(dialect, word, effect);
            }
            Some(_) if self.is_rollback && is("to") => {
                self.is_rollback = false;
            }
            Some(first) => self.later_word(dialect, first, word, effect),
        }
        self.is_foreign = self.schema.take().is_some_and(|schema| !schema.eq_ignore_ascii_case("pg_catalog"));
        self.last = word;
        self.is_apart = false;
    }

    fn later_word(&mut self, dialect: Dialect, first: &str, word: &str, effect: &mut Effect) {
        let is = |known: &str| word.eq_ignore_ascii_case(known);
        let follows = |known: &str| !self.is_apart && self.last.eq_ignore_ascii_case(known);
        let made = is_any(self.last, &["create", "into", "local", "global", "replace"])
            || (dialect == Dialect::Sqlite && first.eq_ignore_ascii_case("create"));
        if made && (is("temp") || is("temporary")) {
            effect.add(undoing(dialect));
        }
        effect.forbids_writing |= is("only") && follows("read");
        if dialect == Dialect::Sqlite {
            return;
        }
        if is("pg_temp") || has_prefix(word, "pg_advisory_lock") || has_prefix(word, "pg_try_advisory_lock") {
            effect.add(Dirt::Session);
        } else if has_prefix(word, "pg_replication_origin_session")
            || (has_prefix(word, "pg_create_") && word.ends_with("_replication_slot"))
            || is("setseed")
        {
            effect.add(Dirt::Connection);
        } else if (is_any(first, &["with", "explain"]) && is_any(word, WRITING))
            || (is("into") && is_any(first, READING))
        {
            effect.writes = true;
            effect.add(Dirt::Suspect);
        } else if first.eq_ignore_ascii_case("set") && follows("set") {
            // `SET LOCAL`, and what else ends with the transaction.
            if !is_any(word, &["local", "transaction", "constraints"]) {
                effect.add(Dirt::Session);
            }
        } else if first.eq_ignore_ascii_case("declare") && is("hold") && follows("with") {
            effect.add(Dirt::Session);
        } else if first.eq_ignore_ascii_case("copy")
            && self.depth == 0
            && ((is("stdin") && follows("from")) || (is("stdout") && follows("to")))
        {
            effect.copies = true;
        }
    }

    fn first_word(&mut self, dialect: Dialect, word: &str, effect: &mut Effect) {
        let is_with = word.eq_ignore_ascii_case("with");
        let reads = is_any(word, READING) || (is_with && dialect == Dialect::Postgres);
        effect.writes |= !reads;
        if dialect == Dialect::Postgres && !reads && !is_any(word, QUIET) {
            // A trigger, a default or a rule may run.
            effect.add(Dirt::Suspect);
        }
        if word.eq_ignore_ascii_case("rollback") {
            self.is_rollback = true;
        } else if is_any(word, TRANSACTION) {
            effect.ends_transaction = true;
        } else if is_any(word, &["prepare", "deallocate", "discard", "load"]) {
            effect.add(Dirt::Connection);
        } else if dialect == Dialect::Postgres && is_any(word, &["do", "call"]) {
            effect.may_commit = true;
            // Only direct connections are reset after it: see `server_code`.
            effect.dirt = effect.dirt.max(Dirt::Session);
        } else if dialect == Dialect::Postgres && is_any(word, &["set", "declare"]) {
            // The next words tell.
        } else if !is_any(word, CLEAN) {
            effect.add(undoing(dialect));
        }
    }

    fn literal(&mut self, text: &str, effect: &mut Effect) {
        self.is_apart = true;
        if let Some(call) = &mut self.setting {
            call.word = Some("");
        }
        if self.first.is_some_and(|first| first.eq_ignore_ascii_case("do")) {
            effect.stays |= server_code::stays(text);
        }
    }

    fn sign(&mut self, dialect: Dialect, sign: u8, effect: &mut Effect) {
        match sign {
            b'(' => self.open(dialect, effect),
            b')' => self.close(effect),
            b',' => {
                if let Some(call) = self.setting.as_mut().filter(|call| call.depth == 0) {
                    call.argument += 1;
                    call.word = None;
                }
            }
            _ => self.schema = (!self.is_apart).then_some(self.last),
        }
        self.is_apart = true;
    }

    fn open(&mut self, dialect: Dialect, effect: &mut Effect) {
        self.depth += 1;
        let is_call = !self.is_apart && self.first.is_some();
        if let Some(call) = &mut self.setting {
            call.depth += 1;
        } else if is_call && dialect == Dialect::Postgres && self.last.eq_ignore_ascii_case("set_config") {
            self.setting = Some(SettingCall { depth: 0, argument: 0, word: None });
            return;
        }
        if dialect == Dialect::Postgres && is_call && (self.is_foreign || !is_harmless(self.last)) {
            effect.add(Dirt::Suspect);
        }
    }

    fn close(&mut self, effect: &mut Effect) {
        self.depth = self.depth.saturating_sub(1);
        let Some(call) = &mut self.setting else { return };
        if call.depth > 0 {
            call.depth -= 1;
            call.word = Some("");
            return;
        }
        let is_local =
            call.argument == 2 && call.word.is_some_and(|word| is_any(word, &["true", "on", "yes"]));
        self.setting = None;
        if !is_local {
            effect.add(Dirt::Session);
        }
    }

    fn end(self, effect: &mut Effect) {
        effect.ends_transaction |= self.is_rollback;
        if self.setting.is_some() {
            effect.add(Dirt::Session);
        }
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
