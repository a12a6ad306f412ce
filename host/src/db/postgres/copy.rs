//! COPY: rows in and out as the server's own text or binary, in parts of any size.

use std::ops::ControlFlow;

use bytes::Bytes;
use tokio_postgres::Error;

use super::client::{Client, CopyOut};
use crate::db::Streamed;

/// Bytes that go to the server in one message.
const MESSAGE: usize = 256 << 10;

/// Sends what `source` writes into the buffer, until it writes nothing or breaks off.
pub(super) fn copy_in(
    client: &mut Client,
    sql: &str,
    source: &mut dyn FnMut(&mut Vec<u8>) -> ControlFlow<()>,
) -> Result<Streamed, Error> {
    let mut copy = client.copy_in(sql)?;
    let mut part = Vec::new();
    loop {
        part.clear();
        if source(&mut part).is_break() {
            // Dropped unfinished, it tells the server to forget it all; which has heard so once it answers again.
            drop(copy);
            return client.batch_execute("").map(|()| Streamed::Stopped);
        }
        if part.is_empty() {
            return copy.finish(client).map(Streamed::All);
        }
        for message in part.chunks(MESSAGE) {
            copy.send(client, Bytes::copy_from_slice(message))?;
        }
    }
}

/// Hands what the server sends to `sink`, until that breaks off: what is left then comes back, too.
pub(super) fn copy_out(
    client: &mut Client,
    sql: &str,
    sink: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<(Streamed, Option<CopyOut>), Error> {
    let mut copy = client.copy_out(sql)?;
    let mut bytes = 0;
    while let Some(part) = copy.next(client)? {
        bytes += part.len() as u64;
        if sink(&part).is_break() {
            return Ok((Streamed::Stopped, Some(copy)));
        }
    }
    Ok((Streamed::All(bytes), None))
}
