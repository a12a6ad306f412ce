//! Counts visits in StatsD, through a client of another crate that has a queue and a thread of its own: a service.
#![forbid(unsafe_code)]

use std::net::UdpSocket;

use cadence::{Counted, QueuingMetricSink, StatsdClient, UdpMetricSink};
use plugin_api::prelude::*;

plugin! {
    routes: { GET "/{page}" => visit },
    state: [STATSD],
}

/// What this plugin wants of the client. It is called from every later generation of this code, and stays the one
/// client, with its socket, its queue and its thread, that the first generation made.
#[plugin_api::resident]
trait Statsd: Send + Sync {
    /// Counts a visit. Only queues: the client's thread sends.
    fn count(&self, page: &str) -> Result<()>;
}

struct Client(StatsdClient);

impl Statsd for Client {
    fn count(&self, page: &str) -> Result<()> {
        self.0.count(page, 1)?;
        Ok(())
    }
}

static STATSD: registry::Lazy<dyn Statsd> = registry::Lazy::new("statsd", connect);

fn connect() -> Result<Box<dyn Statsd>> {
    let server = env_or("STATSD", "127.0.0.1:8125")?;
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let sink = QueuingMetricSink::from(UdpMetricSink::from(server, socket)?);
    Ok(Box::new(Client(StatsdClient::from_sink("visits", sink))))
}

fn visit(req: &Request) -> Result<String> {
    let page: String = req.param("page")?;
    STATSD.get()?.count(&page)?;
    Ok(format!("{page}: counted\n"))
}
