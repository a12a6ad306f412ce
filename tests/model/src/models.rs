//! What threads do to one registry, and what is true whatever their order. loom fails where one waits for ever.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use loom::thread;

use crate::registry::{
    Author, Expected, InitFailure, Key, Overlay, Policy, Registry, RegistryError, Resource, Value,
};

/// A deadline that does not come.
const NEVER: Duration = Duration::from_secs(1_000_000);

/// How often a model's threads are interrupted where they would not have to be.
const PREEMPTIONS: usize = 3;

/// Counts values.
#[derive(Debug, Default)]
struct Counts {
    made: AtomicUsize,
    dropped: AtomicUsize,
}

#[derive(Debug)]
struct Thing(Arc<Counts>);

impl Drop for Thing {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

impl Resource for Thing {
    fn type_name(&self) -> &'static str {
        "Thing"
    }
    fn describe(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
    fn close(&self) {}
}

/// What the threads of a model share.
#[derive(Clone)]
struct World {
    registry: Arc<Registry>,
    counts: Arc<Counts>,
}

impl World {
    fn new() -> World {
        World { registry: Arc::new(Registry::new()), counts: Arc::default() }
    }

    fn make(&self) -> Result<Value, InitFailure> {
        self.counts.made.fetch_add(1, Ordering::SeqCst);
        Ok(Value::Host(Arc::new(Thing(Arc::clone(&self.counts)))))
    }

    fn ask(
        &self,
        key: &str,
        generation: u64,
        config: Option<&str>,
        timeout: Duration,
        init: impl FnOnce() -> Result<Value, InitFailure>,
    ) -> Result<Value, RegistryError> {
        let author = Author { plugin: "shop".into(), generation };
        let expected = Expected::from("Thing").with(Policy { restarts: false, config });
        self.registry.get_or_init(&author, &Overlay::committed(), &Key::new("", key), expected, timeout, init)
    }

    /// As a caller who waits as long as it takes.
    fn get(&self) -> Result<Value, RegistryError> {
        self.ask("db", 1, None, NEVER, || self.make())
    }

    fn remove(&self) -> bool {
        self.registry.remove(&Overlay::committed(), &Key::new("", "db")).is_ok()
    }

    /// Values that are alive, once nobody but the registry holds one.
    fn alive(&self) -> usize {
        self.counts.made.load(Ordering::SeqCst) - self.counts.dropped.load(Ordering::SeqCst)
    }

    fn spawn<R: 'static>(&self, body: impl FnOnce(&World) -> R + 'static) -> thread::JoinHandle<R> {
        let world = self.clone();
        thread::spawn(move || body(&world))
    }
}

/// Where a value is: two that are alive at once have different ones.
fn identity(value: &Value) -> *const () {
    match value {
        Value::Host(resource) => Arc::as_ptr(resource).cast(),
        Value::Data(_) | Value::Service(_) => unreachable!("the models make host handles"),
    }
}

fn join<R>(thread: thread::JoinHandle<R>) -> R {
    thread.join().expect("no thread of a model panics")
}

fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.max_branches = 20_000;
    let orders = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&orders);
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    println!("{} orders", orders.load(Ordering::Relaxed));
}

/// Three threads on a cold key: one init, and all get its value.
pub fn single_flight() {
    explore(|| {
        let world = World::new();
        let others = [world.spawn(|world| world.get().is_ok()), world.spawn(|world| world.get().is_ok())];
        assert!(world.get().is_ok());
        assert!(others.map(join).into_iter().all(|found| found));
        assert_eq!((world.counts.made.load(Ordering::SeqCst), world.alive()), (1, 1));
    });
}

/// An init that panics is told to who waited for it; the key is not poisoned, and the next one fills it.
pub fn panic_while_opening() {
    explore(|| {
        let world = World::new();
        let panics =
            world.spawn(|world| world.ask("db", 1, None, NEVER, || resume_unwind(Box::new("no"))).map(drop));
        let other = world.get().map(drop);
        let panicking = join(panics);
        let is_told = |outcome: &Result<(), RegistryError>| {
            matches!(outcome, Err(RegistryError::Init { failure: InitFailure::Panicked(_), .. }))
        };
        // Either waited for the other, or found what it had left.
        assert!(panicking.is_ok() || is_told(&panicking), "{panicking:?}");
        assert!(other.is_ok() || is_told(&other), "{other:?}");
        assert!(world.get().is_ok());
        assert_eq!(world.alive(), 1);
    });
}

/// A removal meets one who makes and one who waits: no value is lost, and none is found that was removed.
pub fn removal_while_waiting() {
    explore(|| {
        let world = World::new();
        let others = [world.spawn(|world| world.get().is_ok()), world.spawn(|world| world.get().is_ok())];
        let removed = usize::from(world.remove());
        assert!(others.map(join).into_iter().all(|found| found));
        let made = world.counts.made.load(Ordering::SeqCst);
        let present = world.registry.slots().len();
        assert_eq!(world.alive(), present.min(1));
        assert_eq!(made, removed + world.alive(), "made {made}, removed {removed}");
    });
}

/// An init is given up at its deadline while it ends, and made again: one of the two results is everybody's.
pub fn take_over_races_a_late_result() {
    explore(|| {
        let world = World::new();
        let slow = world.spawn(|world| world.ask("db", 1, None, Duration::ZERO, || world.make()));
        let (mine, is_taken_over) = match world.get() {
            Err(RegistryError::Init { failure: InitFailure::TimedOut(_), .. }) => (world.get(), true),
            other => (other, false),
        };
        let mine = identity(&mine.expect("who takes over succeeds"));
        match join(slow) {
            // In time, or too late: then it is given what is there instead.
            Ok(value) => assert_eq!(identity(&value), mine),
            // Its own patience was over: the other one was making it.
            Err(RegistryError::TimedOut { .. }) => assert!(!is_taken_over),
            // Too late, and before the other had made one.
            Err(RegistryError::Init { .. }) => assert!(is_taken_over),
            Err(other) => unreachable!("{other}"),
        }
        assert_eq!(identity(&world.get().expect("it is there")), mine, "a late result does not replace it");
        let made = world.counts.made.load(Ordering::SeqCst);
        assert_eq!((made, world.alive()), (1 + usize::from(is_taken_over), 1), "a late result is dropped");
    });
}

/// Two keys that need each other, made by two threads: both inits fail, and nobody waits for ever.
pub fn cycle_of_two() {
    explore(|| {
        let world = World::new();
        // Each thread is its own generation: the back-off of one after its own failures is time.
        let needs = |world: &World, generation: u64, own: &str, other: &str| {
            let of_init = world.clone();
            let (own, other) = (own.to_owned(), other.to_owned());
            let key = own.clone();
            world
                .ask(&key, generation, None, NEVER, move || {
                    let inner = of_init.clone();
                    let found = of_init.ask(&other, generation, None, NEVER, || {
                        inner
                            .ask(&own, generation, None, NEVER, || inner.make())
                            .map_err(|e| InitFailure::Err(e.to_string()))
                    });
                    found.map_err(|error| InitFailure::Err(error.to_string()))
                })
                .is_err()
        };
        let first = world.spawn(move |world| needs(world, 1, "a", "b"));
        let second = needs(&world, 2, "b", "a");
        assert!(join(first) && second);
        assert_eq!(world.alive(), 0);
    });
}

/// Two threads find a value of another configuration, while one of an older generation uses it: one successor,
/// and the old value is gone.
pub fn successor_takes_the_place() {
    explore(|| {
        let world = World::new();
        world.ask("db", 1, Some("1"), NEVER, || world.make()).expect("an empty key");
        let newer =
            world.spawn(|world| world.ask("db", 2, Some("2"), NEVER, || world.make()).map(drop).is_ok());
        assert!(world.ask("db", 1, Some("1"), NEVER, || unreachable!("there is one")).is_ok());
        assert!(world.ask("db", 2, Some("2"), NEVER, || world.make()).is_ok());
        assert!(join(newer));
        assert_eq!((world.counts.made.load(Ordering::SeqCst), world.alive()), (2, 1));
    });
}
