//! What a library says of itself, read from its file before any of its code runs.
//!
//! # Invariants
//!
//! - Nothing is read beyond the bytes at hand: a header that points outside is a refusal.
//! - A descriptor that is returned belongs to a library that this host can try to open.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use object::elf;
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use plugin_api::__private::package_id;
use plugin_api::abi::{ABI_VERSION, DESCRIPTOR_MAGIC, DESCRIPTOR_SECTION};

use crate::build::Package;

/// ABI versions this host speaks.
pub const SPOKEN: RangeInclusive<u32> = 1..=ABI_VERSION;

/// What a library says of itself.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Descriptor {
    /// Version of the ABI it was written for.
    pub abi: u32,
    /// Name of the plugin.
    pub name: String,
    /// Version of the plugin; empty if it does not say.
    pub version: String,
    /// Version of plugin-api; empty for a plugin that does not use it.
    pub api: String,
    /// Compiler; empty if it does not say.
    pub rustc: String,
    /// Target triple; empty if it does not say.
    pub target: String,
    /// Identity of the package it was built from, by its directory; empty if it does not say.
    #[serde(skip)]
    pub package: String,
}

/// Why a file is no library for this host. Nothing of it has run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DescriptorError {
    /// No bytes.
    #[error("the file is empty")]
    Empty,
    /// Some other kind of file.
    #[error(
        "not a library: it begins with {start}; a plugin is an ELF shared object (`crate-type = [\"cdylib\"]`)"
    )]
    NotElf {
        /// The first bytes, printable.
        start: String,
    },
    /// Shorter than its headers say.
    #[error("truncated: its headers reach to byte {needed}, the file ends at {found}; copy it again")]
    Truncated {
        /// Where the last part ends.
        needed: u64,
        /// How long the file is.
        found: u64,
    },
    /// For another machine.
    #[error(
        "built for {found}, and this host runs on {expected}; build it with `--target {expected}-unknown-linux-gnu`"
    )]
    Architecture {
        /// What the file is for.
        found: String,
        /// What runs here.
        expected: &'static str,
    },
    /// A program or an object file.
    #[error("an ELF {found}, not a shared object; set `crate-type = [\"cdylib\"]` in its `[lib]`")]
    NotShared {
        /// What it is instead.
        found: &'static str,
    },
    /// No section of the descriptor's name.
    #[error(
        "no plugin: it has no `{DESCRIPTOR_SECTION}` section; declare one with `plugin_api::plugin! {{ ... }}`"
    )]
    NoDescriptor,
    /// The section is there and makes no sense.
    #[error("its descriptor is malformed: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// For a host that speaks another ABI.
    #[error("built for ABI {plugin}, and this host speaks {}; rebuild it against this host's plugin-api", range(.host))]
    Abi {
        /// What the plugin was built for.
        plugin: u32,
        /// What the host speaks.
        host: RangeInclusive<u32>,
    },
    /// Built from another package than cargo was asked for.
    #[error(
        "it is the library of another package, `{found}`: cargo was asked for `{asked}` in {}; give the two different names",
        directory.display()
    )]
    OtherPackage {
        /// The package that it is of.
        found: String,
        /// The package that was asked for.
        asked: String,
        /// Where that one is.
        directory: PathBuf,
    },
    /// A panic in it would end the process.
    #[error(
        "built with `panic = \"abort\"`: its first panic would end the host; set `panic = \"unwind\"` in its profile"
    )]
    PanicAborts,
}

fn range(host: &RangeInclusive<u32>) -> String {
    if host.start() == host.end() {
        host.start().to_string()
    } else {
        format!("{} to {}", host.start(), host.end())
    }
}

impl Descriptor {
    /// Looks whether this is of the package called `name` in `directory`, as far as it says.
    ///
    /// # Errors
    ///
    /// [`DescriptorError::OtherPackage`].
    pub fn check_package(&self, name: &str, directory: &Path) -> Result<(), DescriptorError> {
        let id = directory.to_str().map(package_id);
        let is_other = id.is_some_and(|id| self.package.as_bytes() != id) || self.name != name;
        if self.package.is_empty() || !is_other {
            return Ok(());
        }
        let (found, asked) = (self.name.clone(), name.to_owned());
        Err(DescriptorError::OtherPackage { found, asked, directory: directory.to_owned() })
    }
}

type Elf = elf::FileHeader64<object::Endianness>;

/// Refuses a library that was built from another package than `package`: cargo names files by names that packages may
/// share. What else is wrong with it is found later, as with all libraries.
///
/// # Errors
///
/// [`DescriptorError::OtherPackage`].
pub fn check_package(file: &[u8], package: &Package) -> Result<(), DescriptorError> {
    read(file).map_or(Ok(()), |found| found.check_package(&package.name, &package.directory))
}

/// Reads the descriptor of a library from the bytes of its file.
///
/// # Errors
///
/// [`DescriptorError`]; the first thing that is wrong.
pub fn read(file: &[u8]) -> Result<Descriptor, DescriptorError> {
    if file.is_empty() {
        return Err(DescriptorError::Empty);
    }
    if !file.starts_with(&elf::ELFMAG) {
        return Err(DescriptorError::NotElf { start: printable(file) });
    }
    let len = file.len() as u64;
    let truncated = |needed: u64| DescriptorError::Truncated { needed, found: len };
    if file.len() < size_of::<Elf>() {
        return Err(truncated(size_of::<Elf>() as u64));
    }
    let malformed = |error: object::Error| DescriptorError::Malformed { reason: error.to_string() };

    architecture(file)?;
    let header = Elf::parse(file).map_err(malformed)?;
    let endian = header.endian().map_err(malformed)?;
    match header.e_type(endian) {
        elf::ET_DYN => {}
        elf::ET_EXEC => return Err(DescriptorError::NotShared { found: "program" }),
        elf::ET_REL => return Err(DescriptorError::NotShared { found: "object file" }),
        _ => return Err(DescriptorError::NotShared { found: "file of another kind" }),
    }

    let table = |offset: u64, count: u16, size: u16| offset + u64::from(count) * u64::from(size);
    let programs = table(header.e_phoff(endian), header.e_phnum.get(endian), header.e_phentsize(endian));
    let sections = table(header.e_shoff(endian), header.e_shnum.get(endian), header.e_shentsize(endian));
    let mut needed = programs.max(sections);
    if needed > len {
        return Err(truncated(needed));
    }
    for program in header.program_headers(endian, file).map_err(malformed)? {
        let end = program.p_offset(endian).checked_add(program.p_filesz(endian));
        needed = needed.max(end.unwrap_or(u64::MAX));
    }
    if needed > len {
        return Err(truncated(needed));
    }

    let sections = header.sections(endian, file).map_err(malformed)?;
    let (_, section) = sections
        .section_by_name(endian, DESCRIPTOR_SECTION.as_bytes())
        .ok_or(DescriptorError::NoDescriptor)?;
    parse(section.data(endian, file).map_err(malformed)?)
}

/// Compares the architecture, which says more clearly what is wrong than the parser would.
fn architecture(file: &[u8]) -> Result<(), DescriptorError> {
    let expected = std::env::consts::ARCH;
    let (class, data) = (file[4], file[5]);
    let machine = [file[18], file[19]];
    let machine =
        if data == elf::ELFDATA2MSB.0 { u16::from_be_bytes(machine) } else { u16::from_le_bytes(machine) };
    let found = match elf::Machine(machine) {
        elf::EM_X86_64 => "x86_64",
        elf::EM_AARCH64 => "aarch64",
        elf::EM_386 => "i686",
        elf::EM_ARM => "arm",
        elf::EM_RISCV => "riscv64gc",
        elf::EM_PPC64 => "powerpc64",
        elf::EM_S390 => "s390x",
        _ => "",
    };
    if found == expected && class == elf::ELFCLASS64.0 {
        return Ok(());
    }
    let found = if found.is_empty() { format!("machine number {machine}") } else { found.to_owned() };
    Err(DescriptorError::Architecture { found, expected })
}

/// Parses the records of a descriptor.
fn parse(section: &[u8]) -> Result<Descriptor, DescriptorError> {
    let malformed = |reason: String| DescriptorError::Malformed { reason };
    let text = std::str::from_utf8(section).map_err(|error| malformed(error.to_string()))?;
    let mut records = text.split('\0');
    if records.next() != Some(DESCRIPTOR_MAGIC) {
        return Err(malformed(format!("it does not begin with `{DESCRIPTOR_MAGIC}`")));
    }
    let mut found = Descriptor {
        abi: 0,
        name: String::new(),
        version: String::new(),
        api: String::new(),
        rustc: String::new(),
        target: String::new(),
        package: String::new(),
    };
    let mut panic_aborts = false;
    for record in records.filter(|record| !record.is_empty()) {
        let (name, value) =
            record.split_once('=').ok_or_else(|| malformed(format!("`{record}` is not `name=value`")))?;
        match name {
            "abi" => {
                found.abi = value.parse().map_err(|_| malformed(format!("`abi={value}` is no number")))?
            }
            "name" => value.clone_into(&mut found.name),
            "version" => value.clone_into(&mut found.version),
            "api" => value.clone_into(&mut found.api),
            "rustc" => value.clone_into(&mut found.rustc),
            "target" => value.clone_into(&mut found.target),
            "package" => value.clone_into(&mut found.package),
            "panic" => panic_aborts = value == "abort",
            // Of a newer plugin-api.
            _ => {}
        }
    }
    if !SPOKEN.contains(&found.abi) {
        return Err(DescriptorError::Abi { plugin: found.abi, host: SPOKEN });
    }
    if found.name.is_empty() {
        return Err(malformed("it names no plugin".to_owned()));
    }
    if panic_aborts {
        return Err(DescriptorError::PanicAborts);
    }
    Ok(found)
}

fn printable(file: &[u8]) -> String {
    let start = &file[..file.len().min(12)];
    if start.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ' || *byte == b'\n') {
        format!("`{}`", String::from_utf8_lossy(start).escape_debug())
    } else {
        format!("the bytes {}", start.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_and_unknown_ones_ignored() {
        let section = b"magic=host-plugin\0abi=1\0name=hello\0version=0.1.0\0colour=blue\0panic=unwind\0\0\0";
        let found = parse(section).unwrap();
        assert_eq!((found.abi, found.name.as_str(), found.version.as_str()), (1, "hello", "0.1.0"));
    }

    #[test]
    fn library_of_another_package_is_told_by_name_and_by_directory() {
        let id = String::from_utf8(package_id("/a/shop").to_vec()).unwrap();
        let section = format!("magic=host-plugin\0abi=1\0name=shop\0package={id}\0");
        let found = parse(section.as_bytes()).unwrap();
        assert_eq!(found.check_package("shop", Path::new("/a/shop")), Ok(()));
        for (name, directory) in [("shop", "/b/shop"), ("other", "/a/shop")] {
            let error = found.check_package(name, Path::new(directory)).unwrap_err().to_string();
            assert!(error.contains("library of another package, `shop`"), "{error}");
            assert!(error.contains(directory), "{error}");
        }
        // Written by hand, or with an older plugin-api.
        let silent = parse(b"magic=host-plugin\0abi=1\0name=x\0").unwrap();
        assert_eq!(silent.check_package("shop", Path::new("/b/shop")), Ok(()));
    }

    #[test]
    fn another_abi_is_refused_with_both_versions() {
        let error = parse(b"magic=host-plugin\0abi=99\0name=x\0").unwrap_err();
        assert_eq!(
            error.to_string(),
            "built for ABI 99, and this host speaks 1; rebuild it against this host's plugin-api"
        );
    }

    #[test]
    fn a_plugin_that_aborts_on_panic_is_refused() {
        let section = b"magic=host-plugin\0abi=1\0name=x\0panic=abort\0";
        assert_eq!(parse(section), Err(DescriptorError::PanicAborts));
    }

    #[test]
    fn every_prefix_of_a_library_is_refused_and_none_panics() {
        let whole = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        for len in (0..4096).chain([whole.len() / 4, whole.len() / 2, whole.len() - 1]) {
            read(&whole[..len]).unwrap_err();
        }
    }

    #[test]
    fn other_files_are_named_by_how_they_begin() {
        assert_eq!(read(b""), Err(DescriptorError::Empty));
        let error = read(b"#!/bin/sh\necho").unwrap_err().to_string();
        assert!(error.starts_with("not a library: it begins with `#!/bin/sh\\nec`"), "{error}");
    }
}
