//! The moments between which an operation may be killed, by name, for tests.

/// All of them, in the order in which an instance of all sorts comes to them.
pub const STEPS: [&str; 13] = [
    "create.recorded",
    "create.prepared",
    "start.ready",
    "start.recorded",
    "start.detached",
    "warm.halted",
    "sleep.drained",
    "sleep.saved",
    "wake.ready",
    "wake.recorded",
    "wake.detached",
    "stop.ended",
    "destroy.recorded",
];

/// Names the step at which a process of a debug build kills itself.
pub const KILL_AT: &str = "MVM_KILL_AT";

/// An operation has come to this step.
pub fn reached(step: &'static str) {
    debug_assert!(STEPS.contains(&step), "{step}");
    #[cfg(debug_assertions)]
    if std::env::var_os(KILL_AT).is_some_and(|at| at == step) {
        // As abrupt as the worst.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
    }
}
