//! All mutes that are not over: who is muted now, and what has just ended.

use std::collections::BTreeMap;
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use protocol::heartbeat::Paused;
use protocol::incident::Incident;
use protocol::limits;
use protocol::matcher::Matcher;
use protocol::mute::{MuteKind, MuteRecord, MuteState, MuteView, Signed, Window};
use protocol::names::{BoxName, Labels};

use super::schedule::{Schedule, Zones};
use crate::incident::canary::is_canarys;

/// Silences and maintenances that are not over, at most: each is asked about every incident.
pub const MUTES: usize = 1000;
/// One that is over stays at hand for so long: a clock that is set back finds it, and a pause that an operator ended is
/// known for as long as the box may repeat it.
pub const OVER_KEEP: SignedDuration = SignedDuration::from_hours(25);
/// Pauses of one box with less than this between them are one, with one longest time: a box that pauses itself again and
/// again neither fills the history nor is muted for ever.
const PAUSES_ARE_ONE: SignedDuration = SignedDuration::from_mins(10);
/// The end of a pause as the box's clock has it moves with that clock; by less than this it is the same end.
const SAME_END: SignedDuration = SignedDuration::from_secs(60);

/// All mutes.
#[derive(Debug)]
pub struct Mutes {
    zones: Zones,
    next_id: i64,
    /// Silences and maintenances.
    entries: BTreeMap<i64, Entry>,
    /// Pauses: apart, because there may be one for each box, and each is asked about that box alone.
    paused: BTreeMap<i64, Entry>,
    /// The newest pause of each box.
    pauses: BTreeMap<BoxName, Pause>,
    /// Incidents about several boxes, all of which may be gone: by what.
    covered: BTreeMap<i64, MutedBy>,
    /// What was open at the last look.
    open: BTreeMap<i64, Window>,
    /// From the last look until then nothing opens or ends.
    steady: Option<Window>,
    /// Counts up when another set of them is open, or one was put.
    epoch: u64,
}

#[derive(Debug)]
struct Entry {
    record: MuteRecord,
    schedule: Schedule,
}

/// What a box said of its pause last.
#[derive(Debug)]
struct Pause {
    id: i64,
    /// Its end as the box says it, by the box's clock.
    said: Option<Timestamp>,
}

impl Default for Mutes {
    /// None, and no zone is known.
    fn default() -> Self {
        Self::new(Vec::new(), 1, |_| None)
    }
}

/// Why an incident is not told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MutedBy {
    /// The mute's number.
    pub id: i64,
    /// What it is.
    pub kind: MuteKind,
    /// Who made it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When the window that is open ends.
    pub until: Timestamp,
}

/// A mute whose window was open and is not any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The mute's number.
    pub id: i64,
    /// What it is.
    pub kind: MuteKind,
    /// What it muted.
    pub matcher: Matcher,
    /// The window as it was.
    pub window: Window,
    /// Who ended it, if it was not time.
    pub by: Option<String>,
}

impl Mutes {
    /// From what the store holds; the next one's number is `next_id`.
    pub fn new(records: Vec<MuteRecord>, next_id: i64, zones: Zones) -> Self {
        let mut mutes = Self {
            zones,
            next_id,
            entries: BTreeMap::new(),
            paused: BTreeMap::new(),
            pauses: BTreeMap::new(),
            covered: BTreeMap::new(),
            open: BTreeMap::new(),
            steady: None,
            epoch: 0,
        };
        for record in records {
            mutes.put(record);
        }
        mutes
    }

    /// A number that no mute has.
    pub fn new_id(&mut self) -> i64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// A new one, or one that was changed (ended).
    pub fn put(&mut self, record: MuteRecord) {
        self.next_id = self.next_id.max(record.id + 1);
        self.epoch += 1;
        self.steady = None;
        if record.kind == MuteKind::Pause
            && let Ok(name) = BoxName::new(record.created.by.clone())
        {
            let by_itself = record
                .ended
                .as_ref()
                .is_some_and(|ended| ended.by == record.created.by);
            let said = record.said_until.filter(|_| !by_itself);
            if self.pauses.get(&name).is_none_or(|known| known.id < record.id) {
                self.pauses.insert(name, Pause { id: record.id, said });
            }
        }
        let schedule = Schedule::of(&record, self.zones);
        let among = match record.kind {
            MuteKind::Silence | MuteKind::Maintenance => &mut self.entries,
            MuteKind::Pause => &mut self.paused,
        };
        among.insert(record.id, Entry { record, schedule });
    }

    /// These incidents, by number, are about several boxes that may all be gone.
    pub fn cover(&mut self, covered: BTreeMap<i64, MutedBy>) {
        self.covered = covered;
    }

    /// By what `incident` is muted at `now`: of several, by the one that lasts longest.
    pub fn muted(&self, incident: &Incident, now: Timestamp) -> Option<MutedBy> {
        // The canary proves the way to receivers, also while every box is muted.
        if is_canarys(incident) {
            return None;
        }
        let own = self.by(incident.box_name.as_ref(), now, |record| {
            record.matcher.matches(incident)
        });
        let covering = || self.covered.get(&incident.id).filter(|by| now < by.until);
        own.or_else(|| covering().cloned())
    }

    /// By what the box named `name`, with these labels, may be gone at `now`.
    pub fn may_be_gone(&self, name: &BoxName, labels: &Labels, now: Timestamp) -> Option<MutedBy> {
        self.by(Some(name), now, |record| {
            record.kind != MuteKind::Silence && record.matcher.covers(name, labels)
        })
    }

    /// Time has passed: what was open and is not any more. Cheap while nothing changes: to be asked often.
    pub fn ended(&mut self, now: Timestamp) -> Vec<Ended> {
        if self.is_steady(now) {
            return Vec::new();
        }
        let open: BTreeMap<i64, Window> = self
            .all()
            .filter_map(|(id, entry)| Some((id, entry.schedule.open(now)?)))
            .collect();
        let ends = open.values().map(|window| window.until);
        let begins = self
            .all()
            .filter_map(|(_, entry)| Some(entry.schedule.next(now)?.from));
        let until = ends.chain(begins).min().unwrap_or(Timestamp::MAX);
        self.steady = Some(Window {
            from: now,
            // Now and then those that are long over are let go.
            until: until.min(now.saturating_add(OVER_KEEP).unwrap_or(now)),
        });
        let before = std::mem::replace(&mut self.open, open);
        self.epoch += u64::from(before != self.open);
        let over = |(id, window): (i64, Window)| {
            let still = self.open.get(&id).is_some_and(|now| now.from < window.until);
            let entry = self.entry(id).filter(|_| !still)?;
            Some(Ended {
                id,
                kind: entry.record.kind,
                matcher: entry.record.matcher.clone(),
                window,
                by: entry.record.ended.as_ref().map(|ended| ended.by.clone()),
            })
        };
        let ended = before.into_iter().filter_map(over).collect();
        let at_hand = |_: &i64, entry: &mut Entry| {
            let over_at = entry.record.over_at().unwrap_or(Timestamp::MAX);
            over_at >= now || now.duration_since(over_at) < OVER_KEEP
        };
        self.entries.retain(at_hand);
        self.paused.retain(at_hand);
        ended
    }

    /// Moves on whenever [`muted`](Self::muted) may answer otherwise than before.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What a box says of its pause; `skew` is what its clock is ahead. Answers with what is to be written, if anything is
    /// new: a pause mutes from the moment it is heard of, until its end but no longer than
    /// [`PAUSE_MUTES_MAX`](limits::PAUSE_MUTES_MAX), or until the box says no more of it.
    pub fn paused(
        &mut self,
        name: &BoxName,
        paused: Option<&Paused>,
        skew: SignedDuration,
        now: Timestamp,
    ) -> Option<MuteRecord> {
        let said = paused.map(|paused| paused.until);
        let known = self.pauses.get(name).map(|pause| (pause.id, pause.said));
        let same = match (known.and_then(|(_, said)| said), said) {
            (None, None) => true,
            (Some(a), Some(b)) => a.duration_since(b).abs() < SAME_END,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if same {
            return None;
        }
        let before = known
            .and_then(|(id, _)| self.paused.get(&id))
            .map(|entry| entry.record.clone());
        let record = match (paused, before) {
            (None, None) => None,
            (None, Some(before)) => resumed(before, name, now),
            (Some(paused), before) => Some(self.pause(paused, before, name, skew, now)),
        };
        let id = record
            .as_ref()
            .map(|record| record.id)
            .or(known.map(|(id, _)| id));
        if let Some(id) = id {
            self.pauses.insert(name.clone(), Pause { id, said });
        }
        if let Some(record) = &record {
            self.put(record.clone());
        }
        record
    }

    /// The pause of a box that is no more.
    pub fn forget_box(&mut self, name: &BoxName, now: Timestamp) -> Option<MuteRecord> {
        let record = self.paused(name, None, SignedDuration::ZERO, now);
        self.pauses.remove(name);
        record
    }

    /// One of those at hand.
    pub fn get(&self, id: i64) -> Option<&MuteRecord> {
        self.entry(id).map(|entry| &entry.record)
    }

    /// Silences and maintenances that are not over.
    pub fn count(&self, now: Timestamp) -> usize {
        let entries = self.entries.values();
        let states = entries.map(|entry| state(&entry.record, &entry.schedule, now));
        states.filter(|state| *state != MuteState::Expired).count()
    }

    /// The kinds of those that are in force, one for each.
    pub fn active(&self, now: Timestamp) -> Vec<MuteKind> {
        let open = self.all().filter(|(_, entry)| entry.schedule.open(now).is_some());
        open.map(|(_, entry)| entry.record.kind).collect()
    }

    /// Those that are not over, as shown: open ones first, then by number, newest first.
    pub fn list(&self, now: Timestamp) -> Vec<MuteView> {
        let views = self.all().map(|(_, entry)| entry.view(now));
        let mut views: Vec<MuteView> = views.filter(|view| view.state != MuteState::Expired).collect();
        views.sort_by_key(|view| std::cmp::Reverse(view.record.id));
        views.sort_by_key(|view| view.state != MuteState::Active);
        views
    }

    /// `record` as shown at `now`.
    pub fn view(&self, record: MuteRecord, now: Timestamp) -> MuteView {
        let schedule = Schedule::of(&record, self.zones);
        Entry { record, schedule }.view(now)
    }

    fn is_steady(&self, now: Timestamp) -> bool {
        self.steady
            .is_some_and(|steady| steady.from <= now && now < steady.until)
    }

    fn all(&self) -> impl Iterator<Item = (i64, &Entry)> {
        let all = self.entries.iter().chain(&self.paused);
        all.map(|(id, entry)| (*id, entry))
    }

    fn entry(&self, id: i64) -> Option<&Entry> {
        self.entries.get(&id).or_else(|| self.paused.get(&id))
    }

    fn by(
        &self,
        about: Option<&BoxName>,
        now: Timestamp,
        meant: impl Fn(&MuteRecord) -> bool,
    ) -> Option<MutedBy> {
        let own = about.and_then(|name| self.paused.get(&self.pauses.get(name)?.id));
        // Between two changes only those that are open need be asked: there may be a thousand others.
        let steady = self.is_steady(now);
        let open = self.open.keys().filter_map(|id| self.entries.get(id));
        let open = open.take(if steady { usize::MAX } else { 0 });
        let all = self.entries.values().take(if steady { 0 } else { usize::MAX });
        open.chain(all)
            .chain(own)
            .filter(|entry| meant(&entry.record))
            .filter_map(|entry| Some((entry.schedule.open(now)?.until, &entry.record)))
            .max_by_key(|(until, _)| *until)
            .map(|(until, record)| MutedBy {
                id: record.id,
                kind: record.kind,
                by: record.created.by.clone(),
                reason: record.reason.clone(),
                until,
            })
    }

    fn pause(
        &mut self,
        paused: &Paused,
        before: Option<MuteRecord>,
        name: &BoxName,
        skew: SignedDuration,
        now: Timestamp,
    ) -> MuteRecord {
        let end = paused.until.checked_sub(skew).unwrap_or(paused.until);
        let recent = before.filter(|before| {
            let over_at = before.over_at().unwrap_or(now).min(now);
            now.duration_since(over_at) < PAUSES_ARE_ONE
        });
        let (id, from, created) = match recent {
            Some(before) => (before.id, before.from.min(now), before.created),
            None => (self.new_id(), now, signed(name, now)),
        };
        let longest = from
            .checked_add(limits::PAUSE_MUTES_MAX)
            .unwrap_or(Timestamp::MAX);
        MuteRecord {
            id,
            kind: MuteKind::Pause,
            matcher: Matcher {
                boxes: vec![name.clone().into()],
                ..Matcher::default()
            },
            reason: paused.reason.clone(),
            from,
            until: Some(end.min(longest)),
            for_secs: None,
            every: None,
            said_until: Some(paused.until),
            created,
            ended: None,
        }
    }
}

impl Entry {
    fn view(&self, now: Timestamp) -> MuteView {
        MuteView {
            state: state(&self.record, &self.schedule, now),
            window: self.schedule.open(now).or_else(|| self.schedule.next(now)),
            record: self.record.clone(),
        }
    }
}

fn state(record: &MuteRecord, schedule: &Schedule, now: Timestamp) -> MuteState {
    if schedule.open(now).is_some() {
        MuteState::Active
    } else if record.ended.is_some() || record.until.is_some_and(|until| until <= now) {
        MuteState::Expired
    } else {
        MuteState::Pending
    }
}

/// The pause as ended by the box itself; nothing, if it is over anyway.
fn resumed(before: MuteRecord, name: &BoxName, now: Timestamp) -> Option<MuteRecord> {
    let over = before.over_at().is_some_and(|over| over <= now);
    (!over).then(|| MuteRecord {
        ended: Some(signed(name, now)),
        ..before
    })
}

fn signed(name: &BoxName, at: Timestamp) -> Signed {
    Signed {
        by: name.to_string(),
        at,
    }
}

impl fmt::Display for MutedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let until = self.until.strftime("%Y-%m-%d %H:%M:%SZ");
        let Self {
            id, kind, by, reason, ..
        } = self;
        match kind {
            MuteKind::Silence | MuteKind::Maintenance => {
                write!(f, "{kind} {id} of {by} until {until}: {reason}")
            }
            MuteKind::Pause => write!(f, "the pause on {by} ({id}) until {until}: {reason}"),
        }
    }
}
