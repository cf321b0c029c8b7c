//! The guest's console on disk: lines with their time, bounded.
//!
//! The guest decides how much it writes, so the log is two files of at most [`HALF`] bytes:
//! `console.log` and the older `console.log.1`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// Size at which `console.log` becomes `console.log.1`, in bytes.
pub const HALF: u64 = 4 * 1024 * 1024;
/// Longest line; longer ones are broken, in bytes.
const LONGEST: usize = 4096;

/// The writing end.
#[derive(Debug)]
pub struct ConsoleLog {
    path: PathBuf,
    file: File,
    size: u64,
    line: Vec<u8>,
}

/// A line of the console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsoleLine {
    /// When it was complete.
    pub time: Timestamp,
    /// Its text, as the guest wrote it.
    pub text: String,
}

impl ConsoleLog {
    /// Opens the log in a VM's directory.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join("console.log");
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { path, file, size, line: Vec::new() })
    }

    /// Takes bytes as they come from the guest.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        for byte in bytes {
            match byte {
                b'\n' => self.finish_line()?,
                b'\r' => {}
                byte => self.line.push(*byte),
            }
            if self.line.len() >= LONGEST {
                self.finish_line()?;
            }
        }
        Ok(())
    }

    /// Writes what is there of an unfinished line.
    pub fn finish_line(&mut self) -> io::Result<()> {
        let text = String::from_utf8_lossy(&self.line);
        let line = format!("{:.3} {text}\n", Timestamp::now());
        self.line.clear();
        self.file.write_all(line.as_bytes())?;
        self.size += line.len() as u64;
        if self.size >= HALF {
            std::fs::rename(&self.path, self.path.with_extension("log.1"))?;
            self.file = OpenOptions::new().create(true).append(true).open(&self.path)?;
            self.size = 0;
        }
        Ok(())
    }

    /// Whether a line has begun and not ended.
    pub fn has_open_line(&self) -> bool {
        !self.line.is_empty()
    }
}

/// Parses one line of the file.
pub fn parse_line(line: &str) -> Option<ConsoleLine> {
    let (time, text) = line.split_once(' ')?;
    Some(ConsoleLine { time: time.parse().ok()?, text: text.into() })
}

/// All lines on disk, the oldest first.
pub fn read(dir: &Path) -> io::Result<Vec<ConsoleLine>> {
    let mut text = Vec::new();
    for name in ["console.log.1", "console.log"] {
        match File::open(dir.join(name)) {
            Ok(mut file) => {
                file.read_to_end(&mut text)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(String::from_utf8_lossy(&text).lines().filter_map(parse_line).collect())
}

/// Puts the log in one VM's directory before that in another's, of which it becomes the older half.
pub fn inherit(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from.join("console.log"), to.join("console.log.1"))
}

/// The last `count` lines' texts, empty ones left out.
pub fn tail(dir: &Path, count: usize) -> Vec<String> {
    let lines = read(dir).unwrap_or_default();
    let mut texts: Vec<_> =
        lines.into_iter().map(|line| line.text).filter(|text| !text.trim().is_empty()).collect();
    texts.split_off(texts.len().saturating_sub(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_stays_within_two_halves_and_keeps_the_newest_lines() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = ConsoleLog::open(dir.path()).unwrap();
        let line = format!("{}\n", "x".repeat(1000));
        for _ in 0..(3 * HALF / 1000) {
            log.write(line.as_bytes()).unwrap();
        }
        log.write(b"the end\r\n").unwrap();
        let size: u64 =
            std::fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
        assert!(size <= 2 * HALF + 8192, "{size}");
        assert_eq!(tail(dir.path(), 1), ["the end"]);
    }
}
