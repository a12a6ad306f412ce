//! What is kept, and where a roll-back goes.

use std::fs;

use super::super::kept::Kept;
use super::super::stage::{BuildId, Image, Stage};
use super::*;

struct Shelf {
    kept: Kept,
    dir: tempfile::TempDir,
}

impl Shelf {
    fn new() -> Shelf {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::of("shop", &dir.path().join("shop.so"), dir.path(), false);
        Shelf { kept, dir }
    }

    fn keep(&mut self, number: u64, content: &str) {
        let staged = self.dir.path().join(format!("shop-{number}.so"));
        fs::write(&staged, content).unwrap();
        self.kept.keep(number, id(content), &staged, self.dir.path()).unwrap();
    }

    fn files(&self) -> usize {
        let names = fs::read_dir(&self.kept.dir).unwrap().map(|entry| entry.unwrap().path());
        names.filter(|path| path.is_file()).count()
    }

    /// What a roll-back from `current` would bring back.
    fn target(&self, current: &str, to: Option<u64>) -> Result<String, String> {
        let at = self.kept.target(&"shop".into(), id(current), to).map_err(|error| error.to_string())?;
        Ok(String::from_utf8(self.staged(at).unwrap().bytes.to_vec()).unwrap())
    }

    /// The kept library at `at`, taken in.
    fn staged(&self, at: usize) -> Result<Image, OrderError> {
        let stage = Stage::open(&self.kept.dir.join("stage")).unwrap();
        self.kept.goods[at].stage(|kept| stage.copy("shop", kept))
    }

    fn go(&mut self, current: &str, to: Option<u64>, number: u64) {
        let at = self.kept.target(&"shop".into(), id(current), to).unwrap();
        self.kept.went_to(at, number, Some("it was worse")).unwrap();
    }
}

fn id(content: &str) -> BuildId {
    BuildId::of(content.as_bytes())
}

#[test]
fn the_three_newest_are_kept() {
    let mut shelf = Shelf::new();
    for (number, content) in [(1, "a"), (2, "b"), (3, "c"), (4, "d")] {
        shelf.keep(number, content);
    }
    assert_eq!(shelf.files(), 3);
    assert_eq!(shelf.target("d", None), Ok("c".to_owned()));
    assert_eq!(shelf.target("d", Some(2)), Ok("b".to_owned()));
    let gone =
        "generation 1 of `shop` is not kept; kept is the code of generation 2, generation 3, generation 4";
    assert_eq!(shelf.target("d", Some(1)), Err(gone.to_owned()));
}

/// Twice back is two steps back, and what was gone away from comes back by its number only.
#[test]
fn what_was_left_is_not_gone_back_to_unasked() {
    let mut shelf = Shelf::new();
    for (number, content) in [(1, "a"), (2, "b"), (3, "c")] {
        shelf.keep(number, content);
    }
    shelf.go("c", None, 4);
    shelf.go("b", None, 5);
    let nothing = "there is nothing to roll `shop` back to; \
                   kept is the code of generations 1 and 5, generations 2 and 4, generation 3";
    assert_eq!(shelf.target("a", None), Err(nothing.to_owned()));
    // A new edit lets the oldest of what was left go, not what serves well.
    shelf.keep(6, "e");
    assert_eq!(shelf.target("e", None), Ok("a".to_owned()));
    shelf.go("e", Some(3), 7);
    assert_eq!(shelf.target("c", None), Ok("a".to_owned()));
}

#[test]
fn one_content_is_kept_once_and_known_by_all_its_numbers() {
    let mut shelf = Shelf::new();
    for (number, content) in [(1, "a"), (2, "b"), (3, "a")] {
        shelf.keep(number, content);
    }
    assert_eq!(shelf.files(), 2);
    assert_eq!(shelf.target("b", Some(1)), Ok("a".to_owned()));
    assert_eq!(shelf.target("a", None), Ok("b".to_owned()));
    assert_eq!(shelf.target("a", Some(1)), Err("the code of generation 1 serves `shop` already".to_owned()));
}

/// What would be opened in the host's process is verified: a file that was changed is not.
#[test]
fn kept_library_that_was_changed_is_not_used() {
    let mut shelf = Shelf::new();
    shelf.keep(1, "a");
    fs::write(&shelf.kept.goods[0].path, "x").unwrap();
    let error = shelf.staged(0).unwrap_err().to_string();
    assert!(error.ends_with("cannot be used: its content has changed"), "{error}");
}

#[test]
fn a_probation_is_told_in_words() {
    assert_eq!(words_of(Duration::from_secs(10)), "10 s");
    assert_eq!(words_of(Duration::from_millis(1500)), "1500 ms");
}
