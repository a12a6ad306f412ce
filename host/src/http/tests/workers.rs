//! The worker pool by itself.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::http::Workers;

const PATIENCE: Duration = Duration::from_secs(20);

/// Submits a job that says its thread's name.
fn name_of_worker(workers: &Workers) -> String {
    let (send, receive) = mpsc::channel();
    let job = Box::new(move || send.send(std::thread::current().name().unwrap().to_owned()).unwrap());
    assert!(workers.submit(job).is_ok());
    receive.recv_timeout(PATIENCE).unwrap()
}

/// Waits until every worker is idle.
fn settle(workers: &Workers) {
    while workers.numbers().busy > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn the_warmest_worker_is_woken_first() {
    let workers = Workers::fixed(3, 0);
    settle(&workers);
    let first = name_of_worker(&workers);
    for _ in 0..20 {
        settle(&workers);
        assert_eq!(name_of_worker(&workers), first);
    }
}

#[test]
fn threads_grow_on_demand_then_jobs_queue_then_are_refused() {
    let workers = Workers::new(2, 1);
    let (release, released) = mpsc::channel::<()>();
    let released = std::sync::Arc::new(parking_lot::Mutex::new(released));
    let hold = || {
        let released = std::sync::Arc::clone(&released);
        workers.submit(Box::new(move || {
            let _ = released.lock().recv();
        }))
    };

    assert_eq!(workers.numbers().threads, 0);
    assert!(hold().is_ok() && hold().is_ok() && hold().is_ok());
    assert!(hold().is_err());
    let numbers = workers.numbers();
    assert_eq!((numbers.threads, numbers.busy, numbers.queued, numbers.refused), (2, 2, 1, 1));

    drop(release);
    assert_eq!(workers.stop(Instant::now() + PATIENCE), 0);
    assert!(workers.submit(Box::new(|| ())).is_err());
}

#[test]
fn panicking_job_leaves_its_worker_alive() {
    let workers = Workers::new(1, 8);
    assert!(workers.submit(Box::new(|| panic!("a bad job"))).is_ok());
    assert_eq!(name_of_worker(&workers), "worker-0");
    assert_eq!(workers.numbers().threads, 1);
}

#[test]
fn stop_finishes_what_is_queued_and_counts_what_hangs() {
    let workers = Workers::new(1, 8);
    let (send, receive) = mpsc::channel();
    for n in 0..5 {
        let send = send.clone();
        assert!(workers.submit(Box::new(move || send.send(n).unwrap())).is_ok());
    }
    assert_eq!(workers.stop(Instant::now() + PATIENCE), 0);
    assert_eq!(receive.try_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);

    let hung = Workers::new(1, 8);
    let (release, released) = mpsc::channel::<()>();
    assert!(
        hung.submit(Box::new(move || {
            let _ = released.recv();
        }))
        .is_ok()
    );
    assert_eq!(hung.stop(Instant::now() + Duration::from_millis(20)), 1);
    drop(release);
}
