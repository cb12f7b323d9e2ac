//! What a played fleet can be told, as lines of words.
//!
//! It only reads them; [`super::player`] obeys.

use std::str::FromStr;

use anyhow::{Context, Result, bail};
use protocol::heartbeat::GoodbyeWhy;
use protocol::limits;
use protocol::names::Labels;
use protocol::report::CheckName;

/// The commands, for `--help` and for a wrong one.
pub const USAGE: &str = "\
  cut TARGET                     send nothing any more, connections left open (power cut, silent partition)
  kill TARGET                    the same, connections closed (the process was killed)
  heal TARGET                    send again; after `kill` as a new process, after `goodbye` as a new boot
  goodbye TARGET SECS [WHY]      say goodbye (reboot unless WHY) and go
  fail TARGET CHECK              report the check as failing (gateway, disk, backup, tailscale)
  mend TARGET                    report every check as ok
  status                         the counts, and the boxes that do not send
  quit                           end
TARGET: a box's name, a prefix with `*`, a label such as site=fsn1, or `all`";

/// Which boxes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Every one.
    All,
    /// Exactly this one.
    Name(String),
    /// All whose name starts so.
    Prefix(String),
    /// All with this label.
    Label(String, String),
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Send nothing, leave the connection open.
    Cut(Target),
    /// Send nothing, close the connection.
    Kill(Target),
    /// Send again.
    Heal(Target),
    /// One last beat that says so, then nothing.
    Goodbye {
        /// Who.
        target: Target,
        /// Announced absence, seconds.
        back_within_secs: u64,
        /// Announced reason.
        why: GoodbyeWhy,
    },
    /// Report a check as failing.
    Fail(Target, CheckName),
    /// Report all checks as ok.
    Mend(Target),
    /// Counts.
    Status,
    /// End.
    Quit,
}

impl Target {
    /// Whether it means the box of this name and these labels.
    pub fn means(&self, name: &str, labels: &Labels) -> bool {
        match self {
            Self::All => true,
            Self::Name(wanted) => wanted == name,
            Self::Prefix(prefix) => name.starts_with(prefix.as_str()),
            Self::Label(label, value) => labels.get(label) == Some(value),
        }
    }
}

impl FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match (text, text.split_once('='), text.strip_suffix('*')) {
            ("", _, _) => bail!("which boxes?"),
            ("all", _, _) => Self::All,
            (_, Some((label, value)), _) => Self::Label(label.to_owned(), value.to_owned()),
            (_, None, Some(prefix)) => Self::Prefix(prefix.to_owned()),
            (name, None, None) => Self::Name(name.to_owned()),
        })
    }
}

impl FromStr for Command {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> Result<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        Ok(match words.as_slice() {
            ["cut", target] => Self::Cut(target.parse()?),
            ["kill", target] => Self::Kill(target.parse()?),
            ["heal", target] => Self::Heal(target.parse()?),
            ["goodbye", target, secs] => goodbye(target, secs, GoodbyeWhy::Reboot)?,
            ["goodbye", target, secs, why] => goodbye(target, secs, why.parse()?)?,
            ["fail", target, check] => Self::Fail(target.parse()?, check.parse()?),
            ["mend", target] => Self::Mend(target.parse()?),
            ["status"] => Self::Status,
            ["quit"] => Self::Quit,
            _ => bail!("no such command: {line:?}; commands are\n{USAGE}"),
        })
    }
}

fn goodbye(target: &str, secs: &str, why: GoodbyeWhy) -> Result<Command> {
    let back_within_secs: u64 = secs
        .parse()
        .with_context(|| format!("{secs:?} is no number of seconds"))?;
    let most = limits::BACK_WITHIN_MAX.as_secs();
    if back_within_secs > most {
        bail!("{secs} seconds are more than a goodbye may announce ({most})");
    }
    Ok(Command::Goodbye {
        target: target.parse()?,
        back_within_secs,
        why,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let parse = |line: &str| line.parse::<Command>().unwrap();
        assert_eq!(parse("cut all"), Command::Cut(Target::All));
        assert_eq!(
            parse("  kill  box-1 "),
            Command::Kill(Target::Name("box-1".into()))
        );
        let site = Target::Label("site".into(), "fsn1".into());
        assert_eq!(parse("heal site=fsn1"), Command::Heal(site));
        assert_eq!(
            parse("fail sim-* disk"),
            Command::Fail(Target::Prefix("sim-".into()), CheckName::Disk)
        );
        let poweroff = parse("goodbye a 60 poweroff");
        assert!(matches!(
            poweroff,
            Command::Goodbye {
                back_within_secs: 60,
                why: GoodbyeWhy::Poweroff,
                ..
            }
        ));
    }

    #[test]
    fn mistakes_are_named() {
        for (line, word) in [
            ("explode all", "explode"),
            ("cut", "cut TARGET"),
            ("fail a weather", "weather"),
            ("goodbye a soon", "soon"),
            ("goodbye a 999999", "86400"),
        ] {
            let said = format!("{:#}", line.parse::<Command>().unwrap_err());
            assert!(said.contains(word), "{line}: {said}");
        }
    }

    #[test]
    fn targets() {
        let labels = Labels::from_texts([("site", "fsn1")]).unwrap();
        let means = |target: &str| target.parse::<Target>().unwrap().means("sim-1", &labels);
        assert!(means("all") && means("sim-1") && means("sim-*") && means("site=fsn1"));
        assert!(!means("sim-") && !means("sim-10") && !means("site=hel1") && !means("x*"));
    }
}
