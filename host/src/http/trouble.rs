//! What a client sees when a request did not end well: JSON, a small page, or a line of text.
//!
//! # Invariants
//!
//! - The reason is shown in development only; the request id always.
//! - Everything that came from outside is escaped in HTML and quoted in JSON.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};

use super::answer::Origin;

/// A request that did not end well.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) status: StatusCode,
    /// One sentence that is fit for any client.
    pub(super) summary: String,
    /// What went wrong, in the author's words; for development only.
    pub(super) reason: Option<String>,
    /// Seconds after which trying again makes sense.
    pub(super) retry_after: Option<u16>,
    /// The `Allow` header of a 405.
    pub(super) allow: Option<HeaderValue>,
    /// Whether a page may reload itself after that time.
    pub(super) reloads: bool,
}

/// How the client wants to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Html,
    Text,
}

impl Format {
    /// What the `Accept` header prefers. `*/*`, as curl sends it, means a line of text.
    pub(super) fn preferred(accept: Option<&HeaderValue>) -> Self {
        let (mut json, mut html, mut text) = (0.0_f32, 0.0_f32, 0.0_f32);
        let accept = accept.and_then(|value| value.to_str().ok()).unwrap_or_default();
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let quality =
                parts.find_map(|part| part.strip_prefix("q=")).map_or(1.0, |q| q.parse().unwrap_or(0.0));
            let best = match kind {
                "application/json" | "application/problem+json" => &mut json,
                "text/html" | "application/xhtml+xml" => &mut html,
                "text/plain" => &mut text,
                _ => continue,
            };
            *best = best.max(quality);
        }
        if json > 0.0 && json > html && json >= text {
            Self::Json
        } else if html > 0.0 && html >= text {
            Self::Html
        } else {
            Self::Text
        }
    }
}

impl Trouble {
    /// Trouble with nothing to say but `summary`.
    pub(super) fn new(status: StatusCode, summary: impl Into<String>) -> Self {
        Self { status, summary: summary.into(), reason: None, retry_after: None, allow: None, reloads: false }
    }

    /// The response. `origin` is who failed, if the request got that far.
    pub(super) fn respond(
        mut self,
        format: Format,
        id: &str,
        origin: Option<&Origin>,
        is_development: bool,
    ) -> Response<Bytes> {
        if !is_development {
            self.reason = None;
        }
        let origin = origin.filter(|_| is_development);
        let (kind, body) = match format {
            Format::Json => ("application/json", self.json(id, origin)),
            Format::Html => ("text/html; charset=utf-8", self.html(id, origin)),
            Format::Text => ("text/plain; charset=utf-8", self.text(id, origin)),
        };
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.extend(self.allow.map(|allow| (ALLOW, allow)));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    fn json(&self, id: &str, origin: Option<&Origin>) -> String {
        let mut object = serde_json::json!({ "error": self.summary, "request_id": id });
        if let Some(reason) = &self.reason {
            object["reason"] = reason.as_str().into();
        }
        if let Some(origin) = origin {
            object["plugin"] = (*origin.plugin).into();
            object["generation"] = origin.generation.into();
            object["route"] = (*origin.pattern).into();
        }
        format!("{object}\n")
    }

    fn text(&self, id: &str, origin: Option<&Origin>) -> String {
        let mut line = format!("{}: {}", self.status.as_str(), self.summary);
        if let Some(origin) = origin {
            line += &format!(
                " (plugin {} generation {}, route {})",
                origin.plugin, origin.generation, origin.pattern
            );
        }
        if let Some(reason) = &self.reason {
            line += &format!(": {reason}");
        }
        format!("{line} [request {id}]\n")
    }

    fn html(&self, id: &str, origin: Option<&Origin>) -> String {
        let title = escape(&format!(
            "{} {}",
            self.status.as_str(),
            self.status.canonical_reason().unwrap_or_default()
        ));
        let reload = match self.retry_after {
            Some(seconds) if self.reloads => format!("<meta http-equiv=\"refresh\" content=\"{seconds}\">"),
            _ => String::new(),
        };
        let mut rows = String::new();
        let mut row = |name: &str, value: &str| {
            rows += &format!("<dt>{name}<dd><code>{}</code>", escape(value));
        };
        if let Some(origin) = origin {
            row("plugin", &origin.plugin);
            row("generation", &origin.generation.to_string());
            row("route", &origin.pattern);
        }
        row("request id", id);
        let reason = self.reason.as_deref().map_or_else(String::new, |r| format!("<pre>{}</pre>", escape(r)));
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\">{reload}<title>{title}</title>\
             <style>:root{{color-scheme:light dark}}body{{font:16px/1.5 system-ui,sans-serif;max-width:50rem;\
             margin:4rem auto;padding:0 1rem}}h1{{font-size:1.4rem}}dl{{display:grid;\
             grid-template-columns:max-content 1fr;gap:.2rem 1rem;opacity:.8}}dd{{margin:0}}\
             pre{{overflow:auto;padding:1rem;border:1px solid #8884;border-left:4px solid #c33;\
             white-space:pre-wrap}}</style></head>\n\
             <body><h1>{title}</h1><p>{}</p>{reason}<dl>{rows}</dl></body></html>\n",
            escape(&self.summary)
        )
    }
}

/// Text made harmless for element content and attribute values.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preferred(accept: &'static str) -> Format {
        Format::preferred(Some(&HeaderValue::from_static(accept)))
    }

    #[test]
    fn accept_header_chooses_the_format() {
        assert_eq!(Format::preferred(None), Format::Text);
        assert_eq!(preferred("*/*"), Format::Text);
        assert_eq!(preferred("application/json, text/plain, */*"), Format::Json);
        assert_eq!(
            preferred("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
            Format::Html
        );
        assert_eq!(preferred("text/html;q=0.5, application/json;q=0.9"), Format::Json);
        assert_eq!(preferred("text/html;q=0, text/plain;q=0.1"), Format::Text);
    }

    #[test]
    fn pages_escape_what_came_from_outside() {
        let mut trouble = Trouble::new(StatusCode::NOT_FOUND, "no <script> here");
        trouble.reason = Some("a \"quoted\" & <b>bold</b> reason".to_owned());
        let page = trouble.respond(Format::Html, "id-1", None, true).into_body();
        let page = std::str::from_utf8(&page).unwrap();

        assert!(page.contains("no &lt;script&gt; here") && !page.contains("<script>"));
        assert!(page.contains("a &quot;quoted&quot; &amp; &lt;b&gt;bold&lt;/b&gt; reason"));
    }

    #[test]
    fn production_never_shows_the_reason() {
        for format in [Format::Json, Format::Html, Format::Text] {
            let mut trouble = Trouble::new(StatusCode::INTERNAL_SERVER_ERROR, "the handler failed");
            trouble.reason = Some("secret-reason".to_owned());
            let body = trouble.respond(format, "id-1", None, false).into_body();
            let body = std::str::from_utf8(&body).unwrap();
            assert!(!body.contains("secret-reason") && body.contains("id-1"), "{body}");
        }
    }
}
