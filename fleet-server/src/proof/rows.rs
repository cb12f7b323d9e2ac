//! Pure: who is told of the incidents of the canary's own box.
//!
//! Its sink, always. The real receiver of `[canary] receiver`, if there is one: marked as a test, and as something for
//! the record only, so that it wakes nobody. No route applies, no silence, no reminder.

use protocol::incident::Severity;

use crate::incident::canary::NAME;
use crate::incident::change::Change;
use crate::notify::outbox::OutboxRow;
use crate::notify::plan::row;
use crate::settings::CanarySettings;

/// The sink's name among receivers. No receiver of a configuration may have it.
pub const SINK: &str = NAME;

/// The rows for a change of an incident of the canary's; none if there is no canary any more.
pub fn rows(change: &Change, settings: Option<&CanarySettings>) -> Vec<OutboxRow> {
    let Some(settings) = settings.filter(|_| change.notify) else {
        return Vec::new();
    };
    let real = settings.receiver.as_ref().map(|name| {
        let mut row = row(change, name.to_string(), false);
        row.alert.test = true;
        row.alert.incident.severity = Severity::Info;
        row
    });
    [row(change, SINK.to_owned(), false)]
        .into_iter()
        .chain(real)
        .collect()
}
