//! Facts about the host of paper, with a plugin of its own: the round trip over the boundary, without loading.
#![expect(
    unsafe_code,
    reason = "declares a plugin inside of plugin-api, where `plugin!` is not foreign code"
)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::prelude::*;

crate::plugin! {
    routes: {
        GET "/" => index,
        GET "/greet/{name}" => greet,
        GET "/greet/world" => greet_world,
        GET "/files/{*path}" => file,
        POST "/echo" => echo,
        GET "/count" => count,
        GET "/fails" => fails,
        GET "/panics" => panics,
        GET "/missing" => missing,
        GET "/pool" => pool,
        GET "/recursive" => recursive,
        POST "/safe/{key}" => put,
        GET "/safe/{key}" => look,
        GET "/queue/extend" => extend,
        GET "/queue/dead" => bury,
        inline GET "/logs" => logs,
    },
    state: [HITS],
    on_load: on_load,
    check: check,
}

#[derive(Resident, Default)]
struct Hits {
    total: AtomicU64,
}

static HITS: registry::Lazy<Hits> = registry::Lazy::new("hits", || Ok(Hits::default()));
static LOADED: AtomicU64 = AtomicU64::new(0);

/// Named as the hook is: what `plugin!` writes has names that no author gives.
fn on_load() -> Result<()> {
    LOADED.fetch_add(1, Ordering::SeqCst);
    Ok(())
}

fn check() -> Result<()> {
    LOADED.fetch_add(10, Ordering::SeqCst);
    Ok(())
}

fn index(req: &Request) -> String {
    format!("index {}", req.query_str())
}

fn greet(req: &Request) -> Result<String> {
    Ok(format!("hello, {}", req.param::<String>("name")?))
}

fn greet_world(_: &Request) -> &'static str {
    "the world"
}

fn file(req: &Request) -> Result<String> {
    Ok(req.param::<String>("path")?)
}

fn echo(req: &Request) -> Result<Response> {
    let mut response = Response::new(StatusCode::CREATED).body("text/plain", req.body().to_vec());
    response.headers_mut().insert("x-name", req.header("x-name").unwrap_or_default().parse()?);
    Ok(response)
}

fn count(_: &Request) -> Result<String> {
    HITS.get()?.total.fetch_add(1, Ordering::SeqCst);
    let same = registry::get_or_init("hits", || Ok::<_, Error>(Hits::default()))?;
    Ok(same.total.load(Ordering::SeqCst).to_string())
}

fn fails(_: &Request) -> Result<String> {
    Err(Error::msg("out of flour"))
}

fn panics(_: &Request) -> &'static str {
    panic!("this handler panics, as it must")
}

fn missing(_: &Request) -> Result<String> {
    Err(HttpError::not_found("no such cake").into())
}

fn pool(_: &Request) -> Result<String> {
    registry::get_or_init("pool", || db::Pool::open("sqlite::memory:"))?;
    Ok(String::new())
}

fn recursive(_: &Request) -> Result<String> {
    let found = registry::get_or_init("recursive", || {
        registry::get_or_init("recursive", || Ok::<_, Error>(Hits::default()))?;
        Ok::<_, Error>(Hits::default())
    });
    found.map(|_| String::new()).map_err(Into::into)
}

fn put(req: &Request) -> Result<String> {
    let safe = req.safe();
    safe.put(req.param::<String>("key")?, &String::from_utf8_lossy(req.body()).into_owned())?;
    Ok(safe.incr("puts", 1)?.to_string())
}

fn look(req: &Request) -> Result<String> {
    let found: Option<String> = req.safe().get(req.param::<String>("key")?)?;
    Ok(found.unwrap_or_else(|| "nothing".to_owned()))
}

/// A claim that is extended stays its holder's; one whose time is over is lost, for every later step.
fn extend(req: &Request) -> Result<String> {
    let hour = std::time::Duration::from_secs(3_600);
    let queue = req.safe().queue("extended").visible_after(hour);
    queue.push("job")?;
    let mut first = queue.claim()?.ok_or_else(|| Error::msg("no job"))?;
    first.extend(2 * hour)?;
    first.extend(2 * hour)?;
    let none = queue.claim()?.is_none();
    // It gives the rest of its time back.
    first.extend(std::time::Duration::ZERO)?;
    let mut second = loop {
        if let Some(claim) = queue.claim()? {
            break claim;
        }
    };
    let is_lost =
        matches!(first.extend(hour), Err(safe::WriteError::Contended { .. })) && first.ack().is_err();
    second.extend(hour)?;
    let told =
        format!("{none} {is_lost} {} {} {}", second.attempt(), second.value::<String>()?, queue.len()?);
    second.ack()?;
    Ok(format!("{told} {}", queue.len()?))
}

/// A dead job is removed once.
fn bury(req: &Request) -> Result<String> {
    let queue = req.safe().queue("buried").max_attempts(1);
    queue.push("job")?;
    let claim = queue.claim()?.ok_or_else(|| Error::msg("no job"))?;
    let id = claim.id().to_owned();
    claim.nack()?;
    let (mut once, mut twice) = (queue.dead()?, queue.dead()?);
    let (once, twice) = (once.remove(0), twice.remove(0));
    let is_named = once.id().as_deref() == Some(&*id);
    once.delete()?;
    let is_late = matches!(twice.delete(), Err(safe::WriteError::Contended { .. }));
    Ok(format!("{is_named} {is_late} {} {}", queue.dead()?.len(), queue.len()?))
}

fn logs(_: &Request) -> &'static str {
    tracing::warn!(cakes = 3, "few left");
    "logged"
}

#[test]
fn handlers_answer_as_in_the_host() {
    let app = crate::testing::app!();
    assert_eq!(LOADED.load(Ordering::SeqCst), 11, "hooks run once");
    assert_eq!(app.get("/?a=1").text(), "index a=1");
    assert_eq!(app.get("/greet/a%20cake").text(), "hello, a cake");
    assert_eq!(app.get("/greet/world").text(), "the world");
    assert_eq!(app.get("/files/a/b.txt").text(), "a/b.txt");
    assert_eq!(
        [app.get("/nothing").status(), app.get("/greet/").status(), app.get("/files/").status()],
        [404; 3]
    );
    assert_eq!(app.get("/echo").status(), 405);
    let answer = app.request("POST", "/echo").header("X-Name", "ann").body("flour").send();
    assert_eq!((answer.status(), answer.header("x-name"), answer.bytes()), (201, Some("ann"), &b"flour"[..]));
}

#[test]
fn failures_say_why() {
    let app = crate::testing::app!();
    let answer = app.get("/fails");
    assert_eq!((answer.status(), answer.error()), (500, Some("out of flour")));
    let answer = app.get("/panics");
    assert_eq!((answer.status(), answer.error()), (500, Some("this handler panics, as it must")));
    let answer = app.get("/missing");
    assert_eq!((answer.status(), answer.error()), (404, None));
    let answer = app.get("/pool");
    let words = answer.error().unwrap_or_default();
    assert!(words.contains("`plugin_api::testing` has no databases; test this with `host run`"), "{words}");
    let answer = app.get("/recursive");
    let words = answer.error().unwrap_or_default();
    assert!(words.contains("making `recursive` needs `recursive` itself"), "{words}");
}

/// By many threads at once, over `Lazy` and by look-up: one value.
#[test]
fn data_is_shared() {
    let app = crate::testing::app!();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..5).for_each(|_| assert_eq!(app.get("/count").status(), 200)));
        }
    });
    assert_eq!(app.get("/count").text(), "21");
}

#[test]
fn a_claim_is_extended_by_its_holder_alone() {
    assert_eq!(crate::testing::app!().get("/queue/extend").text(), "true true 2 job 1 0");
}

#[test]
fn a_dead_job_is_removed_once() {
    assert_eq!(crate::testing::app!().get("/queue/dead").text(), "true true 0 0");
}

#[test]
fn safe_is_in_memory() {
    let app = crate::testing::app!();
    assert_eq!(app.get("/safe/cake").text(), "nothing");
    let first: u64 = app.post("/safe/cake", "apple").text().parse().unwrap();
    assert_eq!(app.post("/safe/cake", "plum").text(), (first + 1).to_string());
    assert_eq!(app.get("/safe/cake").text(), "plum");
}

#[test]
fn log_is_captured() {
    let app = crate::testing::app!();
    crate::testing::logged();
    assert_eq!(app.get("/logs").text(), "logged");
    assert_eq!(crate::testing::logged(), ["WARN few left cakes=3"]);
    assert!(crate::testing::logged().is_empty());
}
