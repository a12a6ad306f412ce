//! Facts about plugins as source: a save is a build, a build is a reload, and errors change nothing.
//!
//! Each host costs a build of its plugin, so one test goes through several edits.

use tests::host::Launch;
use tests::wait::{SOON, eventually};

/// A plugin of the test's own, as source.
const SOURCE: &str = r#"//! A plugin under edit.
#![forbid(unsafe_code)]

use plugin_api::prelude::*;

plugin! { routes: { GET "/" => index } }

fn index(_: &Request) -> &'static str {
    "one"
}
"#;

/// The same, and its start panics.
const PANICKING: &str = r#"//! A plugin under edit.
#![forbid(unsafe_code)]

use plugin_api::prelude::*;

plugin! { routes: { GET "/" => index }, on_load: start }

fn start() -> Result<()> {
    panic!("not today")
}

fn index(_: &Request) -> &'static str {
    "a plugin that never started answers"
}
"#;

/// Save, and the new code answers; save nonsense, and the old code answers while the compiler's words
/// are told; save sense again, and it goes live. One host does it all, for each costs a cold build.
#[test]
fn source_is_built_on_save_and_its_errors_change_nothing() {
    let launch = Launch::new().warm();
    let plugin = launch.plugins().write_source("shop", SOURCE);
    let host = launch.start();
    assert_eq!(host.plugin("shop").source_kind(), "directory");
    assert_eq!(host.get("/shop/").text(), "one");

    host.reload("shop", |_| plugin.edit("\"one\"", "\"two\""));
    assert_eq!(host.get("/shop/").text(), "two");

    let told = host.refuse("shop", |_| plugin.edit("\"two\"", "two_is_not_defined"));
    assert!(told.contains("two_is_not_defined"), "the compiler's words are missing: {told}");
    assert!(host.log().contains("two_is_not_defined"), "{}", host.log());
    assert_eq!(host.get("/shop/").text(), "two");

    host.reload("shop", |_| plugin.save_in_place(&SOURCE.replace("one", "three")));
    assert_eq!(host.get("/shop/").text(), "three");

    let told = host.refuse("shop", |_| plugin.save(PANICKING));
    assert!(told.contains("not today"), "{told}");
    assert_eq!(host.get("/shop/").text(), "three");

    host.reload("shop", |_| plugin.save(&SOURCE.replace("one", "four")));
    assert_eq!(host.get("/shop/").text(), "four");
}

/// The shipped plugin is edited as a newcomer would: its page changes, its entries and its process stay.
#[test]
fn edit_of_the_guestbook_is_served_without_a_restart() {
    let launch = Launch::new().warm();
    let plugin = launch.plugins().copy_source("guestbook");
    let database = format!("sqlite:{}", launch.scratch().join("guestbook.db").display());
    let host = launch.env("DATABASE_URL", database).start();
    let pid = host.pid();
    assert_eq!(host.get("/guestbook/").status, 200);

    host.reload("guestbook", |_| plugin.edit("<h1>", "<h1>Edited: "));
    assert!(host.get("/guestbook/").text().contains("<h1>Edited: "));
    assert_eq!(host.pid(), pid);
    assert_eq!(host.slot("db").created_by(), ("guestbook".to_owned(), 1));
    assert_eq!(host.slot("db").reloads_survived(), 1);
}

/// A directory that becomes a plugin while the host runs is built and served; deleted, it is gone.
#[test]
fn source_plugins_come_and_go_while_the_host_runs() {
    let launch = Launch::new().warm();
    launch.plugins().install("shop", "version_a");
    let host = launch.start();
    host.reload("late", |plugins| {
        plugins.write_source("late", SOURCE);
    });
    assert_eq!(host.get("/late/").text(), "one");
    assert_eq!(host.plugin("late").source_kind(), "directory");

    host.plugins.remove("late");
    eventually(SOON, "the plugin to be gone", || match host.get("/late/").status {
        404 => Ok(()),
        status => Err(status),
    });
    assert_eq!(host.plugin_list().len(), 1);
    assert_eq!(host.get("/shop/ping").text(), "a");
}
