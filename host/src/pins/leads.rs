//! What in the data of other libraries leads into a library that is to leave.
//!
//! libc and others keep addresses that they were given: the name for the system's log, a variable of the
//! environment, the state of a random generator, a stream's buffer, hooks of C++. Most such functions need not be
//! known one by one: what they keep lies in the data of the library that they belong to, or in the environment, and
//! can be seen there. `host/docs/libc.md` tells which are found like this, and which are not.
//!
//! # Invariants
//!
//! - It errs on the side of what stays mapped: a number that looks like an address is one.
//! - It reads as the system reads, so that memory which cannot be read is an error and no fault.
#![expect(unsafe_code, reason = "asks the dynamic loader what is mapped where, and reads the environment")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use super::code::owner_of;

/// Bytes of a word.
const WORD: usize = size_of::<usize>();
/// How many words before the mark of a library belong to what libc calls and forgets by itself when that library goes:
/// the functions around a fork, or one for the end with its argument.
const BEFORE_MARK: usize = 3;
/// Whose data tells nothing: what has to do with loading and unwinding, and drops what it keeps when a library goes.
const MINDFUL: [&str; 2] = ["ld-linux", "libgcc_s"];

/// What leads into `range`, each a fragment that completes "held by ...".
pub fn leads_into(range: &Range<usize>) -> Vec<String> {
    let mut leads = in_environment(range);
    let Ok(memory) = File::open("/proc/self/mem") else { return leads };
    for Data { library, at } in data_of_libraries() {
        let mut bytes = vec![0; at.len()];
        if memory.read_exact_at(&mut bytes, at.start as u64).is_ok() {
            // Each library has a variable that holds its own address, by which libc tells libraries apart.
            let is_mark = |word: usize| {
                let mut value = [0; WORD];
                let is_read = memory.read_exact_at(&mut value, word as u64).is_ok();
                is_read && usize::from_ne_bytes(value) == word
            };
            let found = words_into(&bytes, range, is_mark);
            if found > 0 {
                let plural = if found == 1 { "an address" } else { "addresses" };
                leads.push(format!("{plural} of it in the data of {library}"));
            }
        }
    }
    leads
}

/// How many words lead into `range`, but for those that libc forgets by itself.
fn words_into(bytes: &[u8], range: &Range<usize>, is_mark: impl Fn(usize) -> bool) -> usize {
    let words: Vec<usize> = bytes
        .chunks_exact(WORD)
        .map(|word| usize::from_ne_bytes(word.try_into().unwrap_or_default()))
        .collect();
    let mut found = 0;
    // From behind: a mark comes after what it is for.
    let mut marked = 0;
    for &word in words.iter().rev() {
        let is_within = range.contains(&word);
        if is_within && is_mark(word) {
            marked = BEFORE_MARK;
        } else {
            found += usize::from(is_within && marked == 0);
            marked = marked.saturating_sub(1);
        }
    }
    found
}

/// The variables of the environment that lie in `range`, and the environment itself.
fn in_environment(range: &Range<usize>) -> Vec<String> {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    let mut leads = Vec::new();
    // SAFETY: a variable of libc's. A plugin that sets variables beside this breaks the rules of `set_var`.
    let mut at = unsafe { environ };
    if range.contains(&(at as usize)) {
        return vec!["the environment, which it has put in its own memory".to_owned()];
    }
    while !at.is_null() {
        // SAFETY: the environment ends with a null pointer.
        let variable = unsafe { *at };
        if variable.is_null() {
            break;
        }
        if range.contains(&(variable as usize)) {
            // SAFETY: a C string, for the library that it lies in is mapped.
            let text = unsafe { CStr::from_ptr(variable) }.to_string_lossy();
            let name = text.split('=').next().unwrap_or_default();
            leads.push(format!("the variable `{name}` of the environment, which it has set with `putenv`"));
        }
        // SAFETY: not the last entry.
        at = unsafe { at.add(1) };
    }
    leads
}

/// A part of a library's data.
struct Data {
    library: String,
    at: Range<usize>,
}

/// The data of all libraries but plugins: what they may write to. The executable's own is the host's, which
/// knows what it keeps.
fn data_of_libraries() -> Vec<Data> {
    unsafe extern "C" fn look(info: *mut libc::dl_phdr_info, _size: usize, data: *mut c_void) -> c_int {
        // SAFETY: the loader passes a valid description, and `data` is the list of the frame below.
        let (info, found) = unsafe { (&*info, &mut *data.cast::<Vec<Data>>()) };
        // SAFETY: the loader's names are C strings, alive while its list is locked, as it is now.
        let path = unsafe { CStr::from_ptr(info.dlpi_name) }.to_string_lossy();
        let library = path.rsplit('/').next().unwrap_or_default();
        if library.is_empty() || MINDFUL.iter().any(|name| library.starts_with(name)) {
            return 0;
        }
        // SAFETY: as many program headers as the loader says, mapped with the object.
        let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
        let is_data =
            |header: &&libc::Elf64_Phdr| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W != 0;
        for header in headers.iter().filter(is_data) {
            let start = (info.dlpi_addr as usize + header.p_vaddr as usize).next_multiple_of(WORD);
            let end = info.dlpi_addr as usize + header.p_vaddr as usize + header.p_memsz as usize;
            found.push(Data { library: library.to_owned(), at: start..end.max(start) });
        }
        0
    }
    let mut found: Vec<Data> = Vec::new();
    // SAFETY: `look` matches the signature and leaves nothing behind; `found` outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut found).cast()) };
    // A plugin's data is its own affair, and what other plugins were given of it is counted.
    found.retain(|data| owner_of(data.at.start).is_none());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(words: &[usize]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    #[test]
    fn words_that_lead_into_a_range_are_found_but_for_those_that_libc_forgets_by_itself() {
        const MARK: usize = 0x1010;
        let found = |words: &[usize]| words_into(&bytes_of(words), &(0x1000..0x2000), |word| word == MARK);
        assert_eq!(found(&[0, 0xfff, 0x1000, 0x1fff, 0x2000]), 2);
        assert_eq!(found(&[4, 0xdead, 0x1008, MARK]), 0, "at the end");
        assert_eq!(found(&[0x1020, 0x1028, 0x1030, MARK, 1, 0x1020, 0, 0x1030, MARK]), 0, "around forks");
        assert_eq!(found(&[0x1008, 0, 0, 0, MARK, 0x1008]), 2, "beside them");
        assert_eq!(found(&[]), 0);
    }

    #[test]
    fn data_of_libc_is_looked_at() {
        let libraries: Vec<String> = data_of_libraries().into_iter().map(|data| data.library).collect();
        assert!(libraries.iter().any(|library| library.starts_with("libc.so")), "{libraries:?}");
        let text = leads_into as *const () as usize;
        assert_eq!(leads_into(&(text..text + 1)), Vec::<String>::new());
    }
}
