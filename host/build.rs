//! Exports the functions that the binary defines in libc's place (`src/pins/interpose.rs`), so that the
//! dynamic linker binds the calls of plugins to them.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let target = |name: &str| std::env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    if target("OS") != "linux" || target("ENV") != "gnu" {
        return;
    }
    for name in [
        "__cxa_thread_atexit_impl",
        "pthread_key_create",
        "__pthread_key_create",
        "pthread_key_delete",
        "pthread_setspecific",
        "pthread_create",
        "exit",
        "abort",
        "_exit",
        "_Exit",
        "quick_exit",
        "daemon",
        "sigaction",
        "__sigaction",
        "signal",
        "bsd_signal",
        "ssignal",
        "sysv_signal",
        "__sysv_signal",
        "sigset",
        "sigignore",
        "pthread_sigmask",
        "sigprocmask",
        "sigwait",
        "sigwaitinfo",
        "sigtimedwait",
        "signalfd",
        "on_exit",
        "__cxa_atexit",
        "timer_create",
        "mq_notify",
        "setvbuf",
        "setbuf",
        "setbuffer",
        "_IO_setvbuf",
        "_IO_setbuffer",
    ] {
        println!("cargo:rustc-link-arg-bins=-Wl,--export-dynamic-symbol={name}");
    }
}
