//! Facts about content that has changed where the times of files say that nothing has.

use super::*;

/// A source that puts `text` where it can be found in the library.
fn says(text: &str) -> String {
    format!("#[unsafe(no_mangle)]\npub static SAYS: [u8; {}] = *b\"{text}\";\n", text.len())
}

/// A source that puts the content of `file` there.
fn says_file(file: &str) -> String {
    format!("#[unsafe(no_mangle)]\npub static SAYS: &[u8] = include_bytes!(\"{file}\");\n")
}

impl Project {
    /// Replaces a file's content and puts its time back to what it was.
    fn rewrite_unseen(&self, name: &str, text: &str) {
        let path = self.path(name);
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, text).unwrap();
        fs::File::options().append(true).open(&path).unwrap().set_modified(time).unwrap();
    }

    /// Builds, and expects `text` in the library.
    fn expect(&self, text: &str) -> Built {
        let built = self.build().unwrap_or_else(|error| panic!("no library with `{text}`: {error}"));
        assert!(contains(&built.library, text), "the library does not say `{text}`");
        built
    }

    /// The same, by a builder that knows nothing but what the one before has left on disk.
    fn restart(&mut self) {
        let target = self.target_dir().to_owned();
        self.builder = Builder::new(Cargo::of_process(), target, None);
    }
}

fn contains(library: &Path, text: &str) -> bool {
    fs::read(library).unwrap().windows(text.len()).any(|part| part == text.as_bytes())
}

#[test]
fn content_decides_where_time_and_size_are_as_they_were() {
    let mut project = Project::new();
    project.write("src/lib.rs", &says("marker-1"));
    project.expect("marker-1");
    project.rewrite_unseen("src/lib.rs", &says("marker-2"));
    assert!(!project.expect("marker-2").fresh);
    assert!(project.expect("marker-2").fresh);

    // While nobody looked.
    project.rewrite_unseen("src/lib.rs", &says("marker-3"));
    project.restart();
    project.expect("marker-3");
    project.restart();
    assert!(project.expect("marker-3").fresh);

    // An older file than anything that was built, and one from the future.
    let source = project.path("src/lib.rs");
    let set_time = |time| fs::File::options().append(true).open(&source).unwrap().set_modified(time).unwrap();
    project.write("src/lib.rs", &says("marker-4"));
    set_time(SystemTime::UNIX_EPOCH);
    project.expect("marker-4");
    project.write("src/lib.rs", &says("marker-5"));
    set_time(SystemTime::now() + Duration::from_secs(86400));
    project.expect("marker-5");
    project.write("src/lib.rs", &says("marker-4"));
    set_time(SystemTime::UNIX_EPOCH);
    project.expect("marker-4");

    // A link to a file that was there before.
    project.write("../kept.rs", &says("marker-6"));
    fs::File::options()
        .append(true)
        .open(project.path("../kept.rs"))
        .unwrap()
        .set_modified(SystemTime::UNIX_EPOCH)
        .unwrap();
    fs::remove_file(&source).unwrap();
    symlink(project.path("../kept.rs"), &source).unwrap();
    project.expect("marker-6");
}

#[test]
fn content_decides_for_what_the_sources_include() {
    let project = Project::new();
    project.write("page.html", "marker-1");
    project.write("src/lib.rs", &says_file("../page.html"));
    project.expect("marker-1");
    project.rewrite_unseen("page.html", "marker-2");
    project.expect("marker-2");
}

#[test]
fn content_decides_for_path_dependencies_and_their_build_scripts() {
    let project = Project::new();
    project.manifest("[dependencies]\nhelper = { path = \"../helper\" }\n");
    project.write("src/lib.rs", "#[unsafe(no_mangle)]\npub fn says() -> (&'static str, &'static str) {\n    (helper::OWN, helper::MADE)\n}\n");
    project.write("../helper/Cargo.toml", "[package]\nname = \"helper\"\nedition = \"2024\"\n");
    let own =
        |text: &str| format!("pub const OWN: &str = \"{text}\";\npub const MADE: &str = env!(\"MADE\");\n");
    project.write("../helper/src/lib.rs", &own("own-1"));
    let script = |rerun: &str| {
        format!(
            "fn main() {{\n    {rerun}\n    let made = std::fs::read_to_string(\"data/made.txt\").unwrap();\n    println!(\"cargo::rustc-env=MADE={{made}}\");\n}}\n"
        )
    };
    project.write("../helper/build.rs", &script("println!(\"cargo::rerun-if-changed=data/made.txt\");"));
    project.write("../helper/data/made.txt", "made-1");
    project.expect("own-1");

    project.rewrite_unseen("../helper/src/lib.rs", &own("own-2"));
    project.expect("own-2");
    project.rewrite_unseen("../helper/data/made.txt", "made-2");
    project.expect("made-2");

    // A directory of which everything counts.
    project.write("../helper/build.rs", &script("println!(\"cargo::rerun-if-changed=data\");"));
    project.expect("made-2");
    project.rewrite_unseen("../helper/data/made.txt", "made-3");
    project.expect("made-3");

    // A script that names nothing: the whole package counts.
    project.write("../helper/build.rs", &script(""));
    project.expect("made-3");
    project.rewrite_unseen("../helper/data/made.txt", "made-4");
    let built = project.expect("made-4");
    let made = project.directory.path().canonicalize().unwrap().join("helper/data/made.txt");
    assert!(built.inputs.concern(&made));
    let before = Fingerprint::of(&built.inputs);
    fs::write(&made, "made-5").unwrap();
    assert_ne!(Fingerprint::of(&built.inputs), before);
}

/// A dependency is compiled from an edit in a build that is cancelled; then the edit is taken back, time and all.
#[test]
fn content_decides_after_a_cancelled_build() {
    let project = Project::new();
    project.manifest("[dependencies]\nhelper = { path = \"../helper\" }\n");
    project.write("../helper/Cargo.toml", "[package]\nname = \"helper\"\nedition = \"2024\"\n");
    project.write("../helper/src/lib.rs", "pub const SAYS: &str = \"marker-1\";\n");
    project
        .write("src/lib.rs", "#[unsafe(no_mangle)]\npub fn says() -> &'static str {\n    helper::SAYS\n}\n");
    project.expect("marker-1");
    let helper = project.path("../helper/src/lib.rs");
    let time = fs::metadata(&helper).unwrap().modified().unwrap();

    fs::write(&helper, "pub const SAYS: &str = \"marker-2\";\n").unwrap();
    let cancel = Cancel::new();
    let mut step = |step: Step<'_>| {
        if matches!(step, Step::Compiled { name: "helper", .. }) {
            cancel.cancel();
        }
    };
    let cancelled = build(&project.builder, &project.package(), &mut step, &cancel);
    assert!(matches!(cancelled, Err(BuildError::Cancelled)));

    fs::write(&helper, "pub const SAYS: &str = \"marker-1\";\n").unwrap();
    fs::File::options().append(true).open(&helper).unwrap().set_modified(time).unwrap();
    project.expect("marker-1");
}

/// Two plugins share a helper: what one build has found changed the other one must find changed too, and no crate is
/// compiled twice for that.
#[test]
fn content_decides_for_each_plugin_that_shares_a_crate() {
    let project = Project::new();
    let manifest = |name: &str| {
        format!(
            "[package]\nname = \"{name}\"\nedition = \"2024\"\n\n[lib]\ncrate-type = [\"cdylib\"]\n\n[dependencies]\nhelper = {{ path = \"../helper\" }}\n"
        )
    };
    project.write("../helper/Cargo.toml", "[package]\nname = \"helper\"\nedition = \"2024\"\n");
    project.write("../helper/src/lib.rs", "pub const SAYS: &str = \"marker-1\";\n");
    for name in ["one", "two"] {
        project.write(&format!("../{name}/Cargo.toml"), &manifest(name));
        let source = "#[unsafe(no_mangle)]\npub fn says() -> &'static str {\n    helper::SAYS\n}\n";
        project.write(&format!("../{name}/src/lib.rs"), source);
    }
    let build = |name: &str| {
        let package =
            Package::describe(project.builder.cargo(), &project.path(&format!("../{name}"))).unwrap();
        build(&project.builder, &package, &mut |_| {}, &Cancel::new()).unwrap()
    };
    let both = |text: &str| {
        let first = build("one");
        assert!(contains(&first.library, text));
        let second = build("two");
        assert!(contains(&second.library, text), "the other plugin does not say `{text}`");
        (first.compiled, second.compiled)
    };
    both("marker-1");
    project.rewrite_unseen("../helper/src/lib.rs", "pub const SAYS: &str = \"marker-2\";\n");
    assert_eq!(both("marker-2"), (2, 1));
    assert_eq!(both("marker-2"), (0, 0));
}

/// A host that did not keep records has left a target directory; what is in it is not believed.
#[test]
fn target_directory_without_records_is_not_believed() {
    let mut project = Project::new();
    project.write("src/lib.rs", &says("marker-1"));
    project.expect("marker-1");
    project.rewrite_unseen("src/lib.rs", &says("marker-2"));
    fs::remove_dir_all(project.target_dir().join("inputs")).unwrap();
    project.restart();
    project.expect("marker-2");
}

/// A process that was killed in a build has compiled nobody knows what.
#[test]
fn what_changed_since_a_killed_build_is_not_believed() {
    let mut project = Project::new();
    project.write("src/lib.rs", &says("marker-1"));
    project.expect("marker-1");
    let source = project.path("src/lib.rs");
    let time = fs::metadata(&source).unwrap().modified().unwrap();
    // As if the process had ended right after cargo, and before it noted what came of it.
    let records = project.target_dir().join("inputs");
    let noted: Vec<_> = fs::read_dir(&records).unwrap().map(|entry| entry.unwrap().path()).collect();
    let noted: Vec<_> = noted.into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect();
    fs::write(records.join("running"), "").unwrap();
    project.write("src/lib.rs", &says("marker-2"));
    project.expect("marker-2");
    noted.iter().for_each(|(bytes, path)| fs::write(path, bytes).unwrap());
    fs::write(records.join("running"), "").unwrap();
    fs::File::options()
        .append(true)
        .open(records.join("running"))
        .unwrap()
        .set_modified(SystemTime::UNIX_EPOCH)
        .unwrap();

    fs::write(&source, says("marker-1")).unwrap();
    fs::File::options().append(true).open(&source).unwrap().set_modified(time).unwrap();
    project.restart();
    project.expect("marker-1");
}

/// Releases beside each other, one name for the current one: each is another package of the same name and version.
#[test]
fn package_that_moves_is_compiled_from_where_it_is() {
    let project = Project::new();
    project.write("src/lib.rs", &says("marker-1"));
    project.expect("marker-1");
    let copy = project.path("../thin copy");
    fs::create_dir_all(copy.join("src")).unwrap();
    fs::copy(project.path("Cargo.toml"), copy.join("Cargo.toml")).unwrap();
    fs::write(copy.join("src/lib.rs"), says("marker-2")).unwrap();
    fs::File::options()
        .append(true)
        .open(copy.join("src/lib.rs"))
        .unwrap()
        .set_modified(SystemTime::UNIX_EPOCH)
        .unwrap();
    let build = |directory: &Path| {
        let package = Package::describe(project.builder.cargo(), directory).unwrap();
        let built = build(&project.builder, &package, &mut |_| {}, &Cancel::new()).unwrap();
        project.builder.release(&package.directory);
        built.library
    };
    project.builder.release(&project.root);
    assert!(contains(&build(&copy), "marker-2"));
    assert!(contains(&build(&project.root), "marker-1"));
    assert!(contains(&build(&copy), "marker-2"));
}

#[test]
fn what_an_operator_names_counts_and_what_is_ignored_does_not() {
    let project = Project::new();
    project.write("../untracked/page.txt", "1");
    project.write("src/notes.db", "1");
    let rules = WatchRules { watch: vec!["../untracked".into()], ignore: vec!["*.db".to_owned()] };
    let package = || project.package().with_rules(rules.clone());
    let build = || build(&project.builder, &package(), &mut |_| {}, &Cancel::new()).unwrap();
    let built = build();
    let second = build();
    assert!(second.fresh, "{second:?}");
    let page = project.directory.path().canonicalize().unwrap().join("untracked/page.txt");
    assert!(built.inputs.concern(&page));
    let before = Fingerprint::of(&built.inputs);
    project.write("src/notes.db", "2");
    assert_eq!(Fingerprint::of(&built.inputs), before);
    project.write("../untracked/more.txt", "1");
    assert_ne!(Fingerprint::of(&built.inputs), before);
    // cargo knows nothing of it, and a macro may have read it.
    assert!(!build().fresh);
}

/// A macro reads a whole directory and tells the compiler of the files that were there.
#[test]
fn file_that_comes_beside_an_included_one_counts() {
    let project = Project::new();
    project.write("pages/a.html", "marker-1");
    project.write("src/lib.rs", &says_file("../pages/a.html"));
    let built = project.expect("marker-1");
    let before = Fingerprint::of(&built.inputs);
    project.write("pages/app.db", "not one of them");
    assert_eq!(Fingerprint::of(&built.inputs), before);
    project.write("pages/deep/b.html", "marker-2");
    assert_ne!(Fingerprint::of(&built.inputs), before);
    assert!(!project.build().unwrap().fresh);
}

/// The compiler reads an edit that is taken back, time and all, before the build is over.
#[test]
fn edit_that_lasts_for_a_moment_of_the_build_is_not_in_the_library() {
    let project = Project::new();
    project.write("build.rs", "fn main() {}\n");
    project.write("src/lib.rs", &says("marker-1"));
    project.expect("marker-1");
    project.write("build.rs", "fn main() { }\n");
    let source = project.path("src/lib.rs");
    let time = fs::metadata(&source).unwrap().modified().unwrap();
    let mut compiled = 0;
    let mut step = |step: Step<'_>| {
        if let Step::Compiled { name: "thin", .. } = step {
            compiled += 1;
            match compiled {
                // The build script, and what it is for comes next.
                1 => fs::write(&source, says("marker-2")).unwrap(),
                2 => {
                    fs::write(&source, says("marker-1")).unwrap();
                    fs::File::options().append(true).open(&source).unwrap().set_modified(time).unwrap();
                }
                _ => {}
            }
        }
    };
    let built = build(&project.builder, &project.package(), &mut step, &Cancel::new()).unwrap();
    assert!(contains(&built.library, "marker-1"));
}

/// `host check` builds in the directory of a host that runs.
#[test]
fn what_another_process_has_compiled_is_known() {
    let project = Project::new();
    let other = Builder::new(Cargo::of_process(), project.target_dir().to_owned(), None);
    project.write("src/lib.rs", &says("marker-1"));
    project.expect("marker-1");
    project.rewrite_unseen("src/lib.rs", &says("marker-2"));
    let built = build(&other, &project.package(), &mut |_| {}, &Cancel::new()).unwrap();
    assert!(contains(&built.library, "marker-2"));
    project.rewrite_unseen("src/lib.rs", &says("marker-1"));
    project.expect("marker-1");
}
