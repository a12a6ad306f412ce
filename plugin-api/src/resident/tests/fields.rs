//! Which field takes what: by its own name, by a former one, or nothing; and what is said of what goes.
#![expect(clippy::box_collection, reason = "blocks within blocks are what goes wrong")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{build, upgraded};
use crate::Resident;
use crate::error::Result;
use crate::resident::Old;
use crate::sync::{Mutex, OnceCell};

/// Definitions as they were.
mod old {
    use super::*;

    #[derive(Resident)]
    pub(super) struct Kept {
        pub(super) name: Box<String>,
        pub(super) old: String,
    }

    #[derive(Resident)]
    pub(super) struct Locked {
        pub(super) totals: Mutex<Vec<u64>>,
        pub(super) hits: u64,
    }

    #[derive(Resident)]
    pub(super) struct Tuple(pub(super) String, pub(super) String, pub(super) u8);

    #[derive(Resident)]
    pub(super) enum Mode {
        New(Box<String>),
        Old(u64),
    }

    #[derive(Resident)]
    pub(super) struct Page {
        pub(super) text: String,
        pub(super) count: u8,
    }

    #[derive(Resident)]
    pub(super) enum Shape {
        Round { radius: u64 },
        Flat,
    }

    #[derive(Resident)]
    pub(super) struct Twice {
        pub(super) name: String,
    }

    #[derive(Resident)]
    pub(super) struct Hooked {
        pub(super) hits: AtomicU64,
        pub(super) names: Mutex<Vec<String>>,
        pub(super) cell: OnceCell<String>,
        pub(super) unseen: String,
    }
}

/// The same after an edit.
mod new {
    use super::*;

    #[derive(Resident, Debug)]
    pub(super) struct Kept {
        #[resident(rename = "old")]
        pub(super) name: Box<String>,
    }

    #[derive(Resident, Debug)]
    pub(super) struct Locked {
        #[resident(rename = "hits")]
        pub(super) totals: Mutex<Vec<u64>>,
        #[resident(default)]
        pub(super) hits: u64,
        pub(super) more: u8,
    }

    #[derive(Resident, Debug)]
    pub(super) struct Tuple(#[resident(rename = "1")] pub(super) String, pub(super) String);

    #[derive(Resident, Debug)]
    pub(super) enum Mode {
        #[resident(rename = "Old")]
        New(Box<String>),
    }

    #[derive(Resident, Debug)]
    pub(super) struct Page {
        pub(super) title: String,
        pub(super) count: u8,
    }

    #[derive(Resident, Debug)]
    pub(super) enum Shape {
        Flat,
        Round { width: u64 },
    }

    #[derive(Resident, Debug)]
    pub(super) struct Twice {
        #[resident(rename = "name")]
        pub(super) title: String,
        pub(super) name: String,
    }

    #[derive(Resident, Debug)]
    #[resident(upgrade = hook)]
    pub(super) struct Hooked {
        pub(super) hits: u64,
        pub(super) names: Vec<String>,
    }

    fn hook(old: &Old<'_>) -> Result<Hooked> {
        let hits = old.field::<AtomicU64>("hits")?;
        hits.fetch_add(1, Ordering::Relaxed);
        let names = std::mem::take(&mut *old.field::<Mutex<Vec<String>>>("names")?.lock());
        let _ = old.field::<OnceCell<String>>("cell")?.set("filled by the hook".to_owned());
        Ok(Hooked { hits: hits.load(Ordering::Relaxed), names })
    }
}

/// The same, where the author has said what was dropped: on the field, the variant or the type.
mod said {
    pub(super) mod new {
        use super::super::*;

        #[derive(Resident, Debug)]
        pub(in super::super) struct Page {
            #[resident(dropped = "text")]
            pub(in super::super) title: String,
            pub(in super::super) count: u8,
        }

        #[derive(Resident, Debug)]
        pub(in super::super) enum Shape {
            Flat,
            #[resident(dropped = "radius")]
            Round {
                width: u64,
            },
        }
    }
}

fn page() -> old::Page {
    old::Page { text: "text".into(), count: 7 }
}

#[test]
fn its_own_name_comes_before_a_former_one() {
    let kept = old::Kept { name: Box::new("name".into()), old: "old".into() };
    assert_eq!(*upgraded::<_, new::Kept>(kept).unwrap_or_else(|(_, words)| panic!("{words}")).name, "name");
    let locked = old::Locked { totals: Mutex::new(vec![1, 2]), hits: 7 };
    let Ok(locked) = upgraded::<_, new::Locked>(locked) else { panic!("it fits") };
    assert_eq!((locked.totals.lock().clone(), locked.hits, locked.more), (vec![1, 2], 7, 0));
    let tuple = old::Tuple("first".into(), "second".into(), 1);
    let Ok(tuple) = upgraded::<_, new::Tuple>(tuple) else { panic!("it fits") };
    assert_eq!((&*tuple.0, &*tuple.1), ("first", "second"));
}

#[test]
fn every_variant_that_a_new_one_may_have_been_has_to_fit() {
    for mode in [old::Mode::New(Box::default()), old::Mode::Old(5)] {
        let Err((_, words)) = upgraded::<_, new::Mode>(mode) else { panic!("a number is no box") };
        assert_eq!(words, "field `0`: what was `u64` is `Box<String>` now");
    }
}

#[test]
fn a_part_that_two_fields_could_take_refuses_the_edit() {
    let twice = old::Twice { name: "ann".into() };
    let Err((twice, words)) = upgraded::<_, new::Twice>(twice) else { panic!("both would take it") };
    assert!(words.contains("both `title` and `name`"), "{words}");
    assert_eq!(twice.name, "ann");
}

#[test]
fn a_field_that_goes_where_one_of_its_type_comes_refuses_the_edit_until_it_is_said_which() {
    let Err((kept, words)) = upgraded::<_, new::Page>(page()) else { panic!("it may be renamed") };
    for part in
        ["`text: String` is gone", "`title: String` is new", "rename = \"text\"", "dropped = \"text\""]
    {
        assert!(words.contains(part), "no {part} in {words}");
    }
    assert_eq!((&*kept.text, kept.count), ("text", 7));
    let round = || old::Shape::Round { radius: 3 };
    let Err((_, words)) = upgraded::<_, new::Shape>(round()) else { panic!("it may be renamed") };
    assert!(words.contains("`radius: u64` is gone") && words.contains("`width: u64` is new"), "{words}");

    // SAFETY: types that are described alike have the same values here; nothing is unchecked in them.
    let build_said = |page| unsafe {
        crate::testing::edit::build::<_, said::new::Page>(page, ("::old::", "::said::new::"))
    };
    let Ok(built) = build_said(page()) else { panic!("it is said") };
    assert_eq!(built.dropped(), ["Page.text: String"]);
    let page = built.commit();
    assert_eq!((&*page.title, page.count), ("", 7));
    // SAFETY: as above.
    let shape =
        unsafe { crate::testing::edit::build::<_, said::new::Shape>(round(), ("::old::", "::said::new::")) };
    let Ok(built) = shape else { panic!("it is said") };
    assert_eq!(built.dropped(), ["Shape::Round.radius: u64"]);
    assert!(matches!(*built.commit(), said::new::Shape::Round { width: 0 }));
    assert!(!matches!(old::Shape::Flat, old::Shape::Round { .. }));
}

#[test]
fn what_is_dropped_is_named_with_the_number_of_values() {
    type Old = (Vec<old::Kept>, HashMap<u8, old::Kept>);
    type New = (Vec<new::Kept>, HashMap<u8, new::Kept>);
    let kept = || old::Kept { name: Box::default(), old: String::new() };
    let value: Old = (vec![kept(), kept()], HashMap::from([(1, kept())]));
    let Ok(built) = build::<_, New>(value) else { panic!("it fits") };
    assert_eq!(built.dropped(), ["Kept.old: String (in 3 values)"]);
}

#[test]
fn a_hook_changes_copies_and_what_it_does_not_ask_for_is_dropped() {
    let value = || {
        let names = Mutex::new(vec!["ann".to_owned(), "bob".to_owned()]);
        old::Hooked { hits: 7.into(), names, cell: OnceCell::new(), unseen: "unseen".into() }
    };
    let Ok(built) = build::<_, new::Hooked>(value()) else { panic!("the hook allows it") };
    assert_eq!(built.dropped(), ["Hooked.unseen: String"]);
    let kept = built.undo();
    assert_eq!((kept.hits.load(Ordering::Relaxed), kept.names.lock().len(), kept.cell.get()), (7, 2, None));
    let Ok(new) = upgraded::<_, new::Hooked>(*kept) else { panic!("the hook allows it") };
    assert_eq!((new.hits, new.names.join(" ")), (8, "ann bob".to_owned()));
}
