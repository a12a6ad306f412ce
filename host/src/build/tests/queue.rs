//! Tests of the build queue: the order of builds, their target directories, and builds that do not end.

use super::*;
use crate::build::seed::seed;
use crate::build::turn::Queue;

/// A waiter for a turn in `queue`, once it waits; tells `events` what came of it.
fn waiter(
    queue: &Arc<Queue>,
    name: &'static str,
    cancel: &Cancel,
    events: &mpsc::Sender<(&'static str, bool)>,
) -> std::thread::JoinHandle<()> {
    let (queue, events, cancel) = (Arc::clone(queue), events.clone(), cancel.clone());
    let (queued, is_queued) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        // Told once more when that changes, and nobody listens any more.
        let turn = queue.wait(name, name, &cancel, |behind| drop(queued.send(behind.to_owned())));
        events.send((name, turn.is_some())).unwrap();
    });
    assert_eq!(is_queued.recv_timeout(DEADLINE).unwrap(), "first");
    thread
}

#[test]
fn builds_queue_in_order_and_a_cancelled_one_leaves() {
    let directory = TempDir::new().unwrap();
    let queue = Arc::new(Queue::new(&directory.path().join("target"), 1));
    let first = queue.wait("first", "first", &Cancel::new(), |_| unreachable!()).unwrap();
    let (events, order) = mpsc::channel();
    let stale = Cancel::new();
    let second = waiter(&queue, "second", &Cancel::new(), &events);
    let cancelled = waiter(&queue, "stale", &stale, &events);
    let third = waiter(&queue, "third", &Cancel::new(), &events);
    stale.cancel();
    assert_eq!(order.recv_timeout(DEADLINE).unwrap(), ("stale", false));
    drop(first);
    assert_eq!(order.recv_timeout(DEADLINE).unwrap(), ("second", true));
    assert_eq!(order.recv_timeout(DEADLINE).unwrap(), ("third", true));
    [second, cancelled, third].into_iter().for_each(|thread| thread.join().unwrap());
    assert!(queue.wait("late", "late", &stale, |_| unreachable!()).is_none());
}

#[test]
fn package_that_would_wait_is_built_in_a_directory_beside_and_stays_there() {
    let directory = TempDir::new().unwrap();
    let main = directory.path().join("target");
    let queue = Queue::new(&main, 2);
    let take = |name: &str| queue.wait(name, name, &Cancel::new(), |_| {}).unwrap();
    let slow = take("slow");
    assert_eq!(slow.directory(), main);
    drop(slow);
    // Something has been built, so there is something to share, and nobody waits.
    let slow = take("slow");
    let other = take("other");
    let beside = directory.path().join("target-2");
    assert_eq!((other.directory(), other.model()), (beside.as_path(), Some(main.as_path())));
    drop(slow);
    drop(other);
    assert_eq!(take("other").directory(), beside, "its incremental state is there");
    // Its own directory stays busy, so after a while it goes elsewhere.
    let busy = take("slow");
    assert_eq!(take("slow").directory(), beside);
    drop(busy);

    // After a restart cargo's own records tell.
    fs::create_dir_all(beside.join("debug/.fingerprint/other-0123456789abcdef")).unwrap();
    let queue = Queue::new(&main, 2);
    let turn = queue.wait("other", "other", &Cancel::new(), |_| {}).unwrap();
    assert_eq!((turn.directory(), turn.model()), (beside.as_path(), None));
}

#[test]
fn hanging_build_script_is_named_and_ended_and_delays_no_other_plugin() {
    let project = Project::new();
    let directory = project.directory.path().join("state/target");
    let builder = Builder::new(Cargo::of_process(), directory, None).side_by_side(2);
    // Something to share, so that the other need not wait for it.
    build(&builder, &project.package(), &mut |_| {}, &Cancel::new()).unwrap();

    let hung = Project::named("hung");
    hung.write("build.rs", "fn main() {\n    loop { std::thread::park() }\n}\n");
    let (package, cancel) = (hung.package(), Cancel::new());
    std::thread::scope(|scope| {
        let (running, runs) = mpsc::channel();
        let (builder, cancel) = (&builder, &cancel);
        scope.spawn(move || {
            let mut step = |step: Step<'_>| {
                if let Step::Running { what } = step {
                    // Told once more each second, and nobody listens any more.
                    let _ = running.send(what.to_owned());
                }
            };
            build(builder, &package, &mut step, cancel)
        });
        while runs.recv_timeout(DEADLINE).unwrap() != "the build script of hung" {}
        project.write("src/lib.rs", "");
        let built = build(builder, &project.package(), &mut |_| {}, &Cancel::new());
        cancel.cancel();
        assert!(!built.unwrap().fresh);
    });

    // The deadline is a first build's, as nothing of it was ever built.
    let state = hung.directory.path().join("state/target");
    let hasty = Builder::new(Cargo::of_process(), state, None).ended_after(Duration::from_secs(3));
    let error = build(&hasty, &hung.package(), &mut |_| {}, &Cancel::new()).unwrap_err();
    let BuildError::Late { allowed, doing } = &error else { panic!("{error}") };
    assert_eq!((*allowed, doing.as_str()), (Duration::from_secs(9), "the build script of hung"));
    assert!(error.to_string().contains("build_timeout_ms"), "{error}");
    fs::remove_file(hung.path("build.rs")).unwrap();
    assert!(!build(&hasty, &hung.package(), &mut |_| {}, &Cancel::new()).unwrap().fresh);
}

#[test]
fn directory_beside_begins_with_what_is_compiled() {
    let project = Project::new();
    project.manifest("[dependencies]\nhelper = { path = \"../helper\" }\n");
    project.write("../helper/Cargo.toml", "[package]\nname = \"helper\"\nedition = \"2024\"\n");
    project.write("../helper/src/lib.rs", "pub const PART: u32 = 1;\n");
    assert_eq!(project.build().unwrap().compiled, 2);

    let beside = project.directory.path().join("state/beside");
    seed(project.target_dir(), &beside);
    let builder = Builder::new(Cargo::of_process(), &beside, None);
    let built = build(&builder, &project.package(), &mut |_| {}, &Cancel::new()).unwrap();
    assert_eq!((built.fresh, built.compiled), (true, 0));
    assert!(built.library.starts_with(&beside));

    // A unit that cargo is about to compile has an empty record, and its outputs are not trusted.
    let records = fs::read_dir(project.target_dir().join("debug/.fingerprint")).unwrap();
    let of_helper =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("helper-"));
    let record = records.map(|entry| entry.unwrap().path()).find(of_helper).unwrap();
    let hash = fs::read_dir(&record).unwrap().map(|entry| entry.unwrap().path());
    let hash = hash.into_iter().find(|path| path.ends_with("lib-helper")).unwrap();
    fs::write(hash, "").unwrap();
    let another = project.directory.path().join("state/another");
    seed(project.target_dir(), &another);
    let builder = Builder::new(Cargo::of_process(), &another, None);
    assert_eq!(build(&builder, &project.package(), &mut |_| {}, &Cancel::new()).unwrap().compiled, 1);
}

#[test]
fn build_that_prints_without_end_does_not_fill_the_memory() {
    let project = Project::new();
    // Printed by cargo itself, as warnings of a build script are.
    project.write(
        "build.rs",
        "fn main() {\n    let line = \"x\".repeat(1 << 20);\n    loop { println!(\"{line}\") }\n}\n",
    );
    let error = project.build().unwrap_err();
    let BuildError::Flood { doing } = &error else { panic!("{error}") };
    assert_eq!(doing, "the build script of thin");
    // The next one finds nothing in its way.
    fs::remove_file(project.path("build.rs")).unwrap();
    project.build().unwrap();
}

#[test]
fn compiler_that_was_killed_is_no_fault_of_the_code() {
    let project = Project::new();
    project
        .write("killer", "#!/bin/sh\ncase \"$*\" in *--crate-name?thin*) kill -9 $$;; esac\nexec \"$@\"\n");
    fs::set_permissions(project.path("killer"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    project.write(".cargo/config.toml", &format!("[build]\nrustc-wrapper = {:?}\n", project.path("killer")));
    let Err(BuildError::Cargo { words, .. }) = project.build() else { panic!("no error of cargo's") };
    assert!(words.starts_with("a compiler or build script was killed"), "{words}");
    assert!(words.lines().next().unwrap().contains("host reload"), "{words}");
}

#[test]
fn full_disk_is_no_error_in_the_code() {
    let outcome = |first_error: Option<String>, rendered: &str, words: &str| {
        let diagnostics =
            Diagnostics { rendered: rendered.to_owned(), errors: 1, first_error, ..Diagnostics::default() };
        refusal(Outcome { diagnostics, words: words.to_owned(), ..Outcome::default() }, Inputs::default())
    };
    let of_rustc = "error: failed to write /target/x.rmeta: No space left on device (os error 28)";
    let error = outcome(Some(of_rustc.to_owned()), of_rustc, "could not compile `thin`");
    assert!(error.to_string().starts_with("cargo failed: the disk is full; make room"), "{error}");
    let error = outcome(Some("src/lib.rs:1:1: mismatched types".to_owned()), "", "could not compile `thin`");
    assert!(error.to_string().starts_with("does not compile: src/lib.rs:1:1"), "{error}");
}

#[test]
fn macro_that_does_not_end_is_ended() {
    let project = Project::new();
    project.manifest("[dependencies]\nendless = { path = \"../endless\" }\n");
    project.write(
        "../endless/Cargo.toml",
        "[package]\nname = \"endless\"\nedition = \"2024\"\n\n[lib]\nproc-macro = true\n",
    );
    project.write(
        "../endless/src/lib.rs",
        "#[proc_macro]\npub fn never(_: proc_macro::TokenStream) -> proc_macro::TokenStream {\n    \
         loop { std::thread::park() }\n}\n",
    );
    project.write("src/lib.rs", "endless::never!();\n");
    let state = project.directory.path().join("state/target");
    let hasty = Builder::new(Cargo::of_process(), state, None).ended_after(Duration::from_secs(4));
    let error = build(&hasty, &project.package(), &mut |_| {}, &Cancel::new()).unwrap_err();
    let BuildError::Late { doing, .. } = &error else { panic!("{error}") };
    assert_eq!(doing, "rustc on thin");
}

#[test]
fn cargo_that_does_not_answer_is_ended() {
    let began = Instant::now();
    let mut command = Command::new("sh");
    command.args(["-c", "sleep 1000 & sleep 1000"]);
    let error = crate::build::process::output(&mut command, Duration::from_millis(50)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(began.elapsed() < DEADLINE);
    let mut command = Command::new("sh");
    command.args(["-c", "echo out; echo err >&2; exit 3"]);
    let output = crate::build::process::output(&mut command, DEADLINE).unwrap();
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(output.status.code(), Some(3));
}
