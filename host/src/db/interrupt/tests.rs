//! Tests of giving work up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Cancel, Interrupt, Reason, running};
use crate::db::QueryError;

/// Counts how often it was asked to stop.
#[derive(Default)]
struct Counts(AtomicU32);

impl Cancel for Counts {
    fn cancel(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn refused() -> QueryError {
    QueryError::database("stopped", "57014")
}

#[test]
fn only_a_running_statement_is_cancelled() {
    let (interrupt, counts) = (Arc::new(Interrupt::default()), Arc::new(Counts::default()));
    let cancel: Arc<dyn Cancel> = counts.clone();
    interrupt.enter(|| running(cancel.clone(), || Ok(())).unwrap());
    assert!(interrupt.interrupt(Reason::Deadline));
    assert_eq!(counts.0.load(Ordering::Relaxed), 0, "it was over");

    let interrupt = Arc::new(Interrupt::default());
    let outcome: Result<(), _> = interrupt.enter(|| {
        running(cancel.clone(), || {
            assert!(interrupt.interrupt(Reason::Disconnected));
            assert!(interrupt.interrupt(Reason::Deadline));
            Err(refused())
        })
    });
    assert_eq!(counts.0.load(Ordering::Relaxed), 1);
    assert!(matches!(outcome, Err(QueryError::Interrupted { reason: Reason::Disconnected })));
}

#[test]
fn work_that_was_given_up_begins_no_statement() {
    let interrupt = Arc::new(Interrupt::default());
    let cancel: Arc<dyn Cancel> = Arc::new(Counts::default());
    interrupt.interrupt(Reason::Deadline);
    let outcome: Result<(), _> =
        interrupt.enter(|| running(cancel.clone(), || unreachable!("the statement must not begin")));
    assert!(matches!(outcome, Err(QueryError::Interrupted { .. })));
    // The thread's next work is another matter.
    running(cancel.clone(), || Ok(())).unwrap();
}

#[test]
fn what_is_being_concluded_cannot_be_given_up() {
    let interrupt = Arc::new(Interrupt::default());
    interrupt.close().unwrap();
    assert!(!interrupt.interrupt(Reason::Deadline));
    let cancel: Arc<dyn Cancel> = Arc::new(Counts::default());
    interrupt.enter(|| running(cancel.clone(), || Ok(()))).unwrap();
    assert_eq!(interrupt.reopen(), Err(Reason::Deadline), "the wish was remembered");
}

#[test]
fn given_up_work_is_never_concluded() {
    let interrupt = Interrupt::default();
    interrupt.interrupt(Reason::Disconnected);
    assert_eq!(interrupt.close(), Err(Reason::Disconnected));
}
