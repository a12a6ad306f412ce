//! What the file means, and what is said when it means nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use super::FileConfig;
use super::values::{LogLevel, OffOr, nearest, size};

fn parse(text: &str) -> Result<FileConfig, String> {
    FileConfig::parse(Path::new("etc/host.toml"), text).map_err(|error| error.to_string())
}

fn error(text: &str) -> String {
    parse(text).unwrap_err()
}

#[test]
fn a_whole_file_is_understood() {
    let config = parse(
        "[host]\nlisten = \"127.0.0.1:0\"\nadmin = \"off\"\nplugins = \"plugins\"\nstate = \"/var/x\"\n\
         watch = false\nfreeze = true\nprofile = \"release\"\nproduction = true\nlog = \"debug\"\nprobation_ms = 500\nbudget = 7\n\
         [limits]\nmax_body = \"3 MiB\"\nmax_head = 16384\nio_threads = 2\nmax_connections = 9\nmax_workers = 7\nqueue = 0\nmax_late = 3\n\
         handler_timeout_ms = 1500\nidle_timeout_ms = \"off\"\ndrain_timeout_ms = 9\nload_timeout_ms = 8\n\
         [plugin.hello]\nmount = \"/hi\"\n[plugin.shop]\nmount = \"/\"\n",
    )
    .unwrap();
    assert_eq!(config.listen.as_deref(), Some("127.0.0.1:0"));
    assert_eq!(config.admin.as_deref(), Some("off"));
    assert_eq!(config.plugins, Some(PathBuf::from("etc/plugins")));
    assert_eq!(config.state, Some(PathBuf::from("/var/x")));
    assert_eq!((config.watch, config.production), (Some(false), Some(true)));
    assert_eq!(config.profile.as_deref(), Some("release"));
    assert_eq!(config.log, Some(LogLevel(LevelFilter::DEBUG)));
    assert_eq!(config.probation, Some(OffOr(Some(Duration::from_millis(500)))));
    assert_eq!(config.budget.map(|budget| budget.get()), Some(7));
    assert_eq!((config.limits.max_body, config.limits.max_head), (3 << 20, 16384));
    assert_eq!(config.limits.io_threads.map(|n| n.get()), Some(2));
    assert_eq!(config.limits.max_connections.map(|n| n.get()), Some(9));
    assert_eq!(config.limits.max_workers.map(|n| n.get()), Some(7));
    assert_eq!(config.freeze, Some(true));
    assert_eq!(config.limits.queue, 0);
    assert_eq!(config.limits.max_late.map(|n| n.get()), Some(3));
    assert_eq!(config.limits.handler_timeout, Duration::from_millis(1500));
    assert_eq!(config.limits.idle_timeout, Duration::MAX);
    assert_eq!(config.drain_timeout, Some(Duration::from_millis(9)));
    assert_eq!(config.load_timeout, Some(Duration::from_millis(8)));
    assert_eq!(config.mounts["hello"], "/hi");
    assert_eq!(config.mounts["shop"], "/");
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_one() {
    assert_eq!(
        error("[host]\nlisten = \"x:1\"\nplugin = \"y\"\n"),
        "etc/host.toml:3: unknown key `plugin` in [host]; did you mean `plugins`?"
    );
    assert_eq!(
        error("[limit]\nmax_body = 1\n"),
        "etc/host.toml:1: unknown table `[limit]`; did you mean `limits`?"
    );
    assert_eq!(
        error("listen = \"x:1\"\n"),
        "etc/host.toml:1: unknown key `listen` outside any table; there is host, limits, plugin, safe"
    );
    assert_eq!(
        error("[plugin.a]\nmount = \"/a\"\n\n[plugin.b]\ncolour = 3\n"),
        "etc/host.toml:5: unknown key `colour` in [plugin.b]; there is mount, watch, ignore"
    );
}

#[test]
fn a_bad_value_says_what_it_has_to_be() {
    assert_eq!(
        error("[host]\nwatch = \"yes\"\n"),
        "etc/host.toml:2: `watch` must be true or false, without quotes"
    );
    assert_eq!(
        error("[limits]\n\nmax_body = \"2 apples\"\n"),
        "etc/host.toml:3: `max_body` must be a size: a number of bytes, or with a unit as in \"64 KiB\" or \"2 MiB\""
    );
    assert_eq!(error("[limits]\nmax_head = 10\n"), "etc/host.toml:2: `max_head` must be at least 8192 bytes");
    assert_eq!(
        error("[limits]\nio_threads = 0\n"),
        "etc/host.toml:2: `io_threads` must be a whole number, at least 1"
    );
    assert_eq!(
        error("[limits]\nload_timeout_ms = \"off\"\n"),
        "etc/host.toml:2: `load_timeout_ms` must be a whole number of milliseconds, at least 1"
    );
    assert_eq!(
        error("[host]\nlog = \"wran\"\n"),
        "etc/host.toml:2: `log` must be one of off, error, warn, info, debug, trace; did you mean `warn`?"
    );
    let mount = error("[plugin.hello]\nmount = \"hello\"\n");
    assert!(mount.starts_with("etc/host.toml:2: `mount` cannot be used: "), "{mount}");
    assert_eq!(error("host = 3\n"), "etc/host.toml:1: `host` must be a table: write `[host]`");
}

#[test]
fn a_file_that_is_not_toml_names_the_line() {
    let words = error("[host]\nlisten = \n");
    assert!(words.starts_with("etc/host.toml:2: "), "{words}");
    assert!(!words.contains('\n'), "{words}");
}

#[test]
fn a_plugin_may_have_a_dot_in_its_name() {
    let config = parse("[plugin.\"a.b\"]\nmount = \"/ab\"\n").unwrap();
    assert_eq!(config.mounts["a.b"], "/ab");
}

#[test]
fn shared_safes_name_the_plugins_that_may_open_them() {
    let config = parse("[safe.shared]\nrates = [\"billing\", \"shop\"]\n").unwrap();
    assert_eq!(config.safe.shared["rates"], ["billing", "shop"].map(str::to_owned).into());
    assert_eq!(
        error("[safe.shared]\nrates = \"shop\"\n"),
        "etc/host.toml:2: `rates` must be a list of names, such as [\"billing\", \"shop\"]"
    );
    assert_eq!(
        error("[safe]\nsharde = 1\n"),
        "etc/host.toml:2: unknown key `sharde` in [safe]; did you mean `shared`?"
    );
}

#[test]
fn sizes_have_binary_and_decimal_units() {
    assert_eq!(size("65536"), Ok(65536));
    assert_eq!(size("64 KiB"), Ok(65536));
    assert_eq!(size("64k"), Ok(65536));
    assert_eq!(size(" 2MiB "), Ok(2 << 20));
    assert_eq!(size("1 GB"), Ok(1_000_000_000));
    for text in ["", "MiB", "-1", "1.5 MiB", "1 XB", "99999999999999999999"] {
        size(text).unwrap_err();
    }
    assert_eq!(size("99999999999 GiB"), Err("is more than this machine can count".to_owned()));
}

#[test]
fn only_near_words_are_suggested() {
    let words = ["listen", "idle_timeout_ms", "max_body"];
    assert_eq!(nearest("lisen", &words), Some("listen"));
    assert_eq!(nearest("idle_timeout", &words), Some("idle_timeout_ms"));
    assert_eq!(nearest("colour", &words), None);
}

#[test]
fn a_time_has_a_unit_or_is_off() {
    let time = |text: &str| text.parse::<OffOr>().map(|time| time.0);
    assert_eq!(time("10s"), Ok(Some(Duration::from_secs(10))));
    assert_eq!(time("250 ms"), Ok(Some(Duration::from_millis(250))));
    assert_eq!(time("2m"), Ok(Some(Duration::from_secs(120))));
    assert_eq!(time("off"), Ok(None));
    for wrong in ["10", "0s", "s", "-1s", "10 hours", ""] {
        assert_eq!(time(wrong).unwrap_err(), "must be a time such as 10s, 500ms or 2m, or `off`");
    }
}

#[test]
fn what_is_watched_besides_is_said_for_all_and_for_one() {
    let config = parse(
        "[host]\nwatch = [\"shared\", \"/abs\"]\nignore = [\"*.db\"]\npoll_ms = 700\n\
         [plugin.shop]\nwatch = [\"templates\"]\nignore = [\"/cache/\", \"!kept\"]\n",
    )
    .unwrap();
    assert_eq!((config.watch, config.poll), (Some(true), Some(Duration::from_millis(700))));
    assert_eq!(config.watch_rules.watch, [PathBuf::from("etc/shared"), PathBuf::from("/abs")]);
    assert_eq!(config.watch_rules.ignore, ["*.db"]);
    let shop = &config.plugin_watch_rules["shop"];
    assert_eq!((shop.watch.as_slice(), shop.ignore.len()), ([PathBuf::from("templates")].as_slice(), 2));
    assert_eq!(
        error("[plugin.shop]\nwatch = \"templates\"\n"),
        "etc/host.toml:2: `watch` must be a list of texts, such as [\"templates\", \"../schema.sql\"]"
    );
    let broken = error("[host]\nignore = [\"a{b\"]\n");
    assert!(broken.starts_with("etc/host.toml:2: `ignore` has a pattern that cannot be used: "), "{broken}");
    assert!(error("[host]\npoll_ms = 0\n").contains("`poll_ms` must be a whole number"));
}
