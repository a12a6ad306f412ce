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
/// In the list that libc keeps of functions for the end of the process: the kind of those that it calls and forgets
/// by itself when their library goes, followed by the function, its argument, and the library.
const FORGOTTEN_AT_UNMAP: usize = 4;
/// Whose data tells nothing: what has to do with loading and unwinding, and drops what it keeps when a library goes.
const MINDFUL: [&str; 2] = ["ld-linux", "libgcc_s"];

/// What leads into `range`, each a fragment that completes "held by ...".
pub fn leads_into(range: &Range<usize>) -> Vec<String> {
    let mut leads = in_environment(range);
    let Ok(memory) = File::open("/proc/self/mem") else { return leads };
    for Data { library, at } in data_of_libraries() {
        let mut bytes = vec![0; at.len()];
        if memory.read_exact_at(&mut bytes, at.start as u64).is_ok() {
            let found = words_into(&bytes, range).count();
            if found > 0 {
                let plural = if found == 1 { "an address" } else { "addresses" };
                leads.push(format!("{plural} of it in the data of {library}"));
            }
        }
    }
    leads
}

/// The words that lead into `range`.
fn words_into<'a>(bytes: &'a [u8], range: &'a Range<usize>) -> impl Iterator<Item = usize> + 'a {
    let word = move |at: usize| {
        let bytes = bytes.get(at.checked_mul(WORD)?..)?.first_chunk::<WORD>()?;
        Some(usize::from_ne_bytes(*bytes))
    };
    let is_forgotten = move |at: usize| {
        // As the argument, or as the library.
        [2, 3].into_iter().any(|back| at.checked_sub(back).and_then(word) == Some(FORGOTTEN_AT_UNMAP))
    };
    let words = (0..bytes.len() / WORD).filter(move |&at| word(at).is_some_and(|word| range.contains(&word)));
    words.filter(move |&at| !is_forgotten(at))
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
        let range = 0x1000..0x2000;
        let found = |words: &[usize]| words_into(&bytes_of(words), &range).collect::<Vec<_>>();
        assert_eq!(found(&[0, 0xfff, 0x1000, 0x1fff, 0x2000]), [2, 3]);
        assert_eq!(found(&[4, 0xdead, 0x1008, 0x1010]), Vec::<usize>::new());
        assert_eq!(found(&[3, 0xdead, 0x1008, 0x1010]), [2, 3], "of `on_exit`");
        assert_eq!(found(&[]), Vec::<usize>::new());
    }

    #[test]
    fn data_of_libc_is_looked_at() {
        let libraries: Vec<String> = data_of_libraries().into_iter().map(|data| data.library).collect();
        assert!(libraries.iter().any(|library| library.starts_with("libc.so")), "{libraries:?}");
        let text = words_into as *const () as usize;
        assert_eq!(leads_into(&(text..text + 1)), Vec::<String>::new());
    }
}
