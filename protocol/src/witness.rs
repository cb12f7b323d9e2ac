//! Whom a fleet server may ask about a box that it does not hear. Declared by an operator, never by the box.
//!
//! Here stand the declarations; asking is the server's business.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits;

/// What a peer of the server's own tailscaled is written with.
const TAILSCALE: &str = "tailscale:";

/// One witness.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// `host:port`: does anything there take or refuse a connection?
    Tcp(String),
    /// `tailscale:NAME`: what the server's own tailscaled knows of this peer (its host name, DNS name or address).
    Tailscale(String),
}

/// Why a text declares no witness.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    /// Neither form.
    #[error(
        "is no witness; write host:port, such as box-17.example.net:22 or [2001:db8::1]:22, or tailscale:NAME"
    )]
    Form,
    /// More than a box may have.
    #[error("are more than {} witnesses", limits::WITNESSES)]
    TooMany,
}

impl FromStr for Target {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Self, BadTarget> {
        if text.len() > limits::WITNESS_BYTES {
            return Err(BadTarget::Form);
        }
        if let Some(peer) = text.strip_prefix(TAILSCALE) {
            let good = is_host(peer);
            return good
                .then(|| Self::Tailscale(peer.to_owned()))
                .ok_or(BadTarget::Form);
        }
        let (host, port) = text.rsplit_once(':').ok_or(BadTarget::Form)?;
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let good = is_host(bare) && port.parse::<u16>().is_ok_and(|port| port > 0);
        good.then(|| Self::Tcp(text.to_owned())).ok_or(BadTarget::Form)
    }
}

fn is_host(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || ".-:".contains(c))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Tailscale(peer) => write!(f, "{TAILSCALE}{peer}"),
        }
    }
}

/// The witnesses of one box. As text they are separated by commas; in JSON they are a list, and one text is taken too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Targets(Vec<Target>);

impl Targets {
    /// Checks their number; the same twice is once.
    pub fn new(targets: impl IntoIterator<Item = Target>) -> Result<Self, BadTarget> {
        let mut all: Vec<Target> = Vec::new();
        for target in targets {
            if !all.contains(&target) {
                all.push(target);
            }
        }
        if all.len() > limits::WITNESSES {
            return Err(BadTarget::TooMany);
        }
        Ok(Self(all))
    }

    /// In the order declared.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Target> {
        self.0.iter()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for Targets {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Self, BadTarget> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        Self::new(parts.map(str::parse).collect::<Result<Vec<_>, _>>()?)
    }
}

impl fmt::Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join(","))
    }
}

impl Serialize for Targets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(ToString::to_string))
    }
}

impl<'de> Deserialize<'de> for Targets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyForm)
    }
}

struct AnyForm;

impl<'de> Visitor<'de> for AnyForm {
    type Value = Targets;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of witnesses")
    }

    fn visit_unit<E: Error>(self) -> Result<Targets, E> {
        Ok(Targets::default())
    }

    fn visit_none<E: Error>(self) -> Result<Targets, E> {
        Ok(Targets::default())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Targets, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Targets, A::Error> {
        let mut all = Vec::new();
        while let Some(text) = seq.next_element::<String>()? {
            all.push(text.parse().map_err(A::Error::custom)?);
            if all.len() > limits::WITNESSES {
                return Err(A::Error::custom(BadTarget::TooMany));
            }
        }
        Targets::new(all).map_err(A::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_nothing_else() {
        for good in [
            "192.0.2.1:22",
            "[2001:db8::1]:22",
            "box-1.example.net:443",
            "tailscale:box-1",
        ] {
            assert_eq!(good.parse::<Target>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "box-1",
            "http://x",
            "x:0",
            "x:99999",
            "tailscale:",
            "tailscale:a b",
            ":22",
        ] {
            assert_eq!(bad.parse::<Target>(), Err(BadTarget::Form), "{bad}");
        }
    }

    #[test]
    fn one_text_a_list_and_nothing_are_all_read() {
        let read = |json: &str| serde_json::from_str::<Targets>(json);
        assert_eq!(read("\"192.0.2.1:22\"").unwrap().to_string(), "192.0.2.1:22");
        let two = read("[\"192.0.2.1:22\",\"tailscale:box-1\",\"192.0.2.1:22\"]").unwrap();
        assert_eq!(two.to_string(), "192.0.2.1:22,tailscale:box-1");
        assert_eq!(two, two.to_string().parse().unwrap());
        assert_eq!(
            serde_json::to_string(&two).unwrap(),
            "[\"192.0.2.1:22\",\"tailscale:box-1\"]"
        );
        assert!(read("null").unwrap().is_empty());
        let many: Vec<String> = (1..=9).map(|n| format!("\"a:{n}\"")).collect();
        assert!(read(&format!("[{}]", many.join(","))).is_err());
    }
}
