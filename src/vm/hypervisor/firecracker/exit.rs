//! What Firecracker's exit codes mean.

use std::process::ExitStatus;

/// How Firecracker ended, in words.
pub fn words(status: ExitStatus) -> String {
    let meaning = match status.code() {
        Some(1) => "an error",
        Some(148) => "its seccomp filter stopped a system call",
        Some(149) => "SIGBUS: a file that it maps was cut short, or memory ran out",
        Some(150) => "SIGSEGV: a bad access to memory",
        Some(151) => "SIGXFSZ: a file grew over the limit of its size",
        Some(152) => "its configuration is bad",
        Some(153) => "its arguments are bad",
        Some(156) => "SIGHUP: its session ended",
        _ => return status.to_string(),
    };
    format!("{status}, {meaning}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn codes_become_words_and_what_has_none_stays_a_number() {
        let told = |code: i32| words(ExitStatus::from_raw(code << 8));
        assert_eq!(told(148), "exit status: 148, its seccomp filter stopped a system call");
        assert_eq!(told(0), "exit status: 0");
        assert_eq!(told(77), "exit status: 77");
        assert_eq!(words(ExitStatus::from_raw(9)), "signal: 9 (SIGKILL)");
    }
}
