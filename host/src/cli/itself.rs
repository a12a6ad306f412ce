//! Which file to execute to run this very program once more, for the probe.
//!
//! `/proc/self/exe` leads to it, also when its file was replaced or removed meanwhile. Not so under valgrind, which
//! emulates reading that link, and lets an `execve` of it start valgrind instead: there the file that the link names
//! is the one. What is mapped where this code runs decides.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::CliError;

const LINK: &str = "/proc/self/exe";

/// This very program.
pub(super) fn program() -> Result<PathBuf, CliError> {
    let named = std::env::current_exe();
    let inode = |path: &Path| fs::metadata(path).ok().map(|file| file.ino());
    let named_inode = named.as_deref().ok().and_then(inode);
    if is_link_right(mapped_inode(), inode(Path::new(LINK)), named_inode) {
        return Ok(PathBuf::from(LINK));
    }
    named.map_err(CliError::system("find out which program this is"))
}

/// The link is right unless it is not there, or leads elsewhere than to what is mapped while the name does not.
fn is_link_right(mapped: Option<u64>, linked: Option<u64>, named: Option<u64>) -> bool {
    match (mapped, linked, named) {
        (_, None, _) => false,
        (Some(mapped), Some(linked), Some(named)) => linked == mapped || named != mapped,
        _ => true,
    }
}

/// The inode of the file that this code is mapped from.
fn mapped_inode() -> Option<u64> {
    let here = mapped_inode as fn() -> Option<u64> as usize;
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| inode_at(line, here))
}

/// The inode in a line such as `55d0-55e0 r-xp 00001000 fe:01 4711 /usr/bin/host`, if it is about that address.
fn inode_at(line: &str, address: usize) -> Option<u64> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    let is_within = (number(start)?..number(end)?).contains(&address);
    is_within.then(|| words.nth(3)?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_taken_only_where_it_alone_leads_to_what_runs() {
        assert!(is_link_right(Some(1), Some(1), Some(1)));
        assert!(is_link_right(Some(1), Some(1), Some(2)), "replaced on disk");
        assert!(is_link_right(Some(1), Some(1), None), "removed");
        assert!(!is_link_right(Some(1), Some(2), Some(1)), "the link leads to a tool that runs this program");
        assert!(is_link_right(Some(1), Some(2), Some(3)), "numbers of a file system that counts otherwise");
        assert!(is_link_right(None, Some(2), Some(3)));
        assert!(!is_link_right(Some(1), None, Some(1)), "no /proc");
    }

    #[test]
    fn this_code_is_mapped_from_this_program() {
        let file = fs::metadata(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(mapped_inode(), Some(file.ino()));
        assert_eq!(inode_at("10-20 r-xp 0 fe:01 4711 /usr/bin/host", 0x1f), Some(4711));
        assert_eq!(inode_at("10-20 r-xp 0 fe:01 4711 /usr/bin/host", 0x20), None);
    }
}
