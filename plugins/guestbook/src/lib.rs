//! A guestbook: a database through the registry, forms, HTML, and notifications through a durable queue.
//!
//! The pool is opened once, at the first use, and found again by every later generation: edit this
//! file while the host runs, and the connections stay. SQLite needs no server; with
//! `DATABASE_URL=postgres://...` in the host's environment the same code runs on PostgreSQL.
//!
//! With `GUESTBOOK_NOTIFY=http://...` every entry is posted there. Whoever signs does not wait for that: the
//! notification is a job in the plugin's safe, done at least once, whatever is down or restarted meanwhile.
#![forbid(unsafe_code)]

use std::thread;
use std::time::Duration;

use plugin_api::prelude::*;
use plugin_api::safe::Queue;
use serde::{Deserialize, Serialize};

plugin! {
    routes: {
        GET "/" => list,
        POST "/" => sign,
        GET "/{id}" => show,
        inline GET "/ping" => ping,
    },
    on_load: start,
}

static DB: registry::Lazy<db::Pool> = registry::Lazy::new("db", connect);

fn url() -> Result<String> {
    Ok(env_or("DATABASE_URL", "sqlite:guestbook.db")?)
}

/// Opens the pool. Runs once in the life of the host, however often this file is edited.
fn connect() -> Result<db::Pool> {
    Ok(db::Pool::open(&url()?)?)
}

/// Runs before a generation takes over. If it fails, the old one stays.
fn start() -> Result<()> {
    migrate()?;
    if let Some(url) = notify_url()? {
        thread::Builder::new().name("notify".to_owned()).spawn(move || notify(&url))?;
    }
    Ok(())
}

fn migrate() -> Result<()> {
    let id = match url()?.starts_with("sqlite:") {
        true => "INTEGER PRIMARY KEY",
        false => "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
    };
    let table = format!("guestbook_entry (id {id}, who TEXT NOT NULL, said TEXT NOT NULL)");
    DB.get()?.execute(&format!("CREATE TABLE IF NOT EXISTS {table}"), &[])?;
    Ok(())
}

/// Where entries are told of; empty: nowhere.
fn notify_url() -> Result<Option<String>> {
    let url = env_or("GUESTBOOK_NOTIFY", "")?;
    Ok((!url.is_empty()).then_some(url))
}

/// That somebody has signed, for those who want to know.
#[derive(Serialize, Deserialize)]
struct Notification {
    id: i64,
    who: String,
}

fn notifications() -> Queue {
    safe::open().queue("notify")
}

/// Works notifications off. The queue says when this code is no longer the current generation; the next one's
/// thread goes on where this one ends.
fn notify(url: &str) {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(10))).build().into();
    for claim in notifications().claims() {
        let job = claim.and_then(|claim| Ok((claim.value::<Notification>()?, claim)));
        let (Notification { id, who }, claim) = match job {
            Ok(job) => job,
            Err(error) => {
                tracing::warn!("no notification could be taken: {error}");
                continue;
            }
        };
        let decided = match agent.post(url).send(format!("{who} has signed, entry {id}\n")) {
            Ok(_) => claim.ack(),
            Err(error) => {
                tracing::warn!(id, attempt = claim.attempt(), "not notified, and tried again later: {error}");
                claim.nack()
            }
        };
        // The claim has run out, then: somebody else has the job.
        if let Err(error) = decided {
            tracing::warn!(id, "a notification may be sent twice: {error}");
        }
    }
}

/// An entry of the guestbook.
struct Entry<'a> {
    id: i64,
    who: &'a str,
    said: &'a str,
}

impl<'a> Entry<'a> {
    fn read(row: &db::Row<'a>) -> Result<Entry<'a>> {
        Ok(Entry { id: row.get("id")?, who: row.get("who")?, said: row.get("said")? })
    }

    fn html(&self, req: &Request) -> String {
        let link = req.url(&format!("/{}", self.id));
        let (who, said) = (escape_html(self.who), escape_html(self.said));
        format!("<article><p>{said}</p><a href=\"{link}\">{who}</a></article>")
    }
}

fn list(req: &Request) -> Result<Html<String>> {
    let rows =
        DB.get()?.query("SELECT id, who, said FROM guestbook_entry ORDER BY id DESC LIMIT $1", &[&20])?;
    let mut entries = String::new();
    for row in &rows {
        entries += &Entry::read(&row)?.html(req);
    }
    let action = req.url("/");
    Ok(page(&format!(
        "<h1>Guestbook</h1>\
         <form method=post action=\"{action}\">\
         <input name=who placeholder=\"Your name\" required maxlength=80>\
         <textarea name=said placeholder=\"What you want to say\" required maxlength=2000></textarea>\
         <button>Sign</button></form>{entries}"
    )))
}

fn show(req: &Request) -> Result<Html<String>> {
    let id: i64 = req.param("id")?;
    let sql = "SELECT id, who, said FROM guestbook_entry WHERE id = $1";
    let Some(row) = DB.get()?.query_opt(sql, &[&id])? else {
        return Err(HttpError::not_found(format!("there is no entry {id}")).into());
    };
    let back = req.url("/");
    Ok(page(&format!("{}<p><a href=\"{back}\">All entries</a>", Entry::read(&row.as_row())?.html(req))))
}

#[derive(Deserialize)]
struct Signature {
    who: String,
    said: String,
}

fn sign(req: &Request) -> Result<Redirect> {
    let Signature { who, said } = req.form()?;
    let (who, said) = (who.trim(), said.trim());
    if who.is_empty() || said.is_empty() {
        return Err(HttpError::bad_request("a name and a text are needed").into());
    }
    let sql = "INSERT INTO guestbook_entry (who, said) VALUES ($1, $2) RETURNING id";
    let id: i64 = DB.get()?.query_one(sql, &[&who, &said])?.get("id")?;
    tracing::info!(id, who, "signed");
    if notify_url()?.is_some() {
        notifications().push(&Notification { id, who: who.to_owned() })?;
    }
    Ok(Redirect::to(req.url("/")))
}

/// Never blocks, so it runs on the I/O thread itself.
fn ping(_: &Request) -> &'static str {
    "pong\n"
}

fn page(body: &str) -> Html<String> {
    Html(format!(
        "<!doctype html><html lang=en><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width, initial-scale=1\"><title>Guestbook</title>\
         <style>:root{{color-scheme:light dark}}\
         body{{font:17px/1.5 Georgia,serif;max-width:36rem;margin:3rem auto;padding:0 1rem}}\
         form{{display:grid;gap:.6rem;margin:1.5rem 0 2rem}}\
         input,textarea,button{{font:inherit;padding:.5rem .7rem}}textarea{{min-height:5rem}}\
         article{{border-top:1px solid #8886;padding:.8rem 0}}article p{{margin:0;white-space:pre-wrap}}\
         article a{{font-size:.9rem;opacity:.75}}</style>{body}"
    ))
}
