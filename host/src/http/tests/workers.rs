//! The worker pool by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::http::Workers;
use crate::http::workers::{GivenUp, Job, REST, Refused, Ticket, WorkerLimits};
use crate::share::{Account, Shares};

const PATIENCE: Duration = Duration::from_secs(20);

fn limits(threads: usize, queue: usize) -> WorkerLimits {
    WorkerLimits { threads, queue, late: 2 }
}

/// An account in a share that stands alone.
fn account() -> Arc<Account> {
    Account::of(Shares::default().open())
}

/// A job that waits at a gate, and what opens it.
struct Gate {
    /// Opens it when it goes.
    _open: mpsc::Sender<()>,
    opened: Arc<Mutex<mpsc::Receiver<()>>>,
}

impl Gate {
    fn new() -> Gate {
        let (open, opened) = mpsc::channel();
        Gate { _open: open, opened: Arc::new(Mutex::new(opened)) }
    }

    fn job(&self) -> Job {
        let opened = Arc::clone(&self.opened);
        Box::new(move || {
            // An error: the gate is open.
            let _ = opened.lock().recv();
        })
    }

    fn submit(&self, workers: &Workers, account: &Arc<Account>) -> Result<Arc<Ticket>, Refused> {
        submit(workers, account, self.job())
    }
}

/// Brings one job.
fn submit(workers: &Workers, account: &Arc<Account>, job: Job) -> Result<Arc<Ticket>, Refused> {
    workers.enqueue(account, job).inspect(|_| workers.wake())
}

/// Submits a job that says its thread's name.
fn name_of_worker(workers: &Workers, account: &Arc<Account>) -> String {
    let (send, receive) = mpsc::channel();
    let job = Box::new(move || send.send(std::thread::current().name().unwrap().to_owned()).unwrap());
    assert!(submit(workers, account, job).is_ok());
    receive.recv_timeout(PATIENCE).unwrap()
}

/// Waits until the pool is as wanted.
#[track_caller]
fn settle(workers: &Workers, is_so: impl Fn(crate::http::WorkerNumbers) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so(workers.numbers()) {
        assert!(Instant::now() < deadline, "{workers:?}");
        std::thread::yield_now();
    }
}

#[test]
fn the_warmest_worker_is_woken_first() {
    let (workers, account) = (Workers::fixed(limits(3, 0)), account());
    assert_eq!(workers.numbers().threads, 3);
    let first = name_of_worker(&workers, &account);
    for _ in 0..20 {
        settle(&workers, |numbers| numbers.busy == 0);
        assert_eq!(name_of_worker(&workers, &account), first);
    }
}

/// Workers wake each other: however many jobs block, each of the others is begun.
#[test]
fn all_idle_workers_are_awake_when_jobs_block() {
    let (workers, account) = (Workers::fixed(limits(8, 0)), account());
    for _ in 0..100 {
        let gate = Gate::new();
        let (send, begun) = mpsc::channel();
        for _ in 0..8 {
            let (send, wait) = (send.clone(), gate.job());
            let job = Box::new(move || {
                send.send(()).unwrap();
                wait();
            });
            assert!(submit(&workers, &account, job).is_ok());
        }
        assert_eq!(gate.submit(&workers, &account).unwrap_err(), Refused::Full);
        for number in 0..8 {
            begun.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{number} of 8 begun: {workers:?}"));
        }
        drop(gate);
        settle(&workers, |numbers| numbers.busy == 0);
    }
}

/// Jobs that come and are given up from all sides are begun once or never, and nothing stays booked.
#[test]
fn jobs_given_up_at_any_moment_are_run_or_dropped() {
    let limits = WorkerLimits { late: 64, ..limits(4, 64) };
    let (workers, account) = (Workers::fixed(limits), account());
    let ran = Arc::new(AtomicUsize::new(0));
    let given_up = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..500 {
                    let ran = Arc::clone(&ran);
                    let job = Box::new(move || {
                        ran.fetch_add(1, Relaxed);
                    });
                    let ticket = submit(&workers, &account, job).expect("16 at most wait");
                    if round % 2 == 0 && workers.give_up(&ticket) == GivenUp::Waiting {
                        given_up.fetch_add(1, Relaxed);
                    }
                    settle(&workers, |numbers| numbers.queued < 4 && numbers.late == 0);
                }
            });
        }
    });
    settle(&workers, |numbers| (numbers.busy, numbers.queued, numbers.late) == (0, 0, 0));
    assert_eq!(ran.load(Relaxed) + given_up.load(Relaxed), 2_000);
    assert_eq!(workers.numbers().threads, 4);
    assert_eq!(workers.stop(Instant::now() + PATIENCE), 0);
}

#[test]
fn threads_grow_on_demand_then_jobs_queue_then_are_refused() {
    let (workers, account, gate) = (Workers::new(limits(2, 1)), account(), Gate::new());
    assert_eq!(workers.numbers().threads, 0);
    assert!((0..3).all(|_| gate.submit(&workers, &account).is_ok()));
    assert_eq!(gate.submit(&workers, &account).unwrap_err(), Refused::Full);
    let numbers = workers.numbers();
    assert_eq!((numbers.threads, numbers.busy, numbers.queued, numbers.refused), (2, 2, 1, 1));

    drop(gate);
    assert_eq!(workers.stop(Instant::now() + PATIENCE), 0);
    assert_eq!(submit(&workers, &account, Box::new(|| ())).unwrap_err(), Refused::Stopping);
}

#[test]
fn panicking_job_leaves_its_worker_alive() {
    let (workers, account) = (Workers::new(limits(1, 8)), account());
    assert!(submit(&workers, &account, Box::new(|| panic!("a bad job"))).is_ok());
    assert_eq!(name_of_worker(&workers, &account), "worker-0");
    assert_eq!(workers.numbers().threads, 1);
}

#[test]
fn stop_finishes_what_is_queued_and_counts_what_hangs() {
    let (workers, account) = (Workers::new(limits(1, 8)), account());
    let (send, receive) = mpsc::channel();
    for n in 0..5 {
        let send = send.clone();
        assert!(submit(&workers, &account, Box::new(move || send.send(n).unwrap())).is_ok());
    }
    assert_eq!(workers.stop(Instant::now() + PATIENCE), 0);
    assert_eq!(receive.try_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);

    let (hung, gate) = (Workers::new(limits(1, 8)), Gate::new());
    assert!(gate.submit(&hung, &account).is_ok());
    assert_eq!(hung.stop(Instant::now() + Duration::from_millis(20)), 1);
}

/// A share that hangs leaves a thread and a place in the queue to each of the others, whose jobs do not
/// stand behind it.
#[test]
fn hung_jobs_of_one_share_do_not_delay_another() {
    let shares = Shares::default();
    let (hung, well) = (Account::of(shares.open()), Account::of(shares.open()));
    let (workers, gate) = (Workers::new(limits(4, 4)), Gate::new());
    let taken = (0..20).filter(|_| gate.submit(&workers, &hung).is_ok()).count();
    let numbers = workers.numbers();
    assert_eq!((numbers.busy, numbers.queued, taken), (3, 3, 6));
    for _ in 0..50 {
        assert!(name_of_worker(&workers, &well).starts_with("worker-"));
    }
    assert_eq!(workers.numbers().queued, 3, "the other share's jobs are still in line");
    drop(gate);
    settle(&workers, |numbers| (numbers.busy, numbers.queued) == (0, 0));
}

/// A job that is given up no longer counts as a thread, and what waited behind it runs. Only so many may be
/// late; when they return, their threads are workers again or end.
#[test]
fn given_up_job_is_replaced_and_its_thread_comes_back() {
    let (workers, account, gate) = (Workers::new(limits(1, 8)), account(), Gate::new());
    let first = gate.submit(&workers, &account).unwrap();
    let second = gate.submit(&workers, &account).unwrap();
    let third = gate.submit(&workers, &account).unwrap();
    assert_eq!((workers.numbers().busy, workers.numbers().queued), (1, 2));

    assert_eq!(workers.give_up(&first), GivenUp::Running);
    assert_eq!(workers.give_up(&first), GivenUp::Ended);
    let numbers = workers.numbers();
    assert_eq!((numbers.threads, numbers.busy, numbers.queued, numbers.late), (1, 1, 1, 1));
    assert_eq!((account.late(), account.missed()), (1, 1));

    assert_eq!(workers.give_up(&second), GivenUp::Running);
    assert_eq!((workers.numbers().threads, workers.numbers().late), (0, 2));
    assert_eq!(workers.give_up(&third), GivenUp::Waiting, "no third one is begun");
    assert_eq!(submit(&workers, &account, Box::new(|| ())).unwrap_err(), Refused::Late);
    let other = Account::of(Arc::clone(account.share()));
    assert!(!name_of_worker(&workers, &other).is_empty(), "newer code of the same share is served");

    drop(gate);
    settle(&workers, |numbers| numbers.late == 0 && numbers.busy == 0);
    assert_eq!((account.late(), account.missed()), (0, 2));
    assert_eq!(workers.numbers().threads, 1, "as many as may be, and no more");
    assert!(!name_of_worker(&workers, &account).is_empty());
}

/// A job that is given up while it waits leaves the queue at once and never runs.
#[test]
fn job_that_waited_too_long_never_runs() {
    let (workers, account, gate) = (Workers::new(limits(1, 1)), account(), Gate::new());
    assert!(gate.submit(&workers, &account).is_ok());
    let (send, ran) = mpsc::channel();
    let waiting = submit(&workers, &account, Box::new(move || send.send(()).unwrap())).unwrap();
    assert_eq!(workers.give_up(&waiting), GivenUp::Waiting);
    assert_eq!((workers.numbers().queued, account.missed()), (0, 0));
    assert!(gate.submit(&workers, &account).is_ok(), "its place is free");
    drop(gate);
    assert_eq!(workers.stop(Instant::now() + PATIENCE), 0);
    assert!(ran.recv().is_err(), "it was dropped without running");
}

/// What a burst has started ends when it was not needed for a while; the warmest stays, and a fixed pool stays
/// as it is.
#[test]
fn spare_workers_end_and_the_warmest_stays() {
    let (workers, account, gate) = (Workers::new(limits(4, 0)), account(), Gate::new());
    assert!((0..4).all(|_| gate.submit(&workers, &account).is_ok()));
    assert!(!workers.has_spare(), "all are busy");
    drop(gate);
    settle(&workers, |numbers| numbers.busy == 0);
    let begun = Instant::now();
    workers.end_spare(begun);
    workers.end_spare(begun + REST);
    assert_eq!(
        (workers.numbers().threads, workers.has_spare()),
        (4, true),
        "all were needed since the start"
    );

    let warmest = name_of_worker(&workers, &account);
    settle(&workers, |numbers| numbers.busy == 0);
    workers.end_spare(begun + 2 * REST - Duration::from_millis(1));
    assert_eq!(workers.numbers().threads, 4, "too early");
    workers.end_spare(begun + 2 * REST);
    assert_eq!((workers.numbers().threads, workers.has_spare()), (1, false));
    assert_eq!(name_of_worker(&workers, &account), warmest);
    settle(&workers, |numbers| numbers.busy == 0);
    workers.end_spare(begun + 4 * REST);
    assert_eq!(workers.numbers().threads, 1, "one always stays");

    let fixed = Workers::fixed(limits(3, 0));
    fixed.end_spare(begun + 10 * REST);
    assert_eq!((fixed.numbers().threads, fixed.has_spare()), (3, false));
}
