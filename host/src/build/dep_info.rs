//! Reading what cargo, compilers and build scripts say about the files they have used.
//!
//! Owns the formats: dep-info files, the lines of a build script, and paths in the words of an error. Does not know
//! what becomes of the files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// How many paths of one error are believed. A message that quotes a whole listing is no list of inputs.
const MOST_NAMED: usize = 64;

/// The files named by a dep-info file in the format of make, in which only spaces are escaped.
pub(super) fn files(text: &str) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    let rules = text.lines().filter(|line| !line.starts_with('#'));
    for (_, list) in rules.filter_map(|line| line.split_once(": ")) {
        let mut file = String::new();
        for word in list.split(' ') {
            match word.strip_suffix('\\') {
                Some(head) => file.extend([head, " "]),
                None => {
                    file.push_str(word);
                    files.insert(PathBuf::from(std::mem::take(&mut file)));
                }
            }
        }
    }
    files.retain(|file| !file.as_os_str().is_empty());
    files
}

/// What a build script has asked to be run again for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reruns {
    /// Files and directories, as the script has written them: relative to its package.
    pub(super) paths: BTreeSet<PathBuf>,
    /// Whether it has asked for anything. If not, it is run again for every file of its package.
    pub(super) is_selective: bool,
}

impl Reruns {
    /// Reads what the script has printed, or the words of cargo that quote it.
    pub(super) fn of(output: &str) -> Reruns {
        let mut reruns = Reruns::default();
        for line in output.lines().map(str::trim_start) {
            let Some(directive) = line.strip_prefix("cargo::").or_else(|| line.strip_prefix("cargo:")) else {
                continue;
            };
            match directive.split_once('=') {
                Some(("rerun-if-changed", path)) => {
                    reruns.paths.insert(PathBuf::from(path));
                    reruns.is_selective = true;
                }
                Some(("rerun-if-env-changed", _)) => reruns.is_selective = true,
                _ => {}
            }
        }
        reruns
    }

    /// Reads the output that cargo has kept beside the `out_dir` of a script; `None` where there is none.
    pub(super) fn kept_beside(out_dir: &Path) -> Option<Reruns> {
        let output = fs::read(out_dir.parent()?.join("output")).ok()?;
        Some(Reruns::of(&String::from_utf8_lossy(&output)))
    }
}

/// The dep-info file that the compiler has written beside one of a crate's artifacts.
pub(super) fn beside(artifact: &Path) -> Option<PathBuf> {
    let stem = artifact.file_stem()?.to_str()?;
    let name = stem.strip_prefix("lib").unwrap_or(stem);
    let exact = artifact.with_file_name(format!("{name}.d"));
    if exact.is_file() {
        return Some(exact);
    }
    // A build script, alone in its directory, has a name of its own beside that of its crate.
    let mut around = fs::read_dir(artifact.parent()?).ok()?.flatten().map(|entry| entry.path());
    let is_of_script = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "d")
            && path
                .file_name()
                .is_some_and(|of| of.as_encoded_bytes().starts_with(crate_name(stem).as_bytes()))
    };
    around.find(is_of_script)
}

/// A target's name as its crate has it.
pub(super) fn crate_name(target: &str) -> String {
    target.replace('-', "_")
}

/// The paths that an error names: absolute ones, and relative ones in quotes, which are relative to one of `bases`.
///
/// They are only watched, so one that means something else costs nothing.
pub(super) fn named_in(words: &str, bases: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    let quotes = ['`', '"', '\''];
    // An apostrophe is a quote too, so every piece between two of a kind is looked at.
    let quoted = quotes.into_iter().flat_map(|quote| words.split(quote).skip(1));
    let spoken = words.split(|c: char| c.is_whitespace() || quotes.contains(&c) || "()[],".contains(c));
    // Where compilers and cargo point at.
    let pointed = words.lines().filter_map(|line| line.trim_start().strip_prefix("--> "));
    let mut found = BTreeSet::new();
    for word in quoted.chain(pointed).chain(spoken.filter(|word| word.starts_with('/'))) {
        let word = without_place(word);
        if word.contains('\n') || !word.contains(['/', '.']) || word == "/" || word.ends_with('/') {
            continue;
        }
        if Path::new(word).is_absolute() {
            found.insert(PathBuf::from(word));
        } else if !word.contains(char::is_whitespace) && !word.contains("::") {
            found.extend(bases.iter().map(|base| base.join(word)));
        }
    }
    // Where not even the directory is there, it is hardly a path.
    found.retain(|path| path.parent().is_some_and(Path::is_dir));
    found.into_iter().take(MOST_NAMED).collect()
}

/// `word` without the line, the column and the full stop that an error puts behind a path.
fn without_place(word: &str) -> &str {
    let word = word.trim_end_matches(['.', ',', ';', ':']);
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let place =
        |word: &str| word.rsplit_once(':').filter(|(_, tail)| digits(tail)).map(|(head, _)| head.len());
    let end = place(word).map_or(word.len(), |end| place(&word[..end]).unwrap_or(end));
    &word[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_are_unescaped_and_comments_passed_over() {
        let text = "/t/libx.so: /a/src/lib.rs /a/page\\ two.html\n\n/a/src/lib.rs:\n# env-dep:X=a: b\n";
        assert_eq!(files(text), ["/a/src/lib.rs", "/a/page two.html"].map(PathBuf::from).into());
    }

    #[test]
    fn scripts_that_name_nothing_are_told_from_those_that_name_variables() {
        let silent = Reruns::of("cargo::rustc-env=A=B\nhello\n");
        assert!(!silent.is_selective && silent.paths.is_empty());
        let variable = Reruns::of("cargo:rerun-if-env-changed=HOME\n");
        assert!(variable.is_selective && variable.paths.is_empty());
        let both = Reruns::of("  cargo:rerun-if-changed=a b\ncargo::rerun-if-changed=c\n");
        assert_eq!(both.paths, ["a b", "c"].map(PathBuf::from).into());
    }

    #[test]
    fn errors_name_absolute_paths_and_quoted_relative_ones() {
        let directory = tempfile::TempDir::new().unwrap();
        let base = directory.path();
        fs::create_dir(base.join("src")).unwrap();
        let at = base.display();
        let words = format!(
            "couldn't read `src/../page.html`: No such file\n --> {at}/src/a.rs:3:9\n --> src/b.rs:1:9\n\
             template \"x y.html\" not found in [\"{at}/src/deep\"] (at {at}/nowhere/at/all)"
        );
        let found = named_in(&words, &[base.to_owned()].into());
        for path in ["src/../page.html", "src/a.rs", "src/b.rs", "src/deep"] {
            assert!(found.contains(&base.join(path)), "no {path} in {found:?}");
        }
        assert!(!found.iter().any(|path| path.starts_with(base.join("nowhere"))), "{found:?}");
    }
}
