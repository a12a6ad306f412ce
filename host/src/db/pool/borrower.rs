//! Who has a connection, for the report of one that does not come back.

use std::backtrace::Backtrace;
use std::fmt;
use std::sync::Arc;

use crate::db::clock::Moment;
use crate::db::interrupt;

/// Who borrows a connection. The pool knows no plugins; it can only say what this says.
///
/// `Display` completes "lent to ...".
pub trait Borrower: fmt::Display + Send + Sync {}

impl<T: fmt::Display + Send + Sync> Borrower for T {}

/// A connection's way out of the pool.
pub(super) struct Loan {
    pub(super) since: Moment,
    pub(super) borrower: Option<Arc<dyn Borrower>>,
    pub(super) backtrace: Option<Box<Backtrace>>,
    /// It has been reported as forgotten.
    pub(super) is_reported: bool,
    /// The piece of work, such as a request, that has it.
    pub(super) work: Option<usize>,
    /// It comes back when that work ends, and not before.
    pub(super) is_to_the_end: bool,
}

impl Loan {
    pub(super) fn now(borrower: Option<Arc<dyn Borrower>>, with_backtrace: bool) -> Loan {
        let backtrace = with_backtrace.then(|| Box::new(Backtrace::force_capture()));
        let work = interrupt::current_work();
        Loan { since: Moment::now(), borrower, backtrace, is_reported: false, work, is_to_the_end: false }
    }

    /// "lent to plugin ... for 61 s", and where.
    pub(super) fn describe(&self, now: Moment) -> String {
        let borrower = match &self.borrower {
            Some(borrower) => borrower.to_string(),
            None => "somebody".to_owned(),
        };
        let held = now.since(self.since).as_secs_f64();
        match &self.backtrace {
            Some(backtrace) => format!("lent to {borrower} for {held:.1} s, from here:\n{backtrace}"),
            None => format!("lent to {borrower} for {held:.1} s"),
        }
    }
}
