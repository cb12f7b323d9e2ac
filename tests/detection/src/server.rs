//! The server under test: its real judge, books and planner, as its shell drives them, without the shell.
//!
//! A tick that would do nothing is not made: [`Judge::next_look`] says when one might, and [`Judge::ticks_came`] stands
//! for those between.

use fleet_server::incident::change::Change;
use fleet_server::incident::facts::BoxInfo;
use fleet_server::incident::ledger::Ledger;
use fleet_server::liveness::BoxIx;
use fleet_server::liveness::beat::{Arrival, OnTime, Refused, WitnessAnswer};
use fleet_server::liveness::event::Event;
use fleet_server::liveness::judge::Judge;
use fleet_server::liveness::self_doubt::TICK;
use fleet_server::liveness::time::{Moment, Mono};
use fleet_server::liveness::{ConnId, event};
use fleet_server::settings::Settings;
use fleet_server::store::{BoxMemory, Loaded, StoredIncident};
use fleet_server::sweep::restore::restore;
use jiff::Timestamp;
use protocol::api::Liveness;
use protocol::incident::EventKind;

/// Judge, books, and the time of the last tick.
#[derive(Debug)]
pub struct Server {
    settings: Settings,
    boxes: Vec<BoxInfo>,
    judge: Judge,
    ledger: Ledger,
    revisions: std::collections::BTreeMap<i64, u32>,
    next_incident_id: i64,
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
            settings,
            boxes,
            judge,
            ledger,
            revisions: std::collections::BTreeMap::new(),
            next_incident_id: 1,
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
        let incidents = self.ledger.open_incidents().map(|incident| StoredIncident {
            incident: incident.clone(),
            revision: self.revisions.get(&incident.id).copied().unwrap_or(1),
            ack: None,
            timeline: Vec::new(),
        });
        let loaded = Loaded {
            memories: self.boxes.iter().filter_map(remembered).collect(),
            incidents: incidents.collect(),
            next_incident_id: self.next_incident_id,
            ..Loaded::default()
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

    /// The next tick that may do something.
    pub fn next_tick(&self) -> Mono {
        let wanted = self.judge.next_look(self.last_tick);
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
        let mut turn = self.turn();
        let more = self.ledger.tick(moment(now));
        self.count(&more);
        turn.changes.extend(more);
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

    /// See [`Judge::in_bulk`].
    pub fn in_bulk(&mut self, ix: BoxIx) {
        self.judge.in_bulk(ix);
    }

    /// See [`Judge::beats_came`].
    pub fn beats_came(&mut self, ix: BoxIx, beats: &OnTime) {
        self.judge.beats_came(ix, beats);
    }

    /// What has happened since the last call.
    pub fn turn(&mut self) -> Turn {
        let events = self.judge.take_events();
        let mut changes = Vec::new();
        for event in &events {
            changes.extend(self.ledger.liveness(event));
        }
        self.count(&changes);
        Turn { events, changes }
    }

    fn count(&mut self, changes: &[Change]) {
        for change in changes {
            self.revisions.insert(change.incident.id, change.revision);
            self.next_incident_id = self.next_incident_id.max(change.incident.id + 1);
            if change.event == EventKind::Resolved {
                self.revisions.remove(&change.incident.id);
            }
        }
    }
}

/// Both clocks, which agree here.
pub fn moment(mono: Mono) -> Moment {
    let wall = Timestamp::UNIX_EPOCH + mono.since(Mono::default());
    Moment { mono, wall }
}

/// Whether an event is a verdict on one box.
pub fn verdict(what: &event::What) -> bool {
    match what {
        event::What::Dark { .. } | event::What::Silent { .. } | event::What::Overdue { .. } => true,
        event::What::Live { .. } | event::What::Suspect { .. } | event::What::Away { .. } => false,
    }
}
