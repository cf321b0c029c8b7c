//! The guest's console on disk: lines with their time, bounded.
//!
//! The guest decides how much it writes, so the log is two files of at most [`HALF`] bytes:
//! `console.log` and the older `console.log.1`.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::host::growing::Growing;

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
    Follower::new(dir).last(usize::MAX)
}

/// Reads a log that grows, each line once, also when it becomes the older half meanwhile.
#[derive(Debug)]
pub struct Follower {
    dir: PathBuf,
    reading: Option<Growing>,
}

impl Follower {
    /// A reader at the beginning of the log in a VM's directory, which may not be there yet.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.into(), reading: None }
    }

    /// The lines that were added since the last time; the first time, all of them.
    pub fn read(&mut self) -> io::Result<Vec<ConsoleLine>> {
        self.last(usize::MAX)
    }

    /// Like [`Self::read`], but only the last `most` of them.
    pub fn last(&mut self, most: usize) -> io::Result<Vec<ConsoleLine>> {
        let mut lines = VecDeque::new();
        let mut keep = |line: &[u8]| {
            lines.push_back(line.to_owned());
            if lines.len() > most {
                lines.pop_front();
            }
        };
        let later = self.later()?;
        // Looked for first: what is no longer the newest file gets no more lines after that.
        if let Some(reading) = &mut self.reading {
            reading.read(&mut keep)?;
        }
        for mut file in later {
            file.read(&mut keep)?;
            self.reading = Some(file);
        }
        Ok(lines.iter().filter_map(|line| parse_line(&String::from_utf8_lossy(line))).collect())
    }

    /// The files that came after the one that is being read.
    fn later(&self) -> io::Result<Vec<Growing>> {
        loop {
            let newest = Growing::open(&self.dir.join("console.log"))?;
            let older = Growing::open(&self.dir.join("console.log.1"))?;
            match (&older, &newest) {
                // Renamed between the two looks.
                (Some(older), Some(newest)) if older.is_same(newest) => continue,
                _ => {}
            }
            let is_reading =
                |file: &Growing| self.reading.as_ref().is_some_and(|reading| reading.is_same(file));
            let mut files = Vec::from_iter(older.into_iter().chain(newest));
            let known = files.iter().rposition(is_reading).map_or(0, |index| index + 1);
            return Ok(files.split_off(known));
        }
    }
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

    fn texts(lines: io::Result<Vec<ConsoleLine>>) -> Vec<String> {
        lines.unwrap().into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn a_follower_begins_with_the_last_lines_and_gives_each_later_one_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut follower = Follower::new(dir.path());
        assert!(texts(follower.last(2)).is_empty(), "no log yet");
        let mut log = ConsoleLog::open(dir.path()).unwrap();
        log.write(b"one\ntwo\nthree\nfo").unwrap();
        assert_eq!(texts(follower.last(2)), ["two", "three"]);
        assert!(texts(follower.read()).is_empty());
        log.write(b"ur\n").unwrap();
        assert_eq!(texts(follower.read()), ["four"]);
    }

    #[test]
    fn a_follower_loses_no_line_when_the_log_turns_over_once_or_twice() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = ConsoleLog::open(dir.path()).unwrap();
        let mut follower = Follower::new(dir.path());
        let mut number = 0;
        // Lines enough for half a file, one that is turned over once, and twice.
        for halves in [0.5, 1.0, 1.9] {
            let count = (HALF as f64 * halves / 1030.0) as usize;
            let first = number;
            for _ in 0..count {
                log.write(format!("{number:>1000}\n").as_bytes()).unwrap();
                number += 1;
            }
            let read = texts(follower.read());
            let numbers: Vec<usize> = read.iter().map(|line| line.trim().parse().unwrap()).collect();
            assert!(numbers.iter().copied().eq(first..number), "{} of {count}", numbers.len());
        }
        let whole = texts(read(dir.path()));
        assert_eq!(whole.last(), Some(&format!("{:>1000}", number - 1)));
    }
}
