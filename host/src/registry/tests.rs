//! Facts about the registry, with values that count.

use std::any::Any;
use std::sync::Barrier;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc;
use std::thread;

use super::*;

#[derive(Debug)]
struct Thing {
    name: &'static str,
    closed: Arc<parking_lot::Mutex<Vec<&'static str>>>,
}

impl Resource for Thing {
    fn type_name(&self) -> &'static str {
        "Thing"
    }
    fn describe(&self) -> serde_json::Value {
        serde_json::json!({ "name": self.name })
    }
    fn close(&self) {
        self.closed.lock().push(self.name);
    }
}

pub(super) type Closed = Arc<parking_lot::Mutex<Vec<&'static str>>>;

pub(super) fn thing(name: &'static str) -> Result<Value, InitFailure> {
    thing_of(name, &Closed::default())
}

pub(super) fn thing_of(name: &'static str, closed: &Closed) -> Result<Value, InitFailure> {
    Ok(Value::Host(Arc::new(Thing { name, closed: Arc::clone(closed) })))
}

pub(super) fn author(plugin: &str, generation: u64) -> Author {
    Author { plugin: plugin.into(), generation }
}

pub(super) const LONG: Duration = Duration::from_secs(20);

/// A value that drops something when it is dropped.
pub(super) fn dropping(with: Box<dyn Any + Send>) -> Value {
    struct Dropping(parking_lot::Mutex<Box<dyn Any + Send>>);
    impl fmt::Debug for Dropping {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("Dropping").field("is_locked", &self.0.is_locked()).finish()
        }
    }
    impl Resource for Dropping {
        fn type_name(&self) -> &'static str {
            "Thing"
        }
        fn describe(&self) -> serde_json::Value {
            serde_json::json!({ "name": "dropping" })
        }
        fn close(&self) {}
    }
    Value::Host(Arc::new(Dropping(parking_lot::Mutex::new(with))))
}

/// Asks as a published generation does.
fn ask(
    registry: &Registry,
    key: &str,
    init: impl FnOnce() -> Result<Value, InitFailure>,
) -> Result<Value, RegistryError> {
    registry.get_or_init(&author("p", 1), &Overlay::committed(), &Key::new("", key), "Thing", LONG, init)
}

#[test]
fn sixty_four_threads_on_a_cold_key_make_one_value() {
    let registry = Registry::new();
    let inits = AtomicUsize::new(0);
    let start = Barrier::new(64);
    thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                start.wait();
                ask(&registry, "db", || {
                    inits.fetch_add(1, Ordering::SeqCst);
                    thing("db")
                })
                .expect("every caller gets the value");
            });
        }
    });
    assert_eq!(inits.into_inner(), 1);
    let info = registry.slots().remove(0);
    assert_eq!((info.hits, info.failures), (63, 0));
}

#[test]
fn every_waiter_gets_the_error_of_the_attempt_it_waited_for() {
    let registry = Registry::new();
    let (entered, wait_entered) = mpsc::channel();
    let (release, wait_release) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let (registry, entered) = (&registry, entered);
        let first = scope.spawn(move || {
            ask(registry, "db", || {
                entered.send(()).unwrap();
                wait_release.recv().unwrap();
                Err(InitFailure::Err("no route".into()))
            })
        });
        wait_entered.recv().unwrap();
        let waiters: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| ask(registry, "db", || panic!("a waiter must not init"))))
            .collect();
        while registry.waits.len() < 8 {
            thread::yield_now();
        }
        release.send(()).unwrap();
        for caller in waiters.into_iter().chain([first]) {
            let error = caller.join().unwrap().unwrap_err();
            assert!(
                matches!(&error, RegistryError::Init { failure: InitFailure::Err(text), attempt: 1, .. } if text == "no route"),
                "{error}"
            );
        }
    });
    ask(&registry, "db", || thing("db")).expect("the first failure costs no back-off");
}

/// A key that is removed while its value is being made still has one init at a time, and one value.
#[test]
fn removing_a_key_does_not_let_a_second_init_begin() {
    let registry = Registry::new();
    let key = Key::new("", "db");
    let (entered, wait_entered) = mpsc::channel();
    let (release, wait_release) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let registry = &registry;
        let first = scope.spawn(move || {
            ask(registry, "db", || {
                entered.send(()).unwrap();
                wait_release.recv().unwrap();
                thing("first")
            })
        });
        wait_entered.recv().unwrap();
        let removed = registry.remove(&Overlay::committed(), &key);
        assert!(matches!(removed, Err(RegistryError::NotFound { .. })), "there is no value yet");
        let second = scope.spawn(|| ask(registry, "db", || thing("second")));
        while registry.waits.len() == 0 && !second.is_finished() {
            thread::yield_now();
        }
        release.send(()).unwrap();
        for caller in [first, second] {
            let value = caller.join().unwrap().expect("both get the value");
            assert_eq!(value.describe(), serde_json::json!({ "name": "first" }));
        }
    });
    drop(registry.remove(&Overlay::committed(), &key).expect("the one value is in the registry"));
}

/// Whoever found a slot just before it left the registry looks again, and makes nothing in it.
#[test]
fn a_slot_that_left_the_registry_is_not_filled() {
    let registry = Registry::new();
    let key = Key::new("", "db");
    ask(&registry, "db", || Err(InitFailure::Err("no route".into()))).unwrap_err();
    let found = registry.slot(&Overlay::committed(), &key, &author("p", 1), "Thing".into()).unwrap();
    let loading = Overlay::open();
    registry
        .get_or_init(&author("q", 1), &loading, &key, "Thing", LONG, || thing("staged"))
        .expect("the published slot is empty");
    drop(registry.commit(&loading));
    let turn = found.turn(&author("p", 1), "Thing".into(), LONG, &registry.waits);
    assert!(matches!(turn, Ok(Turn::Gone)), "the slot is not the key's any more");
    let value = ask(&registry, "db", || panic!("there is a value")).unwrap();
    assert_eq!(value.describe(), serde_json::json!({ "name": "staged" }));
}

#[test]
fn a_panicking_init_is_an_error_and_the_next_call_succeeds() {
    let registry = Registry::new();
    let error = ask(&registry, "db", || panic!("no config")).unwrap_err();
    assert_eq!(error.to_string(), "failed to make `db` (attempt 1, by p generation 1): panicked: no config");
    ask(&registry, "db", || thing("db")).unwrap();
}

#[test]
fn an_init_that_asks_for_its_own_key_is_an_error() {
    let registry = Registry::new();
    let mut inner = None;
    let outer = ask(&registry, "db", || {
        inner = Some(ask(&registry, "db", || thing("inner")));
        thing("outer")
    });
    outer.expect("the outer init decides for itself what the inner error means");
    let error = inner.unwrap().unwrap_err();
    assert!(matches!(&error, RegistryError::Recursive { path, .. } if path == "db -> db"), "{error}");
}

#[test]
fn a_cycle_across_three_threads_ends_in_errors() {
    let registry = Registry::new();
    let all_inside = Barrier::new(3);
    let pairs = [("a", "b"), ("b", "c"), ("c", "a")];
    let errors: Vec<RegistryError> = thread::scope(|scope| {
        let threads: Vec<_> = pairs
            .map(|(mine, other)| {
                let (registry, all_inside) = (&registry, &all_inside);
                scope.spawn(move || {
                    ask(registry, mine, || {
                        all_inside.wait();
                        ask(registry, other, || thing("never"))
                            .map_err(|error| InitFailure::Err(error.to_string()))
                    })
                })
            })
            .into();
        threads.into_iter().map(|t| t.join().unwrap().unwrap_err()).collect()
    });
    assert_eq!(errors.len(), 3);
    assert!(errors.iter().all(|e| e.to_string().contains("needs")), "{errors:?}");
}

#[test]
fn a_slow_key_does_not_delay_another() {
    let registry = Registry::new();
    let (entered, wait_entered) = mpsc::channel();
    let (release, wait_release) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let registry = &registry;
        scope.spawn(move || {
            ask(registry, "slow", || {
                entered.send(()).unwrap();
                wait_release.recv().unwrap();
                thing("slow")
            })
            .unwrap();
        });
        wait_entered.recv().unwrap();
        ask(registry, "fast", || thing("fast")).unwrap();
        assert_eq!(registry.slots().len(), 2);
        release.send(()).unwrap();
    });
}

#[test]
fn a_hung_init_is_given_up_and_its_late_result_is_dropped() {
    let registry = Registry::new();
    let closed = Closed::default();
    let (entered, wait_entered) = mpsc::channel();
    let (release, wait_release) = mpsc::channel::<()>();
    let short = Duration::from_millis(20);
    let ask_short = |init: &dyn Fn() -> Result<Value, InitFailure>| {
        registry.get_or_init(
            &author("p", 1),
            &Overlay::committed(),
            &Key::new("", "db"),
            "Thing",
            short,
            init,
        )
    };
    thread::scope(|scope| {
        let wait_release = parking_lot::Mutex::new(wait_release);
        let closed = &closed;
        let hung = scope.spawn(move || {
            ask_short(&|| {
                entered.send(()).unwrap();
                wait_release.lock().recv().unwrap();
                thing_of("late", closed)
            })
        });
        wait_entered.recv().unwrap();
        let error = ask_short(&|| thing("waiter")).unwrap_err();
        assert!(matches!(error, RegistryError::Init { failure: InitFailure::TimedOut(_), .. }), "{error}");
        ask_short(&|| thing("second")).expect("a later caller takes over");
        release.send(()).unwrap();
        let instead = hung.join().unwrap().expect("there is a value");
        assert_eq!(instead.describe()["name"], "second", "the late result is not handed out");
    });
    let kept = ask_short(&|| panic!("the key is warm")).unwrap();
    assert_eq!(kept.describe()["name"], "second");
}

#[test]
fn repeated_failures_back_off_but_a_new_generation_may_try_at_once() {
    let registry = Registry::new();
    let fail = || Err(InitFailure::Err("refused".into()));
    ask(&registry, "db", fail).unwrap_err();
    ask(&registry, "db", fail).unwrap_err();
    let error = ask(&registry, "db", || thing("too soon")).unwrap_err();
    assert!(matches!(error, RegistryError::BackingOff { attempts: 2, .. }), "{error}");
    assert_eq!(registry.slots()[0].state, SlotState::BackingOff);
    let key = Key::new("", "db");
    registry
        .get_or_init(&author("p", 2), &Overlay::committed(), &key, "Thing", LONG, || thing("db"))
        .expect("new code is not punished for the old");
}

#[test]
fn another_type_is_refused_with_both_names_and_the_creator() {
    let registry = Registry::new();
    ask(&registry, "db", || thing("db")).unwrap();
    let error = registry
        .get_or_init(&author("q", 1), &Overlay::committed(), &Key::new("", "db"), "Other", LONG, || {
            thing("x")
        })
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("`db` holds a `Thing` (made by p generation 1) and not a `Other`"), "{error}");
}

#[test]
fn an_abandoned_generation_leaves_nothing_and_closes_what_it_made_in_reverse() {
    let registry = Registry::new();
    let overlay = Overlay::open();
    let closed = Closed::default();
    for name in ["first", "second"] {
        let key = Key::new("", name);
        registry
            .get_or_init(&author("p", 2), &overlay, &key, "Thing", LONG, || thing_of(name, &closed))
            .unwrap();
        registry.get(&author("p", 2), &overlay, &key, "Thing").expect("it sees its own");
        registry.get(&author("p", 1), &Overlay::committed(), &key, "Thing").expect_err("others do not");
    }
    registry.abandon(&overlay);
    assert_eq!(*closed.lock(), ["second", "first"]);
    assert!(registry.slots().is_empty());
    let late = registry
        .get_or_init(&author("p", 2), &overlay, &Key::new("", "late"), "Thing", LONG, || thing("late"))
        .unwrap_err();
    assert!(matches!(late, RegistryError::Abandoned { .. }), "{late}");
}

#[test]
fn a_committed_generation_publishes_what_it_made_unless_somebody_was_first() {
    let registry = Registry::new();
    let (overlay, closed) = (Overlay::open(), Closed::default());
    for name in ["free", "contested"] {
        let key = Key::new("", name);
        registry
            .get_or_init(&author("p", 2), &overlay, &key, "Thing", LONG, || thing_of(name, &closed))
            .unwrap();
    }
    ask(&registry, "contested", || thing("served")).unwrap();
    drop(registry.commit(&overlay));
    assert!(closed.lock().is_empty(), "its generation may still hold it");
    let kept = ask(&registry, "contested", || panic!("warm")).unwrap();
    assert_eq!(kept.describe()["name"], "served");
    ask(&registry, "free", || panic!("published")).unwrap();
}

#[test]
fn a_removed_value_stays_with_its_holders() {
    let registry = Registry::new();
    let held = ask(&registry, "db", || thing("old")).unwrap();
    drop(registry.remove(&Overlay::committed(), &Key::new("", "db")).unwrap());
    registry.remove(&Overlay::committed(), &Key::new("", "db")).unwrap_err();
    let fresh = ask(&registry, "db", || thing("new")).unwrap();
    assert_eq!(
        (held.describe()["name"].clone(), fresh.describe()["name"].clone()),
        ("old".into(), "new".into())
    );
}

#[test]
fn reloads_are_counted_for_the_plugins_that_use_the_value() {
    let registry = Registry::new();
    ask(&registry, "db", || thing("db")).unwrap();
    registry.note_reload("p", 2);
    registry.note_reload("p", 2);
    registry.note_reload("stranger", 2);
    assert_eq!(registry.slots()[0].reloads_survived, 2);
}

#[test]
fn shutdown_closes_in_reverse_order_of_creation() {
    let registry = Registry::new();
    let closed = Closed::default();
    for name in ["a", "b", "c"] {
        ask(&registry, name, || thing_of(name, &closed)).unwrap();
    }
    registry.shutdown();
    assert_eq!(*closed.lock(), ["c", "b", "a"]);
}

/// Who is gone, was refused or has gone back to other code uses nothing, and neither does what still runs of it.
#[test]
fn who_does_not_serve_uses_nothing() {
    let registry = Registry::new();
    let key = Key::new("", "db");
    let ask = |plugin: &str, generation: u64, overlay: &Overlay| {
        registry
            .get_or_init(&author(plugin, generation), overlay, &key, "Thing", LONG, || thing("db"))
            .unwrap();
    };
    let others = || -> Vec<String> {
        let slot = registry.slots.read()[&key].clone();
        slot.other_users("p").iter().map(ToString::to_string).collect()
    };
    ask("p", 1, &Overlay::committed());
    // Refused while it was loading.
    let loading = Overlay::open();
    ask("refused", 1, &loading);
    assert_eq!(others(), [""; 0]);
    registry.abandon(&loading);
    ask("refused", 1, &loading);
    assert_eq!(others(), [""; 0]);
    // Published.
    let loading = Overlay::open();
    ask("q", 3, &loading);
    drop(registry.commit(&loading));
    assert_eq!(others(), ["q generation 3"]);
    // Deleted, with a thread of it that runs on; and back.
    registry.note_gone("q");
    assert_eq!(others(), [""; 0]);
    ask("q", 3, &Overlay::committed());
    assert_eq!(others(), [""; 0]);
    registry.note_here("q");
    ask("q", 1, &Overlay::committed());
    assert_eq!(others(), ["q generation 1"]);
    registry.note_gone("q");
    // The second generation uses it, and is rolled back to the first, which does not.
    ask("r", 2, &Overlay::committed());
    registry.note_reload("r", 3);
    assert_eq!(others(), ["r generation 3"]);
    registry.note_roll_back("r", 1);
    assert_eq!(others(), [""; 0]);
    // The first uses it as well, so what serves after the roll-back does.
    ask("r", 1, &Overlay::committed());
    registry.note_reload("r", 5);
    registry.note_roll_back("r", 1);
    assert_eq!(others(), ["r generation 5"]);
    // Rolled back to other code, which has asked already.
    ask("s", 2, &Overlay::committed());
    registry.note_reload("s", 3);
    ask("s", 3, &Overlay::committed());
    registry.note_roll_back("s", 1);
    assert_eq!(others(), ["r generation 5", "s generation 3"]);
}

/// A configuration is the maker's to change, and anybody's once the maker is gone.
#[test]
fn a_value_whose_maker_is_gone_follows_who_is_left() {
    let registry = Registry::new();
    let key = Key::new("", "db");
    let ask = |plugin: &str, generation: u64, config: &str| {
        let expected = Expected::from("Thing").with(Policy { restarts: false, config: Some(config) });
        registry.get_or_init(&author(plugin, generation), &Overlay::committed(), &key, expected, LONG, || {
            thing("db")
        })
    };
    ask("p", 7, "1").unwrap();
    assert!(matches!(ask("q", 2, "2"), Err(RegistryError::Misconfigured { .. })));
    registry.note_gone("p");
    ask("q", 2, "2").expect("nobody else decides");
    assert_eq!(registry.slots()[0].made, 2);
}
