//! Who holds an instance awake: the protocol of [`super::lease`], written down with the instance.
//!
//! Whoever wakes an instance or puts it to rest holds its lock, so that there is one operation at a
//! time. A wake is noted before the lock is asked for: from then on no rest begins, and one that goes on
//! is followed by the wake.

use jiff::Timestamp;

use super::error::FleetError;
use super::ids::InstancePath;
use super::lease::{Effect, Event, Phase, Wakefulness};
use super::work::Work;

impl Work<'_> {
    /// Notes what happened; returns what comes of it, and what is noted then.
    pub fn note(
        &mut self,
        path: &InstancePath,
        events: &[Event],
    ) -> Result<(Vec<Effect>, Wakefulness), FleetError> {
        let now_ms = Timestamp::now().as_millisecond();
        let state = super::record::find_instance(self.store, path)?.state;
        let noted = self.store.change_lease(path.instance.as_str(), |written| {
            let known = written.and_then(|json| serde_json::from_str(&json).ok());
            let mut awake: Wakefulness = known.unwrap_or_else(|| Wakefulness::new(state));
            let mut effects = Vec::new();
            if matches!(awake.phase(), Phase::At { .. }) {
                // Others may have changed it since.
                effects.extend(awake.take(Event::Observed { state }, now_ms));
            }
            effects.extend(events.iter().flat_map(|event| awake.take(*event, now_ms)).collect::<Vec<_>>());
            Ok((serde_json::to_string(&awake)?, (effects, awake)))
        })?;
        noted.ok_or_else(|| FleetError::NoInstance(path.clone()))
    }
}
