//! The receivers, a file each: a pure mapping from an alert to a request, and nothing else.
//!
//! Sending is [`http`](super::http)'s side, order and repetition are [`worker`](super::worker)'s.

pub mod alertmanager;
pub mod webhook;

/// One HTTP request, ready to go. `Debug` never shows the headers: they may carry a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// Where to.
    pub url: url::Url,
    /// Headers beside `content-type: application/json`.
    pub headers: Vec<(&'static str, String)>,
    /// The JSON body.
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("host", &self.url.host_str())
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use jiff::Timestamp;
    use protocol::alert::{Alert, VERSION};
    use protocol::incident::{EventKind, Incident, Kind, Severity};
    use protocol::names::{BoxName, Labels};

    /// What the receivers' snapshots are made of.
    pub(crate) fn alert() -> Alert {
        let details = serde_json::json!({"silent_secs": 6.02, "witness": "unreachable"});
        Alert {
            version: VERSION,
            key: "box_dark:box-17:4:1763755200000".into(),
            revision: 1,
            event: EventKind::Opened,
            incident: Incident {
                id: 4,
                kind: Kind::BoxDark,
                severity: Severity::Page,
                box_name: Some(BoxName::new("box-17").unwrap()),
                labels: Labels::from_texts([("site", "fsn1"), ("customer", "acme")]).unwrap(),
                opened_at: Timestamp::from_second(1_763_755_200).unwrap(),
                resolved_at: None,
                summary: "box-17 is dark: silent for 6 s".into(),
                details: details.as_object().unwrap().clone(),
            },
            ack: None,
            note: String::new(),
        }
    }
}
