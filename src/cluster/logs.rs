//! What agent and coordinator wrote, read from the end on and as it grows.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;

use super::part::Part;
use crate::host::growing::Growing;
use crate::host::paths::Paths;

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Whose.
    pub part: Part,
    /// The line, as it was written.
    pub text: String,
}

/// The logs of some parts.
#[derive(Debug)]
pub struct Logs(Vec<Log>);

#[derive(Debug)]
struct Log {
    part: Part,
    path: PathBuf,
    reader: Option<Growing>,
}

impl Logs {
    /// Opens the logs of these parts, and gives their last lines: at most so many of each, those of
    /// both in the order of the times at their beginnings.
    pub fn open(parts: &[Part], lines: usize, paths: &Paths) -> io::Result<(Self, Vec<LogLine>)> {
        let mut logs = Vec::new();
        let mut last = Vec::new();
        for part in parts.iter().copied() {
            let mut kept = VecDeque::new();
            let mut keep = |line: &[u8]| {
                kept.push_back(String::from_utf8_lossy(line).into_owned());
                if kept.len() > lines {
                    kept.pop_front();
                }
            };
            if let Some(mut earlier) = Growing::open(&part.earlier_log(paths))? {
                earlier.read(&mut keep)?;
            }
            let path = part.log(paths);
            let mut reader = Growing::open(&path)?;
            if let Some(reader) = &mut reader {
                reader.read(&mut keep)?;
            }
            logs.push(Log { part, path, reader });
            // A line without a time belongs to the one before it.
            let mut time = String::new();
            for text in kept {
                if let Some(own) = time_of(&text) {
                    time = own.to_owned();
                }
                last.push((time.clone(), LogLine { part, text }));
            }
        }
        last.sort_by(|a, b| a.0.cmp(&b.0));
        Ok((Self(logs), last.into_iter().map(|(_, line)| line).collect()))
    }

    /// What was written since the last time.
    pub fn read(&mut self) -> io::Result<Vec<LogLine>> {
        let mut lines = Vec::new();
        for log in &mut self.0 {
            log.read(&mut lines)?;
        }
        Ok(lines)
    }
}

impl Log {
    fn read(&mut self, lines: &mut Vec<LogLine>) -> io::Result<()> {
        let part = self.part;
        let mut take =
            |line: &[u8]| lines.push(LogLine { part, text: String::from_utf8_lossy(line).into_owned() });
        // Looked for first: what the old one still got before another took its place is read below.
        let now = Growing::open(&self.path)?;
        if let Some(reader) = &mut self.reader {
            reader.read(&mut take)?;
        }
        let Some(mut next) = now else { return Ok(()) };
        if self.reader.as_ref().is_none_or(|reader| !reader.is_same(&next)) {
            next.read(&mut take)?;
            self.reader = Some(next);
        }
        Ok(())
    }
}

/// The time at the beginning of a line: `2026-01-31T12:00:00Z`, with or without parts of a second.
fn time_of(line: &str) -> Option<&str> {
    let word = line.split(' ').next()?;
    word.parse::<jiff::Timestamp>().is_ok().then_some(word)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    fn text(lines: &[LogLine]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn both_logs_are_one_in_the_order_of_their_times_and_followed_beyond_a_change_of_files() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::at(dir.path().join("s"), dir.path().join("r")).unwrap();
        fs::create_dir(paths.cluster()).unwrap();
        let (agent, coordinator) = (Part::Agent.log(&paths), Part::Coordinator.log(&paths));
        fs::write(&agent, "2026-01-01T00:00:01Z a\n  more\n2026-01-01T00:00:03Z b\n").unwrap();
        let (mut logs, last) = Logs::open(&Part::ALL, 10, &paths).unwrap();
        assert_eq!(last.len(), 3);
        fs::write(&coordinator, "2026-01-01T00:00:02Z c\n").unwrap();
        assert_eq!(text(&logs.read().unwrap()), ["2026-01-01T00:00:02Z c"]);
        let (_, last) = Logs::open(&Part::ALL, 10, &paths).unwrap();
        let order: Vec<_> = last.iter().map(|line| line.text.rsplit(' ').next().unwrap()).collect();
        assert_eq!(order, ["a", "more", "c", "b"]);
        let (_, last) = Logs::open(&[Part::Agent], 1, &paths).unwrap();
        assert_eq!(text(&last), ["2026-01-01T00:00:03Z b"]);
        // The old file still gets its last line.
        fs::OpenOptions::new().append(true).open(&agent).unwrap().write_all(b"last\n").unwrap();
        fs::rename(&agent, Part::Agent.earlier_log(&paths)).unwrap();
        fs::write(&agent, "first\n").unwrap();
        assert_eq!(text(&logs.read().unwrap()), ["last", "first"]);
        let (_, last) = Logs::open(&[Part::Agent], 2, &paths).unwrap();
        assert_eq!(text(&last), ["last", "first"], "the earlier file is part of it");
    }
}
