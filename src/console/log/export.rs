//! A log as plain text: copied, or written to a file.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::buffer::{LogBuffer, LogLine};
use super::line::printable;
use super::state::LogState;

/// A log could not be written to a file.
#[derive(Debug, Error)]
pub enum ExportError {
    /// Something of that name is there.
    #[error("{0} exists already\nhelp: name a file that does not exist")]
    Exists(PathBuf),
    /// The file could not be created or written.
    #[error("cannot write the log to {path}: {error}\nhelp: name a file you may write, on a disk with room")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl LogState {
    /// Writes the lines that pass the filter to a new file, as plain text; with full timestamps
    /// when these are shown. Returns how many. On failure no file is left. Blocks
    /// while it writes.
    pub fn export(&self, buffer: &LogBuffer, path: &Path) -> Result<u64, ExportError> {
        let failed = |error: io::Error| ExportError::Write { path: path.into(), error };
        let file = match OpenOptions::new().write(true).create_new(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(ExportError::Exists(path.into()));
            }
            opened => opened.map_err(failed)?,
        };
        self.write_lines(buffer, BufWriter::new(file)).map_err(|error| {
            // The first failure is the one to tell.
            let _ = std::fs::remove_file(path);
            failed(error)
        })
    }

    fn write_lines(&self, buffer: &LogBuffer, mut out: impl Write) -> io::Result<u64> {
        let mut count = 0;
        let mut text = String::new();
        for line in buffer.lines(buffer.range()).filter(|line| self.filter.passes(line)) {
            text.clear();
            if self.timestamps {
                text.push_str(&format!("{:.3} ", line.time));
            }
            self.write_plain(buffer, &line, &mut text);
            text.push('\n');
            out.write_all(text.as_bytes())?;
            count += 1;
        }
        out.flush()?;
        Ok(count)
    }

    /// A line as it is shown, without colours, marks and timestamps.
    pub(super) fn write_plain(&self, buffer: &LogBuffer, line: &LogLine, out: &mut String) {
        let name = buffer.name(line.source);
        if self.filter.source.is_none() && !name.is_empty() {
            out.push_str(&printable(name));
            out.push_str("> ");
        }
        out.push_str(&printable(line.text));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LogAction, Severity};
    use super::*;
    use jiff::Timestamp;
    use jiff::tz::TimeZone;

    fn example() -> (LogBuffer, LogState) {
        let mut buffer = LogBuffer::default();
        let rootfs = buffer.add_source("rootfs");
        for text in ["\x1b[32mok\x1b[0m one", "two", "also ok"] {
            buffer.push(Timestamp::UNIX_EPOCH, rootfs, Severity::Plain, text);
        }
        let mut state = LogState::new(TimeZone::UTC);
        state.act(&buffer, LogAction::Filter("ok".into()));
        (buffer, state)
    }

    #[test]
    fn an_export_holds_what_passes_the_filter_as_plain_text() {
        let (buffer, mut state) = example();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        assert_eq!(state.export(&buffer, &path).unwrap(), 2);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "rootfs> ok one\nrootfs> also ok\n");
        state.act(&buffer, LogAction::ToggleTimestamps);
        let path = directory.path().join("timed");
        state.export(&buffer, &path).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("1970-01-01T00:00:00.000Z rootfs> ok"));
    }

    #[test]
    fn an_export_never_overwrites() {
        let (buffer, state) = example();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(state.export(&buffer, &path), Err(ExportError::Exists(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        let error = state.export(&buffer, &directory.path().join("no/log")).unwrap_err();
        assert!(error.to_string().contains("help:"));
    }

    #[test]
    fn a_failed_write_is_an_error() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (buffer, state) = example();
        assert_eq!(state.write_lines(&buffer, Full).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
