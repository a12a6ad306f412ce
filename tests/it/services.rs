//! Facts about services: they run the code that made them, whoever calls, until another takes their place.

use std::fs;
use std::path::PathBuf;
use std::thread;

use tests::host::{Launch, TestHost};
use tests::http::Client;
use tests::load::Load;
use tests::stress::run_state;
use tests::wait::{SOON, eventually};

const FIXTURE: &str = "service_probe";
const GROWN: &str = "service_probe_grown";

/// A host with the fixture as plugin `shop`, and the files by which a test tells it what to do and is told.
struct Shop {
    host: TestHost,
    /// Of its own, so that it is there when the host has ended.
    _scratch: tempfile::TempDir,
    on_load: PathBuf,
    drops: PathBuf,
}

impl Shop {
    fn start(plugins: &[&str]) -> Shop {
        let launch = Launch::new();
        for plugin in plugins {
            launch.plugins().install(plugin, FIXTURE);
        }
        let scratch = tempfile::tempdir().unwrap();
        let (on_load, drops) = (scratch.path().join("on_load"), scratch.path().join("drops"));
        let host = launch.env("FIXTURE_ON_LOAD", &on_load).env("FIXTURE_DROPS", &drops).start();
        Shop { host, _scratch: scratch, on_load, drops }
    }

    #[track_caller]
    fn ask(&self, path: &str) -> String {
        let response = self.host.get(path);
        assert_eq!(response.status, 200, "{path}: {}\n{}", response.text(), self.host.log());
        response.text()
    }

    fn rebuild(&self, build: usize) -> u64 {
        self.host.reload("shop", |plugins| plugins.rebuild("shop", FIXTURE, build))
    }

    /// What the dropped services wrote, one a line.
    fn dropped(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.drops).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until exactly these generations of `shop` are parked, each with its holder.
    #[track_caller]
    fn wait_parked(&self, expected: &[(u64, &str)]) {
        let expected: Vec<(u64, Vec<String>)> =
            expected.iter().map(|(number, holder)| (*number, vec![(*holder).to_owned()])).collect();
        eventually(SOON, &format!("{expected:?} to be parked"), || {
            let parked = self.host.plugin("shop").parked();
            if parked == expected { Ok(()) } else { Err(format!("{parked:?}")) }
        });
    }
}

/// The code that made a service runs it, generations later; it alone stays mapped, and the status names the service.
#[test]
fn service_runs_the_code_that_made_it() {
    let shop = Shop::start(&["shop"]);
    let first = shop.ask("/shop/self").split_once(' ').unwrap().0.to_owned();
    assert_eq!(shop.ask("/shop/service"), first);
    for build in 1..=3 {
        assert_eq!(shop.ask("/shop/send/ann"), build.to_string());
        shop.rebuild(build);
        let (here, greeting) = {
            let told = shop.ask("/shop/self");
            let (here, greeting) = told.split_once(' ').unwrap();
            (here.to_owned(), greeting.to_owned())
        };
        assert_ne!(here, first);
        assert_eq!(greeting, format!("from {here}"), "a method with a body is the caller's");
        assert_eq!(shop.ask("/shop/service"), first);
    }
    assert_eq!((shop.ask("/shop/count"), shop.ask("/shop/inline")), ("3".to_owned(), "3".to_owned()));
    shop.wait_parked(&[(1, "service `mailer`")]);
    assert_eq!(shop.host.plugin("shop").unloaded(), 2);
    let slot = shop.host.slot("mailer");
    assert_eq!((slot.kind(), slot.type_name()), ("service".to_owned(), "dyn Mailer".to_owned()), "{slot}");
    assert_eq!((slot.created_by(), slot.reloads_survived()), (("shop".to_owned(), 1), 3), "{slot}");
    let state = shop.host.state_dir();
    let told = shop.host.cli(&["status", "--state", state.to_str().unwrap()]);
    assert!(told.stdout.contains("service `mailer`"), "{told}");
}

/// Everything that a method may take and return arrives as it was sent.
#[test]
fn arguments_and_answers_arrive_as_they_were_sent() {
    let shop = Shop::start(&["shop"]);
    shop.rebuild(1);
    assert_eq!(shop.ask("/shop/crossed"), "as it came");
}

/// Errors, their kind, and panics are the caller's to handle; the service goes on.
#[test]
fn errors_and_panics_of_a_service_are_errors_of_the_call() {
    let shop = Shop::start(&["shop"]);
    shop.rebuild(1);
    assert_eq!(shop.ask("/shop/err"), "`dyn Mailer` of shop generation 1: sending: the relay refused",);
    let panic = shop.ask("/shop/panic");
    assert!(
        panic.starts_with("`dyn Mailer` of shop generation 1 panicked: the relay is on fire, at "),
        "{panic}"
    );
    // An init that fails is "not now", also when it failed on the other side.
    let down = shop.host.get("/shop/down");
    assert_eq!(down.status, 503, "{}", down.text());
    assert_eq!(shop.ask("/shop/send/ann"), "1");
    let slot = shop.host.slot("mailer").to_string();
    assert!(slot.contains("\"panics\":1") && slot.contains("\"running\":0"), "{slot}");
    let log = shop.host.log();
    let line =
        log.lines().find(|line| line.contains("panicked: the relay is on fire")).expect("the panic's line");
    assert!(
        line.contains("shop g1 service Mailer ["),
        "the code that panicked, the request of who called: {line}"
    );
}

/// The new service serves at once, the old one until its last holder lets go; then its code drops it and is unmapped.
#[test]
fn replaced_service_is_dropped_when_its_last_holder_lets_go() {
    let shop = Shop::start(&["shop"]);
    let first = shop.ask("/shop/service");
    shop.rebuild(1);
    assert_eq!(shop.ask("/shop/send/ann"), "1");
    shop.ask("/shop/hold");
    shop.ask("/shop/replace");
    assert_eq!(shop.ask("/shop/count"), "0");
    assert_ne!(shop.ask("/shop/service"), first);
    assert_eq!((shop.ask("/shop/held"), shop.dropped()), ("11".to_owned(), Vec::new()));
    shop.wait_parked(&[(1, "service `mailer`, which was replaced and is still held")]);
    shop.ask("/shop/release");
    shop.wait_parked(&[]);
    assert_eq!(shop.dropped(), [format!("{first} after 11")]);
    assert_eq!(shop.host.plugin("shop").unloaded(), 1);
}

/// What is replaced while loading is replaced with the publication, or not at all.
#[test]
fn replacement_while_loading_comes_with_the_generation_or_not_at_all() {
    let shop = Shop::start(&["shop"]);
    let first = shop.ask("/shop/service");
    shop.ask("/shop/send/ann");
    fs::write(&shop.on_load, "replace, then fail").unwrap();
    let reason = shop.host.refuse("shop", |plugins| plugins.rebuild("shop", FIXTURE, 1));
    assert!(reason.contains("told to fail"), "{reason}");
    assert_eq!((shop.ask("/shop/service"), shop.ask("/shop/count")), (first.clone(), "1".to_owned()));
    assert_eq!(shop.dropped().len(), 1, "the refused generation's own: {:?}", shop.dropped());

    fs::write(&shop.on_load, "replace").unwrap();
    shop.rebuild(2);
    assert_ne!(shop.ask("/shop/service"), first);
    assert_eq!(shop.ask("/shop/count"), "0");
    shop.wait_parked(&[]);
    assert_eq!(shop.dropped().last().unwrap(), &format!("{first} after 1"));
    fs::write(&shop.on_load, "").unwrap();
    shop.rebuild(3);
    shop.wait_parked(&[(3, "service `mailer`")]);
}

/// Another list of methods is refused with both lists, and starts the service afresh where the key says so.
#[test]
fn changed_list_of_methods_is_refused_with_both_lists() {
    let shop = Shop::start(&["shop"]);
    shop.ask("/shop/send/ann");
    fs::write(&shop.on_load, "keep").unwrap();
    let reason = shop.host.refuse("shop", |plugins| plugins.replace("shop", GROWN));
    for words in [
        "`mailer` holds a `dyn Mailer` with other methods; shop generation 1 made it with",
        "fn send(&self, mail: Mail as MessagePack) -> u64\n",
        "fn send(&self, to: String, text: String) -> u64\n",
        "fn count(&self) -> u32\n",
        "`registry::replace`",
    ] {
        assert!(reason.contains(words), "`{words}` is not in: {reason}");
    }
    assert!(!reason.contains("greeting"), "a method with a body is no part of it: {reason}");
    assert_eq!(shop.ask("/shop/count"), "1");

    fs::write(&shop.on_load, "").unwrap();
    shop.host.reload("shop", |plugins| plugins.rebuild("shop", GROWN, 1));
    assert_eq!((shop.ask("/shop/count"), shop.ask("/shop/old")), ("1000".to_owned(), "found".to_owned()));
    // Its data has no newer owner; the service's pin is gone.
    shop.wait_parked(&[(1, "data of type `Limits`, which it would drop or has touched")]);
    assert_eq!(shop.dropped().len(), 1);
}

/// Two plugins share a service; with another list of methods, or as data, it is refused with who made it.
#[test]
fn service_is_shared_between_plugins_by_its_methods() {
    let shop = Shop::start(&["shop", "other"]);
    for sent in 1..=4 {
        let plugin = if sent % 2 == 0 { "shop" } else { "other" };
        assert_eq!(shop.ask(&format!("/{plugin}/send/ann")), sent.to_string());
    }
    assert_eq!(shop.ask("/shop/service"), shop.ask("/other/service"));
    let told = shop.ask("/other/data");
    assert!(told.contains("holds a `dyn Mailer`") && told.contains("not a `Limits`"), "{told}");
    let maker = shop.host.slot("mailer").created_by().0;
    let guest = if maker == "shop" { "other" } else { "shop" };

    // Another plugin's service is not started afresh by who expects other methods.
    let reason = shop.host.refuse(guest, |plugins| plugins.replace(guest, GROWN));
    assert!(reason.contains(&format!("{maker} generation 1 made it with")), "{reason}");

    // Its maker's plugin is deleted: the service goes on, and its code with it.
    shop.host.plugins.remove(&maker);
    eventually(SOON, "the maker to be gone", || match shop.host.get(&format!("/{maker}/count")).status {
        404 => Ok(()),
        status => Err(status),
    });
    assert_eq!(shop.ask(&format!("/{guest}/send/ann")), "5");
    // Where both loaded at the same time, each made one, and one of them was dropped then.
    let in_vain = shop.dropped().len();
    assert_eq!(shop.ask(&format!("/{guest}/remove")), "removed");
    assert_eq!(shop.dropped().len(), in_vain + 1);
    assert_eq!(shop.ask(&format!("/{guest}/send/ann")), "1");
}

/// No call fails and none is lost while services and code change under it; every old service is dropped once.
#[test]
fn calls_under_load_survive_reloads_and_replacements() {
    let shop = Shop::start(&["shop"]);
    let load = Load::start(shop.host.listen(), 4, "/shop/send/ann", |response| match response.status {
        200 => Ok("sent".to_owned()),
        status => Err(format!("{status}: {}", response.text())),
    });
    for build in 1..=12 {
        fs::write(&shop.on_load, if build % 3 == 0 { "replace" } else { "" }).unwrap();
        shop.rebuild(build);
        load.wait_answers(8);
        if build % 4 == 0 {
            shop.ask("/shop/replace");
        }
    }
    let sent = load.finish();
    sent.assert_flawless();
    eventually(SOON, "all services but one to be dropped", || match shop.dropped().len() {
        7 => Ok(()),
        dropped => Err(dropped),
    });
    shop.wait_parked(&[]);
    // What every service counted adds up to what was answered.
    let counted: u64 =
        shop.dropped().iter().map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum();
    let last: u64 = shop.ask("/shop/count").parse().unwrap();
    assert_eq!(counted + last, sent.answers() as u64);
}

/// The stress command with data and a service in a short form: eight clients, nothing lost, nothing counted twice.
#[test]
fn data_and_service_lose_nothing_in_reloads_under_load() {
    let outcome = run_state(60, 8);
    assert!(outcome.wrong.is_empty(), "{outcome:#?}");
    assert_eq!((outcome.reloads, outcome.unmapped, outcome.parked), (60, 59, 1), "{outcome:#?}");
}

/// 66 requests, in three generations of two plugins, come for cold keys in the same moment: one init each, one value
/// for all, and nobody gets it as another type.
#[test]
fn cold_keys_asked_by_three_generations_of_two_plugins_have_one_init() {
    const EACH: usize = 11;
    let launch = Launch::new();
    let scratch = tempfile::tempdir().unwrap();
    for plugin in ["one", "two"] {
        launch.plugins().install(plugin, "cold_probe");
    }
    // More threads than requests, so that all come for the keys at once: some are kept for whoever has none.
    fs::write(launch.scratch().join("host.toml"), "[limits]\nmax_workers = 100\n").unwrap();
    let host = launch.start();
    let lines =
        |file: &str| fs::read_to_string(scratch.path().join(file)).unwrap_or_default().lines().count();
    let path = |plugin: &str| format!("/{plugin}/ask?dir={}", scratch.path().display());
    let answers: Vec<(u64, u64)> = thread::scope(|scope| {
        let mut clients = Vec::new();
        for generation in 1..=3 {
            for plugin in ["one", "two"] {
                if generation > 1 {
                    host.reload(plugin, |plugins| plugins.rebuild(plugin, "cold_probe", generation));
                }
                for _ in 0..EACH {
                    let (listen, path) = (host.listen(), path(plugin));
                    clients.push(scope.spawn(move || Client::new(listen).get(&path).unwrap()));
                }
            }
            eventually(SOON, "the requests to wait at the gate", || match lines("waiting") {
                waiting if waiting == generation * 2 * EACH => Ok(()),
                waiting => Err(waiting),
            });
        }
        fs::write(scratch.path().join("gate"), "").unwrap();
        let answer = |response: tests::http::Response| {
            assert_eq!(response.status, 200, "{}", response.text());
            let text = response.text();
            let (service, data) = text.split_once(' ').unwrap();
            (service.parse().unwrap(), data.parse().unwrap())
        };
        clients.into_iter().map(|client| answer(client.join().unwrap())).collect()
    });
    assert_eq!(lines("inits"), 2, "one of the service, one of the data");
    let mut services: Vec<u64> = answers.iter().map(|(service, _)| *service).collect();
    let mut data: Vec<u64> = answers.iter().map(|(_, data)| *data).collect();
    services.sort_unstable();
    data.sort_unstable();
    let each_once: Vec<u64> = (0..6 * EACH as u64).collect();
    assert_eq!((&services, &data), (&each_once, &each_once));

    for (route, found, expected, key) in [
        ("data-as-service", "Hits", "dyn Counter", "data"),
        ("service-as-data", "dyn Counter", "Hits", "service"),
        ("other-data", "Hits", "Misses", "data"),
        ("other-service", "dyn Counter", "dyn Clock", "service"),
    ] {
        let (maker, number) = host.slot(key).created_by();
        for plugin in ["one", "two"] {
            let told = host.get(&format!("/{plugin}/{route}")).text();
            let start = format!(
                "`{key}` holds a `{found}` (made by {maker} generation {number}) and not a `{expected}`;"
            );
            assert!(told.starts_with(&start), "{told}");
        }
    }
}

/// At the end of the host the value is dropped by its own code, before the process ends.
#[test]
fn services_are_dropped_at_shutdown() {
    let shop = Shop::start(&["shop"]);
    let first = shop.ask("/shop/service");
    shop.rebuild(1);
    shop.ask("/shop/send/ann");
    shop.ask("/shop/hold");
    let Shop { host, _scratch, drops, .. } = shop;
    let finished = host.terminate();
    assert_eq!(finished.code(), 0, "{finished}");
    assert_eq!(fs::read_to_string(drops).unwrap(), format!("{first} after 1\n"));
}
