//! A beat's body: what stays the same is kept, only what changes each second is written anew.
//!
//! It reads no file and no clock; the shell gives it what it found.

use std::time::Duration;

use hyper::body::Bytes;
use jiff::Timestamp;
use protocol::account::Account;
use protocol::heartbeat::{Goodbye, Heartbeat, Paused, UnitState};
use protocol::limits;
use protocol::report::{Invalid, Report};
use uuid::Uuid;

/// Writes beats.
#[derive(Debug)]
pub struct Body {
    beat: Heartbeat,
    report: Option<Box<Report>>,
    paused: Option<Paused>,
    account: Option<Box<Account>>,
    size: usize,
}

/// A beat, written.
#[derive(Debug)]
pub struct Written {
    /// JSON.
    pub json: Bytes,
    /// Its number in the session.
    pub seq: u64,
    /// The report in it.
    pub carries: Option<Uuid>,
}

impl Body {
    /// Of this boot and this process; `check_every` is the timer's period.
    pub fn new(boot_id: Uuid, session: Uuid, check_every: Duration) -> Self {
        Self {
            beat: Heartbeat {
                boot_id,
                session,
                seq: 0,
                every_ms: 1000,
                sent_at: Timestamp::UNIX_EPOCH,
                units: Vec::new(),
                goodbye: None,
                paused: None,
                report_id: None,
                report_stale_secs: None,
                check_every_secs: Some(check_every.as_secs()),
                report: None,
                account: None,
            },
            report: None,
            paused: None,
            account: None,
            size: 0,
        }
    }

    /// Counts anew, as a new process would: the server knows a newer beat of the old session than we do.
    pub fn renew(&mut self, session: Uuid) {
        self.beat.session = session;
        self.beat.seq = 0;
    }

    /// The gateway units as of now.
    pub fn set_units(&mut self, units: Vec<UnitState>) {
        self.beat.units = units;
    }

    /// The pause in force. Its reason is a text that somebody may have edited by hand: a server would refuse the whole
    /// beat for a reason that is too long.
    pub fn set_paused(&mut self, mut paused: Option<Paused>) {
        if let Some(paused) = &mut paused {
            paused.reason.retain(|c| !c.is_control());
            let end = paused.reason.floor_char_boundary(limits::REASON_BYTES);
            paused.reason.truncate(end);
        }
        self.paused = paused;
    }

    /// The newest report; refused when no server would take it.
    pub fn set_report(&mut self, report: Box<Report>) -> Result<(), Invalid> {
        report.validate("report")?;
        let bytes = serde_json::to_vec(&*report).map_or(usize::MAX, |json| json.len());
        // The rest of a beat with eight units is under 3 KiB.
        if bytes > limits::HEARTBEAT_BODY_BYTES - 4096 {
            return Err(Invalid::new(
                "report",
                format!("is {bytes} bytes long, and no beat can carry it"),
            ));
        }
        self.beat.report_id = Some(report.id);
        self.report = Some(report);
        Ok(())
    }

    /// The account of a silence, for the next beat alone.
    pub fn set_account(&mut self, account: Option<Box<Account>>) {
        self.account = account;
    }

    /// The newest report's age, when it is too old.
    pub fn set_stale(&mut self, age: Option<Duration>) {
        self.beat.report_stale_secs = age.map(|age| age.as_secs());
    }

    /// The newest report's id.
    pub fn report_id(&self) -> Option<Uuid> {
        self.report.as_ref().map(|report| report.id)
    }

    /// When the newest report was made, by the box's clock.
    pub fn report_at(&self) -> Option<Timestamp> {
        self.report.as_ref().map(|report| report.at)
    }

    /// The next beat: sent at `now` by the box's clock, the one after it `every` later.
    pub fn write(
        &mut self,
        now: Timestamp,
        every: Duration,
        report: bool,
        goodbye: Option<&Goodbye>,
    ) -> Written {
        let beat = &mut self.beat;
        beat.seq += 1;
        beat.sent_at = Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now);
        let every = every.clamp(limits::INTERVAL_MIN, limits::INTERVAL_MAX);
        beat.every_ms = u64::try_from(every.as_millis()).unwrap_or(u64::MAX);
        beat.paused.clone_from(&self.paused);
        if beat.paused.as_ref().is_some_and(|paused| paused.until <= now) {
            beat.paused = None;
        }
        beat.goodbye = goodbye.cloned();
        beat.account = self.account.take();
        // Moved in and out again: a report is not copied for each beat that carries it.
        beat.report = if report { self.report.take() } else { None };
        let mut json = Vec::with_capacity(self.size);
        let written = serde_json::to_writer(&mut json, &beat);
        debug_assert!(written.is_ok(), "a heartbeat holds nothing that JSON cannot");
        let carries = beat.report.as_ref().map(|report| report.id);
        if let Some(report) = beat.report.take() {
            self.report = Some(report);
        } else if beat.account.is_none() {
            self.size = json.len() + 32;
        }
        Written {
            json: json.into(),
            seq: self.beat.seq,
            carries,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn report() -> Box<Report> {
        let full = include_str!("../../../protocol/golden/heartbeat-full.json");
        Heartbeat::decode(full.as_bytes()).unwrap().report.unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_server_can_read_every_beat_and_seq_counts_up() {
        let mut body = Body::new(Uuid::from_u128(1), Uuid::from_u128(2), Duration::from_secs(120));
        let now = at("2026-11-21T20:00:00.123456Z");
        let id = report().id;
        body.set_report(report()).unwrap();
        let second = Duration::from_secs(1);
        let goodbye = Goodbye {
            why: protocol::heartbeat::GoodbyeWhy::Reboot,
            back_within_secs: 600,
        };
        let read = |written: &Written| Heartbeat::decode(&written.json).unwrap();
        let plain = read(&body.write(now, second, false, None));
        assert_eq!((plain.seq, plain.report_id, plain.report), (1, Some(id), None));
        assert_eq!(plain.sent_at, at("2026-11-21T20:00:00.123Z"));
        let full = body.write(now, second, true, None);
        assert_eq!(full.carries, Some(id));
        assert_eq!(read(&full).report, Some(report()));
        let again = read(&body.write(now, second, true, Some(&goodbye)));
        assert_eq!((again.seq, again.goodbye), (3, Some(goodbye)));
        assert!(
            again.report.is_some(),
            "the report is still there after it was written once"
        );
        let clamped = read(&body.write(now, Duration::from_millis(1), false, None));
        assert_eq!(clamped.every_ms, 250);
        body.renew(Uuid::from_u128(3));
        let renewed = read(&body.write(now, second, false, None));
        assert_eq!((renewed.seq, renewed.session), (1, Uuid::from_u128(3)));
    }

    #[test]
    fn a_pause_that_is_over_is_not_told() {
        let mut body = Body::new(Uuid::nil(), Uuid::nil(), Duration::from_secs(120));
        body.set_paused(Some(Paused {
            until: at("2026-11-21T20:30:00Z"),
            reason: format!("upgrade\u{7}{}", "é".repeat(500)),
        }));
        let second = Duration::from_secs(1);
        let read = |written: Written| Heartbeat::decode(&written.json).unwrap();
        assert!(
            read(body.write(at("2026-11-21T20:29:59Z"), second, false, None))
                .paused
                .is_some()
        );
        assert!(
            read(body.write(at("2026-11-21T20:30:00Z"), second, false, None))
                .paused
                .is_none()
        );
    }

    #[test]
    fn a_report_that_no_server_takes_is_not_sent() {
        let mut body = Body::new(Uuid::nil(), Uuid::nil(), Duration::from_secs(120));
        let mut long = report();
        long.checks[0].summary = "x".repeat(10_000);
        assert_eq!(
            body.set_report(long).unwrap_err().field,
            "report.checks[0].summary"
        );
        assert_eq!(body.report_id(), None);
    }
}
