//! What the receivers' own tests are made of.

use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use protocol::alert::{Alert, VERSION};
use protocol::incident::{EventKind, Incident, Kind, Severity};
use protocol::names::{BoxName, Labels};

use super::answer::HttpAnswer;
use super::{HttpRequest, Message, Request};
use crate::notify::template::{Rendered, Voice};
use crate::settings::Templates;

/// What the receivers' snapshots are made of.
pub(crate) fn alert() -> Alert {
    let details = serde_json::json!({
        "silent_secs": 6.02, "witness": "unreachable", "link": "https://fleet.example.net/v1/incidents/4",
        "runbook": "docs/runbook.md#box_dark",
    });
    Alert {
        version: VERSION,
        key: "box_dark:box-17:4:1763755200000".into(),
        revision: 1,
        event: EventKind::Opened,
        test: false,
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

/// An alert whose every text was made by somebody who wants to be believed, and it in words.
pub(crate) fn hostile() -> (Alert, Rendered) {
    let mut alert = alert();
    let text = "<!channel> @everyone <@123> **bold** [click](https://evil.example) <script>alert(1)</script> $(reboot) `id`\r\n\
        Bcc: victim@example.net\r\n.\r\nMAIL FROM:<x@evil.example>";
    alert.incident.summary = text.into();
    alert.incident.labels = Labels::from_texts([("site", "<!here> & @everyone"), ("x", "a|b>")]).unwrap();
    let templates = Templates {
        title: Some("{{ summary }} {{ label_list }}".into()),
        text: None,
    };
    let rendered = Voice::new("test", &templates).unwrap().render(&alert);
    (alert, rendered)
}

/// The sample alert in words.
pub(crate) fn rendered() -> Rendered {
    Voice::new("test", &Templates::default())
        .unwrap()
        .render(&alert())
}

/// More than any receiver takes.
pub(crate) fn long_rendered() -> Rendered {
    Rendered {
        title: "t".repeat(5000),
        text: "<é>".repeat(10_000),
    }
}

/// `alert` with the words of the sample alert.
pub(crate) fn message(alert: &Alert) -> Message<'_> {
    static RENDERED: std::sync::OnceLock<Rendered> = std::sync::OnceLock::new();
    Message {
        alert,
        rendered: RENDERED.get_or_init(rendered),
        thread: None,
    }
}

/// The HTTP request that it is.
pub(crate) fn http(request: Request) -> HttpRequest {
    match request {
        Request::Http(request) => request,
        other => panic!("{other:?} is no HTTP"),
    }
}

/// An HTTP answer without headers.
pub(crate) fn answer(status: u16, body: &str) -> HttpAnswer {
    HttpAnswer {
        status: StatusCode::from_u16(status).unwrap(),
        headers: HeaderMap::new(),
        body: body.as_bytes().to_vec(),
    }
}
