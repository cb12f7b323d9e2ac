//! What must survive the server: boxes, tokens, incidents, notifications, and what liveness learnt.
//!
//! Here stand the trait and its records; SQL stands only under `store/sqlite*`. It decides nothing: incidents come
//! decided ([`Change`]), routes come resolved ([`OutboxRow`]).

pub mod handle;
pub mod sqlite;

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use protocol::incident::{Ack, Incident, Kind, TimelineEntry};
use protocol::mute::{MuteKind, MuteRecord};
use protocol::names::{BoxName, Labels};
use protocol::report::Report;
use protocol::witness::Targets;
use serde::{Deserialize, Serialize};

use crate::directory::{Role, TokenHash};
use crate::incident::change::Change;
use crate::liveness::record::Record;
use crate::notify::outbox::OutboxRow;

/// A box in the store: never used again for another box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BoxId(pub i64);

impl BoxId {
    /// The server's own canary: a box in memory only, of which the store never hears (its ids start at 1).
    pub const CANARY: Self = Self(0);

    /// Whether it is the server's own canary.
    pub fn is_canary(self) -> bool {
        self == Self::CANARY
    }
}

/// A box as added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoxRecord {
    /// Its id.
    pub id: BoxId,
    /// Its name: what incidents and operators call it.
    pub name: BoxName,
    /// Labels set by an operator.
    #[serde(default)]
    pub labels: Labels,
    /// Labels that the box declared when it enrolled (its newest report's labels are newer).
    #[serde(default)]
    pub declared: Labels,
    /// Whom the server may ask about it. (A copy written before there could be several has one text.)
    #[serde(default, alias = "witness_tcp")]
    pub witnesses: Targets,
    /// When.
    pub added_at: Timestamp,
    /// Its tokens that are not revoked; the newest last.
    #[serde(default)]
    pub tokens: Vec<TokenRecord>,
}

/// A token as it is kept: only its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// SHA-256 of the token.
    pub hash: TokenHash,
    /// When it was made.
    pub created_at: Timestamp,
    /// Until when it is good: set when a newer one replaced it.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
}

/// A new box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBox {
    /// Its name.
    pub name: BoxName,
    /// Labels set by an operator.
    pub labels: Labels,
    /// Labels that the box declared (at enrolment).
    pub declared: Labels,
    /// Whom the server may ask about it.
    pub witnesses: Targets,
    /// Its first token's hash.
    pub token: TokenHash,
    /// When.
    pub at: Timestamp,
}

/// An operator's token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorRecord {
    /// Who: stands in acknowledgements.
    pub name: String,
    /// What they may.
    pub role: Role,
    /// SHA-256 of the token.
    pub hash: TokenHash,
    /// When it was made.
    pub created_at: Timestamp,
}

/// An enrolment code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrollCode {
    /// SHA-256 of the code.
    pub hash: TokenHash,
    /// How often it can still be used.
    pub uses_left: u32,
    /// Until when it is good.
    pub expires_at: Timestamp,
}

/// What liveness knows of a box, so that a restart forgets nothing: last seen, replay guard, goodbye, history.
/// Written every few seconds for the boxes that changed, at once for a goodbye, and at shutdown.
#[derive(Debug, Clone, PartialEq)]
pub struct BoxMemory {
    /// Of which box.
    pub id: BoxId,
    /// What is known.
    pub record: Record,
}

/// A box's newest report.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredReport {
    /// Of which box.
    pub id: BoxId,
    /// When it arrived, by the server's clock.
    pub received_at: Timestamp,
    /// The report.
    pub report: Report,
}

/// An incident as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredIncident {
    /// The incident.
    pub incident: Incident,
    /// The last notified change's number ([`Change::revision`]).
    pub revision: u32,
    /// Who has it in hand.
    pub ack: Option<Ack>,
    /// What happened, oldest first, at most [`TIMELINE_ENTRIES`].
    pub timeline: Vec<TimelineEntry>,
}

/// Which incidents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IncidentFilter {
    /// Only open ones, or only resolved ones.
    pub open: Option<bool>,
    /// Only of this kind.
    pub kind: Option<Kind>,
    /// Only about this box.
    pub box_name: Option<BoxName>,
    /// Not about this box.
    pub except_box: Option<BoxName>,
    /// From this row of the result on.
    pub offset: u64,
    /// At most so many rows.
    pub limit: u32,
}

/// Mutes that are not over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownMutes {
    /// By number.
    pub mutes: Vec<MuteRecord>,
    /// A number that none ever had.
    pub next_id: i64,
}

/// What waits for one receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// The receiver.
    pub receiver: String,
    /// Notifications not yet delivered.
    pub count: u64,
    /// When the oldest of them was queued.
    pub oldest: Timestamp,
}

/// What one receiver has not taken and nobody else has heard of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unheard {
    /// The receiver.
    pub receiver: String,
    /// When the oldest of them was queued.
    pub oldest: Timestamp,
}

/// The last notification that a receiver took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastDelivery {
    /// The receiver.
    pub receiver: String,
    /// When.
    pub at: Timestamp,
}

/// Something about the store itself that operators must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// When.
    pub at: Timestamp,
    /// What happened, what it cost, what was done, what to do.
    pub text: String,
}

/// When a receiver was told of an incident: the times of the first and the newest of its rows, delivered or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Of which incident.
    pub incident: i64,
    /// Who.
    pub receiver: String,
    /// First.
    pub first: Timestamp,
    /// Last.
    pub last: Timestamp,
}

/// What a server starts from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Loaded {
    /// All boxes, with their tokens.
    pub boxes: Vec<BoxRecord>,
    /// All operators' tokens.
    pub operators: Vec<OperatorRecord>,
    /// What was known of boxes.
    pub memories: Vec<BoxMemory>,
    /// Their newest reports.
    pub reports: Vec<StoredReport>,
    /// Open incidents, oldest first.
    pub incidents: Vec<StoredIncident>,
    /// Incidents that ended lately, oldest first: for what comes again and again. Not filled by [`Store::load`], which does
    /// not know the time, but from [`Store::ended_since`].
    pub ended: Vec<Incident>,
    /// The next incident's id.
    pub next_incident_id: i64,
    /// What was wrong with the store at this start, and what it cost.
    pub notes: Vec<Note>,
}

/// Lines of one incident's timeline that are kept: the first and the newest ones.
pub const TIMELINE_ENTRIES: usize = 200;
/// Resolved incidents are kept this long …
pub const RESOLVED_KEEP: Duration = Duration::from_secs(400 * 24 * 3600);
/// … and at most so many of them, the newest.
pub const RESOLVED_ROWS: u32 = 100_000;
/// Delivered notifications are kept this long, for "was I told?".
pub const DELIVERED_KEEP: Duration = Duration::from_secs(7 * 24 * 3600);
/// Mutes that are over are kept this long …
pub const MUTES_KEEP: Duration = Duration::from_secs(400 * 24 * 3600);
/// … and at most so many of them, the newest.
pub const MUTES_ROWS: u32 = 10_000;
/// Boxes that one server takes.
pub const BOXES: u32 = 200_000;
/// Enrolment codes that are good at the same time.
pub const ENROLL_CODES: u32 = 1000;
/// Operators' tokens.
pub const OPERATORS: u32 = 1000;

/// What must survive. Every function is one transaction: done whole and durable, or not at all.
///
/// Synchronous: it runs on the store's own thread, behind [`StoreHandle`](handle::StoreHandle).
pub trait Store: Send {
    /// Everything a server starts from.
    fn load(&mut self) -> Result<Loaded, StoreError>;

    /// Adds a box; [`StoreError::NameTaken`] if there is one of that name.
    fn add_box(&mut self, new: &NewBox) -> Result<BoxRecord, StoreError>;
    /// Adds a box by an enrolment code and uses the code up by one; [`StoreError::BadCode`] if it is not good (any more).
    fn enroll(&mut self, code: &TokenHash, new: &NewBox) -> Result<BoxRecord, StoreError>;
    /// Removes a box and what is known of it. Its incidents stay.
    fn remove_box(&mut self, id: BoxId) -> Result<(), StoreError>;
    /// A new token; those before it expire at `old_until`.
    fn rotate(
        &mut self,
        id: BoxId,
        token: &TokenHash,
        at: Timestamp,
        old_until: Timestamp,
    ) -> Result<BoxRecord, StoreError>;
    /// Other witnesses for a box than those declared so far.
    fn set_witnesses(&mut self, id: BoxId, witnesses: &Targets) -> Result<BoxRecord, StoreError>;
    /// Takes all tokens of a box away.
    fn revoke(&mut self, id: BoxId, at: Timestamp) -> Result<BoxRecord, StoreError>;
    /// A new enrolment code; expired and used ones are forgotten.
    fn add_enroll_code(&mut self, code: &EnrollCode, now: Timestamp) -> Result<(), StoreError>;
    /// Puts an operator's token in place of the one of the same name, if any.
    fn put_operator(&mut self, operator: &OperatorRecord) -> Result<(), StoreError>;
    /// Takes an operator's token away.
    fn remove_operator(&mut self, name: &str) -> Result<(), StoreError>;

    /// Writes changes and their notifications: all of them, or none. Done twice it is as done once (a row is known by
    /// its receiver and its alert's idempotency key), so a caller whose call timed out may repeat it.
    fn commit(&mut self, changes: &[Change], rows: &[OutboxRow]) -> Result<(), StoreError>;
    /// Adds lines to incidents' timelines.
    fn add_timeline(&mut self, entries: &[(i64, TimelineEntry)]) -> Result<(), StoreError>;
    /// Somebody has an incident in hand that is over; answers with the incident as it then is. (Of an open one the
    /// acknowledgement comes as a [`Change`], because receivers are told.)
    fn acknowledge(&mut self, id: i64, ack: &Ack) -> Result<StoredIncident, StoreError>;
    /// One incident.
    fn incident(&mut self, id: i64) -> Result<Option<StoredIncident>, StoreError>;
    /// Incidents that ended after `since`, oldest first, at most the newest `limit`.
    fn ended_since(&mut self, since: Timestamp, limit: u32) -> Result<Vec<Incident>, StoreError>;
    /// Incidents, newest first, with the count of all that match.
    fn incidents(&mut self, filter: &IncidentFilter) -> Result<(Vec<StoredIncident>, u64), StoreError>;

    /// Writes a silence or maintenance, in the place of the one of that number, if any. In the second copy as well.
    fn put_mute(&mut self, mute: &MuteRecord) -> Result<(), StoreError>;
    /// Writes pauses, each in the place of the one of that number.
    fn put_pauses(&mut self, pauses: &[MuteRecord]) -> Result<(), StoreError>;
    /// The mutes that were not over at `then`.
    fn mutes_since(&mut self, then: Timestamp) -> Result<KnownMutes, StoreError>;
    /// One mute, over or not.
    fn mute(&mut self, id: i64) -> Result<Option<MuteRecord>, StoreError>;
    /// Those of `kinds` that are over, the newest end first, from row `offset` on and at most `limit`; and how many there
    /// are.
    fn mutes_over(
        &mut self,
        kinds: &[MuteKind],
        now: Timestamp,
        page: (u64, u32),
    ) -> Result<(Vec<MuteRecord>, u64), StoreError>;

    /// Notifications to send now to `receiver`, by id. Of one incident only the first undelivered one can be due: a
    /// later one is never before it, however long it takes.
    fn due(&mut self, receiver: &str, now: Timestamp, limit: u32) -> Result<Vec<OutboxRow>, StoreError>;
    /// When the receiver's next notification is due, if one waits.
    fn next_due(&mut self, receiver: &str) -> Result<Option<Timestamp>, StoreError>;
    /// Every receiver that has a row, delivered or not, for an incident that is still open: who must hear of its end.
    fn told(&mut self) -> Result<Vec<Told>, StoreError>;
    /// Open incidents for which `receiver` has a row, delivered or not, and no undelivered one: what an Alertmanager is
    /// kept reminded of. Oldest first, at most `limit`.
    fn firing(&mut self, receiver: &str, limit: u32) -> Result<Vec<Incident>, StoreError>;
    /// It arrived; the receiver calls it `thread`, if it has a name for messages.
    fn delivered(&mut self, id: i64, at: Timestamp, thread: Option<&str>) -> Result<(), StoreError>;
    /// It did not arrive; not before `next` again.
    fn attempt_failed(&mut self, id: i64, next: Timestamp, error: &str) -> Result<(), StoreError>;
    /// What waits, by receiver.
    fn pending(&mut self) -> Result<Vec<Pending>, StoreError>;
    /// What waits, by receiver, without what somebody has heard of by another way: it was delivered to somebody that this
    /// receiver fails (and that is still so), or the same notification was delivered to another receiver while something
    /// is tried at this one (the last time not before `tried_since`).
    fn unheard(&mut self, tried_since: Timestamp) -> Result<Vec<Unheard>, StoreError>;
    /// The receivers that have not yet taken everything that was queued for them about an incident.
    fn waiting_for(&mut self, incident: i64) -> Result<Vec<String>, StoreError>;
    /// When each receiver last took something, as far back as deliveries are kept.
    fn last_deliveries(&mut self) -> Result<Vec<LastDelivery>, StoreError>;
    /// Gives up what waits for receivers that are not among `known` (taken out of the configuration); how many.
    fn abandon_others(&mut self, known: &[String], at: Timestamp) -> Result<u64, StoreError>;

    /// Remembers boxes. Durable against a crash of the server, at most some seconds old after a power cut; `sync`
    /// makes it durable against that too (a goodbye).
    fn remember(&mut self, memories: &[BoxMemory], sync: bool) -> Result<(), StoreError>;
    /// Remembers boxes' newest reports; durable like [`remember`](Store::remember) without `sync`.
    fn put_reports(&mut self, reports: &[StoredReport]) -> Result<(), StoreError>;

    /// Forgets what is over its time or count; how many rows.
    fn retain(&mut self, now: Timestamp) -> Result<u64, StoreError>;
    /// Anything cheap that proves that the store answers and can be written.
    fn ping(&mut self, now: Timestamp) -> Result<(), StoreError>;
    /// The store's own chores: forgets what is over its time, and writes out what is only a copy for safety, each when it
    /// is due, the copy in any case if it is the `last` time. Called often.
    fn tidy(&mut self, now: Timestamp, last: bool) -> Result<(), StoreError>;
}

/// Why the store did not do it. The text names the object and the fix.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A box of that name exists.
    #[error("there is already a box named {0}; choose another name, or remove that one first")]
    NameTaken(BoxName),
    /// No such thing.
    #[error("there is no {what}")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// The enrolment code is not known, used up or expired.
    #[error("the enrolment code is not known, used up or expired; ask an operator for a new one")]
    BadCode,
    /// A limit of this server.
    #[error("there are already {limit} {what}, as many as this server keeps; remove some first")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        limit: u32,
    },
    /// Another process holds the database.
    #[error("{}: locked by another process; end that one (a backup or sqlite3 shell?)", .path.display())]
    Busy {
        /// The database.
        path: PathBuf,
    },
    /// No room.
    #[error("{}: the disk is full; make room, the server goes on by itself", .path.display())]
    Full {
        /// The database.
        path: PathBuf,
    },
    /// Cannot be written.
    #[error("{}: cannot be written; give the server's user write access to it and its directory", .path.display())]
    ReadOnly {
        /// The database.
        path: PathBuf,
    },
    /// The disk does not do what it is told (it turned read-only under a running server, or is dying).
    #[error("{}: its disk fails ({detail}); look whether its file system turned read-only (mount, dmesg), the server goes on by itself", .path.display())]
    DiskFails {
        /// The database.
        path: PathBuf,
        /// What the database says.
        detail: String,
    },
    /// Damaged.
    #[error("{}: is damaged ({detail}); restart the server: it sets the file aside and starts a new one", .path.display())]
    Corrupt {
        /// The database.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// Of a newer server.
    #[error("{}: has schema {found}, this server knows up to {known}; run the newer server again", .path.display())]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// A file of the data directory.
    #[error("{}: {doing}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Anything else that the database says.
    #[error("{}: {doing}", .path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What it said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It did not answer in time. Whether it was done is not known.
    #[error("the store did not answer to {what} within {} s; is the disk of the data directory slow?", .after.as_secs())]
    TimedOut {
        /// The call.
        what: &'static str,
        /// The time-out.
        after: Duration,
    },
    /// More calls wait than the queue holds. It was not done.
    #[error("the store's queue is full ({what} refused); is the disk of the data directory slow?")]
    Overloaded {
        /// The call.
        what: &'static str,
    },
    /// The server ends. It was not done.
    #[error("the store is closed")]
    Closed,
}
