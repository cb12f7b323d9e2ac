//! Which incidents are meant: by severity, kind, box and labels. For routes, silences and maintenances alike.
//!
//! It draws no conclusion from a match.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::incident::{Incident, Kind, Severity};
use crate::names::{BoxName, BoxPattern, Labels};

/// Which incidents: every condition that is given must hold; an empty one matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matcher {
    /// Any of these severities.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub severity: Vec<Severity>,
    /// Any of these kinds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kind: Vec<Kind>,
    /// Any of these boxes; `*` stands for anything.
    #[serde(default, rename = "box", skip_serializing_if = "Vec::is_empty")]
    pub boxes: Vec<BoxPattern>,
    /// Each of these labels with this value.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
}

impl Matcher {
    /// Whether `incident` is meant.
    pub fn matches(&self, incident: &Incident) -> bool {
        let among_boxes = || {
            let name = incident.box_name.as_ref();
            name.is_some_and(|name| self.boxes.iter().any(|pattern| pattern.matches(name)))
        };
        (self.severity.is_empty() || self.severity.contains(&incident.severity))
            && (self.kind.is_empty() || self.kind.contains(&incident.kind))
            && (self.boxes.is_empty() || among_boxes())
            && self.labelled(&incident.labels)
    }

    /// Whether the box named `name`, with these labels, is meant, whatever happens to it.
    pub fn covers(&self, name: &BoxName, labels: &Labels) -> bool {
        (self.boxes.is_empty() || self.boxes.iter().any(|pattern| pattern.matches(name)))
            && self.labelled(labels)
    }

    /// Whether it has no condition.
    pub fn is_empty(&self) -> bool {
        self.severity.is_empty() && self.kind.is_empty() && self.boxes.is_empty() && self.labels.is_empty()
    }

    fn labelled(&self, labels: &Labels) -> bool {
        self.labels
            .iter()
            .all(|(name, value)| labels.get(name) == Some(value))
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let any = |words: Vec<&str>| words.join("|");
        let mut parts: Vec<String> = Vec::new();
        let mut add = |name: &str, words: Vec<&str>| {
            if !words.is_empty() {
                parts.push(format!("{name}={}", any(words)));
            }
        };
        add("box", self.boxes.iter().map(AsRef::as_ref).collect());
        add("kind", self.kind.iter().map(|kind| kind.as_str()).collect());
        let severities = self.severity.iter().map(|severity| severity.as_str());
        add("severity", severities.collect());
        parts.extend(self.labels.iter().map(|(name, value)| format!("{name}={value}")));
        f.write_str(&parts.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_name_with_holes() {
        for (pattern, name, fits) in [
            ("web-1", "web-1", true),
            ("web-1", "web-10", false),
            ("*", "anything", true),
            ("web-*", "web-", true),
            ("web-*", "xweb-1", false),
            ("*-db", "eu-db", true),
            ("*-db", "eu-db-2", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("a*a", "a", false),
        ] {
            let name_ = BoxName::new(name);
            let fit = name_.is_ok_and(|name| BoxPattern::new(pattern).unwrap().matches(&name));
            assert_eq!(fit, fits && BoxName::new(name).is_ok(), "{pattern} {name}");
        }
        assert!(BoxPattern::new("a b").is_err() && BoxPattern::new("").is_err());
    }

    #[test]
    fn an_unknown_condition_is_refused_and_it_reads_as_it_is_written() {
        let text = r#"{"box":["web-*"],"kind":["box_dark"],"labels":{"site":"fsn1"}}"#;
        let matcher: Matcher = serde_json::from_str(text).unwrap();
        assert_eq!(matcher.to_string(), "box=web-* kind=box_dark site=fsn1");
        assert_eq!(
            serde_json::to_value(&matcher).unwrap(),
            serde_json::from_str::<serde_json::Value>(text).unwrap()
        );
        assert!(serde_json::from_str::<Matcher>(r#"{"sites":["fsn1"]}"#).is_err());
    }
}
