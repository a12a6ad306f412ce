//! Facts about what is watched while a build fails, so that its repair is seen.

use super::*;

impl Project {
    /// Builds, and expects a failure; what is watched for its repair.
    fn fails(&self) -> Inputs {
        match self.build() {
            Err(BuildError::Compile { inputs, .. } | BuildError::Cargo { inputs, .. }) => *inputs,
            Err(error) => panic!("failed otherwise: {error}"),
            Ok(_) => panic!("it compiled"),
        }
    }

    /// Expects that a change of `name` is noticed, by event and by content, and that it repairs the build.
    fn is_repaired_by(&self, inputs: &Inputs, name: &str, text: &str) {
        let before = Fingerprint::of(inputs);
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        let real = watch::resolved(&path);
        assert!(inputs.concern(&real), "no event of {} counts", real.display());
        let is_watched = inputs.directories().into_iter().any(|(directory, depth)| match depth {
            watch::Depth::Flat => real.ancestors().skip(1).any(|above| above == directory),
            watch::Depth::Tree => real.starts_with(directory),
        });
        assert!(is_watched, "nothing around {} is watched", real.display());
        assert_ne!(Fingerprint::of(inputs), before, "the content of {name} does not count");
        self.build().unwrap_or_else(|error| panic!("{name} repairs nothing: {error}"));
    }
}

#[test]
fn deleted_and_restored_include_is_seen() {
    let project = Project::new();
    project.write("pages/a.html", "1");
    project.write("../outside.txt", "1");
    project.write(
        "src/lib.rs",
        "pub static A: &str = include_str!(\"../pages/a.html\");\npub static B: &str = include_str!(\"../../outside.txt\");\n",
    );
    project.build().unwrap();
    for name in ["pages/a.html", "../outside.txt"] {
        fs::remove_file(project.path(name)).unwrap();
        project.fails();
        // A second failure, and a new process, know as much as the first one.
        let target = project.target_dir().to_owned();
        let restarted = Builder::new(Cargo::of_process(), target, None);
        let Err(BuildError::Compile { inputs, .. }) =
            build(&restarted, &project.package(), &mut |_| {}, &Cancel::new())
        else {
            panic!("no compile error")
        };
        assert!(inputs.concern(&watch::resolved(&project.path(name))));
        project.is_repaired_by(&project.fails(), name, "2");
    }
}

#[test]
fn include_that_was_never_there_is_awaited() {
    let project = Project::new();
    project.write("src/lib.rs", "pub static A: &str = include_str!(\"../pages/a.html\");\n");
    fs::create_dir(project.path("pages")).unwrap();
    project.is_repaired_by(&project.fails(), "pages/a.html", "1");
}

#[test]
fn file_that_a_build_script_wants_is_seen_after_its_failure() {
    let project = Project::new();
    let script = "fn main() {\n    println!(\"cargo::rerun-if-changed=proto/a.proto\");\n    std::fs::read(\"proto/a.proto\").unwrap();\n}\n";
    project.write("build.rs", script);
    project.write("proto/a.proto", "1");
    project.build().unwrap();
    fs::remove_file(project.path("proto/a.proto")).unwrap();
    project.is_repaired_by(&project.fails(), "proto/a.proto", "2");

    // The first build ever fails.
    let fresh = Project::new();
    fresh.write("build.rs", script);
    fs::create_dir(fresh.path("proto")).unwrap();
    fresh.is_repaired_by(&fresh.fails(), "proto/a.proto", "1");
}

#[test]
fn sources_elsewhere_are_seen() {
    let project = Project::new();
    project.write(
        "Cargo.toml",
        "[package]\nname = \"thin\"\nedition = \"2024\"\n\n[lib]\npath = \"code/main.rs\"\ncrate-type = [\"cdylib\"]\n",
    );
    project.write("code/main.rs", "mod late;\n");
    project.is_repaired_by(&project.fails(), "code/late.rs", "");
    project.write("code/main.rs", "mod late;\nmod deep;\n");
    project.is_repaired_by(&project.fails(), "code/deep/mod.rs", "");
}

#[test]
fn manifests_of_other_packages_are_seen() {
    let project = Project::new();
    let package =
        |name: &str, more: &str| format!("[package]\nname = \"{name}\"\nedition = \"2024\"\n{more}");
    let needs = |name: &str| format!("[dependencies]\n{name} = {{ path = \"../{name}\" }}\n");
    project.manifest(&needs("one"));
    project.write("../one/Cargo.toml", &package("one", &needs("two")));
    project.write("../one/src/lib.rs", "");
    project.write("../two/Cargo.toml", &package("two", ""));
    project.write("../two/src/lib.rs", "");
    project.build().unwrap();
    project.write("../two/Cargo.toml", "[package\n");
    project.is_repaired_by(&project.fails(), "../two/Cargo.toml", &package("two", ""));

    // A sibling in the workspace.
    project.write("../Cargo.toml", "[workspace]\nmembers = [\"thin plugin\", \"sibling\"]\n");
    project.write("../sibling/Cargo.toml", &package("sibling", ""));
    project.write("../sibling/src/lib.rs", "");
    let described = project.package();
    project.write("../sibling/Cargo.toml", "[package\n");
    let Err(BuildError::Cargo { inputs, .. }) =
        build(&project.builder, &described, &mut |_| {}, &Cancel::new())
    else {
        panic!("it was built")
    };
    let Err(error) = Package::describe(project.builder.cargo(), &project.root) else {
        panic!("it is a package")
    };
    let at_start = Inputs::of_directory(&project.root, error.words());
    let sibling = watch::resolved(&project.path("../sibling/Cargo.toml"));
    assert!(at_start.concern(&sibling), "{error}");
    project.is_repaired_by(&inputs, "../sibling/Cargo.toml", &package("sibling", ""));
}

#[test]
fn configuration_counts_in_every_directory_above_and_at_home() {
    let project = Project::new();
    let home = project.directory.path().canonicalize().unwrap().join("cargo-home");
    let cargo = Cargo::new("cargo", [("CARGO_HOME".into(), home.clone().into())]);
    assert_eq!(cargo.user_configuration()[0], home.join("config.toml"));
    let inputs =
        Inputs::of_package(&Package { user_configuration: cargo.user_configuration(), ..project.package() });
    let above = project.root.parent().unwrap().to_owned();
    let files = [
        home.join("config.toml"),
        project.root.join(".cargo/config.toml"),
        above.join(".cargo/config.toml"),
        above.join("rust-toolchain.toml"),
        above.join("rust-toolchain"),
        Path::new("/.cargo/config").to_owned(),
    ];
    for file in &files {
        assert!(inputs.concern(file), "{} is not among them", file.display());
        let (parent, flat) = (file.parent().unwrap(), inputs.directories());
        assert!(flat.contains_key(parent), "{} is not watched", parent.display());
    }
    let before = Fingerprint::of(&inputs);
    fs::create_dir_all(above.join(".cargo")).unwrap();
    fs::write(&files[2], "[build]\n").unwrap();
    assert_eq!(Fingerprint::of(&inputs).changed_since(&before), [files[2].as_path()].into());
}

/// A link is replaced, far up on the way to the sources; what it leads to is watched from then on.
#[test]
fn replaced_links_are_seen_and_followed() {
    let project = Project::new();
    for release in ["release-1", "release-2"] {
        project.write(&format!("../{release}/pages/a.html"), "the same");
    }
    let swap = |release: &str| {
        symlink(release, project.path("../current.new")).unwrap();
        fs::rename(project.path("../current.new"), project.path("../current")).unwrap();
    };
    swap("release-1");
    project.write("src/lib.rs", "pub static A: &str = include_str!(\"../../current/pages/a.html\");\n");
    let mut inputs = project.build().unwrap().inputs;
    let link = project.root.parent().unwrap().join("current");
    let of = |release: &str| project.root.parent().unwrap().join(release).join("pages/a.html");
    assert!(inputs.concern(&link) && inputs.is_way(&link));
    assert!(inputs.directories().contains_key(project.root.parent().unwrap()));
    assert!(inputs.concern(&of("release-1")) && !inputs.concern(&of("release-2")));
    swap("release-2");
    assert!(inputs.is_way(&link));
    inputs.resolve();
    assert!(inputs.concern(&of("release-2")) && !inputs.concern(&of("release-1")));
}

#[test]
fn directory_that_a_build_script_names_counts_with_all_that_comes_into_it() {
    let project = Project::new();
    project.write("build.rs", "fn main() { println!(\"cargo::rerun-if-changed=proto\") }\n");
    project.write("proto/deep/a.proto", "1");
    let inputs = project.build().unwrap().inputs;
    assert_eq!(inputs.directories().get(&project.path("proto")), Some(&watch::Depth::Tree));
    let before = Fingerprint::of(&inputs);
    project.write("proto/deep/b.proto", "1");
    assert_ne!(Fingerprint::of(&inputs), before);
    assert!(!project.build().unwrap().fresh);
}
