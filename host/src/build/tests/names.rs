//! Facts about packages that share a name.

use super::*;

/// A package that says `text`, in a directory of its own.
fn package(project: &Project, directory: &str, name: &str, lib: &str, text: &str) -> Package {
    let manifest =
        format!("[package]\nname = \"{name}\"\nedition = \"2024\"\n\n[lib]\n{lib}\n\n[workspace]\n");
    project.write(&format!("../{directory}/Cargo.toml"), &manifest);
    let source = format!("#[unsafe(no_mangle)]\npub static SAYS: [u8; {}] = *b\"{text}\";\n", text.len());
    let file = if lib.contains("code/main.rs") { "code/main.rs" } else { "src/lib.rs" };
    project.write(&format!("../{directory}/{file}"), &source);
    Package::describe(project.builder.cargo(), &project.path(&format!("../{directory}"))).unwrap()
}

fn says(library: &Path, text: &str) -> bool {
    fs::read(library).unwrap().windows(text.len()).any(|part| part == text.as_bytes())
}

/// Builds both, one after the other and again after a restart, and expects each to be its own; both stay on disk.
fn are_told_apart(project: &Project, one: &Package, other: &Package) {
    let target = project.target_dir().to_owned();
    let restarted = Builder::new(Cargo::of_process(), target, None);
    for builder in [&project.builder, &restarted] {
        builder.claim(one);
        builder.claim(other);
        for _ in 0..2 {
            let first = build(builder, one, &mut |_| {}, &Cancel::new()).unwrap();
            let second = build(builder, other, &mut |_| {}, &Cancel::new()).unwrap();
            assert!(says(&first.library, "this-is-one"), "{} is of another package", first.library.display());
            assert!(
                says(&second.library, "this-is-other"),
                "{} is of another package",
                second.library.display()
            );
        }
    }
    // Nothing to be compiled after a restart.
    assert!(build(&restarted, one, &mut |_| {}, &Cancel::new()).unwrap().fresh);
    assert!(build(&restarted, other, &mut |_| {}, &Cancel::new()).unwrap().fresh);
}

const CDYLIB: &str = "crate-type = [\"cdylib\"]";

#[test]
fn two_packages_with_one_library_name_are_told_apart() {
    let project = Project::new();
    let lib = format!("name = \"handlers\"\n{CDYLIB}");
    let one = package(&project, "a", "shop", &lib, "this-is-one");
    let other = package(&project, "b", "billing", &lib, "this-is-other");
    are_told_apart(&project, &one, &other);
}

#[test]
fn names_that_differ_by_a_dash_are_told_apart() {
    let project = Project::new();
    let one = package(&project, "a", "my-plug", "crate-type = [\"rlib\", \"cdylib\"]", "this-is-one");
    let other =
        package(&project, "b", "my_plug", &format!("path = \"code/main.rs\"\n{CDYLIB}"), "this-is-other");
    are_told_apart(&project, &one, &other);
}

#[test]
fn packages_of_one_name_in_two_directories_are_told_apart() {
    let project = Project::new();
    let one = package(&project, "a", "shop", CDYLIB, "this-is-one");
    let other = package(&project, "b", "shop", CDYLIB, "this-is-other");
    are_told_apart(&project, &one, &other);
}

#[test]
fn member_of_a_workspace_and_a_package_of_its_name_are_told_apart() {
    let project = Project::new();
    project.write("../ws/Cargo.toml", "[workspace]\nmembers = [\"shop\"]\nresolver = \"3\"\n");
    let manifest = format!("[package]\nname = \"shop\"\nedition = \"2024\"\n\n[lib]\n{CDYLIB}\n");
    project.write("../ws/shop/Cargo.toml", &manifest);
    project.write(
        "../ws/shop/src/lib.rs",
        "#[unsafe(no_mangle)]\npub static SAYS: [u8; 11] = *b\"this-is-one\";\n",
    );
    let member = Package::describe(project.builder.cargo(), &project.path("../ws/shop")).unwrap();
    let other = package(&project, "b", "shop", CDYLIB, "this-is-other");
    are_told_apart(&project, &member, &other);
}

/// Two plugins each have a helper of their own by the same name.
#[test]
fn helpers_of_one_name_are_told_apart() {
    let project = Project::new();
    let plugin = |of: &str, text: &str| {
        let helper = "[package]\nname = \"util\"\nedition = \"2024\"\n";
        project.write(&format!("../{of}/util/Cargo.toml"), helper);
        project.write(&format!("../{of}/util/src/lib.rs"), &format!("pub const SAYS: &str = \"{text}\";\n"));
        let manifest = format!(
            "[package]\nname = \"plugin-{of}\"\nedition = \"2024\"\n\n[lib]\n{CDYLIB}\n\n\
             [dependencies]\nutil = {{ path = \"util\" }}\n\n[workspace]\n"
        );
        project.write(&format!("../{of}/Cargo.toml"), &manifest);
        let source = "#[unsafe(no_mangle)]\npub fn says() -> &'static str {\n    util::SAYS\n}\n";
        project.write(&format!("../{of}/src/lib.rs"), source);
        Package::describe(project.builder.cargo(), &project.path(&format!("../{of}"))).unwrap()
    };
    let (one, other) = (plugin("a", "this-is-one"), plugin("b", "this-is-other"));
    for _ in 0..2 {
        let first = build(&project.builder, &one, &mut |_| {}, &Cancel::new()).unwrap();
        assert!(says(&first.library, "this-is-one"));
        let second = build(&project.builder, &other, &mut |_| {}, &Cancel::new()).unwrap();
        assert!(says(&second.library, "this-is-other"));
    }
}

#[test]
fn example_that_is_a_cdylib_makes_no_plugin_of_its_package() {
    let project = Project::new();
    let manifest = "[package]\nname = \"thin\"\nedition = \"2024\"\n\n[[example]]\nname = \"e\"\ncrate-type = [\"cdylib\"]\n";
    project.write("Cargo.toml", manifest);
    project.write("examples/e.rs", "");
    let refused = Package::describe(project.builder.cargo(), &project.root).unwrap_err();
    assert!(matches!(refused, DescribeError::NoLibrary { .. }), "{refused}");
}
