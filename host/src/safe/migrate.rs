//! Taking a safe from files to a server, or back.
//!
//! # Invariants
//!
//! - The copy is made by one commit and compared with the original before anybody is told that it is there.
//! - The original is only read.

use xxhash_rust::xxh3::Xxh3;

use super::backend::Fault;
use super::error::ReadError;
use super::{OperateError, Safe, Safes, copy, envelope};

impl Safes {
    /// Copies a safe from one place to another and compares the two.
    pub(super) fn migrate(
        &self,
        name: &str,
        from: Option<&str>,
        to: Option<&str>,
    ) -> Result<u64, OperateError> {
        let wrong = |reason: &str| OperateError::Migrate { safe: name.to_owned(), reason: reason.to_owned() };
        let here = self.place();
        let (from, to) = (from.unwrap_or(&here), to.unwrap_or(&here));
        if from == to {
            return Err(wrong("it is to go where it is; name another place with --from or --to"));
        }
        let (from, to) = (self.elsewhere(from), self.elsewhere(to));
        let (source, target) = (from.one(name)?, to.open(name)?);
        if target.settled_at()? != 0 {
            return Err(wrong("there is one of this name, with entries of its own, where it is to go"));
        }
        let mut copied = Ok(0);
        source.core.backend.read(&mut |view| {
            copied = target.core.backend.import(view);
            Ok(())
        })?;
        let entries = copied?;
        let is_same = source.digest()? == target.digest()?;
        from.close();
        to.close();
        if is_same { Ok(entries) } else { Err(wrong("the copy is not the same; it was changed meanwhile")) }
    }
}

impl Safe {
    /// The number of its last write.
    fn settled_at(&self) -> Result<u64, ReadError> {
        let mut sequence = 0;
        self.core.backend.read(&mut |view| {
            sequence = view.sequence()?;
            Ok(())
        })?;
        Ok(sequence)
    }

    /// Stands for all that is in it.
    fn digest(&self) -> Result<(u64, u64), ReadError> {
        let mut digest = (0, 0);
        self.core.backend.read(&mut |view| {
            let (mut hash, mut sealed) = (Xxh3::new(), Vec::new());
            let count = copy::everything::<Fault>(view, |key, entry| {
                envelope::seal(key, entry, &mut sealed);
                hash.update(&sealed);
                Ok(())
            })?;
            digest = (count, hash.digest());
            Ok(())
        })?;
        Ok(digest)
    }
}

/// Runs `body` here, or on a thread of its own where this one must not block, as the admin face's.
pub(super) fn aside<R: Send>(body: impl FnOnce() -> R + Send) -> std::io::Result<R> {
    if tokio::runtime::Handle::try_current().is_err() {
        return Ok(body());
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("safe order".to_owned()).spawn_scoped(scope, body)?;
        thread.join().map_err(|_| std::io::Error::other("it panicked"))
    })
}
