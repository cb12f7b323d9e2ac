//! The played boxes: each a fleet of one, behind a cable of its own, with what truly became of it written down.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use protocol::heartbeat::GoodbyeWhy;
use protocol::names::{BoxName, Labels};
use protocol::report::CheckName;

use super::history::{Absence, BoxTruth, Gone, RULES, Span, end};
use super::process::Clock;
use super::schedule::{BOXES, Going, box_name, site_name, site_of};
use super::world::Place;
use crate::clock::secs;
use crate::sim::command::{Command, Target};
use crate::sim::credentials::{Known, Source, obtain};
use crate::sim::player::Habits;
use crate::sim::{Fleet, Settings};

/// A beat comes early or late by up to this part of the interval.
pub(super) const JITTER: f64 = 0.05;

/// One played box.
struct Played {
    fleet: Fleet,
    place: Place,
    /// Faults that keep it from sending.
    gone_by: u32,
    /// Faults that make a check of it fail.
    failing_by: Vec<(CheckName, u32)>,
    acked: u64,
    truth: BoxTruth,
}

/// All of them.
pub(super) struct Boxes {
    clock: Clock,
    played: Vec<Played>,
}

impl Boxes {
    /// Adds them to the server at `url` with the admin's token, and starts to play. `places`: theirs, in order.
    pub(super) fn start(
        (url, data_dir): (&str, &Path),
        places: Vec<Place>,
        seed: u64,
        clock: Clock,
    ) -> Result<Self> {
        let wanted = (0..BOXES).map(|ix| {
            let labels = Labels::from_texts([("site", site_name(site_of(ix)).as_str())])?;
            Ok((BoxName::new(box_name(ix))?, labels))
        });
        let wanted = wanted.collect::<Result<Vec<_>>>()?;
        let known = obtain(url, &Source::Admin(data_dir.join("admin.token")), &wanted)?;
        let played = known.into_iter().zip(places).zip(0_u64..);
        let played = played
            .map(|((known, place), n)| Played::start(url, known, place, seed ^ (n << 32)))
            .collect::<Result<_>>()?;
        Ok(Self { clock, played })
    }

    /// To be called often: sees which beats were answered.
    pub(super) fn look(&mut self) {
        let now = self.clock.ms();
        for one in &mut self.played {
            let acked = one.fleet.counts().acked;
            if acked != one.acked {
                one.acked = acked;
                one.truth.answered_ms.push(now);
            }
        }
    }

    /// One more fault keeps it from sending.
    pub(super) fn goes(&mut self, ix: usize, how: Going) -> Result<()> {
        let now = self.clock.ms();
        let one = self.one(ix)?;
        one.gone_by += 1;
        if one.gone_by > 1 {
            return Ok(());
        }
        let target = Target::All;
        let (command, why) = match how {
            Going::Silent => (Command::Cut(target), Gone::Silent),
            Going::Killed => (Command::Kill(target), Gone::Silent),
            Going::Goodbye { back_secs } => {
                let command = Command::Goodbye {
                    target,
                    back_within_secs: back_secs,
                    why: GoodbyeWhy::Reboot,
                };
                (command, Gone::Goodbye { back_secs })
            }
        };
        one.fleet.obey(&command)?;
        one.truth.gone.push(Absence {
            span: Span::begun(now),
            why,
        });
        Ok(())
    }

    /// One fault fewer keeps it from sending.
    pub(super) fn comes(&mut self, ix: usize) -> Result<()> {
        let one = self.one(ix)?;
        one.gone_by = one.gone_by.saturating_sub(1);
        if one.gone_by == 0 {
            one.fleet.obey(&Command::Heal(Target::All))?;
        }
        let (now, comes) = (self.clock.ms(), self.one(ix)?.gone_by == 0);
        if comes {
            self.one(ix)?.ends(now, |why| why != Gone::Cut);
        }
        Ok(())
    }

    /// One more fault holds its cable out.
    pub(super) fn cut(&mut self, ix: usize) -> Result<()> {
        let now = self.clock.ms();
        let one = self.one(ix)?;
        if one.place.cut()? {
            one.truth.gone.push(Absence {
                span: Span::begun(now),
                why: Gone::Cut,
            });
        }
        Ok(())
    }

    /// One fault fewer holds its cable out.
    pub(super) fn heal(&mut self, ix: usize) -> Result<()> {
        if self.one(ix)?.place.heal()? {
            let now = self.clock.ms();
            self.one(ix)?.ends(now, |why| why == Gone::Cut);
        }
        Ok(())
    }

    /// One more fault makes a check of it fail.
    pub(super) fn fails(&mut self, ix: usize, check: CheckName) -> Result<()> {
        let now = self.clock.ms();
        let one = self.one(ix)?;
        match one.failing_by.iter_mut().find(|(name, _)| *name == check) {
            Some((_, by)) => *by += 1,
            None => one.failing_by.push((check, 1)),
        }
        one.fleet.obey(&Command::Fail(Target::All, check))?;
        one.truth.failing.push((check, Span::begun(now)));
        Ok(())
    }

    /// One fault fewer; mending mends all checks at once, so the others fail anew.
    pub(super) fn mends(&mut self, ix: usize, check: CheckName) -> Result<()> {
        let now = self.clock.ms();
        let one = self.one(ix)?;
        for (name, by) in &mut one.failing_by {
            if *name == check {
                *by = by.saturating_sub(1);
            }
        }
        if one.failing_by.iter().any(|(name, by)| *name == check && *by > 0) {
            return Ok(());
        }
        one.fleet.obey(&Command::Mend(Target::All))?;
        for (name, span) in &mut one.truth.failing {
            if *name == check {
                end(std::slice::from_mut(span), now);
            }
        }
        for (name, by) in one.failing_by.clone() {
            if by > 0 {
                one.fleet.obey(&Command::Fail(Target::All, name))?;
            }
        }
        Ok(())
    }

    /// What truly became of them.
    pub(super) fn truth(&self) -> Vec<BoxTruth> {
        self.played.iter().map(|one| one.truth.clone()).collect()
    }

    fn one(&mut self, ix: usize) -> Result<&mut Played> {
        self.played.get_mut(ix).context("no such box")
    }
}

impl Played {
    fn start(url: &str, known: Known, place: Place, seed: u64) -> Result<Self> {
        let habits = Habits {
            every: Duration::from_millis(RULES.every_ms as u64),
            jitter: JITTER,
            check_every: secs(120),
        };
        let settings = Settings {
            server: url.to_owned(),
            habits,
            seed,
            from: Vec::new(),
        };
        let name = known.name.to_string();
        let site = known.labels.get("site").unwrap_or_default().to_owned();
        // Its thread is made there, and stays there.
        let fleet = place.inside(|| Fleet::start(&settings, vec![known]))?;
        Ok(Self {
            fleet,
            place,
            truth: BoxTruth {
                name,
                site,
                ..BoxTruth::default()
            },
            gone_by: 0,
            failing_by: Vec::new(),
            acked: 0,
        })
    }

    fn ends(&mut self, at_ms: i64, which: impl Fn(Gone) -> bool) {
        for absence in self.truth.gone.iter_mut().filter(|absence| which(absence.why)) {
            end(std::slice::from_mut(&mut absence.span), at_ms);
        }
    }
}
