//! What each thread keeps of libraries: destructors to run, and whether a library started it.
//!
//! # Invariants
//!
//! - A destructor runs on the thread that registered it, in reverse order, thread-locals before keys: as
//!   libc would have run it.
//! - No lock is held while a destructor runs, and its pin is released after it has returned.
//! - Whose destructors run is decided once for each drain: all of a code's, or none.
//! - On a thread that goes on, nothing of a library is destroyed before its code is draining: whatever of it ran
//!   there afterwards would find its thread-locals gone, and abort.
//! - A thread that a library started releases it after the last of its destructors: nothing of the
//!   library is on its stack or ahead of it any more.
#![expect(unsafe_code, reason = "runs destructors of libraries")]

use std::cell::Cell;
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use super::code::{Code, lock, owner_of_key};
use super::real::{self, Destructor};
use super::stack::SignalStack;
use super::thread_state::{Scheduling, ThreadState};

/// A thread that keeps something of a library, or that attends.
pub(super) struct Record {
    /// The system's number of the thread.
    pub(super) id: libc::pid_t,
    /// What it keeps, in the order it came.
    pub(super) kept: Mutex<Vec<Kept>>,
    /// Whether there is something to drain. Written by whoever retires code, read at drain points.
    is_due: AtomicBool,
    /// What signal handlers run on. Written and taken by the thread itself.
    stack: Mutex<Option<SignalStack>>,
    /// How the thread was when it began to attend. Written and read by the thread itself.
    state: OnceLock<ThreadState>,
    /// Makes the thread come to a drain point soon.
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

/// Something of a library that a thread keeps. Each counts as one pin.
pub(super) struct Kept {
    pub(super) code: Arc<Code>,
    pub(super) what: What,
}

/// What it is.
#[derive(Clone, Copy)]
pub(super) enum What {
    /// The thread runs code of the library from its start.
    Started,
    /// A thread-local's destructor, with its object.
    Local(Destructor, Object),
    /// A value under a pthread key.
    Key(u32),
}

/// The address of a thread-local.
#[derive(Clone, Copy)]
pub(super) struct Object(*mut c_void);

// SAFETY: the address is followed by the thread that registered it only; another thread that looks
// through the records (to count, to purge) moves the number and no more.
unsafe impl Send for Object {}

/// Every thread that has a record.
static THREADS: Mutex<Vec<Arc<Record>>> = Mutex::new(Vec::new());

/// Stands for "this thread's record has ended".
const ENDED: *const Record = ptr::without_provenance(align_of::<Record>());

thread_local! {
    /// Null before the first use, [`ENDED`] after the thread's end; else from `Arc::into_raw`.
    static RECORD: Cell<*const Record> = const { Cell::new(ptr::null()) };
    /// Its drop is this thread's end, as far as libraries go.
    static END: End = const { End };
}

struct End;

impl Drop for End {
    fn drop(&mut self) {
        end();
    }
}

/// All records, for whoever wants to name the holders.
pub(super) fn records() -> Vec<Arc<Record>> {
    lock(&THREADS).clone()
}

/// This thread's record, made if need be; `None` at the very end of a thread.
fn record() -> Option<Arc<Record>> {
    let mut known = RECORD.get();
    if known == ENDED {
        return None;
    }
    if known.is_null() {
        END.try_with(|_| ()).ok()?;
        let record = Arc::new(Record {
            // SAFETY: it has no preconditions.
            id: unsafe { libc::gettid() },
            kept: Mutex::default(),
            is_due: AtomicBool::new(false),
            stack: Mutex::default(),
            state: OnceLock::new(),
            wake: OnceLock::new(),
        });
        lock(&THREADS).push(Arc::clone(&record));
        known = Arc::into_raw(record);
        RECORD.set(known);
    }
    // SAFETY: `known` comes from `Arc::into_raw`, and the count that it stands for is given up in `end`,
    // on this very thread, after which `RECORD` says so.
    unsafe {
        Arc::increment_strong_count(known);
        Some(Arc::from_raw(known))
    }
}

/// Declares that this thread comes to a drain point ([`drain_if_due`]) soon after `wake` was called.
///
/// To be called at the start of a thread of the host that will run code of libraries. `wake` is called
/// by other threads and must not wait for this one.
pub fn attend(wake: impl Fn() + Send + Sync + 'static) {
    if let Some(record) = record() {
        // A second declaration by the same thread would say the same.
        let _ = record.wake.set(Box::new(wake));
        record.take_signals();
        let _ = record.state.set(ThreadState::now());
    }
}

/// Whether this thread has something to drain.
#[inline]
pub fn is_due() -> bool {
    let known = RECORD.get();
    if known.is_null() || known == ENDED {
        return false;
    }
    // SAFETY: as in `record`.
    unsafe { &*known }.is_due.load(Ordering::Acquire)
}

/// A drain point: runs the destructors that this thread keeps of code that is draining, and puts back what code of
/// libraries has changed of the thread. Cheap when nothing is due.
#[inline]
pub fn drain_if_due() {
    if is_due()
        && let Some(record) = record()
    {
        record.is_due.store(false, Ordering::SeqCst);
        // A thread that does not attend is left as it is now.
        let found = record.state.get().is_none().then(|| (ThreadState::now(), Scheduling::now()));
        // Once, for all that follows: of code that begins to be drained meanwhile, keys would go before thread-locals,
        // whose destructors ask for their thread.
        let draining = record.draining();
        record.drain(|code| draining.iter().any(|known| ptr::eq(Arc::as_ptr(known), code)));
        match &found {
            Some((state, scheduling)) => record.put_back(state, scheduling),
            None => record.put_back_own(),
        }
    }
}

/// Asks every thread that attends to come to a drain point, where it puts back what code of libraries has changed of it.
pub(super) fn ask_to_put_back() {
    for record in records() {
        if let Some(wake) = record.wake.get() {
            record.is_due.store(true, Ordering::SeqCst);
            wake();
        }
    }
}

/// Runs all that this thread keeps of libraries, now that its work is done.
///
/// At the very end of the thread it would be run as well, but then the host's own thread-locals may be gone, on
/// which a destructor depends that calls the host: the log's, for one.
pub(super) fn drain_all() {
    let known = RECORD.get();
    if !known.is_null()
        && known != ENDED
        && let Some(record) = record()
    {
        record.drain(|_| true);
    }
}

/// Runs, when dropped, all that the thread keeps of libraries. For the outermost frame of a thread of the host
/// in which code of libraries may run.
#[derive(Debug)]
pub struct DrainOnDrop;

impl Drop for DrainOnDrop {
    fn drop(&mut self) {
        drain_all();
    }
}

/// Asks every thread that keeps a destructor of `code` to come to a drain point.
pub(super) fn ask_to_drain(code: &Arc<Code>) {
    for record in records() {
        let keeps = lock(&record.kept)
            .iter()
            .any(|kept| Arc::ptr_eq(&kept.code, code) && !matches!(kept.what, What::Started));
        if keeps {
            record.is_due.store(true, Ordering::SeqCst);
            if let Some(wake) = record.wake.get() {
                wake();
            }
        }
    }
}

/// Drops everything that threads keep of code that is no longer mapped; nothing is run.
pub(super) fn purge(code: &Arc<Code>) {
    for record in records() {
        lock(&record.kept).retain(|kept| {
            let keep = !Arc::ptr_eq(&kept.code, code);
            if !keep {
                kept.let_go();
            }
            keep
        });
    }
}

/// Books something on this thread; `false` when it is too late for that.
fn keep(code: &Arc<Code>, what: What) -> bool {
    let Some(record) = record() else { return false };
    code.hold();
    lock(&record.kept).push(Kept { code: Arc::clone(code), what });
    // Code that runs here in another destructor of its own: the drain point has to come again.
    if code.is_draining() {
        record.is_due.store(true, Ordering::SeqCst);
    }
    true
}

/// Books a thread-local's destructor. At the very end of a thread it is dropped: never run, as libc would.
pub(super) fn keep_local(code: &Arc<Code>, destructor: Destructor, object: *mut c_void) {
    keep(code, What::Local(destructor, Object(object)));
}

/// Books that this thread has a value under a key, or that it no longer has one.
pub(super) fn keep_key(code: &Arc<Code>, key: u32, has_value: bool) {
    let Some(record) = record() else { return };
    let is_it = |kept: &Kept| matches!(kept.what, What::Key(of) if of == key);
    let gone = {
        // Found and removed under one lock: another thread may be forgetting a key that stands before it.
        let mut kept = lock(&record.kept);
        match (kept.iter().position(is_it), has_value) {
            (Some(at), false) => Some(kept.remove(at)),
            (Some(_), true) | (None, false) => return,
            (None, true) => None,
        }
    };
    match gone {
        Some(gone) => gone.code.release(),
        None => {
            keep(code, What::Key(key));
        }
    }
}

/// Whether a library has started this thread.
pub(super) fn is_started_by_library() -> bool {
    let started =
        |record: Arc<Record>| lock(&record.kept).iter().any(|kept| matches!(kept.what, What::Started));
    record().is_some_and(started)
}

/// Forgets a key that its library deleted: its values are no longer destroyed by anybody.
pub(super) fn forget_key(key: u32) {
    for record in records() {
        lock(&record.kept).retain(|kept| {
            let keep = !matches!(kept.what, What::Key(of) if of == key);
            if !keep {
                kept.code.release();
            }
            keep
        });
    }
}

/// Begins a thread that a library started: takes over the pin that its creator made.
pub(super) fn begin(code: Arc<Code>) {
    match record() {
        Some(record) => {
            record.take_signals();
            lock(&record.kept).push(Kept { code, what: What::Started });
        }
        // Cannot be at the start of a thread; the pin stays, which errs on the side of never unmapping.
        None => std::mem::forget(code),
    }
}

/// Ends this thread's record: runs all it keeps.
fn end() {
    let Some(record) = record() else { return };
    record.drain(|_| true);
    lock(&record.stack).take();
    {
        let mut threads = lock(&THREADS);
        if let Some(at) = threads.iter().position(|other| Arc::ptr_eq(other, &record)) {
            threads.swap_remove(at);
        }
    }
    let known = RECORD.replace(ENDED);
    // SAFETY: the count that `RECORD` stood for, given up once.
    drop(unsafe { Arc::from_raw(known) });
    // What is left: that a library started this thread, and what a destructor would not stop registering.
    for kept in std::mem::take(&mut *lock(&record.kept)) {
        kept.let_go();
    }
}

impl Kept {
    /// Gives its pin up.
    fn let_go(&self) {
        match self.what {
            What::Started => self.code.leave_it(),
            What::Local(..) | What::Key(_) => self.code.release(),
        }
    }
}

/// How often a key may get a new value from its own destructor, as in libc.
const KEY_ROUNDS: usize = 4;
/// How often thread-locals may bring new ones.
const MOST_LOCALS: usize = 100_000;

impl Record {
    /// Gives the thread a stack for signal handlers, so that the overflow of its own can be reported.
    fn take_signals(&self) {
        let mut stack = lock(&self.stack);
        if stack.is_none() {
            *stack = SignalStack::install();
        }
    }

    /// The code that is draining, of all that this thread keeps something of.
    fn draining(&self) -> Vec<Arc<Code>> {
        let kept = lock(&self.kept);
        let draining = kept.iter().filter(|kept| kept.code.is_draining());
        draining.map(|kept| Arc::clone(&kept.code)).collect()
    }

    /// Puts back how this record's own thread was when it began to attend.
    fn put_back_own(&self) {
        if let Some(state) = self.state.get() {
            self.put_back(state, &Scheduling::of_process());
        }
    }

    fn put_back(&self, state: &ThreadState, scheduling: &Scheduling) {
        let mut changed = state.put_back();
        if self.keep_stack() {
            changed.push("signal stack");
        }
        let (rescheduled, refused) = scheduling.put_back();
        changed.extend(rescheduled);
        if !changed.is_empty() {
            tracing::debug!(
                changed = changed.join(", "),
                "put back what code of plugins had changed of this thread"
            );
        }
        if !refused.is_empty() {
            let refused = refused.join(", ");
            tracing::warn!(
                "code of a plugin has changed this thread's {refused}, and the system does not let it be put back"
            );
        }
    }

    /// Makes the signal stack the thread's own again; tells whether it was not.
    fn keep_stack(&self) -> bool {
        lock(&self.stack).as_ref().is_some_and(SignalStack::put_back)
    }

    /// Runs the destructors of the code that `of` names, on this record's own thread.
    fn drain(&self, of: impl Fn(&Code) -> bool) {
        for _ in 0..KEY_ROUNDS {
            let locals = self.drain_locals(&of);
            let keys = self.drain_keys(&of);
            if !locals && !keys {
                break;
            }
        }
    }

    fn drain_locals(&self, of: &impl Fn(&Code) -> bool) -> bool {
        let mut has_run = false;
        for _ in 0..MOST_LOCALS {
            let Some((code, destructor, object)) = self.take_last_local(of) else { break };
            has_run = true;
            // SAFETY: the library registered the two as belonging together, on this thread; it is mapped,
            // for the pin of this entry is released below.
            code.inside(|| unsafe { destructor(object.0) });
            // It may have unmapped the one that was set: without one the next destructor's fault would go undiagnosed.
            self.keep_stack();
            code.release();
        }
        has_run
    }

    fn take_last_local(&self, of: &impl Fn(&Code) -> bool) -> Option<(Arc<Code>, Destructor, Object)> {
        let mut kept = lock(&self.kept);
        let at = kept.iter().rposition(|kept| matches!(kept.what, What::Local(..)) && of(&kept.code))?;
        let What::Local(destructor, object) = kept[at].what else { return None };
        Some((kept.remove(at).code, destructor, object))
    }

    fn drain_keys(&self, of: &impl Fn(&Code) -> bool) -> bool {
        let keys: Vec<u32> = {
            let kept = lock(&self.kept);
            let key = |kept: &Kept| match kept.what {
                What::Key(key) if of(&kept.code) => Some(key),
                _ => None,
            };
            kept.iter().filter_map(key).collect()
        };
        for &key in &keys {
            let Some((code, destructor)) = owner_of_key(key) else { continue };
            // The pin outlives the destructor's run, whatever that does to the entry.
            code.hold();
            // SAFETY: it has no preconditions beyond a key of this process.
            let value = unsafe { libc::pthread_getspecific(key) };
            // SAFETY: a null value has nothing behind it.
            unsafe { real::set_specific(key, ptr::null()) };
            keep_key(&code, key, false);
            if let Some(destructor) = destructor
                && !value.is_null()
            {
                // SAFETY: the library gave this destructor to the key, and set the value on this thread.
                code.inside(|| unsafe { destructor(value) });
                self.keep_stack();
            }
            code.release();
        }
        !keys.is_empty()
    }
}
