//! Facts about upgrades that are given up while code of an author runs.
#![expect(unsafe_code, reason = "gives an upgrade up as the host does")]

use std::sync::atomic::AtomicU32;

use super::*;
use crate::abi::{UPGRADE_GIVEN_UP, UPGRADE_IN_CODE, UPGRADE_IN_HOOK, UPGRADE_READS};
use crate::resident::Old;
/// What the host does when the code that runs now has taken too long; tells what the upgrade was at.
fn give_up() -> u32 {
    PROGRESS.swap(UPGRADE_GIVEN_UP, Ordering::SeqCst)
}
static PROGRESS: AtomicU32 = AtomicU32::new(UPGRADE_READS);
static SEEN: AtomicU32 = AtomicU32::new(u32::MAX);
mod old {
    use super::*;
    #[derive(Resident)]
    pub(super) struct Defaulted {
        pub(super) kept: Counted,
    }
    #[derive(Resident)]
    pub(super) struct Hooked {
        pub(super) kept: Counted,
        pub(super) lock: Mutex<u8>,
    }
    #[derive(Resident, PartialEq, Eq, PartialOrd, Ord)]
    pub(super) struct Key(pub(super) String);
    #[derive(Resident)]
    pub(super) struct Keyed {
        pub(super) map: BTreeMap<Key, Item>,
    }
    #[derive(Resident)]
    pub(super) struct Item {
        pub(super) kept: Counted,
    }
}
mod new {
    use super::*;
    #[derive(Resident)]
    pub(super) struct Defaulted {
        pub(super) kept: Counted,
        #[resident(default = { SEEN.store(give_up(), Ordering::SeqCst); Counted::default() })]
        pub(super) added: Counted,
    }
    #[derive(Resident)]
    #[resident(upgrade = hook)]
    pub(super) struct Hooked {
        pub(super) kept: Counted,
    }
    fn hook(old: &Old<'_>) -> crate::Result<Hooked> {
        let lock = old.field::<Mutex<u8>>("lock")?;
        assert_eq!(*lock.lock(), 3);
        SEEN.store(give_up(), Ordering::SeqCst);
        assert!(old.field::<Mutex<u8>>("lock").is_err(), "it may be in use by others");
        Ok(Hooked { kept: Counted::default() })
    }
    #[derive(Resident, PartialEq, Eq)]
    pub(super) struct Key(String);
    impl PartialOrd for Key {
        fn partial_cmp(&self, other: &Key) -> Option<std::cmp::Ordering> {
            Some(self.cmp(other))
        }
    }
    impl Ord for Key {
        fn cmp(&self, other: &Key) -> std::cmp::Ordering {
            SEEN.store(give_up(), Ordering::SeqCst);
            self.0.cmp(&other.0)
        }
    }
    #[derive(Resident)]
    pub(super) struct Keyed {
        pub(super) map: BTreeMap<Key, Item>,
    }
    #[derive(Resident)]
    pub(super) struct Item {
        pub(super) kept: Counted,
        #[resident(default = 1)]
        pub(super) added: u8,
    }
}

/// What is given up in an author's code fails as soon as that returns, and leaves the older value alone.
#[test]
fn an_upgrade_that_was_given_up_looks_at_the_older_value_no_more() {
    #[track_caller]
    fn given_up<Old: Resident + Send + Sync, New: Resident + Send + Sync>(value: Old, at: u32) {
        PROGRESS.store(UPGRADE_READS, Ordering::SeqCst);
        // SAFETY: types that are described alike have the same values here; nothing is unchecked in them.
        let built =
            unsafe { edit::build_with::<Old, New>(value, ("::old::", "::new::"), &raw const PROGRESS) };
        let Err((_, words)) = built else { panic!("it was given up") };
        assert!(words.contains("given up"), "{words}");
        assert_eq!((SEEN.load(Ordering::SeqCst), PROGRESS.load(Ordering::SeqCst)), (at, UPGRADE_GIVEN_UP));
    }
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let before = ALIVE.load(Ordering::Relaxed);
    given_up::<_, new::Defaulted>(old::Defaulted { kept: Counted::new("kept") }, UPGRADE_IN_CODE);
    given_up::<_, new::Hooked>(
        old::Hooked { kept: Counted::new("kept"), lock: Mutex::new(3) },
        UPGRADE_IN_HOOK,
    );
    let entry = |name: &str| (old::Key(name.to_owned()), old::Item { kept: Counted::new(name) });
    given_up::<_, new::Keyed>(
        old::Keyed { map: BTreeMap::from(["a", "b", "c"].map(entry)) },
        UPGRADE_IN_CODE,
    );
    assert_eq!(ALIVE.load(Ordering::Relaxed), before);
}
