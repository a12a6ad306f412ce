//! Facts about values that make room: for the next generation's, for another configuration's.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::super::tests::{Closed, LONG, author, thing, thing_of};
use super::super::{Expected, InitFailure, Key, Overlay, Registry, RegistryError, Value};
use super::Policy;

const RESTARTS: Policy<'static> = Policy { restarts: true, config: None };

fn configured(config: &str) -> Policy<'_> {
    Policy { restarts: false, config: Some(config) }
}

fn key() -> Key {
    Key::new("", "db")
}

/// The name of the value that a generation of plugin `p` gets.
fn ask_in(
    registry: &Registry,
    overlay: &Overlay,
    generation: u64,
    policy: Policy<'_>,
    init: impl FnOnce() -> Result<Value, InitFailure>,
) -> Result<String, RegistryError> {
    let expected = Expected::from("Thing").with(policy);
    let value = registry.get_or_init(&author("p", generation), overlay, &key(), expected, LONG, init)?;
    Ok(value.describe()["name"].as_str().unwrap_or_default().to_owned())
}

fn ask(registry: &Registry, generation: u64, policy: Policy<'_>, name: &'static str) -> String {
    ask_in(registry, &Overlay::committed(), generation, policy, || thing(name)).unwrap()
}

#[test]
fn equal_configuration_keeps_and_another_one_replaces() {
    let registry = Registry::new();
    assert_eq!(ask(&registry, 1, configured("1"), "one"), "one");
    assert_eq!(ask(&registry, 2, configured("1"), "never"), "one");
    assert_eq!(registry.epoch().load(Ordering::Relaxed), 0);
    assert_eq!(ask(&registry, 2, configured("2"), "two"), "two");
    assert_eq!(registry.epoch().load(Ordering::Relaxed), 1);
    // Who does not care gets what there is, and so does a request that is still in older code.
    assert_eq!(ask(&registry, 3, Policy::default(), "never"), "two");
    assert_eq!(ask(&registry, 1, configured("1"), "never"), "two");
    let info = registry.slots().remove(0);
    assert_eq!((info.made, info.policy), (2, Some("configuration")));
    assert_eq!(info.config, Some(2.into()));
}

#[test]
fn value_restarts_once_with_each_generation() {
    let registry = Registry::new();
    assert_eq!(ask(&registry, 1, RESTARTS, "one"), "one");
    assert_eq!(ask(&registry, 1, RESTARTS, "never"), "one");
    assert_eq!(ask(&registry, 2, RESTARTS, "two"), "two");
    assert_eq!(ask(&registry, 2, RESTARTS, "never"), "two");
    assert_eq!(ask(&registry, 1, RESTARTS, "never"), "two");
    assert_eq!(registry.slots()[0].policy, Some("restart"));
}

#[test]
fn failed_successor_leaves_the_value_where_it_is() {
    let registry = Registry::new();
    ask(&registry, 1, configured("1"), "one");
    let fails = || Err(InitFailure::Err("no such host".to_owned()));
    let error = ask_in(&registry, &Overlay::committed(), 2, configured("2"), fails).unwrap_err();
    assert!(matches!(error, RegistryError::Init { .. }), "{error}");
    assert_eq!(ask(&registry, 1, configured("1"), "never"), "one");
    assert_eq!(registry.epoch().load(Ordering::Relaxed), 0);
    assert_eq!(ask(&registry, 2, configured("2"), "two"), "two");
}

/// While a generation loads, its new value is its own; it takes the old one's place with the generation.
#[test]
fn successor_is_published_with_its_generation_or_closed_with_it() {
    let registry = Registry::new();
    let closed = Closed::default();
    ask(&registry, 1, configured("1"), "one");
    for (is_published, expected) in [(false, "one"), (true, "two")] {
        let overlay = Overlay::open();
        let made = ask_in(&registry, &overlay, 2, configured("2"), || thing_of("two", &closed)).unwrap();
        assert_eq!(made, "two");
        assert_eq!(ask_in(&registry, &overlay, 2, configured("2"), || panic!("warm")).unwrap(), "two");
        let own = registry.get(&author("p", 2), &overlay, &key(), "Thing").unwrap();
        assert_eq!(own.describe()["name"], "two");
        assert_eq!(ask(&registry, 1, configured("1"), "never"), "one");
        if is_published {
            drop(registry.commit(&overlay))
        } else {
            registry.abandon(&overlay)
        }
        assert_eq!(ask(&registry, 1, configured("1"), "never"), expected);
        assert_eq!(closed.lock().len(), 1, "the abandoned one");
    }
}

/// A value is let go of after its successor can be found, and not before.
#[test]
fn old_value_goes_when_the_new_one_is_there() {
    struct Told<F: Fn()>(F);
    impl<F: Fn()> Drop for Told<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    let registry = std::sync::Arc::new(Registry::new());
    let seen = std::sync::Arc::new(parking_lot::Mutex::new(Vec::new()));
    let told = {
        let (registry, seen) = (std::sync::Arc::clone(&registry), std::sync::Arc::clone(&seen));
        Told(move || seen.lock().push(ask(&registry, 2, configured("2"), "never")))
    };
    let told = parking_lot::Mutex::new(Some(told));
    ask_in(&registry, &Overlay::committed(), 1, configured("1"), || {
        Ok(super::super::tests::dropping(Box::new(told.lock().take())))
    })
    .unwrap();
    assert_eq!(ask(&registry, 2, configured("2"), "two"), "two");
    assert_eq!(*seen.lock(), ["two"]);
}

#[test]
fn sixteen_threads_make_one_successor() {
    let registry = Registry::new();
    ask(&registry, 1, configured("1"), "one");
    let inits = AtomicUsize::new(0);
    let start = Barrier::new(16);
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                start.wait();
                let made = ask_in(&registry, &Overlay::committed(), 2, configured("2"), || {
                    inits.fetch_add(1, Ordering::SeqCst);
                    thing("two")
                });
                assert_eq!(made.unwrap(), "two");
            });
        }
    });
    assert_eq!(inits.into_inner(), 1);
    assert_eq!(registry.slots()[0].made, 2);
}

#[test]
fn another_plugin_with_another_configuration_is_refused() {
    let registry = Registry::new();
    ask(&registry, 1, configured("1"), "one");
    let other = |policy| {
        let expected = Expected::from("Thing").with(policy);
        registry
            .get_or_init(&author("q", 9), &Overlay::committed(), &key(), expected, LONG, || thing("never"))
    };
    let error = other(configured("2")).unwrap_err().to_string();
    assert!(error.starts_with("`db` was made by p generation 1 from another configuration"), "{error}");
    assert_eq!(other(configured("1")).unwrap().describe()["name"], "one");
    assert_eq!(other(RESTARTS).unwrap().describe()["name"], "one");
}

#[test]
fn key_that_nobody_asked_for_since_the_reload_is_an_orphan() {
    let registry = Registry::new();
    ask(&registry, 1, Policy::default(), "one");
    let is_orphan = || registry.slots()[0].is_orphan;
    assert!(!is_orphan());
    registry.note_reload("p", 2);
    assert!(is_orphan());
    ask(&registry, 1, Policy::default(), "never");
    assert!(is_orphan(), "a request in older code does not count");
    ask(&registry, 2, Policy::default(), "never");
    assert!(!is_orphan());
    // As it is for a generation that asks while it loads.
    ask(&registry, 3, Policy::default(), "never");
    registry.note_reload("p", 3);
    assert!(!is_orphan());
    registry.note_gone("p");
    assert!(is_orphan());
}
