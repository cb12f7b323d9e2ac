//! One played box: what it sends next. Pure: it is told the time.
//!
//! Times are durations since the fleet's start; the box's own wall clock is handed in where a message carries it.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use protocol::heartbeat::{Goodbye, GoodbyeWhy, Heartbeat, HeartbeatAnswer, UnitState};
use protocol::limits;
use protocol::names::{BoxName, Labels, UnitName, Word};
use protocol::report::{CheckName, Report};
use uuid::{Builder, Uuid};

use super::reported::{self, Condition, UNIT};

/// How the box goes about it.
#[derive(Debug, Clone)]
pub struct Habits {
    /// Between two beats.
    pub every: Duration,
    /// Each beat is early or late by up to this part of the interval, at random (0 to 0.5).
    pub jitter: f64,
    /// Between two runs of its checks.
    pub check_every: Duration,
}

/// What the box does next.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Close the connection, then ask again.
    Close,
    /// Nothing before this time, unless told otherwise.
    Wait(Duration),
    /// Nothing until told otherwise.
    Rest,
    /// Send this now.
    Send(Box<Heartbeat>),
}

/// Where the box is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Beats.
    Sending,
    /// Sends nothing; the connection is as it was.
    Cut,
    /// Its process is gone.
    Killed,
    /// The next beat is the goodbye.
    Leaving,
    /// Said goodbye and is off.
    Away,
}

/// A box.
#[derive(Debug)]
pub struct Player {
    /// Its name on the server.
    pub name: BoxName,
    /// What it declares.
    pub labels: Labels,
    habits: Habits,
    mode: Mode,
    /// From the server's answers: it can slow a box down.
    asked_every: Duration,
    boot_id: Uuid,
    session: Uuid,
    seq: u64,
    next_at: Duration,
    next_check_at: Duration,
    close: bool,
    goodbye: Option<Goodbye>,
    condition: Condition,
    report: Option<Report>,
    report_due: bool,
    random: Random,
}

impl Player {
    /// A box that starts at a random moment of its interval.
    pub fn new(name: BoxName, labels: Labels, habits: Habits, seed: u64, wall: Timestamp) -> Self {
        let mut random = Random(seed | 1);
        let (boot_id, session) = (random.uuid(), random.uuid());
        let next_at = habits.every.mul_f64(random.part());
        let condition = Condition {
            failing: BTreeSet::new(),
            since: wall,
            runs: 0,
        };
        Self {
            name,
            labels,
            asked_every: habits.every,
            habits,
            mode: Mode::Sending,
            boot_id,
            session,
            seq: 0,
            next_at,
            next_check_at: Duration::ZERO,
            close: false,
            goodbye: None,
            condition,
            report: None,
            report_due: false,
            random,
        }
    }

    /// What to do at `now`, which is `wall` on the box's clock.
    pub fn step(&mut self, now: Duration, wall: Timestamp) -> Step {
        if std::mem::take(&mut self.close) {
            return Step::Close;
        }
        match self.mode {
            Mode::Cut | Mode::Killed | Mode::Away => Step::Rest,
            Mode::Sending if now < self.next_at => Step::Wait(self.next_at),
            Mode::Sending => Step::Send(Box::new(self.beat(now, wall))),
            Mode::Leaving => {
                let beat = self.beat(now, wall);
                self.mode = Mode::Away;
                self.close = true;
                Step::Send(Box::new(beat))
            }
        }
    }

    /// The server's answer to a beat.
    pub fn answered(&mut self, answer: HeartbeatAnswer) {
        let asked = Duration::from_millis(answer.every_ms);
        self.asked_every = asked.clamp(self.habits.every, limits::INTERVAL_MAX);
        self.report_due = answer.want_report;
    }

    /// A beat that carried the report was not answered: the next one carries it again.
    pub fn unanswered(&mut self, carried_report: bool) {
        self.report_due |= carried_report;
    }

    /// The server asked for patience.
    pub fn hold_off(&mut self, now: Duration, span: Duration) {
        self.next_at = self.next_at.max(now + span);
    }

    /// Where it is.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Sends nothing from now on.
    pub fn cut(&mut self) {
        self.mode = Mode::Cut;
    }

    /// Its process ends, and its connection with it.
    pub fn kill(&mut self) {
        self.mode = Mode::Killed;
        self.close = true;
    }

    /// Sends again, at once: the same process after a cut, a new one after a kill, a new boot after a goodbye.
    pub fn heal(&mut self, now: Duration) {
        match self.mode {
            Mode::Sending => return,
            Mode::Cut => {}
            Mode::Killed => self.new_session(),
            Mode::Leaving | Mode::Away => {
                self.new_session();
                self.boot_id = self.random.uuid();
            }
        }
        self.goodbye = None;
        self.mode = Mode::Sending;
        // Healed together, they would beat together for ever.
        self.next_at = now + self.habits.every.mul_f64(self.random.part() * 0.5);
    }

    /// The next beat says goodbye, and goes out at once.
    pub fn leave(&mut self, back_within_secs: u64, why: GoodbyeWhy) {
        if self.mode == Mode::Sending {
            self.goodbye = Some(Goodbye {
                why,
                back_within_secs,
            });
            self.mode = Mode::Leaving;
        }
    }

    /// Its checks run now; `check` fails from now on.
    pub fn fail(&mut self, check: CheckName, now: Duration, wall: Timestamp) {
        if self.condition.failing.insert(check) {
            self.changed(now, wall);
        }
    }

    /// Its checks run now, and are all ok.
    pub fn mend(&mut self, now: Duration, wall: Timestamp) {
        if !std::mem::take(&mut self.condition.failing).is_empty() {
            self.changed(now, wall);
        }
    }

    fn changed(&mut self, now: Duration, wall: Timestamp) {
        self.condition.since = wall;
        self.condition.runs = 0;
        self.next_check_at = now;
    }

    fn new_session(&mut self) {
        self.session = self.random.uuid();
        self.seq = 0;
        self.report_due = true;
    }

    fn beat(&mut self, now: Duration, wall: Timestamp) -> Heartbeat {
        if now >= self.next_check_at {
            self.check(now, wall);
        }
        let every = self.asked_every;
        let wobble = (self.random.part() - 0.5) * 2.0 * self.habits.jitter;
        // Beats keep their grid, as a real one's do; after a pause the grid starts anew.
        let grid = if self.next_at + every < now {
            now
        } else {
            self.next_at
        };
        self.next_at = grid + every.mul_f64(1.0 + wobble);
        let seq = self.seq;
        self.seq += 1;
        let report = std::mem::take(&mut self.report_due)
            .then(|| self.report.clone())
            .flatten();
        Heartbeat {
            boot_id: self.boot_id,
            session: self.session,
            seq,
            every_ms: every.as_millis() as u64,
            sent_at: wall,
            units: vec![running()],
            goodbye: self.goodbye.clone(),
            paused: None,
            report_id: self.report.as_ref().map(|report| report.id),
            report_stale_secs: None,
            check_every_secs: Some(self.habits.check_every.as_secs()),
            report: report.map(Box::new),
            account: None,
        }
    }

    /// Runs fall into step with nobody else's: the first next one comes at a random moment of the period.
    fn check(&mut self, now: Duration, wall: Timestamp) {
        let first = self.report.is_none();
        let ahead = if first { self.random.part() } else { 1.0 };
        self.next_check_at = now + self.habits.check_every.mul_f64(ahead);
        self.condition.runs = self.condition.runs.saturating_add(1);
        let id = self.random.uuid();
        self.report = Some(reported::report(
            id,
            wall,
            self.name.as_str(),
            &self.labels,
            &self.condition,
        ));
        self.report_due = true;
    }
}

/// A hung gateway is `running` all the same.
fn running() -> UnitState {
    let word = |text| Word::new(text).expect("a state of systemd's is a word");
    UnitState {
        name: UnitName::new(UNIT).expect("a unit's name"),
        active: word("active"),
        sub: word("running"),
        result: Some(word("success")),
        restarts: 0,
        stopped_by_operator: false,
        oom: None,
    }
}

/// splitmix64: enough to spread moments and make ids, and the same again for the same seed.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to under 1.
    fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn uuid(&mut self) -> Uuid {
        let wide = u128::from(self.next()) << 64 | u128::from(self.next());
        Builder::from_random_bytes(wide.to_be_bytes()).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: Timestamp = Timestamp::UNIX_EPOCH;

    fn player() -> Player {
        let habits = Habits {
            every: Duration::from_secs(1),
            jitter: 0.0,
            check_every: Duration::from_secs(120),
        };
        Player::new(BoxName::new("sim-1").unwrap(), Labels::default(), habits, 7, WALL)
    }

    /// Sends at `now` or fails.
    fn sent(player: &mut Player, now: f64) -> Heartbeat {
        match player.step(Duration::from_secs_f64(now), WALL) {
            Step::Send(beat) => {
                beat.validate().unwrap();
                *beat
            }
            other => panic!("wanted a beat at {now}, got {other:?}"),
        }
    }

    const ANSWER: HeartbeatAnswer = HeartbeatAnswer {
        every_ms: 1000,
        want_report: false,
    };

    #[test]
    fn beats_on_a_grid_and_reports_once() {
        let mut player = player();
        let first = sent(&mut player, 1.0);
        assert!(first.report.is_some() && first.seq == 0);
        player.answered(ANSWER);
        let Step::Wait(next) = player.step(Duration::from_secs_f64(1.0), WALL) else {
            panic!("two beats at once")
        };
        assert!(
            next > Duration::from_secs(1) && next <= Duration::from_secs(2),
            "{next:?}"
        );
        let second = sent(&mut player, 2.0);
        assert!(second.report.is_none() && second.seq == 1 && second.report_id == first.report_id);
    }

    #[test]
    fn a_report_that_was_not_answered_goes_again() {
        let mut player = player();
        assert!(sent(&mut player, 1.0).report.is_some());
        player.unanswered(true);
        assert!(sent(&mut player, 2.0).report.is_some());
        player.answered(HeartbeatAnswer {
            want_report: true,
            ..ANSWER
        });
        assert!(sent(&mut player, 3.0).report.is_some(), "the server asked");
    }

    #[test]
    fn cut_and_kill_and_heal() {
        let mut player = player();
        let before = sent(&mut player, 1.0);
        player.cut();
        assert_eq!(
            player.step(Duration::from_secs(9), WALL),
            Step::Rest,
            "the connection stays"
        );
        player.heal(Duration::from_secs(9));
        let healed = sent(&mut player, 9.5);
        assert_eq!((healed.session, healed.seq), (before.session, 1));
        player.kill();
        assert_eq!(player.step(Duration::from_secs(10), WALL), Step::Close);
        assert_eq!(player.step(Duration::from_secs(10), WALL), Step::Rest);
        player.heal(Duration::from_secs(10));
        let again = sent(&mut player, 10.5);
        assert!(again.session != before.session && again.seq == 0 && again.boot_id == before.boot_id);
    }

    #[test]
    fn goodbye_goes_at_once_and_once() {
        let mut player = player();
        let before = sent(&mut player, 1.0);
        player.leave(600, GoodbyeWhy::Reboot);
        let last = sent(&mut player, 1.01);
        assert_eq!(last.goodbye.unwrap().back_within_secs, 600);
        assert_eq!(player.step(Duration::from_secs(2), WALL), Step::Close);
        assert_eq!(player.step(Duration::from_secs(2), WALL), Step::Rest);
        player.heal(Duration::from_secs(3));
        let back = sent(&mut player, 4.0);
        assert!(back.goodbye.is_none() && back.boot_id != before.boot_id);
    }

    #[test]
    fn failing_is_reported_with_the_next_beat() {
        let mut player = player();
        let first = sent(&mut player, 1.0).report.unwrap();
        player.answered(ANSWER);
        player.fail(CheckName::Disk, Duration::from_secs_f64(1.5), WALL);
        let second = sent(&mut player, 2.0).report.unwrap();
        assert_ne!(first.id, second.id);
        let bad: Vec<&str> = second
            .checks
            .iter()
            .filter(|check| check.status == protocol::report::Status::Failing)
            .map(|check| check.name.as_str())
            .collect();
        assert_eq!(bad, ["disk"]);
    }

    #[test]
    fn the_server_can_slow_it_down_but_not_stop_it() {
        let mut player = player();
        sent(&mut player, 1.0);
        player.answered(HeartbeatAnswer {
            every_ms: u64::MAX,
            want_report: false,
        });
        assert_eq!(sent(&mut player, 2.0).every_ms, 3_600_000);
        player.answered(HeartbeatAnswer {
            every_ms: 1,
            want_report: false,
        });
        assert_eq!(sent(&mut player, 3700.0).every_ms, 1000);
    }
}
