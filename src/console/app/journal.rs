//! mvm's own log on its way to its page.

use std::sync::Arc;

use tokio::sync::Notify;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// Tells that there is another line.
struct Bell(Arc<Notify>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Bell {
    fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
        self.0.notify_one();
    }
}

/// Has what mvm logs from now on kept for its page; gives what rings at each line.
pub fn begin() -> Arc<Notify> {
    let bell = Arc::new(Notify::new());
    // Not `init_logger`, whose thread wakes a hundred times a second.
    tui_logger::set_default_level(tui_logger::LevelFilter::Info);
    let layers =
        tracing_subscriber::registry().with(tui_logger::TuiTracingSubscriberLayer).with(Bell(bell.clone()));
    // Where somebody logs already, the page stays empty.
    let _ = tracing::subscriber::set_global_default(layers);
    bell
}

/// Has the lines that came since the last time shown.
pub fn take_in() {
    tui_logger::move_events();
}
