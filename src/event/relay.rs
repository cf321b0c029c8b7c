//! Events passed on from one stream into another.

use std::collections::HashMap;

use super::{Event, EventSink, Kind, TaskId};

/// Passes events of tasks on. What is dropped on the way is added to what a task says at its end.
#[derive(Debug)]
pub struct Relay {
    out: EventSink,
    lost: HashMap<TaskId, u64>,
}

impl Relay {
    /// Events go on into `out`.
    pub fn new(out: EventSink) -> Self {
        Self { out, lost: HashMap::new() }
    }

    /// Passes an event on.
    pub fn pass(&mut self, mut event: Event) {
        if let Kind::TaskEnded { dropped, .. } = &mut event.kind {
            *dropped += self.lost.remove(&event.task).unwrap_or(0);
        }
        let task = event.kind.may_drop().then(|| event.task.clone());
        if let (false, Some(task)) = (self.out.forward(event), task) {
            *self.lost.entry(task).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{LOG_CAPACITY, Outcome};

    #[test]
    fn what_is_dropped_on_the_way_is_counted_with_what_the_task_dropped() {
        let (out, mut shown) = EventSink::new(TaskId::machine());
        let mut relay = Relay::new(out.clone());
        let (sink, mut events) = EventSink::new(TaskId::new('b'));
        (0..LOG_CAPACITY).for_each(|_| out.info("something else"));
        (0..7).for_each(|_| sink.info("line"));
        sink.send(Kind::TaskEnded { outcome: Outcome::Ok, duration_ms: 1, dropped: 3 });
        while let Some(event) = events.try_next() {
            relay.pass(event);
        }
        let ended = std::iter::from_fn(|| shown.try_next()).find_map(|event| match event.kind {
            Kind::TaskEnded { dropped, .. } => Some(dropped),
            _ => None,
        });
        assert_eq!(ended, Some(10));
    }
}
