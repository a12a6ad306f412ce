//! Values that go deep: of types that contain themselves, such as lists made of boxes.
//!
//! To build one anew, or to drop it, takes a frame for each step down, as everything in Rust does that goes by itself. The
//! number of steps is the value's, so both are done on a stack of their own that is much larger than usual, and what is built
//! is bounded by it.
//!
//! # Invariants
//!
//! - What goes to another stack is used there alone: the thread that it belongs to waits until it is back.
#![expect(unsafe_code, reason = "lends values to another thread that need not be `Send`")]

use std::collections::HashSet;
use std::io;
use std::thread;

use super::layout::{Kind, Layout};

/// How large a stack is to be that a value is built on; where so much cannot be had, the next. Only what is used of it takes
/// memory, at most half.
pub(super) const TO_BUILD: &[usize] = &[256 << 20, 64 << 20];

/// The same for what has to go down to the end, wherever that is.
#[doc(hidden)]
pub const TO_DROP: &[usize] = &[1 << 30, 256 << 20, 64 << 20];

/// A stack of a known size, on which this thread is.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct Stack {
    top: usize,
    size: usize,
}

impl Stack {
    /// One of which nothing is known.
    #[doc(hidden)]
    pub fn here() -> Stack {
        Stack { top: here(), size: usize::MAX }
    }

    /// Whether so much of it is used that nothing more should be begun.
    pub(super) fn is_used_up(self) -> bool {
        // Under Miri locals lie anywhere, and the stack is as large as memory.
        !cfg!(miri) && self.top.abs_diff(here()) > self.size / 2
    }
}

/// Where the stack of this thread is at the moment.
#[inline(never)]
fn here() -> usize {
    let local = 0_u8;
    (&raw const local).addr()
}

/// What another thread may use while this one waits for it.
struct Lent<L>(L);

// SAFETY: made in `on_large_stack` alone, whose contract says that what it leads to may be used on another thread. Of the
// two threads one waits for the other as long as that has it, so they never use it at the same time.
unsafe impl<L> Send for Lent<L> {}

/// Runs `body` on a large stack, and waits for it. A panic of it goes on here.
///
/// # Errors
///
/// What the system said when there was no thread with such a stack to be had; `body` comes back with it.
///
/// # Safety
///
/// What `body` leads to may be used on another thread, as long as this one waits: values that are `Send`, by whatever
/// pointers, and nothing that is tied to this thread.
#[doc(hidden)]
pub unsafe fn on_large_stack<R, F>(sizes: &[usize], body: F) -> Result<R, (F, io::Error)>
where
    R: Send,
    F: FnOnce(Stack) -> R,
{
    let body = std::sync::Mutex::new(Some(Lent(body)));
    let mut refused = None;
    for &size in sizes {
        let outcome = thread::scope(|scope| {
            let run = || {
                let taken = body.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
                taken.map(|Lent(body)| body(Stack { top: here(), size }))
            };
            let thread = thread::Builder::new().name("deep".to_owned()).stack_size(size);
            thread.spawn_scoped(scope, run).map(thread::ScopedJoinHandle::join)
        });
        match outcome {
            Ok(Ok(Some(done))) => return Ok(done),
            Ok(Ok(None)) => break,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(error) => refused = Some(error),
        }
    }
    let body = body.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let Lent(body) = body.expect("taken only by the thread that runs it, which has returned above");
    Err((body, refused.unwrap_or_else(|| io::ErrorKind::OutOfMemory.into())))
}

impl Layout {
    /// Whether a value may contain another of the same type somewhere, and so go as deep as it likes.
    pub fn is_recursive(&self) -> bool {
        (0..self.types.len()).any(|number| self.leads_back(number))
    }

    /// Whether a type contains itself.
    pub(super) fn leads_back(&self, number: usize) -> bool {
        let mut seen = HashSet::new();
        let mut open = self.parts(number);
        while let Some(part) = open.pop() {
            if part == number {
                return true;
            }
            if seen.insert(part) {
                open.extend(self.parts(part));
            }
        }
        false
    }

    /// The types that a type is made of.
    pub(super) fn parts(&self, number: usize) -> Vec<usize> {
        match &self.types[number].kind {
            Kind::Leaf => Vec::new(),
            Kind::Struct(fields) => fields.iter().map(|field| field.ty).collect(),
            Kind::Enum(variants) => {
                variants.iter().flat_map(|variant| &variant.parts).map(|(_, ty)| *ty).collect()
            }
            Kind::Container(params) => params.clone(),
        }
    }
}
