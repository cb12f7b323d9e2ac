//! A named bound on everything that comes from outside, with the reason beside it. Both sides use the same numbers.

use std::time::Duration;

/// A heartbeat's body, bytes. A full report of a box with 8 gateways and 32 mounts is under 24 KiB.
pub const HEARTBEAT_BODY_BYTES: usize = 64 * 1024;
/// Any other request's body, bytes.
pub const REQUEST_BODY_BYTES: usize = 64 * 1024;
/// An answer that a client of ours reads, bytes.
pub const ANSWER_BODY_BYTES: usize = 8 * 1024 * 1024;
/// The shortest time between two heartbeats: more tells nothing new and costs the box its CPU.
pub const INTERVAL_MIN: Duration = Duration::from_millis(250);
/// The longest time between two heartbeats (`mode = "timer"` with a slow timer).
pub const INTERVAL_MAX: Duration = Duration::from_secs(3600);
/// Bytes of a box's name (a DNS label sequence: the longest host name there is).
pub const NAME_BYTES: usize = 253;
/// Labels on one box.
pub const LABELS: usize = 16;
/// Bytes of a label's name.
pub const LABEL_NAME_BYTES: usize = 63;
/// Bytes of a label's value.
pub const LABEL_VALUE_BYTES: usize = 128;
/// Bytes of a systemd unit's name (systemd's own `UNIT_NAME_MAX` is 256 with the NUL).
pub const UNIT_NAME_BYTES: usize = 255;
/// Bytes of a word (`why`, a state name).
pub const WORD_BYTES: usize = 48;
/// Gateway units on one box.
pub const UNITS: usize = 8;
/// Checks in a report: four kinds, one row for each of up to 8 units, and room for kinds to come.
pub const CHECKS: usize = 32;
/// Remedies in a report: the newest ones.
pub const REMEDIES: usize = 16;
/// Bytes of a sentence for people (`summary`, `reason`).
pub const SUMMARY_BYTES: usize = 512;
/// Entries of a check's `values`.
pub const VALUES: usize = 256;
/// Bytes of a check's `values`, encoded.
pub const VALUES_BYTES: usize = 16 * 1024;
/// How deep a check's `values` may nest.
pub const VALUES_DEPTH: usize = 6;
/// Bytes of an evidence digest (redacted, bounded).
pub const EVIDENCE_BYTES: usize = 4 * 1024;
/// Ways in which beats failed that an account of a silence names.
pub const ATTEMPTS: usize = 8;
/// Lines of an account's evidence.
pub const ACCOUNT_LINES: usize = 16;
/// Bytes of one of them: a journal line's telling part. A whole account is under 12 KiB.
pub const ACCOUNT_LINE_BYTES: usize = 256;
/// The longest absence that a goodbye may announce.
pub const BACK_WITHIN_MAX: Duration = Duration::from_secs(24 * 3600);
/// Bytes of an acknowledgement's or pause's reason.
pub const REASON_BYTES: usize = 256;
/// Bytes of a token or an enrolment code as text.
pub const TOKEN_BYTES: usize = 128;
/// The largest `seq`, so that it stays exact in every JSON reader (2^53 - 1).
pub const SEQ_MAX: u64 = (1 << 53) - 1;
/// Rows of one page of an operators' listing.
pub const PAGE_ROWS: u32 = 1000;
/// Boxes (or kinds, or severities) that one matcher lists; more is a label's work.
pub const MATCHER_ENTRIES: usize = 256;
/// Bytes of a time zone's name; the longest there is has 32.
pub const ZONE_BYTES: usize = 64;
/// The longest that one window mutes: what is longer belongs into the routes.
pub const MUTE_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// The longest that a box's own pause mutes what is said about it: a box must not mute itself for ever.
pub const PAUSE_MUTES_MAX: Duration = Duration::from_secs(24 * 3600);
/// Witnesses of one box: each is asked every second while the box is suspect.
pub const WITNESSES: usize = 8;
/// Bytes of one witness: a DNS name and a port.
pub const WITNESS_BYTES: usize = 260;
