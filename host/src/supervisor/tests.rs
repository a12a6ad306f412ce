//! Facts about waiting, the handover's words and what comes along the line.

use std::io::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::backoff::{Backoff, WINDOW};
use super::handover::{Handover, give};
use super::line::{Words, listen};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn first_crashes_cost_no_wait_and_a_loop_of_them_costs_ever_more() {
    let (mut backoff, start) = (Backoff::default(), Instant::now());
    let mut waits = Vec::new();
    let mut now = start;
    for _ in 0..13 {
        let wait = backoff.after_crash(now);
        waits.push(wait.as_millis());
        now += wait + Duration::from_millis(10);
    }
    assert_eq!(waits, [0, 0, 0, 0, 0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
}

#[test]
fn quiet_time_ends_the_waiting() {
    let (mut backoff, start) = (Backoff::default(), Instant::now());
    for _ in 0..8 {
        backoff.after_crash(start);
    }
    assert!(!backoff.after_crash(start + SECOND).is_zero());
    let later = start + 2 * SECOND + WINDOW;
    assert_eq!((backoff.after_crash(later), backoff.recent()), (Duration::ZERO, 1));
}

#[test]
fn handover_passes_descriptors_by_name() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let theirs = OwnedFd::from(theirs);
    let number = theirs.as_raw_fd();
    let text = give([("line", &theirs)].into_iter(), 7).unwrap();
    assert_eq!(text, format!("--supervised=line:{number},restarts:7"));
    // As the serving process would, which has this number from its parent.
    std::mem::forget(theirs);
    let mut handover = Handover::take_over(text.strip_prefix("--supervised=").unwrap()).unwrap();
    assert_eq!(handover.restarts, 7);
    drop(ours);
    assert_eq!(handover.need("line").unwrap().as_raw_fd(), number);
    assert!(handover.take("line").is_none());
}

#[test]
fn handover_that_makes_no_sense_is_refused() {
    for text in ["", "line", "line:x", "line:1", "line:999999", "line:-4"] {
        let error = Handover::take_over(text).unwrap_err().to_string();
        assert!(error.starts_with("`--supervised` is for the supervisor alone"), "{text}: {error}");
    }
}

#[test]
fn line_carries_words_and_the_record_of_a_crash_cut_short() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let (tell, told) = channel();
    listen(ours, move |words| tell.send(words).is_ok()).unwrap();
    theirs.write_all(b"ready\ncrash\nsignal=11\nplugin=shop\ngeneration=4\nbuil").unwrap();
    drop(theirs);
    assert!(matches!(told.recv().unwrap(), Words::Ready));
    let Words::Crash(crash) = told.recv().unwrap() else { panic!("a crash was said") };
    assert_eq!((crash.signal, crash.plugin.as_deref(), crash.generation), (11, Some("shop"), Some(4)));
    assert_eq!(crash.build, None);
    assert!(matches!(told.recv().unwrap(), Words::End));
}
