//! Names that cross a boundary, as types that cannot hold an invalid one: box, unit, labels, word.
//!
//! It does not say what a name means, only what it may look like.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::limits;

/// Why a text is no valid name. The message names the offence and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Nothing there.
    #[error("must not be empty")]
    Empty,
    /// Over the limit.
    #[error("is {got} bytes long; at most {limit} are allowed")]
    TooLong {
        /// Bytes found.
        got: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A character that may not stand in it.
    #[error("has the character {0:?}; allowed are {1}")]
    Character(char, &'static str),
    /// Wrong first or last character.
    #[error("must start and end with a letter or digit")]
    Edge,
    /// Not a unit that can be restarted.
    #[error("is no unit name: it must end in .service (or another unit suffix) and have a name before it")]
    Suffix,
    /// Too many of them.
    #[error("has {got} entries; at most {limit} are allowed")]
    TooMany {
        /// Entries found.
        got: usize,
        /// Entries allowed.
        limit: usize,
    },
    /// A label name that the product itself uses.
    #[error("{0:?} is reserved; choose another label name")]
    Reserved(String),
    /// A control character in a text for people.
    #[error("has a control character")]
    Control,
    /// In a label map: which entry.
    #[error("label {name:?}: {source}")]
    Label {
        /// The label's name as given (cut to 64 bytes).
        name: String,
        /// What is wrong with its name or value.
        source: Box<BadName>,
    },
}

/// A word outside a closed enum.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not one of {expected}")]
pub struct UnknownWord {
    found: String,
    expected: String,
}

impl UnknownWord {
    /// `found` (cut to 64 characters) is none of `expected`.
    pub fn new(found: &str, expected: &[&str]) -> Self {
        Self {
            found: found.chars().take(64).collect(),
            expected: expected.join(", "),
        }
    }
}

fn bounded(text: &str, limit: usize) -> Result<(), BadName> {
    match text.len() {
        0 => Err(BadName::Empty),
        got if got > limit => Err(BadName::TooLong { got, limit }),
        _ => Ok(()),
    }
}

macro_rules! name_type {
    ($(#[$meta:meta])* $name:ident, $check:expr) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Checks `text` and wraps it.
            pub fn new(text: impl Into<String>) -> Result<Self, BadName> {
                let text = text.into();
                let check: fn(&str) -> Result<(), BadName> = $check;
                check(&text)?;
                Ok(Self(text))
            }

            /// The name itself.
            pub fn as_str(&self) -> &str { &self.0 }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.pad(&self.0) }
        }

        impl FromStr for $name {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> { Self::new(text) }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str { &self.0 }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                Self::new(String::deserialize(d)?).map_err(serde::de::Error::custom)
            }
        }
    };
}

name_type!(
    /// A box's name: letters, digits, `.`, `-`, `_`; starts and ends with a letter or digit.
    BoxName,
    |text| {
        bounded(text, limits::NAME_BYTES)?;
        allow(text, "letters, digits, '.', '-' and '_'", |c| c.is_ascii_alphanumeric() || ".-_".contains(c))?;
        let edges = [text.chars().next(), text.chars().next_back()];
        if edges.iter().flatten().all(char::is_ascii_alphanumeric) { Ok(()) } else { Err(BadName::Edge) }
    }
);

name_type!(
    /// A box's name in which `*` stands for any characters, or none.
    BoxPattern,
    |text| {
        bounded(text, limits::NAME_BYTES)?;
        allow(text, "letters, digits, '.', '-', '_' and '*'", |c| c.is_ascii_alphanumeric() || ".-_*".contains(c))
    }
);

impl BoxPattern {
    /// Whether `name` fits.
    pub fn matches(&self, name: &BoxName) -> bool {
        let mut parts = self.0.split('*');
        let (first, rest) = (parts.next().unwrap_or_default(), parts.collect::<Vec<_>>());
        let Some(mut left) = name.as_str().strip_prefix(first) else {
            return false;
        };
        let Some((last, middle)) = rest.split_last() else {
            return left.is_empty();
        };
        for part in middle {
            // The first place is as good as any: whatever follows has the more to find itself in.
            let Some(at) = left.find(part) else {
                return false;
            };
            left = &left[at + part.len()..];
        }
        left.ends_with(last)
    }
}

impl From<BoxName> for BoxPattern {
    fn from(name: BoxName) -> Self {
        Self(name.0)
    }
}

name_type!(
    /// A time zone's name in the IANA database, such as `Europe/Berlin`. Whether there is one, is not asked here.
    ZoneName,
    |text| {
        bounded(text, limits::ZONE_BYTES)?;
        allow(text, "letters, digits, '/', '_', '+' and '-'", |c| c.is_ascii_alphanumeric() || "/_+-".contains(c))
    }
);

name_type!(
    /// A systemd unit's name with its suffix, such as `hermes-gateway.service`.
    UnitName,
    |text| {
        bounded(text, limits::UNIT_NAME_BYTES)?;
        allow(text, "letters, digits and :-_.\\@", |c| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c))?;
        const SUFFIXES: [&str; 6] = [".service", ".socket", ".target", ".timer", ".mount", ".path"];
        let named = SUFFIXES.iter().any(|suffix| text.strip_suffix(suffix).is_some_and(|stem| !stem.is_empty()));
        if named { Ok(()) } else { Err(BadName::Suffix) }
    }
);

name_type!(
    /// A lower-case word: `[a-z0-9_-]`, at most [`limits::WORD_BYTES`]. What systemd calls a state fits too.
    Word,
    |text| {
        bounded(text, limits::WORD_BYTES)?;
        allow(text, "a-z, 0-9, '_' and '-'", |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-')
    }
);

name_type!(
    /// A label's name, Prometheus-like: `[a-zA-Z_][a-zA-Z0-9_]*`, none that the product's own metrics carry.
    LabelName,
    |text| {
        bounded(text, limits::LABEL_NAME_BYTES)?;
        allow(text, "letters, digits and '_'", |c| c.is_ascii_alphanumeric() || c == '_')?;
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(BadName::Character(text.chars().next().unwrap_or('0'), "letters or '_' at the start"));
        }
        const RESERVED: [&str; 8] = ["box", "check", "kind", "severity", "alertname", "instance", "job", "le"];
        if RESERVED.contains(&text) || text.starts_with("__") {
            return Err(BadName::Reserved(text.to_owned()));
        }
        Ok(())
    }
);

name_type!(
    /// A label's value: any text without control characters.
    LabelValue,
    |text| {
        bounded(text, limits::LABEL_VALUE_BYTES)?;
        if text.chars().any(char::is_control) { Err(BadName::Control) } else { Ok(()) }
    }
);

fn allow(text: &str, allowed: &'static str, ok: impl Fn(char) -> bool) -> Result<(), BadName> {
    match text.chars().find(|&c| !ok(c)) {
        Some(c) => Err(BadName::Character(c, allowed)),
        None => Ok(()),
    }
}

/// A box's labels, at most [`limits::LABELS`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Labels(BTreeMap<LabelName, LabelValue>);

impl Labels {
    /// From names and values, each checked.
    pub fn new(map: BTreeMap<LabelName, LabelValue>) -> Result<Self, BadName> {
        match map.len() {
            got if got > limits::LABELS => Err(BadName::TooMany {
                got,
                limit: limits::LABELS,
            }),
            _ => Ok(Self(map)),
        }
    }

    /// From texts, each checked; the error names the label.
    pub fn from_texts<N: AsRef<str>, V: AsRef<str>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, BadName> {
        let mut map = BTreeMap::new();
        for (name, value) in pairs {
            let (name, value) = (name.as_ref(), value.as_ref());
            let of = |source| BadName::Label {
                name: name.chars().take(64).collect(),
                source: Box::new(source),
            };
            map.insert(
                LabelName::new(name).map_err(of)?,
                LabelValue::new(value).map_err(of)?,
            );
        }
        Self::new(map)
    }

    /// The value of one label.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(n, _)| n.as_str() == name)
            .map(|(_, v)| v.as_str())
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// These, with `over`'s put on top of them (cut at the limit: `over` wins).
    #[must_use]
    pub fn overlaid(&self, over: &Self) -> Self {
        let mut map = over.0.clone();
        for (name, value) in &self.0 {
            if map.len() >= limits::LABELS {
                break;
            }
            map.entry(name.clone()).or_insert_with(|| value.clone());
        }
        Self(map)
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::new(BTreeMap::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn box_names() {
        for good in ["a", "box-17", "fsn1.acme_3", "0"] {
            assert!(BoxName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a.", "a b", "a/b", "böx", "a\n", &"x".repeat(254)] {
            assert!(BoxName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn unit_names() {
        assert!(UnitName::new("hermes-gateway.service").is_ok());
        assert!(UnitName::new("getty@tty1.service").is_ok());
        for bad in ["gateway", ".service", "a/b.service", "a b.service", "x.exe"] {
            assert!(UnitName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn labels_name_the_offender() {
        let err = Labels::from_texts([("site", "fsn1"), ("box", "x")])
            .unwrap_err()
            .to_string();
        assert!(err.contains("\"box\"") && err.contains("reserved"), "{err}");
        let many = (0..17).map(|n| (format!("l{n}"), "v"));
        assert!(Labels::from_texts(many).is_err());
    }
}
