//! What the code of a `DO` leaves behind, judged by its words.
//!
//! It decides only what may run behind a pooler; a session of its own is reset after any such code.

use super::words::{Dialect, Token, Words};
use super::{has_prefix, is_any};

/// Words after which a statement of PL/pgSQL begins.
const BEFORE_STATEMENT: &[&str] = &["begin", "then", "else", "loop", "declare", "execute", "perform"];
/// Statements whose work outlives the transaction.
const STAYING: &[&str] = &["listen", "prepare", "load", "discard", "reset", "set"];
/// What makes a `SET` end with its transaction.
const PASSING: &[&str] = &["local", "transaction", "constraints"];

/// Whether `code` may leave something in the session after its transaction.
pub(super) fn stays(code: &str) -> bool {
    let mut is_start = true;
    let mut last = "";
    let mut is_setting = false;
    for token in Words::new(Dialect::Postgres, code) {
        let Token::Word(word) = token else {
            // A statement that is run as a text is one, too.
            if matches!(token, Token::Literal(text) if stays(text)) {
                return true;
            }
            is_start |= token == Token::Semicolon;
            continue;
        };
        if std::mem::take(&mut is_setting) && !is_any(word, PASSING) {
            return true;
        }
        if is_start && is_any(word, STAYING) {
            is_setting = is_any(word, &["set"]);
            if !is_setting {
                return true;
            }
        }
        let is_temporary = is_any(word, &["temp", "temporary"])
            && is_any(last, &["create", "into", "local", "global", "replace"]);
        if is_temporary
            || is_any(word, &["pg_temp", "set_config"])
            || has_prefix(word, "pg_advisory_lock")
            || has_prefix(word, "pg_try_advisory_lock")
        {
            return true;
        }
        is_start = is_any(word, BEFORE_STATEMENT);
        last = word;
    }
    is_setting
}
