//! The end of values: the last code that is run of one is its maker's, and may take for ever.
//!
//! Owns: the thread that it is run on, beside everything else. Does not own: what keeps the code mapped meanwhile, and
//! tells the status page so; the value's own pin does.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

/// How long a drop is waited for, so that one that takes no time has happened when the next step is reported.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// Runs `last`, which drops what a plugin has made, and waits for its end as long as `patience` lasts. Tells whether it came.
pub(crate) fn part(patience: Duration, last: impl FnOnce() + Send + 'static) -> bool {
    let (ended, end) = mpsc::channel::<()>();
    let last = Arc::new(Mutex::new(Some(last)));
    let run = {
        let last = Arc::clone(&last);
        move || {
            // Goes with the thread, also when that ends by a panic.
            let _ended = ended;
            let last = last.lock().take();
            if let Some(last) = last {
                last();
            }
        }
    };
    if let Err(error) = thread::Builder::new().name("parting".to_owned()).spawn(run) {
        tracing::warn!("no thread for the drop of values, which is done in passing: {error}");
        let last = last.lock().take();
        if let Some(last) = last {
            last();
        }
        return true;
    }
    end.recv_timeout(patience) == Err(RecvTimeoutError::Disconnected)
}
