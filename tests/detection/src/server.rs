//! The server under test: its real judge, books, planner and outbox, as its shell drives them, without the shell.
//!
//! A tick that would do nothing is not made: [`Judge::next_look`] says when one might, and [`Judge::ticks_came`] stands
//! for those between.

use fleet_server::incident::change::{Audience, Change};
use fleet_server::incident::facts::BoxInfo;
use fleet_server::incident::flap::is_held;
use fleet_server::incident::ledger::Ledger;
use fleet_server::liveness::BoxIx;
use fleet_server::liveness::beat::{Arrival, OnTime, Refused, WitnessAnswer};
use fleet_server::liveness::event::Event;
use fleet_server::liveness::judge::Judge;
use fleet_server::liveness::self_doubt::TICK;
use fleet_server::liveness::time::Mono;
use fleet_server::liveness::{ConnId, event};
use fleet_server::notify::outbox::OutboxRow;
use fleet_server::notify::plan::Nudge;
use fleet_server::settings::Settings;
use fleet_server::store::{BoxMemory, Loaded};
use fleet_server::sweep::restore::restore;
use protocol::api::Liveness;
use protocol::incident::{Incident, Kind};

use crate::desk::Desk;
use crate::post::Health;
use crate::schedule::moment;

/// Something in the books has to settle: they are looked at so often, in the place of each tick.
const SETTLING: std::time::Duration = std::time::Duration::from_secs(1);

/// Those who are asked about the server's own way out are asked from the start for at least so long, until one answers.
const PROVING: std::time::Duration = std::time::Duration::from_secs(120);

/// Judge, books, desk, and the time of the last tick.
#[derive(Debug)]
pub struct Server {
    settings: Settings,
    boxes: Vec<BoxInfo>,
    judge: Judge,
    ledger: Ledger,
    desk: Desk,
    /// The grid of ticks counts from it.
    started: Mono,
    last_tick: Mono,
    /// The last thing that it was told.
    told: Mono,
}

/// What came of a turn.
#[derive(Debug, Default)]
pub struct Turn {
    /// What liveness found.
    pub events: Vec<Event>,
    /// What the books made of it.
    pub changes: Vec<Change>,
    /// Who is told, in the outbox by now.
    pub rows: Vec<OutboxRow>,
}

impl Server {
    /// At the beginning: it has never heard of anybody.
    pub fn new(settings: Settings, boxes: Vec<BoxInfo>, now: Mono) -> Self {
        let loaded = Loaded {
            next_incident_id: 1,
            ..Loaded::default()
        };
        let (judge, ledger) = restore(&settings, boxes.clone(), loaded, moment(now));
        Self {
            desk: Desk::new(&settings),
            settings,
            boxes,
            judge,
            ledger,
            started: now,
            last_tick: now,
            told: now,
        }
    }

    /// Its process ended at `end`, and another starts now from what the store holds.
    pub fn restart(&mut self, end: Mono, now: Mono) {
        let remembered = |info: &BoxInfo| {
            let record = self.judge.memory(info.ix, moment(end))?;
            Some(BoxMemory { id: info.id, record })
        };
        let memories = self.boxes.iter().filter_map(remembered).collect();
        let loaded = Loaded {
            memories,
            ..self.desk.restart(&self.settings, moment(now))
        };
        let (judge, ledger) = restore(&self.settings, self.boxes.clone(), loaded, moment(now));
        self.judge = judge;
        self.ledger = ledger;
        self.started = now;
        self.last_tick = now;
        self.told = now;
    }

    /// When its process was started.
    pub fn started(&self) -> Mono {
        self.started
    }

    /// How long each box may be silent.
    pub fn allowed(&self) -> Vec<std::time::Duration> {
        self.judge.rows().iter().map(|row| row.dark_after).collect()
    }

    /// Whether nothing is held against a box.
    pub fn is_live(&self, ix: BoxIx) -> bool {
        self.judge.row(ix).is_some_and(|row| row.state == Liveness::Live)
    }

    /// Whether a box is overdue and not yet judged.
    pub fn is_suspect(&self, ix: BoxIx) -> bool {
        self.judge
            .row(ix)
            .is_some_and(|row| row.state == Liveness::Suspect)
    }

    /// The last tick.
    pub fn last_tick(&self) -> Mono {
        self.last_tick
    }

    /// Ticks came in time up to now, and none would have done anything.
    pub fn ticked_until(&mut self, now: Mono) {
        self.judge.ticks_came(now);
        self.last_tick = now;
    }

    /// The outbox, and who is in it.
    pub fn desk(&mut self) -> &mut Desk {
        &mut self.desk
    }

    /// Boxes that are live, and of which it stands in the books that they are gone.
    pub fn forgotten(&self) -> Vec<BoxIx> {
        let gone = self.ledger.open_incidents().filter(|incident| {
            matches!(incident.kind, Kind::BoxDark | Kind::BoxSilent) && !is_held(incident)
        });
        let name = |info: &&BoxInfo, incident: &Incident| incident.box_name.as_ref() == Some(&info.name);
        let of = |incident| self.boxes.iter().find(|info| name(info, incident));
        gone.filter_map(of)
            .map(|info| info.ix)
            .filter(|ix| self.is_live(*ix))
            .collect()
    }

    /// The next tick that may do something.
    pub fn next_tick(&self) -> Mono {
        let mut wanted = self.judge.next_look(self.last_tick).min(self.desk.next_look());
        if self.ledger.is_settling() {
            wanted = wanted.min(self.last_tick + SETTLING);
        }
        if wanted == Mono::NEVER {
            return wanted;
        }
        // Never before what it has been told already.
        let wanted = wanted.max(self.told);
        let tick = TICK.as_micros() as u64;
        let ahead = wanted.since(self.last_tick).as_micros() as u64;
        self.last_tick + TICK * ahead.div_ceil(tick).max(1) as u32
    }

    /// A tick. `late`: the one before it was the last that came in time; else all those between came.
    pub fn tick(&mut self, now: Mono, late: bool) -> Turn {
        if !late && now.since(self.last_tick) > TICK {
            self.judge.ticks_came(now - TICK);
        }
        self.last_tick = now;
        self.judge.tick(moment(now));
        let mut turn = self.turn(now);
        let settled = self.ledger.tick(moment(now));
        self.decide(settled, now, &mut turn);
        let due = self.desk.due(moment(now));
        let again = |nudge: Nudge| {
            let to = Audience::Only(nudge.to);
            self.ledger
                .again(nudge.incident, nudge.event, nudge.text, moment(now), to)
        };
        let nudged: Vec<Change> = due.into_iter().filter_map(again).collect();
        self.decide(nudged, now, &mut turn);
        turn
    }

    /// A beat.
    pub fn beat(&mut self, ix: BoxIx, now: Mono, beat: &Arrival) -> Result<(), Refused> {
        self.told = now;
        self.judge.beat(ix, moment(now), beat)
    }

    /// See [`Judge::closed`].
    pub fn closed(&mut self, ix: BoxIx, conn: ConnId, now: Mono) {
        self.told = now;
        self.judge.closed(ix, conn, moment(now));
    }

    /// See [`Judge::witness`].
    pub fn witness(&mut self, ix: BoxIx, asked: Mono, now: Mono, answer: WitnessAnswer) {
        self.told = now;
        self.judge.witness(ix, asked, now, answer);
    }

    /// Whether the server asks about itself: it must, or nobody has ever answered.
    pub fn is_doubtful(&self, now: Mono) -> bool {
        let proving = !self.judge.own_proven() && now.since(self.started) < PROVING;
        self.judge.doubts_its_way() || proving
    }

    /// See [`Judge::own_asked`].
    pub fn own_asked(&mut self, now: Mono) {
        self.told = now;
        self.judge.own_asked(now);
    }

    /// See [`Judge::own_answered`].
    pub fn own_answered(&mut self, asked: Mono, by_anybody: bool) {
        self.judge.own_answered(asked, by_anybody);
    }

    /// See [`Judge::in_bulk`].
    pub fn in_bulk(&mut self, ix: BoxIx) {
        self.judge.in_bulk(ix);
    }

    /// See [`Judge::beats_came`].
    pub fn beats_came(&mut self, ix: BoxIx, beats: &OnTime) {
        self.judge.beats_came(ix, beats);
    }

    /// What has happened since the last call.
    pub fn turn(&mut self, now: Mono) -> Turn {
        let events = self.judge.take_events();
        let mut changes = Vec::new();
        for event in &events {
            changes.extend(self.ledger.liveness(event));
        }
        let mut turn = Turn {
            events,
            ..Turn::default()
        };
        self.decide(changes, now, &mut turn);
        turn
    }

    /// A receiver's worker says how the receiver does.
    pub fn receiver(&mut self, health: &Health, now: Mono) -> Turn {
        let name = self.desk.receivers()[health.receiver].clone();
        let said = self
            .ledger
            .receiver(&name, health.failing.as_deref(), moment(now));
        let mut turn = Turn::default();
        self.decide(said.into_iter().collect(), now, &mut turn);
        turn
    }

    fn decide(&mut self, changes: Vec<Change>, now: Mono, turn: &mut Turn) {
        turn.rows.extend(self.desk.decided(&changes, moment(now)));
        turn.changes.extend(changes);
    }
}

/// Whether an event is a verdict on one box.
pub fn verdict(what: &event::What) -> bool {
    match what {
        event::What::Dark { .. } | event::What::Silent { .. } | event::What::Overdue { .. } => true,
        event::What::Live { .. } | event::What::Suspect { .. } | event::What::Away { .. } => false,
    }
}
