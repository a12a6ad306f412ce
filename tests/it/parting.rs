//! Facts about the end of values: one whose drop takes for ever keeps its own code mapped and nothing else, and one that
//! goes deep is taken along, dropped, or refused with words.

use std::path::PathBuf;

use tests::host::{Launch, TestHost};
use tests::wait::{SOON, eventually};
use tests::workshop::Workshop;

/// A plugin with values of all kinds that stay in their drop until there is a file.
const STICKY: &str = r#"
#![forbid(unsafe_code)]
use std::sync::OnceLock;
use std::time::Duration;

use plugin_api::prelude::*;

plugin! {
    routes: {
        GET "/data" => data, GET "/service" => service, GET "/remove" => remove,
        GET "/restarted" => restarted, GET "/held" => held,
    },
    state: [DATA],
    on_load: load,
}

fn load() -> Result<()> {
    Ok(())
}

#[derive(Resident, Debug, Default)]
struct Sticky(u8);

impl Drop for Sticky {
    fn drop(&mut self) {
        let gate = std::env::var_os("GATE").expect("the test sets it");
        while !std::path::Path::new(&gate).exists() {
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }
}

#[derive(Resident, Debug, Default)]
struct State {
    kept: u64,
    sticky: Sticky,
}

static DATA: registry::Lazy<State> = registry::Lazy::new("data", || Ok(State { kept: 7, ..fresh() }));

fn fresh() -> State {
    State::default()
}

fn data(_: &Request) -> Result<String> {
    Ok(DATA.get()?.kept.to_string())
}

#[plugin_api::resident]
trait Bell: Send + Sync {
    fn ring(&self) -> Result<u64>;
}

struct Brass(Sticky);

impl Bell for Brass {
    fn ring(&self) -> Result<u64> {
        Ok(u64::from(self.0.0))
    }
}

fn bell() -> Result<Box<dyn Bell>> {
    Ok(Box::new(Brass(Sticky(1))))
}

fn service(_: &Request) -> Result<String> {
    Ok(registry::get_or_init("bell", bell)?.ring()?.to_string())
}

fn remove(_: &Request) -> Result<&'static str> {
    registry::remove("bell")?;
    Ok("removed")
}

fn restart() -> Result<u8> {
    let entry = registry::entry("restarted").restart_on_reload();
    Ok(entry.get_or_init(|| Ok::<_, Error>(Sticky(2)))?.0)
}

fn restarted(_: &Request) -> Result<String> {
    Ok(restart()?.to_string())
}

/// The last holder of the service is this generation.
fn held(_: &Request) -> Result<String> {
    static HELD: OnceLock<registry::Handle<dyn Bell>> = OnceLock::new();
    let found = registry::get_or_init("bell", bell)?;
    Ok(HELD.get_or_init(|| found).ring()?.to_string())
}
"#;

/// A list as some write it: each link a step down, for whoever builds, settles or drops it.
const LIST: &str = r#"
#![forbid(unsafe_code)]
use plugin_api::prelude::*;
use plugin_api::sync::Mutex;

plugin! {
    routes: { GET "/grow/{n}" => grow, GET "/sum" => sum, GET "/remove" => remove },
    state: [LIST],
}

#[derive(Resident, Default)]
struct Link {
    number: u64,
    next: Option<Box<Link>>,
}

static LIST: registry::Lazy<Mutex<Link>> = registry::Lazy::new("list", || Ok(Mutex::new(Link::default())));

fn grow(req: &Request) -> Result<String> {
    let (list, n) = (LIST.get()?, req.param::<u64>("n")?);
    let mut first = list.lock();
    for number in 1..=n {
        let next = first.next.take();
        first.next = Some(Box::new(Link { number, next, ..Default::default() }));
    }
    Ok(n.to_string())
}

fn sum(_: &Request) -> Result<String> {
    let list = LIST.get()?;
    let first = list.lock();
    let links = std::iter::successors(Some(&*first), |link| link.next.as_deref());
    Ok(links.map(|link| link.number).sum::<u64>().to_string())
}

fn remove(_: &Request) -> Result<&'static str> {
    registry::remove("list")?;
    Ok("removed")
}
"#;

/// A host with a plugin `probe` whose values cannot be dropped before there is a file, and another plugin.
struct Stuck {
    host: TestHost,
    gate: PathBuf,
}

impl Stuck {
    fn start(library: &[u8]) -> Stuck {
        let launch = Launch::new();
        let gate = launch.scratch().join("gate");
        launch.plugins().put_library("probe", library);
        launch.plugins().install("other", "version_a");
        Stuck { host: launch.env("GATE", &gate).start(), gate }
    }

    #[track_caller]
    fn ask(&self, path: &str) -> String {
        let response = self.host.get(path);
        assert_eq!(response.status, 200, "{path}: {}\n{}", response.text(), self.host.log());
        response.text()
    }

    /// Waits until the first generation of a plugin is held by this drop; then others come and go as always, and it goes when
    /// the drop ends.
    #[track_caller]
    fn wait_stuck(&self, plugin: &str, what: &str) {
        eventually(SOON, "the first generation to be held by a drop", || {
            match self.host.plugin(plugin).parked().as_slice() {
                [(1, by)] if by.contains(&what.to_owned()) => Ok(()),
                parked => Err(format!("{parked:?}")),
            }
        });
        for (gone, fixture) in [(1, "version_b"), (2, "version_a")] {
            self.host.reload("other", |plugins| plugins.replace("other", fixture));
            self.host.wait_unloaded("other", gone);
        }
        assert_eq!(self.host.plugin(plugin).unloaded(), 0);
        std::fs::write(&self.gate, "").unwrap();
        self.host.wait_unloaded(plugin, 1);
    }
}

fn rebuilt(library: &[u8]) -> Vec<u8> {
    [library, b"again"].concat()
}

/// A field that an edit removes is dropped when the new code serves, and the value is in use meanwhile.
#[test]
fn a_removed_field_whose_drop_hangs_holds_the_code_that_made_it_alone() {
    let workshop = Workshop::open("sticky_removed_field");
    let before = workshop.build(STICKY, &[]);
    let after = STICKY.replacen("    sticky: Sticky,\n", "", 1).replacen("kept: 7, ..fresh()", "kept: 8", 1);
    let after = workshop.build(&after, &[]);
    let stuck = Stuck::start(&before);
    assert_eq!(stuck.ask("/probe/data"), "7");
    stuck.host.reload("probe", |plugins| plugins.put_library("probe", &after));
    assert_eq!(stuck.ask("/probe/data"), "7");
    stuck.wait_stuck("probe", "the drop of what a `State` has lost in its upgrade");
}

/// A value that makes room for another with each reload.
#[test]
fn a_replaced_value_whose_drop_hangs_holds_the_code_that_made_it_alone() {
    let text = STICKY.replacen("    Ok(())", "    restart().map(drop)", 1);
    let library = Workshop::open("sticky_replaced").build(&text, &[]);
    let stuck = Stuck::start(&library);
    assert_eq!(stuck.ask("/probe/restarted"), "2");
    stuck.host.reload("probe", |plugins| plugins.put_library("probe", &rebuilt(&library)));
    assert_eq!(stuck.ask("/probe/restarted"), "2");
    stuck.wait_stuck("probe", "the drop of a `Sticky`");
}

/// A service whose last holder is a generation of another plugin, which is over.
#[test]
fn a_forgotten_service_whose_drop_hangs_holds_the_code_that_held_it_alone() {
    let library = Workshop::open("sticky_forgotten").build(STICKY, &[]);
    let stuck = Stuck::start(&library);
    let guest = |build: &[u8]| {
        let library = [&library, build].concat();
        stuck.host.reload("guest", |plugins| plugins.put_library("guest", &library))
    };
    guest(b"1");
    assert_eq!(stuck.ask("/probe/service"), "1");
    assert_eq!(stuck.ask("/guest/held"), "1");
    assert_eq!(stuck.ask("/probe/remove"), "removed");
    guest(b"2");
    stuck.wait_stuck("guest", "the drop of what it held");
}

/// What an operator removes: the order is answered, and the key is free, whatever the drop does.
#[test]
fn an_order_to_remove_a_value_whose_drop_hangs_is_answered() {
    let library = Workshop::open("sticky_ordered").build(STICKY, &[]);
    let stuck = Stuck::start(&library);
    assert_eq!(stuck.ask("/probe/service"), "1");
    let state = stuck.host.state_dir();
    let removed = stuck.host.cli(&["registry", "rm", "bell", "--state", state.to_str().unwrap()]);
    assert_eq!(removed.code(), 0, "{removed}");
    stuck.ask("/other/ping");
    std::fs::write(&stuck.gate, "").unwrap();
}

/// A list is built anew, settled and dropped step by step; there is a stack for that.
#[test]
fn a_long_list_survives_an_edit_and_is_dropped() {
    let (host, before, after) = with_links("links_long", 20_000);
    host.reload("probe", |plugins| plugins.put_library("probe", &rebuilt(&before)));
    assert_eq!(host.get("/probe/sum").text(), "200010000");
    host.reload("probe", |plugins| plugins.put_library("probe", &after));
    assert_eq!(host.get("/probe/sum").text(), "200010000");
    assert_eq!(host.get("/probe/remove").text(), "removed");
    assert_eq!(host.get("/probe/sum").text(), "0");
}

/// One that is longer than any stack is refused, and everything is as it was.
#[test]
fn a_list_that_no_stack_is_large_enough_for_refuses_the_edit() {
    let (host, _, after) = with_links("links_longest", 400_000);
    let told = host.refuse("probe", |plugins| plugins.put_library("probe", &after));
    assert!(told.contains("next.0.next") && told.contains("lies so deep in it"), "{told}");
    assert_eq!(host.get("/probe/sum").text(), "80000200000");
    assert_eq!(host.get("/probe/remove").text(), "removed");
    assert_eq!(host.get("/probe/sum").text(), "0");
}

/// A host that keeps a list of so many links; its plugin's library, and that of an edit of the list's type.
fn with_links(workshop: &str, links: u64) -> (TestHost, Vec<u8>, Vec<u8>) {
    let workshop = Workshop::open(workshop);
    let (before, after) = (workshop.build(LIST, &[]), workshop.build(&wider(), &[]));
    let launch = Launch::new();
    launch.plugins().put_library("probe", &before);
    let host = launch.start();
    assert_eq!(host.get(&format!("/probe/grow/{links}")).status, 200);
    (host, before, after)
}

fn wider() -> String {
    let wider = LIST.replacen("    number: u64,\n", "    number: u64,\n    added: u32,\n", 1);
    assert_ne!(wider, LIST);
    wider
}
