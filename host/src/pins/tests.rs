//! Facts about pins. Functions of libc stand in for code of a library: they are outside of the executable.
#![expect(unsafe_code, reason = "calls the functions that libraries would call")]

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use super::interpose::{compare, glibc};
use super::real::{COUNT, Destructor, NAMES};
use super::{Code, Unsupported, attend, drain_if_due, is_due};

/// Code that consists of one function of libc. Each test takes another, for the table is the process's.
fn code_at(function: Destructor) -> (Arc<Code>, Arc<AtomicUsize>) {
    let freed = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&freed);
    let start = function as usize;
    let code = Code::at(start..start + 1, move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    (code, freed)
}

fn function(address: *const ()) -> Destructor {
    // SAFETY: the tests pass functions of libc that take no argument, a number or a pointer.
    unsafe { std::mem::transmute::<*const (), Destructor>(address) }
}

/// Keeps a destructor on this thread, as `std` does for a thread-local.
fn touch_local(destructor: Destructor) {
    // SAFETY: the object is what the destructor takes: memory to free, or anything where it ignores it.
    unsafe { glibc::__cxa_thread_atexit_impl(Some(destructor), libc::malloc(16), ptr::null_mut()) };
}

/// A thread that does what it is told, one thing at a time.
struct Puppet {
    jobs: Option<Sender<Box<dyn FnOnce() + Send>>>,
    done: Receiver<()>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Puppet {
    fn new() -> Puppet {
        let (jobs, inbox) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let (tell, done) = mpsc::channel();
        let thread = thread::spawn(move || {
            for job in inbox {
                job();
                tell.send(()).unwrap();
            }
        });
        Puppet { jobs: Some(jobs), done, thread: Some(thread) }
    }

    fn run(&self, job: impl FnOnce() + Send + 'static) {
        self.jobs.as_ref().unwrap().send(Box::new(job)).unwrap();
        self.done.recv().unwrap();
    }

    fn end(mut self) {
        drop(self.jobs.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

#[test]
fn retired_code_is_drained_at_the_next_drain_point() {
    let destructor: Destructor = libc::free;
    let (code, freed) = code_at(destructor);
    let (woken, wakes) = mpsc::channel();
    let puppet = Puppet::new();
    puppet.run(move || {
        attend(move || woken.send(()).unwrap());
        touch_local(destructor);
        touch_local(destructor);
        drain_if_due();
    });
    assert_eq!(code.pins(), 2);
    assert!(code.held_by()[0].starts_with("2 thread-local destructors on thread "), "{:?}", code.held_by());

    code.retire();
    wakes.recv().unwrap();
    puppet.run(|| {
        assert!(is_due());
        drain_if_due();
    });
    assert_eq!((code.pins(), freed.load(Ordering::SeqCst)), (0, 1));
    assert_eq!(code.held_by(), Vec::<String>::new());
    puppet.end();
    code.forget();
}

/// As long as a service lives, say: its code runs on threads that have begun to use it before, and on others.
#[test]
fn retired_code_is_not_drained_while_it_is_used() {
    let destructor = function(libc::getppid as *const ());
    let (code, freed) = code_at(destructor);
    let (service, other) = (code.pin("service `x`"), code.pin("service `y`"));
    let puppet = Puppet::new();
    puppet.run(move || touch_local(destructor));
    code.retire();
    puppet.run(drain_if_due);
    assert_eq!(code.pins(), 3);
    drop(service);
    code.drain_unless_used();
    let late = Puppet::new();
    late.run(move || touch_local(destructor));
    puppet.run(drain_if_due);
    assert_eq!((code.pins(), freed.load(Ordering::SeqCst)), (3, 0));
    assert_eq!(code.held_by(), ["service `y`"], "what threads keep goes when that has gone");

    drop(other);
    assert_eq!(freed.load(Ordering::SeqCst), 1, "whoever unmaps is told");
    puppet.run(|| assert!(!is_due(), "and decides"));
    code.drain_unless_used();
    assert!(code.held_by()[0].starts_with("2 thread-local destructors on thread "), "{:?}", code.held_by());
    puppet.run(drain_if_due);
    late.run(drain_if_due);
    assert_eq!((code.pins(), freed.load(Ordering::SeqCst)), (0, 2));
    puppet.end();
    late.end();
    code.forget();
}

#[test]
fn code_that_is_being_drained_gets_no_new_user() {
    let destructor = function(libc::sched_yield as *const ());
    let (code, _) = code_at(destructor);
    let puppet = Puppet::new();
    puppet.run(move || touch_local(destructor));
    drop(code.try_pin("service `x`").expect("it is not even retired"));
    let user = code.pin("service `y`");
    code.retire();
    let second = code.try_pin("service `z`").expect("it is still used");
    drop((user, second));
    code.drain_unless_used();
    assert!(code.try_pin("service `late`").is_none());
    puppet.run(drain_if_due);
    assert_eq!((code.pins(), code.held_by()), (0, Vec::new()));
    puppet.end();
    code.forget();
}

#[test]
fn thread_that_ends_lets_go_of_all_it_kept() {
    let destructor = function(libc::closelog as *const ());
    let (code, freed) = code_at(destructor);
    let puppet = Puppet::new();
    puppet.run(move || touch_local(destructor));
    code.retire();
    assert_eq!((code.pins(), freed.load(Ordering::SeqCst)), (1, 0));
    puppet.end();
    assert_eq!((code.pins(), freed.load(Ordering::SeqCst)), (0, 1));
    code.forget();
}

#[test]
fn keys_of_a_library_are_counted_drained_and_given_back() {
    let destructor = function(libc::srand as *const ());
    let (code, _) = code_at(destructor);
    let mut key = 0;
    // SAFETY: `key` is writable.
    assert_eq!(unsafe { glibc::pthread_key_create(&mut key, Some(destructor)) }, 0);
    let set = move |value: usize| {
        // SAFETY: the value is a number to whoever destroys it.
        assert_eq!(unsafe { glibc::pthread_setspecific(key, ptr::without_provenance::<c_void>(value)) }, 0);
    };
    let puppet = Puppet::new();
    puppet.run(move || set(7));
    assert_eq!(code.pins(), 1);
    assert!(code.held_by()[0].starts_with("1 key destructor on thread "), "{:?}", code.held_by());
    puppet.run(move || set(0));
    assert_eq!(code.pins(), 0, "a null value has no destructor to run");

    puppet.run(move || set(9));
    code.retire();
    puppet.run(drain_if_due);
    assert_eq!(code.pins(), 0);
    puppet.run(move || {
        // SAFETY: the key exists.
        assert!(unsafe { libc::pthread_getspecific(key) }.is_null());
    });
    code.forget();
    // SAFETY: libc checks the number.
    let again = unsafe { glibc::pthread_key_delete(key) };
    assert_eq!(again, libc::EINVAL, "the key was given back");
    puppet.end();
}

#[test]
fn key_that_its_library_deletes_holds_nothing() {
    let destructor = function(libc::srand48 as *const ());
    let (code, _) = code_at(destructor);
    let mut key = 0;
    // SAFETY: `key` is writable.
    assert_eq!(unsafe { glibc::pthread_key_create(&mut key, Some(destructor)) }, 0);
    // SAFETY: the value is a number to whoever destroys it.
    assert_eq!(unsafe { glibc::pthread_setspecific(key, ptr::without_provenance::<c_void>(1)) }, 0);
    assert_eq!(code.pins(), 1);
    // SAFETY: the key exists.
    assert_eq!(unsafe { glibc::pthread_key_delete(key) }, 0);
    assert_eq!(code.pins(), 0);
    code.forget();
}

#[test]
fn pins_are_named_and_counted() {
    let (code, freed) = code_at(function(libc::abort as *const ()));
    let value = code.pin("value `x` of the registry");
    let again = code.pin("value `x` of the registry");
    assert_eq!(code.held_by(), ["value `x` of the registry (2 times)"]);
    drop(value);
    assert_eq!(code.held_by(), ["value `x` of the registry"]);
    code.retire();
    assert_eq!(freed.load(Ordering::SeqCst), 0);
    drop(again);
    assert_eq!((code.pins(), freed.load(Ordering::SeqCst)), (0, 1));
    code.forget();
}

#[test]
fn what_the_host_itself_registers_is_passed_on() {
    unsafe extern "C" fn count(object: *mut c_void) {
        // SAFETY: the counter below, which outlives the thread.
        unsafe { &*object.cast::<AtomicUsize>() }.fetch_add(1, Ordering::SeqCst);
    }
    let (code, _) = code_at(function(libc::perror as *const ()));
    let counter = Arc::new(AtomicUsize::new(0));
    let of_thread = Arc::clone(&counter);
    thread::spawn(move || {
        let object = Arc::as_ptr(&of_thread).cast_mut().cast();
        // SAFETY: `count` takes the counter, which the test keeps alive beyond the thread's end.
        assert_eq!(unsafe { glibc::__cxa_thread_atexit_impl(Some(count), object, ptr::null_mut()) }, 0);
    })
    .join()
    .unwrap();
    assert_eq!(counter.load(Ordering::SeqCst), 1, "libc has run it at the thread's end");
    assert_eq!(code.pins(), 0);
    code.forget();
}

#[test]
fn function_that_libraries_would_get_from_libc_fails_the_self_test() {
    let mut ours = [7; COUNT];
    ours[..3].copy_from_slice(&[1, 2, 3]);
    let found = |name: &std::ffi::CStr| match name.to_bytes() {
        b"__cxa_thread_atexit_impl" => 1,
        b"pthread_key_create" => 2,
        _ => 77,
    };
    let name = "__pthread_key_create".to_owned();
    assert_eq!(compare(ours, found), Err(Unsupported::NotExported { name }));
    assert_eq!(compare([77; COUNT], |_| 77), Ok(()));
}

/// The script that exports the definitions cannot read the list of them.
#[test]
fn what_is_defined_is_exported() {
    let script = include_str!("../../build.rs");
    for name in NAMES {
        assert!(script.contains(&format!("{name:?},")), "host/build.rs does not export {name:?}");
    }
    assert_eq!(script.matches("\",").count(), COUNT, "host/build.rs exports something else");
}
