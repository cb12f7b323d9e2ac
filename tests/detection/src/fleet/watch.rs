//! Watches the detectors: what ours says, what the baselines would have said to the same arrivals, and what the truth
//! was.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_server::liveness::BoxIx;
use fleet_server::liveness::beat::OnTime;
use fleet_server::liveness::event::{Event, What};
use fleet_server::liveness::time::Mono;
use protocol::incident::{EventKind, Incident, Kind};
use serde::Serialize;

use super::MUST_FIND;
use super::boxes::SimBox;
use crate::baseline::{BASELINES, Seen};
use crate::desk::ON_CALL;
use crate::path::ServerTimes;
use crate::post::{Taken, Told};
use crate::qos::{Qos, Wrong};
use crate::schedule::{Fault, secs_of};
use crate::server::{Turn, verdict};
use crate::truth::{Silence, Truth};

/// Strange things that are kept of one fleet.
const STRANGE_MAX: usize = 50;
/// No baseline calls a box dark sooner: shorter gaps are not looked at.
const LEAST_GAP: Duration = Duration::from_millis(1300);
/// A box that is heard and still dark so much later is forgotten.
const STUCK: Duration = Duration::from_secs(60);
/// Moments at which a box would have been heard but for the server, kept for one silence.
const WOULD_MAX: usize = 64;

/// What came of one fleet.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Record {
    /// Our detector.
    pub ours: Qos,
    /// The baselines.
    pub baselines: Vec<Qos>,
    /// Box-time in which the box was not dead, microseconds.
    pub alive_micros: u64,
    /// What receivers were told.
    pub told: Told,
    /// Boxes that stayed dark, or whose incident stayed open, although they were heard.
    pub forgotten: u64,
    /// How often the server itself was in trouble: stopped, restarted, cut off.
    pub server_troubles: u64,
    /// What should not have been.
    pub strange: Vec<Strange>,
    /// Of everything that was decided, in order: two runs of one seed have the same.
    pub digest: u64,
    /// Boxes by the whole seconds of silence that they were allowed at the end.
    pub allowed_secs: Vec<u64>,
}

/// Something that should not have been.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Strange {
    /// When, seconds after the start.
    pub at_secs: f64,
    /// Which box.
    pub of: u32,
    /// What.
    pub what: &'static str,
}

#[derive(Debug)]
struct Watched {
    seen: Seen,
    last: Mono,
    would: Vec<Mono>,
    /// While our verdict stands: when it was heard first.
    heard_dark: Option<Mono>,
    stuck: bool,
    /// Our verdict that stands, and why it was wrong.
    dark: Option<(Mono, Option<Wrong>)>,
    dying: Option<(Fault, bool)>,
    dead_micros: u64,
}

#[derive(Debug)]
pub(super) struct Watch {
    tolerance: Duration,
    started: Mono,
    boxes: Vec<Watched>,
    ours: Qos,
    baselines: Vec<Qos>,
    /// Pages that are on their way, by incident: since when those in it are dead.
    paging: BTreeMap<i64, Vec<Mono>>,
    told: Told,
    forgotten: u64,
    strange: Vec<Strange>,
    digest: u64,
}

impl Watch {
    pub(super) fn new(boxes: usize, tolerance: Duration, now: Mono) -> Self {
        let one = || Watched {
            seen: Seen::default(),
            last: now,
            would: Vec::new(),
            heard_dark: None,
            stuck: false,
            dark: None,
            dying: None,
            dead_micros: 0,
        };
        Self {
            tolerance,
            started: now,
            boxes: (0..boxes).map(|_| one()).collect(),
            ours: Qos::default(),
            baselines: vec![Qos::default(); BASELINES.len()],
            paging: BTreeMap::new(),
            told: Told::default(),
            forgotten: 0,
            strange: Vec::new(),
            digest: 0xcbf2_9ce4_8422_2325,
        }
    }

    /// Beats in bulk.
    pub(super) fn on_time(&mut self, of: usize, beats: &OnTime, one: &SimBox) {
        let watched = &mut self.boxes[of];
        if beats.steady.count > 0 {
            watched
                .seen
                .arrived_on_time(beats.steady.count, one.calm.gap, beats.last.mono);
            watched.last = beats.last.mono;
            watched.would.clear();
        }
    }

    /// A beat counted.
    pub(super) fn heard(&mut self, of: usize, now: Mono, one: &SimBox, times: &ServerTimes) {
        self.judge_baselines(of, now, one, times);
        let watched = &mut self.boxes[of];
        if watched.dark.is_some() {
            let since = *watched.heard_dark.get_or_insert(now);
            if now.since(since) > STUCK && !std::mem::replace(&mut watched.stuck, true) {
                self.strange(now, of, "dark although it is heard");
                self.forgotten += 1;
            }
        }
        let watched = &mut self.boxes[of];
        watched.seen.arrived(now);
        watched.last = now;
        watched.would.clear();
    }

    /// A beat would have counted by now, but for the server's own trouble.
    pub(super) fn lost_to_server(&mut self, of: usize, now: Mono) {
        let would = &mut self.boxes[of].would;
        if would.len() < WOULD_MAX {
            would.push(now);
        } else {
            would[WOULD_MAX - 1] = now;
        }
    }

    pub(super) fn died(&mut self, of: usize, fault: Fault) {
        let watched = &mut self.boxes[of];
        let already = watched.dark.is_some();
        watched.dying = Some((fault, already));
    }

    pub(super) fn returned(&mut self, of: usize) {
        let Some((fault, found)) = self.boxes[of].dying.take() else {
            return;
        };
        self.boxes[of].dead_micros += fault.to().since(fault.from()).as_micros() as u64;
        if !found && fault.to().since(fault.from()) > MUST_FIND {
            self.ours.missed += 1;
            self.strange(fault.from(), of, "a death that was not found");
        } else if !found {
            self.ours.unfound += 1;
        }
    }

    /// What a restart forgets is the server's business; here nothing is.
    pub(super) fn restarted(&mut self) {
        self.note(1, 0, 0);
    }

    /// What the server said. Returns who is suspect from now on.
    pub(super) fn heed(&mut self, now: Mono, turn: &Turn, boxes: &[SimBox]) -> Vec<BoxIx> {
        let mut suspects = Vec::new();
        for event in &turn.events {
            let Event::Box(change) = event else {
                self.note(2, now.as_micros(), 0);
                continue;
            };
            let of = change.ix.at();
            match change.what {
                What::Suspect { .. } => suspects.push(change.ix),
                What::Live { .. } => {
                    (self.boxes[of].heard_dark, self.boxes[of].stuck) = (None, false);
                    if let Some((at, Some(_))) = self.boxes[of].dark.take() {
                        self.ours.wrong_micros += now.since(at).as_micros() as u64;
                    }
                }
                What::Dark { .. } | What::Silent { .. } | What::Overdue { .. } | What::Away { .. } => {}
            }
            if verdict(&change.what) && self.boxes[of].dark.is_none() {
                self.verdict(of, now, &boxes[of]);
            }
            self.note(3 + 16 * kind(&change.what), now.as_micros(), of as u64);
        }
        for change in &turn.changes {
            self.note(8, change.incident.id as u64, u64::from(change.revision));
            for text in [
                change.event.as_str(),
                change.incident.kind.as_str(),
                &change.incident.summary,
            ] {
                self.note_text(text);
            }
        }
        for row in &turn.rows {
            self.note(4, now.as_micros(), row.incident_id as u64);
            if row.receiver == ON_CALL && row.alert.event == EventKind::Opened {
                self.page(now, &row.alert.incident, turn, boxes);
            }
        }
        suspects
    }

    /// A receiver took a notification.
    pub(super) fn taken(&mut self, taken: &Taken) {
        self.note(
            5 + taken.receiver as u64,
            taken.at.as_micros(),
            taken.incident as u64,
        );
        if let Some(what) = taken.wrong {
            self.strange(taken.at, u32::MAX as usize, what);
        }
        if taken.event == EventKind::Opened
            && taken.receiver == 0
            && let Some(since) = self.paging.remove(&taken.incident)
        {
            for death in since {
                self.ours.told_of(taken.at.since(death));
            }
        }
    }

    /// Its incident is open although it lives.
    pub(super) fn forgotten(&mut self, at: Mono, of: usize) {
        self.strange(at, of, "an incident that stayed open");
        self.forgotten += 1;
    }

    /// What was told in all.
    pub(super) fn told(&mut self, told: Told) {
        self.told = told;
    }

    pub(super) fn finish(mut self, end: Mono, boxes: &[SimBox], allowed: &[Duration]) -> Record {
        // What stands at the end is a mistake until then.
        for (at, _) in self
            .boxes
            .iter()
            .filter_map(|one| one.dark.filter(|(_, wrong)| wrong.is_some()))
        {
            self.ours.wrong_micros += end.since(at).as_micros() as u64;
        }
        let counts = format!("{:?} {:?} {:?}", self.ours, self.baselines, self.told);
        self.note_text(&counts);
        let all = end.since(self.started).as_micros() as u64 * boxes.len() as u64;
        let dead: u64 = self.boxes.iter().map(|one| one.dead_micros).sum();
        let mut allowed_secs = vec![0; 64];
        for one in allowed {
            allowed_secs[(one.as_secs() as usize).min(63)] += 1;
        }
        Record {
            ours: self.ours,
            baselines: self.baselines,
            alive_micros: all.saturating_sub(dead),
            told: self.told,
            forgotten: self.forgotten,
            server_troubles: 0,
            strange: self.strange,
            digest: self.digest,
            allowed_secs,
        }
    }

    fn verdict(&mut self, of: usize, now: Mono, one: &SimBox) {
        let truth = self.truth(of, now, one);
        let wrong = truth.count(&mut self.ours);
        self.boxes[of].dark = Some((now, wrong));
        if let (Truth::Dead { since, .. }, Some((_, found))) = (truth, &mut self.boxes[of].dying)
            && !std::mem::replace(found, true)
        {
            self.ours.detected(now.since(since));
        }
        match wrong {
            Some(Wrong::Server) => self.strange(now, of, "dark by the server's own doing"),
            Some(Wrong::Short | Wrong::Early) => self.strange(now, of, "dark before the tolerance"),
            Some(Wrong::Fine) => self.strange(now, of, "dark though host and path were fine"),
            Some(Wrong::Crossed | Wrong::Outage) | None => {}
        }
    }

    fn truth(&self, of: usize, now: Mono, one: &SimBox) -> Truth {
        let watched = &self.boxes[of];
        let silence = Silence {
            last: watched.last,
            but_for_server: watched.would.iter().copied().filter(|would| *would < now).max(),
        };
        Truth::of(&one.path, silence, now, self.tolerance)
    }

    /// The person on call is to hear that something opened.
    fn page(&mut self, now: Mono, incident: &Incident, turn: &Turn, boxes: &[SimBox]) {
        if incident.kind == Kind::ServerBlind {
            self.ours.pages_server += 1;
            return;
        }
        if incident.kind == Kind::ReceiverFailing {
            self.ours.pages_receiver += 1;
            return;
        }
        let about = incident.box_name.as_ref();
        let about = about.and_then(|name| name.as_str().strip_prefix("box-")?.parse::<usize>().ok());
        let members = turn.events.iter().filter_map(|event| match event {
            Event::StormOpened { members, .. } => Some(members.iter().map(|ix| ix.at())),
            _ => None,
        });
        let all: Vec<usize> = about.map_or_else(|| members.flatten().collect(), |of| vec![of]);
        let truths: Vec<Truth> = all
            .into_iter()
            .map(|of| self.truth(of, now, &boxes[of]))
            .collect();
        let healed = truths.iter().map(|truth| truth.healed_after()).max();
        let dead: Vec<Mono> = truths.iter().filter_map(|truth| truth.dead_since()).collect();
        self.ours.page(healed);
        if !dead.is_empty() {
            self.paging.insert(incident.id, dead);
        }
    }

    /// What the baselines would have said between the last arrival and this one.
    fn judge_baselines(&mut self, of: usize, now: Mono, one: &SimBox, times: &ServerTimes) {
        if self.boxes[of].seen.quiet_for(now) < LEAST_GAP {
            return;
        }
        let Some(dark_at) = self.boxes[of].seen.dark_at() else {
            return;
        };
        let dead = one
            .path
            .between(self.boxes[of].last, now)
            .filter(|one| one.is_death());
        let dead = dead.max_by_key(|one| one.to.since(one.from)).copied();
        for (n, at) in dark_at.into_iter().enumerate() {
            let at = times.spoken(self.boxes[of].last, at);
            // A beat that TCP repeats may come after the death, and is not its end.
            let must = dead.filter(|dead| dead.to <= now && dead.to.since(dead.from) > MUST_FIND);
            if at >= now {
                let over = dead.is_some_and(|dead| dead.to <= now);
                self.baselines[n].missed += u64::from(must.is_some());
                self.baselines[n].unfound += u64::from(over && must.is_none());
                continue;
            }
            let truth = self.truth(of, at, one);
            let qos = &mut self.baselines[n];
            qos.page(Some(truth.healed_after()));
            match truth {
                Truth::Dead { since, .. } => qos.detected(at.since(since)),
                Truth::Alive { .. } => {
                    truth.count(qos);
                    qos.wrong_micros += now.since(at).as_micros() as u64;
                }
            }
        }
    }

    fn strange(&mut self, at: Mono, of: usize, what: &'static str) {
        if self.strange.len() < STRANGE_MAX {
            let (at_secs, of) = (secs_of(at), of as u32);
            self.strange.push(Strange { at_secs, of, what });
        }
    }

    fn note_text(&mut self, text: &str) {
        for byte in text.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn note(&mut self, kind: u64, at: u64, of: u64) {
        for word in [kind, at, of] {
            self.digest = (self.digest ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

/// Tells what happened to a box from what else might have, for the digest.
fn kind(what: &What) -> u64 {
    match what {
        What::Suspect { .. } => 1,
        What::Live { .. } => 2,
        What::Dark { .. } => 3,
        What::Silent { .. } => 4,
        What::Overdue { .. } => 5,
        What::Away { .. } => 6,
    }
}
