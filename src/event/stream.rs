//! Events on their way from a task to whoever reads them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use jiff::Timestamp;
use tokio::sync::mpsc;

use super::{Event, Kind, Level, SCHEMA_VERSION, Source, TaskId};

/// How many log lines may wait in a channel before further ones are dropped and counted.
pub const LOG_CAPACITY: usize = 16 * 1024;

/// Where a task puts its events. Cheap to clone; never blocks.
///
/// Log and progress lines beyond [`LOG_CAPACITY`] waiting ones are dropped and counted;
/// every other event always arrives.
#[derive(Debug, Clone)]
pub struct EventSink {
    task: TaskId,
    sender: mpsc::UnboundedSender<Event>,
    waiting: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
}

/// The reading end of an [`EventSink`].
#[derive(Debug)]
pub struct EventStream {
    receiver: mpsc::UnboundedReceiver<Event>,
    waiting: Arc<AtomicUsize>,
}

impl EventSink {
    /// A sink for `task` and the stream its events come out of.
    pub fn new(task: TaskId) -> (Self, EventStream) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let sink = Self { task, sender, waiting: waiting.clone(), dropped: Arc::default() };
        (sink, EventStream { receiver, waiting })
    }

    /// The task this sink belongs to.
    pub fn task(&self) -> &TaskId {
        &self.task
    }

    /// Puts an event into the stream. A reader that went away is no error.
    pub fn send(&self, kind: Kind) {
        self.forward(Event { v: SCHEMA_VERSION, time: Timestamp::now(), task: self.task.clone(), kind });
    }

    /// Passes on an event as it is, of whatever task. False when it was dropped.
    pub fn forward(&self, event: Event) -> bool {
        if event.kind.may_drop() && self.waiting.load(Ordering::Relaxed) >= LOG_CAPACITY {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if self.sender.send(event).is_err() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        true
    }

    /// Enters a phase.
    pub fn phase(&self, name: &str) {
        self.send(Kind::Phase { name: name.into() });
    }

    /// Says something for information.
    pub fn info(&self, text: impl Into<String>) {
        self.mvm(Level::Info, text.into());
    }

    /// Says something the user should know.
    pub fn warn(&self, text: impl Into<String>) {
        self.mvm(Level::Warning, text.into());
    }

    fn mvm(&self, level: Level, text: String) {
        self.send(Kind::Log { source: Source::Mvm { level }, text });
    }

    /// How many log lines were dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl EventStream {
    /// The next event, or `None` once every sink is gone.
    pub async fn next(&mut self) -> Option<Event> {
        let event = self.receiver.recv().await;
        self.took(event)
    }

    /// The next event that is there already.
    pub fn try_next(&mut self) -> Option<Event> {
        let event = self.receiver.try_recv().ok();
        self.took(event)
    }

    fn took(&self, event: Option<Event>) -> Option<Event> {
        if event.is_some() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_reader_loses_log_lines_but_no_state_change() {
        let (sink, mut stream) = EventSink::new(TaskId::new('t'));
        for _ in 0..LOG_CAPACITY + 10 {
            sink.info("line");
        }
        sink.phase("boot");
        assert_eq!(sink.dropped(), 10);
        let mut phases = 0;
        while let Some(event) = stream.try_next() {
            phases += usize::from(matches!(event.kind, Kind::Phase { .. }));
        }
        assert_eq!(phases, 1);
    }
}
