//! What one process leaves for the next, so that it can say why the box was not heard: a few KiB of JSON, bounded, and
//! replaced whole. Beside it, in memory, a line that is overwritten each second: "alive".
//!
//! It holds no report and no secret. A record that cannot be read counts as none: it explains, nothing depends on it.

use protocol::heartbeat::GoodbyeWhy;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::silence::{Stamp, Tried};

/// Its file, in the state directory and in the runtime directory.
pub const RECORD_FILE: &str = "beat.json";
/// In the runtime directory: boot id and [`Stamp`] as text, of a fixed length.
pub const ALIVE_FILE: &str = "alive";
/// In the runtime directory: systemd's word about how the process ended, written by the unit's `ExecStopPost=`.
pub const ENDED_FILE: &str = "ended";
/// Bytes of a record that are read: eight servers with eight ways to fail each are under half of it.
pub const RECORD_BYTES: usize = 64 * 1024;
/// Bytes of the two lines.
pub const LINE_BYTES: usize = 128;

/// The record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Of which boot.
    pub boot_id: Uuid,
    /// Of which process.
    pub session: Uuid,
    /// When that process began.
    pub began: Stamp,
    /// When it last was alive; the alive-line may know better.
    pub alive: Stamp,
    /// It said, or tried to say, goodbye.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goodbye: Option<GoodbyeWhy>,
    /// Processes that the kernel's OOM killer had ended by then in that boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<u64>,
    /// What each server has heard.
    #[serde(default)]
    pub servers: Vec<Heard>,
}

/// One server's side of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// The server's URL.
    pub url: String,
    /// In which boot it last took a beat; none: no beat was taken yet that is known of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<Uuid>,
    /// When; none while all is well: then as [`Record::alive`] says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<Stamp>,
    /// Beats are not taken at present.
    #[serde(default)]
    pub silent: bool,
    /// How the tries ended since.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<Tried>,
}

/// What systemd said when the process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// `success`, `signal`, `watchdog`, `oom-kill`, `exit-code`, …
    pub result: String,
    /// `exited`, `killed`, `dumped`.
    pub code: String,
    /// A number, or a signal's name.
    pub status: String,
    /// `/proc/uptime` then, milliseconds.
    pub uptime_ms: Option<u64>,
}

impl Record {
    /// From a file's content.
    pub fn parse(json: &[u8]) -> Option<Self> {
        (json.len() <= RECORD_BYTES).then(|| serde_json::from_slice(json).ok())?
    }

    /// What is known of the server at `url`.
    pub fn heard(&self, url: &str) -> Option<&Heard> {
        self.servers.iter().find(|heard| heard.url == url)
    }

    /// When the server at `url` last took a beat, and whether that was in the record's own boot. One that is not known
    /// to have taken any may have done so in the moment after the record was written.
    pub fn taken(&self, url: &str) -> (Stamp, bool) {
        let Some((heard, boot)) = self.heard(url).and_then(|heard| Some((heard, heard.boot_id?))) else {
            return (self.alive, true);
        };
        let at = heard.taken.filter(|_| heard.silent || boot != self.boot_id);
        (at.unwrap_or(self.alive), boot == self.boot_id)
    }

    /// Takes in the alive-line, if it is of the same boot and newer.
    pub fn alive_by(&mut self, line: &str) {
        if let Some((boot_id, stamp)) = parse_alive(line)
            && boot_id == self.boot_id
            && stamp.boot_ms > self.alive.boot_ms
        {
            self.alive = stamp;
        }
    }
}

/// The alive-line.
pub fn alive_line(boot_id: Uuid, at: Stamp) -> String {
    format!(
        "{} {:>20} {:>20}\n",
        boot_id.simple(),
        at.boot_ms,
        at.wall.as_millisecond()
    )
}

fn parse_alive(line: &str) -> Option<(Uuid, Stamp)> {
    let mut fields = line.split_whitespace();
    let boot_id = Uuid::try_parse(fields.next()?).ok()?;
    let boot_ms = fields.next()?.parse().ok()?;
    let wall = jiff::Timestamp::from_millisecond(fields.next()?.parse().ok()?).ok()?;
    Some((boot_id, Stamp { wall, boot_ms }))
}

impl Ended {
    /// `<result> <code> <status> <uptime>`, as the unit writes it.
    pub fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_whitespace();
        let mut next = || fields.next().map(str::to_owned);
        let (result, code, status) = (next()?, next()?, next()?);
        let uptime = next().and_then(|text| text.parse::<f64>().ok());
        Some(Self {
            result,
            code,
            status,
            uptime_ms: uptime.map(|secs| (secs * 1000.0) as u64),
        })
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {}, status {}", self.result, self.code, self.status)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn at(secs: u64) -> Stamp {
        Stamp {
            wall: jiff::Timestamp::from_second(1_763_755_200).unwrap() + std::time::Duration::from_secs(secs),
            boot_ms: secs * 1000,
        }
    }

    pub(in super::super) fn record() -> Record {
        Record {
            boot_id: Uuid::from_u128(1),
            session: Uuid::from_u128(2),
            began: at(10),
            alive: at(100),
            goodbye: None,
            oom_kills: Some(0),
            servers: vec![Heard {
                url: "https://fleet.example".to_owned(),
                boot_id: Some(Uuid::from_u128(1)),
                taken: Some(at(60)),
                silent: false,
                tried: Vec::new(),
            }],
        }
    }

    #[test]
    fn it_comes_back_as_written_and_rubbish_counts_as_none() {
        let json = serde_json::to_vec(&record()).unwrap();
        assert_eq!(Record::parse(&json), Some(record()));
        assert_eq!(Record::parse(&json[..json.len() / 2]), None);
        assert_eq!(Record::parse(&vec![b' '; RECORD_BYTES + 1]), None);
    }

    #[test]
    fn while_all_is_well_the_last_sign_of_life_is_the_last_beat() {
        let mut record = record();
        let url = "https://fleet.example";
        assert_eq!(record.taken(url), (at(100), true));
        record.servers[0].silent = true;
        assert_eq!(record.taken(url), (at(60), true));
        record.servers[0].silent = false;
        record.servers[0].boot_id = Some(Uuid::from_u128(9));
        assert_eq!(record.taken(url), (at(60), false), "this boot was never heard");
        record.servers[0].boot_id = None;
        assert_eq!(record.taken(url), (at(100), true));
        assert_eq!(record.taken("https://another.example"), (at(100), true));
    }

    #[test]
    fn the_alive_line_has_one_length_and_counts_for_its_own_boot() {
        let line = alive_line(Uuid::from_u128(1), at(107));
        assert_eq!(line.len(), alive_line(Uuid::from_u128(77), at(9_000_000)).len());
        let mut known = record();
        known.alive_by(&line);
        assert_eq!(known.alive, at(107));
        known.alive_by(&alive_line(Uuid::from_u128(3), at(200)));
        known.alive_by(&alive_line(Uuid::from_u128(1), at(50)));
        known.alive_by("half a li");
        assert_eq!(known.alive, at(107));
    }

    #[test]
    fn systemds_word_is_read() {
        let ended = Ended::parse("signal killed KILL 1234.56\n").unwrap();
        assert_eq!(
            (ended.to_string().as_str(), ended.uptime_ms),
            ("signal, killed, status KILL", Some(1_234_560))
        );
        assert_eq!(Ended::parse("signal killed"), None);
    }
}
