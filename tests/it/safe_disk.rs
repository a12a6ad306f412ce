//! Facts about the safe on a disk that is really full: refused with a reason, and going on when there is room.
//!
//! Where mounting is permitted the disk is a small file system in memory; elsewhere the host's own limit on
//! the size of files stands in for it.

use std::path::{Path, PathBuf};
use std::process::Command;

use tests::eventually;
use tests::host::{Launch, TestHost};
use tests::wait::SOON;

/// Bytes of the small disk.
const SIZE: u64 = 32 << 20;

/// A small file system, gone with this value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one at `place`; `None` where that is not permitted.
    fn mount(place: &Path) -> Option<SmallDisk> {
        std::fs::create_dir_all(place).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={SIZE},mode=700"), "tmpfs"]).arg(place);
        let output = mount.output().ok()?;
        output.status.success().then(|| SmallDisk(place.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the host may still have its file open when a test fails.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Sets the largest file that a running process may write.
fn limit_files(pid: u32, bytes: &str) {
    let mut prlimit = Command::new("prlimit");
    prlimit.args(["--pid", &pid.to_string(), &format!("--fsize={bytes}:unlimited")]);
    assert!(prlimit.status().unwrap().success(), "prlimit is part of util-linux");
}

#[track_caller]
fn ask(host: &TestHost, path: &str) -> String {
    let response = host.get(path);
    assert_eq!(response.status, 200, "{path}: {}", response.text());
    response.text()
}

/// Fills until the client is told 503; returns how many values were acknowledged.
fn fill(host: &TestHost) -> usize {
    for number in 0..64 {
        let response = host.get(&format!("/probe/fill/big{number}/1024"));
        if response.status != 200 {
            assert_eq!(response.status, 503, "{}", response.text());
            return number;
        }
    }
    panic!("64 MiB went onto a disk of {SIZE} bytes");
}

#[test]
fn full_disk_is_told_and_forgotten_when_there_is_room_again() {
    let launch = Launch::new();
    let place = launch.state_dir().join("safe");
    let disk = SmallDisk::mount(&place);
    launch.plugins().install("probe", "safe_later");
    let host = launch.start();
    assert_eq!(ask(&host, "/probe/put/small"), "1");
    // Something else that takes room, or a limit that does as if.
    let ballast = place.join("ballast");
    match &disk {
        Some(_) => std::fs::write(&ballast, vec![0; (SIZE / 2) as usize]).unwrap(),
        None => limit_files(host.pid(), &(SIZE / 2).to_string()),
    }
    let acknowledged = fill(&host);
    eventually(SOON, "the reason in the log", || {
        let log = host.log();
        let is_there =
            log.contains("bytes left") || log.contains("File too large") || log.contains("No space");
        if is_there { Ok(()) } else { Err(log) }
    });
    // It reads on, all that it acknowledged, and refuses again.
    for number in 0..acknowledged {
        assert!(ask(&host, &format!("/probe/get/big{number}")).starts_with("1048576 bytes"), "{number}");
    }
    assert_eq!(ask(&host, "/probe/get/small"), "4 bytes, version 1");
    assert_eq!(host.get("/probe/fill/more/2048").status, 503);
    assert_eq!(ask(&host, "/probe/get/more"), "nothing");
    match &disk {
        Some(_) => std::fs::remove_file(&ballast).unwrap(),
        None => limit_files(host.pid(), "unlimited"),
    }
    assert_eq!(ask(&host, "/probe/fill/more/2048"), "filled");
    assert!(ask(&host, "/probe/get/more").starts_with("2097152 bytes"));
    let state = host.state_dir();
    let check = host.cli(&["safe", "check", "probe", "--state", state.to_str().unwrap()]);
    assert_eq!(check.code(), 0, "{check}");
    let host = host.kill9().start();
    assert_eq!(ask(&host, "/probe/get/small"), "4 bytes, version 1");
    // Unmounted first, so that the host's directories can go with it.
    drop(disk);
    drop(host);
}
