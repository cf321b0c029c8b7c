//! Times, sizes and names as people write them.

use std::borrow::Cow;
use std::path::Path;
use std::time::Duration;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// The known key that is nearly the one that was written.
pub fn nearest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    let near = known.iter().max_by(|a, b| strsim::jaro(key, a).total_cmp(&strsim::jaro(key, b)));
    near.copied().filter(|near| strsim::jaro(key, near) > 0.7)
}

/// The label nearest to any text, e.g. a directory's name: 1–50 of `[a-z0-9-]`, no dash at its ends; none where
/// nothing is left.
pub fn label(text: &str) -> Option<String> {
    // An accent is no reason to lose its letter.
    let letters = text.to_lowercase().nfd().filter(|c| !is_combining_mark(*c)).collect::<String>();
    let letters = letters.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(50);
    let letters: String = letters.collect();
    let label = letters.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-");
    Some(label).filter(|label| !label.is_empty())
}

/// Whether it is a label: 1–63 of `[a-z0-9-]`, no leading dash.
pub fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && !text.starts_with('-')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// A path as a shell takes it.
pub fn as_word(path: &Path) -> String {
    let text = path.display().to_string();
    shlex::try_quote(&text).map(Cow::into_owned).unwrap_or(text)
}

/// `451 ms`, `4.1 s`, `2m 05s`, `3h 02m`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h {:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {:02}h", seconds / 86400, seconds / 3600 % 24),
    }
}

/// `812 B`, `4.0 KiB`, `1.2 GiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// For narrow columns: `9s`, `4m`, `3h`, `12d`.
pub fn short_duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

/// For narrow columns, at most four characters: `812`, `1.2K`, `82M`, `4.0G`.
pub fn short_bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["K", "M", "G", "T", "P", "E"];
    if count < 1000 {
        return count.to_string();
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(value < 9.95);
    format!("{value:.digits$}{}", UNITS[unit])
}

/// How a VM was saved: `in 1.2 s (82.0 MiB, the guest stood still for 451 ms)`.
pub fn saving(size: u64, paused: Duration, whole: Duration) -> String {
    format!("in {} ({}, the guest stood still for {})", duration(whole), bytes(size), duration(paused))
}

/// A derivation's name: its store path without directory, hash and `.drv`.
pub fn drv_name(drv: &str) -> &str {
    let base = drv.rsplit('/').next().unwrap_or(drv);
    let base = base.strip_suffix(".drv").unwrap_or(base);
    match base.split_once('-') {
        Some((hash, name)) if hash.len() == 32 => name,
        _ => base,
    }
}

/// A machine's name for people: the store Nix names without scheme, path and parameters.
pub fn host_name(store: &str) -> &str {
    let Some((_, rest)) = store.split_once("://") else { return store };
    let name = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    if name.is_empty() { store } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_becomes_the_label_that_is_nearest() {
        let labels = ["Web App", "ñandú 日本", "--a__b--", "日本"].map(label);
        assert_eq!(labels.map(Option::unwrap_or_default), ["web-app", "nandu", "a-b", ""]);
    }

    #[test]
    fn times_and_sizes_read_well() {
        assert_eq!(duration(Duration::from_millis(451)), "451 ms");
        assert_eq!(duration(Duration::from_millis(4100)), "4.1 s");
        assert_eq!(duration(Duration::from_secs(125)), "2m 05s");
        assert_eq!(bytes(812), "812 B");
        assert_eq!(bytes(4096), "4.0 KiB");
        assert_eq!(short_duration(Duration::from_secs(59)), "59s");
        assert_eq!(short_duration(Duration::from_secs(7200)), "2h");
        let short = [0, 999, 1000, 1229, 82 << 20, 1023 << 20, u64::MAX].map(short_bytes);
        assert_eq!(short, ["0", "999", "1.0K", "1.2K", "82M", "1.0G", "16E"]);
        let hosts =
            ["ssh-ng://me@far:22/x?remote-store=/y", "ssh://far?x=y", "far", "local:///x"].map(host_name);
        assert_eq!(hosts, ["me@far:22", "far", "far", "local:///x"]);
        assert_eq!(drv_name("/nix/store/00000000000000000000000000000000-hello-1.drv"), "hello-1");
    }
}
