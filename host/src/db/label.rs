//! Whose statements a thread runs, for the database's own list of sessions.
//!
//! A label is a name with a number, such as a plugin and its generation; this room only passes it on.

use std::cell::RefCell;
use std::sync::Arc;

/// Who works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// A name.
    pub name: Arc<str>,
    /// Which one of that name.
    pub number: u64,
}

impl Label {
    /// As an `application_name`, which PostgreSQL cuts at 63 bytes.
    pub(super) fn application_name(&self) -> String {
        // What is not ASCII the server would replace; quotes and backslashes would need care in a text.
        let is_plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let name: String = self.name.chars().filter(is_plain).take(40).collect();
        format!("host {name} g{}", self.number)
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Label>> = const { RefCell::new(None) };
}

/// Runs `body` on behalf of `label`.
pub fn enter<R>(label: Label, body: impl FnOnce() -> R) -> R {
    /// Restores the outer label, also when `body` unwinds.
    struct Restore(Option<Label>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(self.0.take());
        }
    }
    let _restore = Restore(CURRENT.replace(Some(label)));
    body()
}

/// On whose behalf this thread works, if that is not `known` already.
pub(super) fn changed(known: Option<&Label>) -> Option<Label> {
    let differs = |current: &RefCell<Option<Label>>| {
        let current = current.borrow();
        current.as_ref().filter(|current| known != Some(*current)).cloned()
    };
    CURRENT.try_with(differs).ok().flatten()
}
