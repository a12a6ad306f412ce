//! What a library asks of the dynamic loader, read from its file before any of its code runs.
//!
//! The descriptor says whose library it is; this says whether mapping it does something to the process
//! that unmapping cannot take back, and whether the loader will find what it needs.
//!
//! # Invariants
//!
//! - What is refused here would harm the whole process or could not be opened. What is merely odd is
//!   allowed and said: it costs its own plugin, not the others.

use std::path::{Path, PathBuf};

use object::elf;
use object::read::elf::{DynamicTable, FileHeader, ProgramHeader, Sym as _};

use super::mapped_file::MappedFile;

/// Why a library is not opened. Nothing of it has run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VettingError {
    /// The parts that the loader reads contradict each other.
    #[error("its dynamic section is malformed: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// Mapping it would make the stacks of the whole process executable.
    #[error(
        "it wants an executable stack, which the whole process would get; link it with `-Wl,-z,noexecstack`"
    )]
    ExecutableStack,
    /// Its code would have to be writable.
    #[error("it has text relocations: its code would have to be written to; compile all of it with `-fPIC`")]
    TextRelocations,
    /// It needs a library that is not here.
    #[error("it needs `{library}`, which is not on this machine; install it, or link it statically")]
    Needs {
        /// The library.
        library: String,
    },
    /// It needs a library that its search path finds beside it, and that the loader will not find beside its copy.
    #[error(
        "it needs `{library}`, which its search path finds at {}; the host opens a copy of it elsewhere, and takes such a \
         library along only if it has that name itself: link it with `-Wl,-soname,{library}`", path.display()
    )]
    Nameless {
        /// The library.
        library: String,
        /// Where it is.
        path: PathBuf,
    },
}

/// Something that is allowed and has a price.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Oddity {
    /// The loader never unmaps it.
    #[error("the dynamic loader will keep it mapped: it is linked with `-z nodelete`")]
    NoDelete,
    /// The loader never unmaps it, because others may have been bound to this symbol.
    #[error(
        "the dynamic loader: it defines the unique symbol `{symbol}`; compile C++ with `-fno-gnu-unique`"
    )]
    Unique {
        /// The symbol.
        symbol: String,
    },
    /// It uses a function of libc that keeps a pointer to what it is given, where nobody can see it.
    #[error(
        "the function `{function}` of libc, which it uses and which may keep a pointer into it for ever; to have it unmapped, do without"
    )]
    Keeps {
        /// The function.
        function: String,
    },
    /// It takes thread-local memory from a reserve that each of its generations makes smaller.
    #[error("its thread-locals are of the initial-exec model, for which a process has room a few times only")]
    StaticTls,
}

impl Oddity {
    /// Whether the loader will keep it mapped for ever.
    pub fn stays_mapped(&self) -> bool {
        matches!(self, Oddity::NoDelete | Oddity::Unique { .. } | Oddity::Keeps { .. })
    }
}

/// A library that may be opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vetted {
    /// What is odd about it.
    pub oddities: Vec<Oddity>,
    /// The libraries it needs, by the names under which the loader knows them.
    pub needs: Vec<String>,
    /// Those of them that only its own search path finds, relative to where it lies: to be opened before it.
    pub beside: Vec<PathBuf>,
}

type Elf = elf::FileHeader64<object::Endianness>;

/// Looks at a library that [`super::descriptor::read`] has accepted. `origin` is the directory in which it lay before it
/// was copied, for which `$ORIGIN` stands in its search path; `is_available` tells whether the loader would find a library
/// of that name by itself.
///
/// # Errors
///
/// [`VettingError`]; the first thing that is wrong.
pub fn vet(file: &[u8], origin: &Path, is_available: impl Fn(&str) -> bool) -> Result<Vetted, VettingError> {
    let malformed = |error: object::Error| VettingError::Malformed { reason: error.to_string() };
    let header = Elf::parse(file).map_err(malformed)?;
    let endian = header.endian().map_err(malformed)?;
    let programs = header.program_headers(endian, file).map_err(malformed)?;
    let stack = programs.iter().find(|program| program.p_type(endian) == elf::PT_GNU_STACK);
    // Where it does not say, the loader assumes the worst.
    if stack.is_none_or(|stack| stack.p_flags(endian).0 & elf::PF_X.0 != 0) {
        return Err(VettingError::ExecutableStack);
    }

    let sections = header.sections(endian, file).map_err(malformed)?;
    let dynamic = sections.dynamic_table(endian, file).map_err(malformed)?;
    let search = SearchPath::of(&dynamic, origin).map_err(malformed)?;
    let (mut oddities, mut needs, mut beside) = (Vec::new(), Vec::new(), Vec::new());
    for entry in &dynamic {
        let has = |tag: elf::DynamicTag, bit: u64| entry.tag == tag && entry.val & bit != 0;
        if entry.tag == elf::DT_TEXTREL || has(elf::DT_FLAGS, elf::DF_TEXTREL.0) {
            return Err(VettingError::TextRelocations);
        }
        if has(elf::DT_FLAGS_1, elf::DF_1_NODELETE.0) {
            oddities.push(Oddity::NoDelete);
        }
        if has(elf::DT_FLAGS, elf::DF_STATIC_TLS.0) {
            oddities.push(Oddity::StaticTls);
        }
        if entry.tag == elf::DT_NEEDED {
            let library = String::from_utf8_lossy(dynamic.string(entry).map_err(malformed)?).into_owned();
            match search.find(&library)? {
                Found::ByLoader => {}
                Found::Beside(path) => beside.push(path),
                Found::Nowhere if is_available(&library) => {}
                Found::Nowhere => return Err(VettingError::Needs { library }),
            }
            needs.push(library);
        }
    }

    let symbols = sections.symbols(endian, file, elf::SHT_DYNSYM).map_err(malformed)?;
    let unique =
        symbols.iter().find(|symbol| symbol.st_bind() == elf::STB_GNU_UNIQUE && !symbol.is_undefined(endian));
    if let Some(unique) = unique {
        let name = unique.name(endian, symbols.strings()).map_err(malformed)?;
        oddities.push(Oddity::Unique { symbol: String::from_utf8_lossy(name).into_owned() });
    }
    for symbol in symbols.iter().filter(|symbol| symbol.is_undefined(endian)) {
        let function = String::from_utf8_lossy(symbol.name(endian, symbols.strings()).map_err(malformed)?);
        if KEEPERS.contains(&&*function) {
            oddities.push(Oddity::Keeps { function: function.into_owned() });
        }
    }
    Ok(Vetted { oddities, needs, beside })
}

/// Where a library says that what it needs is to be looked for: `DT_RUNPATH`, or `DT_RPATH` where there is none.
struct SearchPath {
    /// Each as written, and as it is meant.
    directories: Vec<(String, PathBuf)>,
}

/// Where a needed library is.
enum Found {
    /// In a directory that is the same from everywhere.
    ByLoader,
    /// In one that is named relative to the library.
    Beside(PathBuf),
    /// Not in the search path.
    Nowhere,
}

impl SearchPath {
    fn of(dynamic: &DynamicTable<'_, Elf>, origin: &Path) -> object::Result<SearchPath> {
        let text = |tag: elf::DynamicTag| -> object::Result<Option<String>> {
            let Some(entry) = dynamic.iter().find(|entry| entry.tag == tag) else { return Ok(None) };
            Ok(Some(String::from_utf8_lossy(dynamic.string(entry)?).into_owned()))
        };
        // The loader reads the older one only where the newer one is missing.
        let path = text(elf::DT_RUNPATH)?.or(text(elf::DT_RPATH)?).unwrap_or_default();
        let named = path.split(':').filter(|directory| !directory.is_empty());
        let meant = |directory: &str| {
            let origin = origin.to_string_lossy();
            PathBuf::from(directory.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin))
        };
        Ok(SearchPath { directories: named.map(|of| (of.to_owned(), meant(of))).collect() })
    }

    fn find(&self, library: &str) -> Result<Found, VettingError> {
        if library.contains('/') {
            return Ok(Found::Nowhere);
        }
        for (written, directory) in &self.directories {
            let path = directory.join(library);
            if !path.is_file() {
                continue;
            }
            if !written.contains("$ORIGIN") && !written.contains("${ORIGIN}") && directory.is_absolute() {
                return Ok(Found::ByLoader);
            }
            // The loader takes what is open already by the name that it gives itself.
            return match soname(&path).as_deref() == Some(library) {
                true => Ok(Found::Beside(path)),
                false => Err(VettingError::Nameless { library: library.to_owned(), path }),
            };
        }
        Ok(Found::Nowhere)
    }
}

/// The name that a library gives itself.
fn soname(path: &Path) -> Option<String> {
    let bytes = MappedFile::open(path).ok()?;
    let file: &[u8] = &bytes;
    let header = Elf::parse(file).ok()?;
    let endian = header.endian().ok()?;
    let dynamic = header.sections(endian, file).ok()?.dynamic_table(endian, file).ok()?;
    let entry = dynamic.iter().find(|entry| entry.tag == elf::DT_SONAME)?;
    Some(String::from_utf8_lossy(dynamic.string(entry).ok()?).into_owned())
}

/// The functions of libc that may keep a pointer to code or memory of their caller beyond the call, in memory of
/// their own that is not looked at when a library leaves, and that so few programs use that standing in for each
/// is not worth it. `host/docs/libc.md` tells of each what it keeps.
pub const KEEPERS: [&str; 19] = [
    "addseverity",
    "aio_fsync",
    "aio_fsync64",
    "aio_read",
    "aio_read64",
    "aio_write",
    "aio_write64",
    "clone",
    "fopencookie",
    "getaddrinfo_a",
    "hsearch",
    "lio_listio",
    "lio_listio64",
    "register_printf_function",
    "register_printf_modifier",
    "register_printf_specifier",
    "register_printf_type",
    "thrd_create",
    "tss_create",
];

/// Whether the loader would find a library: it is mapped already, it is in the loader's cache, or in a
/// directory that the environment names. Where there is no cache to look at, the loader has the last word.
pub fn is_available(library: &str) -> bool {
    if library.contains('/') {
        return Path::new(library).exists();
    }
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let is_mapped = |line: &str| line.rsplit('/').next() == Some(library);
    if maps.lines().any(is_mapped) {
        return true;
    }
    let named = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let usual = ["/lib", "/usr/lib", "/lib64", "/usr/lib64"].map(Into::into);
    if std::env::split_paths(&named).chain(usual).any(|dir| dir.join(library).exists()) {
        return true;
    }
    // A table of offsets, followed by the names, each ended by a NUL byte.
    let Ok(cache) = std::fs::read("/etc/ld.so.cache") else { return true };
    cache.split(|byte| *byte == 0).any(|name| name == library.as_bytes())
}

#[cfg(test)]
mod tests {
    use object::read::elf::SectionHeader as _;

    use super::*;

    /// The test program itself, which is a shared object as far as these headers go.
    fn whole() -> Vec<u8> {
        std::fs::read(std::env::current_exe().unwrap()).unwrap()
    }

    /// Where the loader's entries are in the file: offset, and how many.
    fn section(file: &[u8], kind: elf::SectionType) -> (usize, usize) {
        let header = Elf::parse(file).unwrap();
        let endian = header.endian().unwrap();
        let sections = header.sections(endian, file).unwrap();
        let found = sections.iter().find(|section| section.sh_type(endian) == kind).unwrap();
        let (offset, size) = found.file_range(endian).unwrap();
        (offset as usize, size as usize)
    }

    fn word(file: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(file[at..at + 8].try_into().unwrap())
    }

    /// Makes the first entry of the dynamic section with `tag`, or the last of all, say `tag` = `value`.
    fn set_dynamic(file: &mut [u8], tag: u64, value: u64) {
        let (start, size) = section(file, elf::SHT_DYNAMIC);
        let entries = (start..start + size).step_by(16);
        let free = |at: &usize| [tag, 0].contains(&word(file, *at));
        let at = entries.clone().find(free).unwrap();
        file[at..at + 8].copy_from_slice(&tag.to_le_bytes());
        file[at + 8..at + 16].copy_from_slice(&value.to_le_bytes());
    }

    fn vetted(file: &[u8]) -> Result<Vec<Oddity>, VettingError> {
        vet(file, Path::new("/"), |_| true).map(|vetted| vetted.oddities)
    }

    #[test]
    fn ordinary_libraries_are_neither_refused_nor_odd() {
        let vetted = vet(&whole(), Path::new("/"), is_available).unwrap();
        assert_eq!(vetted.oddities, []);
        assert!(vetted.needs.iter().any(|library| library == "libc.so.6"), "{:?}", vetted.needs);
    }

    #[test]
    fn library_that_is_nowhere_is_named() {
        let error = vet(&whole(), Path::new("/"), |library| !library.starts_with("libc.")).unwrap_err();
        assert_eq!(error, VettingError::Needs { library: "libc.so.6".to_owned() });
        assert!(!is_available("libmade-up-by-this-test.so.7"));
    }

    #[test]
    fn executable_stacks_and_text_relocations_are_refused() {
        let mut file = whole();
        let header = Elf::parse(&*file).unwrap();
        let endian = header.endian().unwrap();
        let (start, each) = (header.e_phoff(endian) as usize, header.e_phentsize(endian) as usize);
        let programs = header.program_headers(endian, &*file).unwrap();
        let index = programs.iter().position(|program| program.p_type(endian) == elf::PT_GNU_STACK).unwrap();
        // `p_flags` is the second word of four bytes.
        file[start + index * each + 4] |= 1;
        assert_eq!(vetted(&file), Err(VettingError::ExecutableStack));

        let mut file = whole();
        set_dynamic(&mut file, 30, 4);
        assert_eq!(vetted(&file), Err(VettingError::TextRelocations));
    }

    #[test]
    fn what_stays_mapped_is_known_beforehand() {
        let mut file = whole();
        set_dynamic(&mut file, 0x6fff_fffb, 8);
        assert_eq!(vetted(&file), Ok(vec![Oddity::NoDelete]));
        assert!(Oddity::NoDelete.stays_mapped());

        let mut file = whole();
        set_dynamic(&mut file, 30, 16);
        assert_eq!(vetted(&file), Ok(vec![Oddity::StaticTls]));
        assert!(!Oddity::StaticTls.stays_mapped());

        let mut file = whole();
        let (start, size) = section(&file, elf::SHT_DYNSYM);
        // A symbol has 24 bytes: name (4), binding and type (1), visibility (1), section (2), ...
        let defined = |at: &usize| file[*at + 6] != 0 || file[*at + 7] != 0;
        let at = (start..start + size).step_by(24).find(defined).unwrap();
        file[at + 4] = 10 << 4 | file[at + 4] & 15;
        let found = vetted(&file).unwrap();
        assert!(matches!(found.as_slice(), [Oddity::Unique { symbol }] if !symbol.is_empty()), "{found:?}");
    }
}
