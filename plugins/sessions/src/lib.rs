//! Logins that survive reloads and restarts: sessions and a rate limit, kept in the plugin's safe.
//!
//! ```sh
//! curl -c jar -d name=ann localhost:8080/sessions/login
//! curl -b jar localhost:8080/sessions/
//! ```
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Read;
use std::time::Duration;

use plugin_api::http::HeaderValue;
use plugin_api::http::header::{COOKIE, SET_COOKIE};
use plugin_api::prelude::*;
use serde::{Deserialize, Serialize};

plugin! {
    routes: { GET "/" => home, POST "/login" => login, POST "/logout" => logout },
}

/// How long a session lives after its last request.
const IDLE: Duration = Duration::from_secs(30 * 60);
/// Most logins of one address within [`WINDOW`].
const LOGINS: i64 = 5;
const WINDOW: Duration = Duration::from_secs(60);

/// A field added here reads as its default in the sessions that are there already.
#[derive(Serialize, Deserialize)]
struct Session {
    name: String,
    #[serde(default)]
    visits: u64,
}

fn home(req: &Request) -> Result<Html<String>> {
    let Some(token) = token(req) else { return Ok(page(&login_form(req))) };
    // Each visit is counted and makes the session live on; `None` stays `None`: it has expired.
    let session = req.safe().expires_in(IDLE).update(("session", token), |session: Option<Session>| {
        session.map(|session| Session { visits: session.visits + 1, ..session })
    })?;
    let Some(Session { name, visits }) = session else { return Ok(page(&login_form(req))) };
    let name = escape_html(&name);
    let action = req.url("/logout");
    Ok(page(&format!(
        "<h1>Hello, {name}</h1><p>Visit number {visits}.\
         <form method=post action=\"{action}\"><button>Log out</button></form>"
    )))
}

#[derive(Deserialize)]
struct Login {
    name: String,
}

fn login(req: &Request) -> Result<Response> {
    let address = req.remote().map_or_else(String::new, |address| address.ip().to_string());
    // The first login opens the window, and its expiry closes it.
    let logins = req.safe().expires_in(WINDOW).incr(("logins", address), 1)?;
    if logins > LOGINS {
        let words = format!("more than {LOGINS} logins in {} seconds", WINDOW.as_secs());
        return Err(HttpError::new(StatusCode::TOO_MANY_REQUESTS, words).into());
    }
    let Login { name } = req.form()?;
    let name = name.trim().to_owned();
    if name.is_empty() {
        return Err(HttpError::bad_request("a name is needed").into());
    }
    let token = new_token()?;
    req.safe().expires_in(IDLE).put(("session", &token), &Session { name, visits: 0 })?;
    let cookie = format!("session={token}; Path={}; HttpOnly; SameSite=Lax", req.url("/"));
    redirect_home(req, &cookie)
}

fn logout(req: &Request) -> Result<Response> {
    if let Some(token) = token(req) {
        req.safe().delete(("session", token))?;
    }
    redirect_home(req, &format!("session=; Path={}; Max-Age=0", req.url("/")))
}

/// The token in the request's cookies.
fn token(req: &Request) -> Option<String> {
    let cookies = req.header(COOKIE.as_str())?;
    cookies.split(';').find_map(|cookie| cookie.trim().strip_prefix("session=")).map(str::to_owned)
}

/// 128 bits that nobody can guess.
fn new_token() -> Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn redirect_home(req: &Request, cookie: &str) -> Result<Response> {
    let mut response = Redirect::to(req.url("/")).into_response();
    response.headers_mut().append(SET_COOKIE, HeaderValue::from_str(cookie)?);
    Ok(response)
}

fn login_form(req: &Request) -> String {
    let action = req.url("/login");
    format!(
        "<h1>Who are you?</h1><form method=post action=\"{action}\">\
         <input name=name placeholder=\"Your name\" required maxlength=80><button>Log in</button></form>"
    )
}

fn page(body: &str) -> Html<String> {
    Html(format!(
        "<!doctype html><html lang=en><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width, initial-scale=1\"><title>Sessions</title>\
         <style>:root{{color-scheme:light dark}}\
         body{{font:17px/1.5 system-ui,sans-serif;max-width:36rem;margin:3rem auto;padding:0 1rem}}\
         input,button{{font:inherit;padding:.5rem .7rem}}</style>{body}"
    ))
}
