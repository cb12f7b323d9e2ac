//! Pure: a notification in words, by templates.
//!
//! What comes out is plain text: each receiver escapes it whole, so neither a template nor a name can bring markup.
//! Output and work are bounded. A template that fails on a real incident (a detail that this one does not have) is
//! replaced by the built-in one: a page is never lost to a spelling.

mod context;
mod samples;

use std::io;

use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value};
use protocol::alert::Alert;

pub use self::samples::samples;
use crate::settings::Templates;

/// A title is one line.
const TITLE_BYTES: usize = 1024;
/// No receiver shows more.
const TEXT_BYTES: usize = 16 * 1024;
/// Instructions of one rendering: the built-in text takes some hundred, a loop over 500 members some thousand.
const FUEL: u64 = 100_000;

/// The built-in title: `PAGE: box_dark box-17 (customer=acme, site=fsn1)`.
pub const TITLE: &str = "{% if test %}[TEST] {% endif %}\
    {{ severity | upper if event == 'opened' else event | upper }}: {{ kind }}\
    {% if about %} {{ about }}{% endif %}\
    {% if label_list %} ({{ label_list }}){% endif %}\
    {% if lasted %} after {{ lasted }}{% endif %}\
    {% if note %}: {{ note }}{% endif %}";
/// The built-in text.
pub const TEXT: &str = include_str!("template/text.j2");

/// A notification in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// One line.
    pub title: String,
    /// The body, lines ended by `\n`.
    pub text: String,
}

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{text}", .line.map(|line| format!("line {line} of the template: ")).unwrap_or_default())]
pub struct TemplateError {
    /// Its line, from 1, where known.
    pub line: Option<usize>,
    /// What, and with which incident.
    pub text: String,
}

/// The templates of one receiver, ready to be rendered.
#[derive(Debug)]
pub struct Voice {
    templates: Environment<'static>,
    receiver: String,
}

impl Voice {
    /// Compiles the templates of `receiver`; the error says which one is wrong.
    pub fn new(receiver: &str, own: &Templates) -> Result<Self, TemplateError> {
        let mut templates = Environment::new();
        // A variable that is misspelt is found; one that an incident does not have may be asked for with `if`.
        templates.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        templates.set_auto_escape_callback(|_| AutoEscape::None);
        templates.set_fuel(Some(FUEL));
        templates.set_trim_blocks(true);
        templates.set_lstrip_blocks(true);
        let sources = [
            (OWN_TITLE, own.title.as_deref().unwrap_or(TITLE)),
            (OWN_TEXT, own.text.as_deref().unwrap_or(TEXT)),
            (BUILT_IN_TITLE, TITLE),
            (BUILT_IN_TEXT, TEXT),
        ];
        for (name, source) in sources {
            let added = templates.add_template_owned(name, source.to_owned());
            added.map_err(|err| wrong(&err, None))?;
        }
        Ok(Self {
            templates,
            receiver: receiver.to_owned(),
        })
    }

    /// `alert` in words.
    pub fn render(&self, alert: &Alert) -> Rendered {
        self.try_render(alert).unwrap_or_else(|err| {
            tracing::warn!(receiver = %self.receiver, kind = %alert.incident.kind, "its template failed, the built-in one is used: {err}");
            let context = Value::from_serialize(context::of(alert, &self.receiver));
            let built_in = |name, limit| self.one(name, &context, limit).unwrap_or_else(|_| alert.incident.summary.clone());
            tidy(&built_in(BUILT_IN_TITLE, TITLE_BYTES), &built_in(BUILT_IN_TEXT, TEXT_BYTES))
        })
    }

    /// The same, or what is wrong with the receiver's own templates.
    pub fn try_render(&self, alert: &Alert) -> Result<Rendered, TemplateError> {
        let context = Value::from_serialize(context::of(alert, &self.receiver));
        let title = self.one(OWN_TITLE, &context, TITLE_BYTES);
        let title = title.map_err(|err| wrong(&err, Some(alert)))?;
        let text = self.one(OWN_TEXT, &context, TEXT_BYTES);
        let text = text.map_err(|err| wrong(&err, Some(alert)))?;
        Ok(tidy(&title, &text))
    }

    fn one(&self, name: &str, context: &Value, limit: usize) -> Result<String, minijinja::Error> {
        let mut out = Bounded {
            bytes: Vec::new(),
            limit,
        };
        let done = self
            .templates
            .get_template(name)?
            .render_captured_to(context, &mut out);
        // What is over the limit is left out: everything that comes before it was worth sending.
        if out.bytes.len() < limit {
            done?;
        }
        Ok(String::from_utf8_lossy(&out.bytes).into_owned())
    }
}

/// Checks templates by rendering them for an incident of every kind, at its beginning and its end.
pub fn check(templates: &Templates) -> Result<(), TemplateError> {
    let voice = Voice::new("check", templates)?;
    samples()
        .iter()
        .try_for_each(|alert| voice.try_render(alert).map(drop))
}

const OWN_TITLE: &str = "title";
const OWN_TEXT: &str = "text";
const BUILT_IN_TITLE: &str = "built-in title";
const BUILT_IN_TEXT: &str = "built-in text";

/// Takes what there is room for, and then no more.
struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.limit - self.bytes.len();
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if room < bytes.len() {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the text is too long"));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn wrong(err: &minijinja::Error, alert: Option<&Alert>) -> TemplateError {
    let mut text = err.kind().to_string();
    if let Some(detail) = err.detail() {
        text = format!("{text}: {detail}");
    }
    if let Some(alert) = alert {
        text = format!(
            "{text} (for an incident of kind {}, {}); `| default('')` takes what an incident may lack",
            alert.incident.kind, alert.event
        );
    }
    TemplateError {
        line: err.line(),
        text,
    }
}

/// One line, and lines; no control characters, and none that turn the direction of what follows.
fn tidy(title: &str, text: &str) -> Rendered {
    let shown =
        |c: &char| !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}');
    let line = |line: &str| -> String {
        let clean = line
            .chars()
            .filter(shown)
            .map(|c| if c.is_control() { ' ' } else { c });
        clean.collect::<String>().trim_end().to_owned()
    };
    let title = line(title.trim());
    let lines: Vec<String> = text.trim().lines().map(line).collect();
    Rendered {
        title: if title.is_empty() {
            "Fleet Watchdog".to_owned()
        } else {
            title
        },
        text: lines.join("\n"),
    }
}

#[cfg(test)]
mod tests;
