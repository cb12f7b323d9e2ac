//! The resident part's memory of silences: reads what the last process left, keeps what the next one may need, and
//! answers what a silence is explained by. It waits for nothing: threads and tasks bring what takes time.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use protocol::names::UnitName;

use super::{Resident, clocks, moment};
use crate::account::around;
use crate::account::judge::Before;
use crate::account::past::{self, Told};
use crate::account::record::Record;
use crate::clock::Moment;

/// Nothing is noted down more often than this.
const NOTE_EVERY: Duration = Duration::from_millis(900);
/// A unit's end and the kernel's line about it are no further apart than this.
const OOM_NEAR: Duration = Duration::from_secs(30);

impl Resident {
    /// Has the record read that the last process left. The first beats do not wait for it.
    pub(super) fn read_record(&self) {
        let (state, spare) = (self.settings.state_dir.clone(), self.settings.spare_dir.clone());
        let (boot_id, tell) = (self.story.boot_id, self.tell.clone());
        tokio::task::spawn_blocking(move || {
            let record = past::read(&state, spare.as_deref(), boot_id);
            let _ = tell.blocking_send(Told::Before(record.map(Box::new)));
        });
    }

    pub(super) fn told(&mut self, told: Told) {
        match told {
            Told::Before(None) => self.nothing_before(Before::Nothing),
            Told::Before(Some(record)) => self.found_record(record),
            // However late: a server that has not been reached since is still told.
            Told::How(how) => match std::mem::replace(&mut self.story.before, Before::Nothing) {
                Before::Asking(Some(record)) | Before::Late(Some(record)) => {
                    self.story.before = Before::Known(record, how);
                    for sender in &mut self.senders {
                        sender.plan().urge();
                    }
                }
                before
                @ (Before::Asking(None) | Before::Late(None) | Before::Nothing | Before::Known(..)) => {
                    self.story.before = before;
                }
            },
            Told::Sample(sample) => {
                let at = moment(clocks()).into();
                for sender in &mut self.senders {
                    sender.seen(at, &sample);
                }
            }
            Told::Kept(done) => {
                self.keeper.kept();
                match done {
                    Ok(()) => self.record_voice.settled(),
                    Err(error) => self.record_voice.trouble_is(&format!(
                        "what would explain a silence cannot be noted down: {error}"
                    )),
                }
            }
            Told::OomOf { unit, line } => {
                if self.units.killed_for_memory(&unit, &line) {
                    self.units_changed();
                }
            }
        }
    }

    /// There is nothing to explain to a server that has been reached: `why` (nothing, or not in time).
    fn nothing_before(&mut self, why: Before) {
        if self.story.is_asking() {
            self.story.before = why;
            for sender in &mut self.senders {
                sender.silence().nothing_before();
            }
        }
    }

    fn found_record(&mut self, record: Box<Record>) {
        let of = record.clone();
        self.story.before = match self.story.before {
            Before::Asking(_) => Before::Asking(Some(record)),
            Before::Late(_) => Before::Late(Some(record)),
            Before::Nothing | Before::Known(..) => return,
        };
        let (boot_id, tell) = (self.story.boot_id, self.tell.clone());
        let spare = self.settings.spare_dir.clone();
        self.tasks.spawn(async move {
            let how = past::find("/".into(), spare, &of, boot_id).await;
            let _ = tell.send(Told::How(Box::new(how))).await;
        });
    }

    fn gives_up(&mut self) {
        if let Before::Asking(record) = &mut self.story.before {
            let record = record.take();
            self.nothing_before(Before::Late(record));
        }
    }

    /// Keeps the record, and looks around while beats fail. Never waits.
    pub(super) fn note_down(&mut self, now: Instant, moment: Moment) {
        if self.story.is_asking() {
            if now >= self.asking_until {
                self.gives_up();
            }
            // The last process's record is not overwritten before it is read.
            if matches!(self.story.before, Before::Asking(None)) {
                return;
            }
        }
        if now < self.note_at && self.leaving.is_none() {
            return;
        }
        self.note_at = now + NOTE_EVERY;
        let (at, began) = (moment.into(), self.story.began);
        for sender in &mut self.senders {
            sender.turns(at);
        }
        let silent = self
            .senders
            .iter()
            .filter_map(|sender| sender.silent_for(at, began));
        if silent.max().is_some_and(|silent| silent >= around::FIRST_AFTER) {
            if self
                .sampled_at
                .is_none_or(|sampled| now >= sampled + around::EVERY)
            {
                self.sampled_at = Some(now);
                let (socket, tell) = (around::tailscale_socket(&self.settings), self.tell.clone());
                self.tasks.spawn(async move {
                    let sample = around::look(Path::new("/"), socket.as_deref()).await;
                    let _ = tell.send(Told::Sample(sample)).await;
                });
            }
        } else {
            self.sampled_at = None;
        }
        while self.tasks.try_join_next().is_some() {}
        self.keeper.alive(moment);
        let goodbye = self.leaving.as_ref().map(|leaving| leaving.goodbye.why);
        let mut state = DefaultHasher::new();
        goodbye.hash(&mut state);
        for sender in &mut self.senders {
            let silence = sender.silence();
            (
                silence.taken().is_some(),
                silence.tried().len(),
                sender.silent_for(at, began).is_some(),
            )
                .hash(&mut state);
        }
        let (story, senders, session) = (&self.story, &self.senders, self.session);
        let oom_kills = &mut self.oom_kills;
        self.keeper.keep(moment, state.finish(), goodbye.is_some(), || {
            *oom_kills = around::oom_kills(Path::new("/"));
            Record {
                boot_id: story.boot_id,
                session,
                began,
                alive: at,
                goodbye,
                oom_kills: *oom_kills,
                servers: senders.iter().map(|sender| sender.heard(at, story)).collect(),
            }
        });
    }

    /// A unit's run was ended by a signal. Whether that was for lack of memory is told by systemd, or by the kernel's
    /// count of OOM kills (with the first version of cgroups systemd is not told); the kernel's own line follows, where
    /// the journal has it. Whether something is to be told at once.
    pub(super) fn killed(&mut self, unit: &UnitName, wall: Timestamp) -> bool {
        let before = self.oom_kills;
        self.oom_kills = around::oom_kills(Path::new("/"));
        let grew = self
            .oom_kills
            .zip(before)
            .map_or(0, |(now, before)| now.saturating_sub(before));
        let Some(line) = self.units.oom_line(unit, grew) else {
            return false;
        };
        let (tell, of, first) = (self.tell.clone(), unit.clone(), line.clone());
        self.tasks.spawn(async move {
            if let Some(kernel) = past::kernel_oom(wall - OOM_NEAR).await {
                let line = crate::redact::redact(&format!("{first}; {kernel}"));
                let _ = tell.send(Told::OomOf { unit: of, line }).await;
            }
        });
        self.units.killed_for_memory(unit, &line)
    }

    pub(super) fn units_changed(&mut self) {
        self.body.set_units(self.units.states());
        for sender in &mut self.senders {
            sender.plan().urge();
        }
    }
}
