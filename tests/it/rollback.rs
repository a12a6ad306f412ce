//! Facts about the way back: earlier code serves again, and what replaced it stays out until it changes.

use serde_json::Value;
use tests::host::{Finished, Launch, PluginStatus, TestHost};
use tests::http::{Client, Response};
use tests::load::Load;

/// Runs a command of the host's binary about this host.
#[track_caller]
fn tell(host: &TestHost, args: &[&str]) -> Finished {
    let state = host.state_dir();
    host.cli(&[args, &["--state", state.to_str().unwrap()]].concat())
}

/// A command that is not carried out: one sentence, exit code 1.
#[track_caller]
fn assert_refused(finished: &Finished, sentence: &str) {
    assert_eq!(finished.code(), 1, "{finished}");
    assert_eq!(finished.stderr.trim_end(), format!("error: {sentence}"), "{finished}");
}

/// Which version gave the answer to `/ping`.
fn letter(response: &Response) -> Result<String, String> {
    match (response.status, response.text().as_str()) {
        (200, letter @ ("a" | "b")) => Ok(letter.to_owned()),
        (status, text) => Err(format!("{status}: {text}")),
    }
}

/// Panics once in a handler of the plugin `shop`.
#[track_caller]
fn panic_once(host: &TestHost) {
    assert_eq!(host.get("/shop/panic").status, 500);
}

/// The old code serves as a new generation, nobody notices, and everybody is told.
#[test]
fn asked_roll_back_brings_the_earlier_code_under_load() {
    let host = TestHost::start([("shop", "version_a")]);
    let load = Load::start(host.listen(), 8, "/shop/ping", letter);
    host.reload("shop", |plugins| plugins.replace("shop", "version_b"));
    load.wait_answers(16);

    let told = tell(&host, &["rollback", "shop"]);
    assert_eq!(told.code(), 0, "{told}");
    assert!(told.stdout.starts_with("rolled back shop: generation 2 -> 3 in "), "{told}");
    assert!(told.stdout.contains("asked by the operator, back to the code of generation 1"), "{told}");
    let answer = host.get("/shop/ping");
    assert_eq!((answer.text(), answer.header("x-plugin-generation")), ("a".to_owned(), Some("3")));
    let why = "rolled back: asked by the operator, back to the code of generation 1";
    assert_eq!(answer.header("x-reload-failed"), Some(why));
    load.wait_answers(16);
    load.finish().assert_flawless();

    let event = &host.events("shop").into_iter().find(|event| event.kind() == "rolled_back").unwrap();
    let event: Value = serde_json::from_str(&event.to_string()).unwrap();
    assert_eq!((&event["generation"], &event["previous_generation"]), (&3.into(), &2.into()), "{event}");
    assert_eq!(host.plugin("shop").last_outcome(), "rolled_back");
    assert!(host.log().contains("rolled back shop: generation 2 -> 3 in "), "{}", host.log());
    let status = tell(&host, &["status"]);
    assert!(status.stdout.contains(&format!("shop: newest code does not serve: {why}")), "{status}");
    let events = tell(&host, &["events"]);
    assert!(events.stdout.contains("rolled_back"), "{events}");
}

/// Code that was gone away from is not tried again for a look at the same content, but for any other
/// content, and for `host reload`.
#[test]
fn what_was_rolled_back_stays_out_until_it_changes_or_is_asked_for() {
    let launch = Launch::new().arg("--no-watch");
    launch.plugins().install("shop", "version_a");
    launch.plugins().install("zoo", "version_a");
    let host = launch.start();
    host.plugins.replace("shop", "version_b");
    assert_eq!(tell(&host, &["reload", "shop"]).code(), 0);
    assert_eq!(tell(&host, &["rollback", "shop"]).code(), 0);

    host.plugins.replace("zoo", "version_b");
    // Plugins are told in the order of their names: when `zoo` is live, `shop` has been told to look.
    host.reload("zoo", |_| host.signal("HUP"));
    // An order is answered before the look, so the second answer comes after it.
    for _ in 0..2 {
        assert_refused(
            &tell(&host, &["rollback", "shop", "3"]),
            "the code of generation 3 serves `shop` already",
        );
    }
    assert_eq!(host.plugin("shop").generation(), Some(3));

    let again = tell(&host, &["reload", "shop"]);
    assert!(again.stdout.starts_with("reloaded shop: generation 3 -> 4 in "), "{again}");
    assert_eq!(host.get("/shop/ping").text(), "b");
    assert_eq!(tell(&host, &["rollback", "shop"]).code(), 0);

    host.plugins.rebuild("shop", "version_b", 1);
    assert_eq!(host.reload("shop", |_| host.signal("HUP")), 6);
    assert_eq!(host.get("/shop/ping").text(), "b");
    assert_eq!(host.get("/shop/ping").header("x-reload-failed"), None);
}

/// The edit after a roll-back is an edit like any other, from source too.
#[test]
fn edit_after_a_roll_back_of_a_source_plugin_goes_live() {
    let launch = Launch::new().warm();
    let plugin = launch.plugins().copy_source("hello");
    let host = launch.start();
    host.reload("hello", |_| plugin.edit("hello, world", "hello, mars"));
    assert_eq!(host.get("/hello").text(), "hello, mars\n");
    assert_eq!(tell(&host, &["rollback", "hello"]).code(), 0);
    assert_eq!(host.get("/hello").text(), "hello, world\n");
    assert_eq!(host.reload("hello", |_| plugin.edit("hello, mars", "hello, venus")), 4);
    assert_eq!(host.get("/hello").text(), "hello, venus\n");
}

/// Three panics are one too many for new code; the code before it serves, and keeps serving.
#[test]
fn too_many_panics_in_the_probation_bring_the_earlier_code() {
    let launch = Launch::new().arg("--probation=60s").arg("--budget=3");
    launch.plugins().install("shop", "version_a");
    let host = launch.start();
    host.reload("shop", |plugins| plugins.replace("shop", "handler_faults"));
    panic_once(&host);
    panic_once(&host);
    // Two are within the budget: an order that came after them finds the generation in place.
    assert_refused(
        &tell(&host, &["rollback", "shop", "2"]),
        "the code of generation 2 serves `shop` already",
    );
    panic_once(&host);
    let told = |status: &PluginStatus| status.last_outcome() == "rolled_back";
    let status = host.wait_for("shop", "to say that it was rolled back", told);
    assert_eq!((status.generation(), host.get("/shop/ping").text()), (Some(3), "a".to_owned()));
    assert_eq!(status.reason(), "3 panics within 60 s of going live, back to the code of generation 1");

    host.reload("shop", |plugins| plugins.replace("shop", "version_b"));
    assert_eq!(host.get("/shop/ping").text(), "b");
}

/// There is nothing behind a first generation, and what came by a roll-back is not rolled back again.
#[test]
fn automatic_roll_back_never_ends_in_nothing_and_never_goes_in_circles() {
    let launch = Launch::new().arg("--probation=60s").arg("--budget=1");
    launch.plugins().install("shop", "handler_faults");
    let host = launch.start();
    let nothing = |kept: &str| format!("there is nothing to roll `shop` back to; kept is the code of {kept}");
    panic_once(&host);
    // Orders are carried out one after the other: this one would come after an automatic one.
    assert_refused(&tell(&host, &["rollback", "shop"]), &nothing("generation 1"));
    assert_eq!(host.plugin("shop").generation(), Some(1));

    host.reload("shop", |plugins| plugins.rebuild("shop", "handler_faults", 1));
    panic_once(&host);
    host.wait_generation("shop", 3);
    panic_once(&host);
    assert_refused(&tell(&host, &["rollback", "shop"]), &nothing("generations 1 and 3, generation 2"));
    assert_eq!(host.plugin("shop").generation(), Some(3));
}

/// Who follows edits wants to see the panic; who deploys wants the site to stand. Both without a flag.
#[test]
fn probation_is_off_when_following_edits_and_on_otherwise() {
    let watching = TestHost::start([("shop", "version_a")]);
    watching.reload("shop", |plugins| plugins.replace("shop", "handler_faults"));
    let deployed = Launch::new().arg("--no-watch");
    deployed.plugins().install("shop", "version_a");
    let deployed = deployed.start();
    deployed.plugins.replace("shop", "handler_faults");
    assert_eq!(tell(&deployed, &["reload", "shop"]).code(), 0);
    for host in [&watching, &deployed] {
        for _ in 0..3 {
            panic_once(host);
        }
    }
    deployed.wait_generation("shop", 3);
    let serves = "the code of generation 2 serves `shop` already";
    assert_refused(&tell(&watching, &["rollback", "shop", "2"]), serves);
}

/// What the registry holds belongs to the process: a roll-back is a reload to it.
#[test]
fn registry_keeps_its_values_across_a_roll_back() {
    let host = TestHost::start([("probe", "registry_probe")]);
    let inits = host.state_dir().join("inits");
    let ask = format!("/probe/ok?key=kept&count={}", inits.display());
    assert_eq!(host.get(&ask).text(), "ok");
    host.reload("probe", |plugins| plugins.rebuild("probe", "registry_probe", 1));
    assert_eq!(tell(&host, &["rollback", "probe"]).code(), 0);
    assert_eq!(host.get(&ask).text(), "ok");
    let slot = host.slot("kept");
    assert_eq!((slot.created_by(), slot.reloads_survived()), (("probe".to_owned(), 1), 2));
}

#[test]
fn orders_that_cannot_be_carried_out_say_why() {
    let host = TestHost::start([("shop", "version_a"), ("sick", "on_load_errs")]);
    assert_refused(&tell(&host, &["rollback", "shpo"]), "there is no plugin `shpo`; there is shop, sick");
    assert_refused(&tell(&host, &["reload", "shpo"]), "there is no plugin `shpo`; there is shop, sick");
    assert_refused(
        &tell(&host, &["rollback", "shop", "7"]),
        "generation 7 of `shop` is not kept; kept is the code of generation 1",
    );
    assert_refused(
        &tell(&host, &["rollback", "sick"]),
        "there is nothing to roll `sick` back to; kept is the code of no generation",
    );
    // The refusal is what came of it, and a failure of the command.
    let refused = tell(&host, &["reload", "sick", "--json"]);
    let event: Value = serde_json::from_str(&refused.stdout).unwrap();
    assert_eq!((refused.code(), &event["event"]), (1, &"refused".into()), "{refused}");
    let unchanged = tell(&host, &["reload", "shop"]);
    assert_eq!(unchanged.code(), 0, "{unchanged}");
    assert!(unchanged.stdout.starts_with("unchanged shop: generation 1 in "), "{unchanged}");
}

/// Who can reach the admin listener can look, and no more.
#[test]
fn admin_listener_takes_no_orders() {
    let host = TestHost::start([("shop", "version_a")]);
    host.reload("shop", |plugins| plugins.replace("shop", "version_b"));
    for order in ["rollback", "reload"] {
        let answer = Client::new(host.admin()).post(&format!("/api/plugins/shop/{order}"), b"").unwrap();
        assert_eq!(answer.status, 405, "{}", answer.text());
    }
    assert_eq!(host.plugin("shop").generation(), Some(2));
}

/// A restart brings no code back that somebody went away from; newer content and an order do.
#[test]
fn roll_back_outlives_a_restart_until_newer_code_comes() {
    for args in [&[] as &[&str], &["--no-watch"]] {
        let launch = args.iter().fold(Launch::new(), Launch::arg);
        launch.plugins().install("shop", "version_a");
        let host = launch.start();
        host.plugins.replace("shop", "version_b");
        assert_eq!(tell(&host, &["reload", "shop"]).code(), 0);
        assert_eq!(tell(&host, &["rollback", "shop"]).code(), 0);
        let host = host.restart();
        assert_eq!(host.get("/shop/ping").text(), "a", "{args:?}");
        let why = "rolled back: asked by the operator, back to the code of generation 1";
        assert!(host.plugin("shop").to_string().contains(why), "{}", host.plugin("shop"));
        assert!(
            host.log().contains("newer code was rolled back before the host was started"),
            "{}",
            host.log()
        );
        // Also a second time, and after a kill.
        let host = host.restart().kill9().start();
        assert_eq!(host.get("/shop/ping").text(), "a", "{args:?}");

        host.plugins.rebuild("shop", "version_b", 1);
        assert_eq!(tell(&host, &["reload", "shop"]).code(), 0);
        assert_eq!(host.get("/shop/ping").text(), "b");
        let host = host.restart();
        assert_eq!(host.get("/shop/ping").text(), "b", "{args:?}");
    }
}

/// The same where panics brought the earlier code, and where the host builds the plugin itself.
#[test]
fn unasked_roll_back_of_a_source_plugin_outlives_a_restart() {
    let launch = Launch::new().warm().arg("--probation=60s").arg("--budget=1");
    let plugin = launch.plugins().copy_source("hello");
    let host = launch.start();
    let panics = "panic!(\"not today\")";
    host.reload("hello", |_| plugin.edit("\"hello, world\\n\"", panics));
    assert_eq!(host.get("/hello").status, 500);
    host.wait_for("hello", "to be rolled back", |status| status.last_outcome() == "rolled_back");
    let host = host.restart();
    assert_eq!(host.get("/hello").text(), "hello, world\n");
    // An order tries the source again, and an edit is an edit.
    assert_eq!(tell(&host, &["reload", "hello"]).code(), 0);
    assert_eq!(host.get("/hello").status, 500);
    host.wait_for("hello", "to be rolled back", |status| status.last_outcome() == "rolled_back");
    host.reload("hello", |_| plugin.edit(panics, "\"hello, mars\\n\""));
    assert_eq!(host.get("/hello").text(), "hello, mars\n");
}
