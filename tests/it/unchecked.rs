//! Facts about the words that macros wrap: nothing an author writes becomes unchecked by where a macro puts it, and what
//! macros call cannot be misused by checked code.

use std::process::{Command, Output};

use tests::fixture::repository;
use tests::workshop::Workshop;

/// A plugin that uses every place where a macro takes the author's paths and expressions, and has something to read that is
/// unchecked. `HERE` stands for the one place that is tried.
const BASE: &str = r#"
use plugin_api::prelude::*;
use plugin_api::resident::Old;

WORD extern "C" {
    static HANDLER: fn(&Request) -> &'static str;
    static LOAD: fn() -> Result<()>;
    static UPGRADE: fn(Previous<'_>) -> Result<()>;
    static UNLOAD: fn(UnloadReason);
    static LAZY: registry::Lazy<Kept>;
    static NUMBER: u32;
    static STRUCT: fn(&Old<'_>) -> Result<Hooked>;
    static ENUM: fn(&Old<'_>) -> Result<HookedEnum>;
}

WORD fn number() -> u32 { 1 }
static mut CHANGED: u32 = 1;

plugin! {
    routes: { GET "/" => handler, inline GET "/inline" => handler, idempotent POST "/" => handler },
    state: [STATE],
    on_load: load,
    upgrade: upgrade,
    check: check,
    on_unload: unload,
}

fn handler(_: &Request) -> &'static str { "here" }
fn load() -> Result<()> { Ok(()) }
fn upgrade(_: Previous<'_>) -> Result<()> { Ok(()) }
fn check() -> Result<()> { Ok(()) }
fn unload(_: UnloadReason) {}
static STATE: registry::Lazy<Kept> = registry::Lazy::new("state", || Ok(Kept { a: 1 }));

#[derive(Resident)]
pub struct Kept {
    #[resident(default = 11)]
    a: u32,
}

#[derive(Resident)]
pub struct Wide<T> {
    #[resident(default = Self::START)]
    a: u32,
    more: Vec<T>,
    again: Option<Box<Self>>,
}

impl<T> Wide<T> {
    const START: u32 = 3;
}

#[derive(Resident)]
pub struct Tuple(#[resident(default = 12)] u32);

#[derive(Resident)]
pub enum Choice {
    Named {
        #[resident(default = 13)]
        a: u32,
    },
    Plain(#[resident(default = 14)] u32),
}

#[derive(Resident)]
#[resident(upgrade = hooked)]
pub struct Hooked {
    a: u32,
}

#[derive(Resident)]
#[resident(upgrade = hooked_enum)]
pub enum HookedEnum {
    A(u32),
}

fn hooked(_: &Old<'_>) -> Result<Hooked> { Ok(Hooked { a: 1 }) }
fn hooked_enum(_: &Old<'_>) -> Result<HookedEnum> { Ok(HookedEnum::A(1)) }
"#;

/// What an author might write, and what it would read without a word.
const PLACES: &[(&str, &str)] = &[
    ("GET \"/\" => handler", "GET \"/\" => HANDLER"),
    ("inline GET \"/inline\" => handler", "inline GET \"/inline\" => HANDLER"),
    ("idempotent POST \"/\" => handler", "idempotent POST \"/\" => HANDLER"),
    ("state: [STATE]", "state: [LAZY]"),
    ("on_load: load", "on_load: LOAD"),
    ("upgrade: upgrade", "upgrade: UPGRADE"),
    ("check: check", "check: LOAD"),
    ("on_unload: unload", "on_unload: UNLOAD"),
    ("default = 11", "default = NUMBER"),
    ("default = Self::START", "default = number()"),
    ("default = 12", "default = CHANGED"),
    ("default = 13", "default = number()"),
    ("default = 14", "default = NUMBER"),
    ("upgrade = hooked)", "upgrade = STRUCT)"),
    ("upgrade = hooked_enum)", "upgrade = ENUM)"),
];

/// In each place an unchecked read or call is the error that it is anywhere else.
#[test]
fn what_an_author_writes_in_a_macro_is_checked() {
    let workshop = Workshop::open("unchecked");
    // Not written out here: this file is none with unchecked code.
    let word = concat!("un", "safe");
    let base = BASE.replace("WORD", word);
    workshop.build(&base, &[]);
    for (checked, unchecked) in PLACES {
        assert!(base.contains(checked), "there is no `{checked}`");
        let words = workshop.refuse(&base.replacen(checked, unchecked, 1));
        assert!(words.contains("E0133"), "`{unchecked}` is refused for something else: {words}");
        // With the author's own word it is accepted, where a word can be said.
        if let Some((before, value)) = unchecked.split_once("= ").filter(|_| unchecked.contains("default")) {
            let said = format!("{before}= {word} {{ {value} }}");
            workshop.build(&base.replacen(checked, &said, 1), &[]);
        }
    }
}

/// A plugin that has got hold of what macros call.
const FORGED: &str = r#"
#![forbid(unsafe_code)]
#![allow(dead_code, unused_variables)]
use plugin_api::prelude::*;
use plugin_api::__private::Keep;
use plugin_api::abi::{ErrorSink, HandleId, InitView, Status, StrView};

plugin! { routes: {} }

#[plugin_api::resident]
trait Mailer: Send + Sync {
    fn send(&self) -> Result<()>;
}

#[derive(Resident)]
pub struct One(String);
#[derive(Resident)]
pub struct Other(u64, u64, u64);

extern "C" fn call(data: *mut std::ffi::c_void, out: *mut HandleId, error: *const ErrorSink) -> Status { Status::OK }

fn forged() -> InitView {
    InitView {
        size: size_of::<InitView>(), data: 1 as *mut _, call, timeout_ns: 0, flags: 0, config: StrView::EMPTY,
    }
}

BODY
"#;

/// Ways to hand a hidden function something that it trusts.
const FORGERIES: &[&str] = &[
    // An init of one's own making.
    "fn f(key: registry::Key<'_>) { let _ = plugin_api::__private::find_service::<dyn Mailer>(key, Some(&forged())); }",
    "fn f(key: registry::Key<'_>) { let _ = plugin_api::__private::lend_service::<dyn Mailer>(key, &forged()); }",
    "fn f(key: registry::Key<'_>) { let _ = <One as Keep>::find(key, Some(&forged())); }",
    "fn f(key: registry::Key<'_>) { let _ = <One as Keep>::lend(&<One as Keep>::EMPTY, key, &forged()); }",
    "fn f() -> plugin_api::__private::Init<'static> { plugin_api::__private::Init { view: forged(), of: std::marker::PhantomData } }",
    // An init on two threads at a time, or after its end.
    "fn f<T: Send>() {} fn g() { f::<&plugin_api::__private::Init<'static>>(); }",
    // A cache that was filled with values of another type.
    "fn f(cache: &<One as Keep>::Cache) { let _ = <Other as Keep>::remembered(cache); }",
    // What is remembered of another type's key.
    "fn f(memory: registry::KeyMemory<One>) { let _ = <Other as Keep>::recall(memory); }",
    "fn f(memory: registry::KeyMemory<One>) { let _ = <db::Pool as Keep>::recall(memory); }",
    "fn f(memory: registry::KeyMemory<db::Pool>) { <db::Steady as Keep>::forget(memory); }",
];

/// Checked code cannot call a hidden function with arguments that would make it read what is not there.
#[test]
fn hidden_functions_cannot_be_misused_by_checked_code() {
    let workshop = Workshop::open("forged");
    workshop.build(&FORGED.replacen("BODY", "", 1), &[]);
    for body in FORGERIES {
        let words = workshop.refuse(&FORGED.replacen("BODY", body, 1));
        let is_of_types = ["E0308", "E0451", "E0277"].iter().any(|code| words.contains(code));
        assert!(is_of_types, "`{body}` is refused for something else: {words}");
    }
}

/// plugin-api's build script, run beside a copy of its sources with a compiler of the test's choice.
fn build_script(sources: &std::path::Path, rustc: &str) -> Output {
    let program = sources.join("script");
    let compiled = Command::new("rustc")
        .args(["--edition", "2024", "-o"])
        .arg(&program)
        .arg(repository().join("plugin-api/build.rs"))
        .output()
        .expect("there is a compiler");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    Command::new(program)
        .current_dir(sources)
        .env("RUSTC", rustc)
        .env("TARGET", "here")
        .output()
        .expect("it runs")
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    if from.is_dir() {
        std::fs::create_dir_all(to).unwrap();
        std::fs::read_dir(from).unwrap().flatten().for_each(|of| copy(&of.path(), &to.join(of.file_name())));
    } else {
        std::fs::copy(from, to).unwrap();
    }
}

/// A compiler that does not say which it is builds nothing: all such would be taken for the same one.
#[test]
fn compiler_without_a_name_is_refused_and_shared_types_are_told_apart() {
    let launch = tests::host::Launch::new();
    let sources = launch.scratch();
    copy(&repository().join("plugin-api/src"), &sources.join("src"));
    for silent in ["true", "false", "echo", "no-such-compiler"] {
        let output = build_script(sources, silent);
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && words.contains("--version"), "{silent}: {words}");
    }
    let told = || {
        let output = build_script(sources, "rustc");
        let words = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && words.contains("PLUGIN_API_RUSTC=rustc "), "{words}");
        words.lines().find(|line| line.contains("PLUGIN_API_SHARED_TYPES=")).unwrap().to_owned()
    };
    let before = told();
    assert_eq!(told(), before);
    for file in ["src/sync.rs", "src/sync/home.rs", "src/sync/mutex.rs"] {
        let path = sources.join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text}\nstruct Field;\n")).unwrap();
        assert_ne!(told(), before, "{file}");
        std::fs::write(&path, text).unwrap();
    }
    assert_eq!(told(), before);
}
