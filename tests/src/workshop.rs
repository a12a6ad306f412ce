//! Building a plugin many times, as its author edits it, without a host.
//!
//! Owns: one package and one target directory, kept between runs so that a build is one crate and a link.
//! Does not own: what the edits are; hosts that build plugins themselves; how far is optimised, which whoever runs the
//! tests may say as cargo wants it (`CARGO_PROFILE_DEV_OPT_LEVEL`).

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

use crate::fixture::profile_dir;
use crate::source::SourcePlugin;

/// A package that is rebuilt.
#[derive(Debug)]
pub struct Workshop {
    /// One build at a time: they share the package's file.
    plugin: Mutex<SourcePlugin>,
    name: String,
}

impl Workshop {
    /// The package called `name`.
    pub fn open(name: &str) -> Workshop {
        let dir = profile_dir().join("workshop");
        fs::create_dir_all(&dir).expect("the target directory is writable");
        let plugin = SourcePlugin::write(name, "", &dir);
        Workshop { plugin: Mutex::new(plugin), name: name.to_owned() }
    }

    /// The same package, from now on with a dependency called `dependency` whose source is `text`.
    ///
    /// # Panics
    ///
    /// When the target directory is not writable.
    #[must_use]
    pub fn depend(&self, text: &str) -> Workshop {
        self.depend_on(text, "")
    }

    /// As [`depend`](Workshop::depend), on a crate of procedural macros.
    ///
    /// # Panics
    ///
    /// When the target directory is not writable.
    #[must_use]
    pub fn depend_on_macros(&self, text: &str) -> Workshop {
        self.depend_on(text, "[lib]\nproc-macro = true\n")
    }

    fn depend_on(&self, text: &str, more: &str) -> Workshop {
        let dir = profile_dir().join("workshop");
        let of = format!("{}-dependency", self.name);
        fs::create_dir_all(dir.join(&of).join("src")).expect("the target directory is writable");
        let manifest =
            "[package]\nname = \"dependency\"\nversion = \"0.1.0\"\nedition = \"2024\"\n".to_owned() + more;
        fs::write(dir.join(&of).join("Cargo.toml"), manifest).expect("the target directory is writable");
        fs::write(dir.join(&of).join("src/lib.rs"), text).expect("the target directory is writable");
        let workshop = Workshop::open(&self.name);
        {
            let plugin = workshop.plugin.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let file = plugin.dir().join("Cargo.toml");
            let own = fs::read_to_string(&file).expect("a package has a manifest");
            let with = own.replacen(
                "[dependencies]\n",
                &format!("[dependencies]\ndependency = {{ path = \"../{of}\" }}\n"),
                1,
            );
            fs::write(file, with).expect("the target directory is writable");
        }
        workshop
    }

    /// The library that `text` makes, with further arguments for cargo.
    ///
    /// # Panics
    ///
    /// When it does not compile, with the compiler's words.
    #[track_caller]
    pub fn build(&self, text: &str, args: &[&str]) -> Vec<u8> {
        let plugin = self.plugin.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let output = self.cargo(&plugin, text, args);
        assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
        let library = profile_dir().join("workshop/target/debug").join(format!("lib{}.so", self.name));
        fs::read(library).expect("cargo says that it built it")
    }

    /// The program that `text` makes, as a file.
    ///
    /// # Panics
    ///
    /// When it does not compile, with the compiler's words.
    #[track_caller]
    pub fn program(&self, text: &str) -> PathBuf {
        let plugin = self.plugin.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let file = plugin.dir().join("src/main.rs");
        fs::write(file, text).expect("the target directory is writable");
        let output = self.cargo(&plugin, "", &["--bins"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        profile_dir().join("workshop/target/debug").join(&self.name)
    }

    /// The compiler's words about `text`, which must not compile.
    ///
    /// # Panics
    ///
    /// When it does.
    #[track_caller]
    pub fn refuse(&self, text: &str) -> String {
        let plugin = self.plugin.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let output = self.cargo(&plugin, text, &[]);
        assert!(!output.status.success(), "this compiles:\n{text}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn cargo(&self, plugin: &SourcePlugin, text: &str, args: &[&str]) -> std::process::Output {
        plugin.save(text);
        Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--offline", "--manifest-path"])
            .arg(plugin.dir().join("Cargo.toml"))
            .arg("--target-dir")
            .arg(profile_dir().join("workshop/target"))
            // Without debug information a build takes a third of the time.
            .args(["--config", "profile.dev.debug=0"])
            .args(args)
            .env_remove("RUSTFLAGS")
            .output()
            .expect("cargo runs")
    }
}
