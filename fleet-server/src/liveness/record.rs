//! What liveness remembers of a box across a restart of the server. Wall-clock times: the monotonic clock ends with the
//! process.

use jiff::Timestamp;
use protocol::api::Liveness;
use protocol::heartbeat::GoodbyeWhy;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::history::History;

/// One box, as kept in the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its state.
    pub state: Liveness,
    /// Since when.
    pub since: Option<Timestamp>,
    /// The last beat, by the server's clock.
    pub last_seen: Option<Timestamp>,
    /// What it said when the next one would come, milliseconds.
    pub every_ms: u64,
    /// The last accepted beat's kernel, process and number.
    pub last: Option<(Uuid, Uuid, u64)>,
    /// It said goodbye: why, and by when it is back.
    pub away: Option<(GoodbyeWhy, Timestamp)>,
    /// Its path's history.
    pub history: History,
}
