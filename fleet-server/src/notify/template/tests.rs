//! What a person reads, and what an operator is told about a template.

use proptest::prelude::*;
use protocol::incident::{EventKind, Kind};

use super::*;

fn templates(title: &str, text: &str) -> Templates {
    Templates {
        title: Some(title.to_owned()),
        text: Some(text.to_owned()),
    }
}

fn sample(kind: Kind, event: EventKind) -> Alert {
    let all = samples();
    let found = all
        .into_iter()
        .find(|alert| alert.incident.kind == kind && alert.event == event);
    found.unwrap()
}

#[test]
fn the_built_in_text_carries_the_diagnosis() {
    let voice = Voice::new("pager", &Templates::default()).unwrap();
    let shown = |kind, event| {
        let rendered = voice.render(&sample(kind, event));
        format!("{}\n---\n{}", rendered.title, rendered.text)
    };
    insta::assert_snapshot!("dark", shown(Kind::BoxDark, EventKind::Opened));
    insta::assert_snapshot!("back", shown(Kind::BoxDark, EventKind::Resolved));
    insta::assert_snapshot!("site_back", shown(Kind::SiteDark, EventKind::Resolved));
    let mut test = sample(Kind::BoxDark, EventKind::Opened);
    test.test = true;
    let rendered = voice.render(&test);
    assert!(rendered.title.starts_with("[TEST] PAGE: "), "{}", rendered.title);
    assert!(rendered.text.ends_with("Nothing is wrong."), "{}", rendered.text);
}

#[test]
fn the_built_in_templates_suit_every_kind() {
    check(&Templates::default()).unwrap();
}

#[test]
fn a_mistake_is_named_with_its_line_and_the_kind() {
    let said = |text: &str| check(&templates("x", text)).unwrap_err().to_string();
    let syntax = said("one\n{% if box %}");
    assert!(
        syntax.contains("line 2 of the template") && syntax.contains("syntax error"),
        "{syntax}"
    );
    let filter = said("one\ntwo\n{{ box | shout }}");
    assert!(filter.contains("line 3") && filter.contains("shout"), "{filter}");
    let name = said("{{ sumary }}");
    assert!(
        name.contains("line 1") && name.contains("undefined") && name.contains("default"),
        "{name}"
    );
    let detail = said("{{ details.silent_for_secs }}");
    assert!(detail.contains("site_dark"), "{detail}");
    check(&templates(
        "x",
        "{{ details.silent_for_secs | default('-') }}{% if details.group %}g{% endif %}",
    ))
    .unwrap();
}

#[test]
fn work_and_output_are_bounded() {
    let endless = check(&templates(
        "x",
        "{% for a in range(1000) %}{% for b in range(1000) %}{% endfor %}{% endfor %}",
    ));
    assert!(endless.unwrap_err().to_string().contains("fuel"));
    let voice = Voice::new("x", &templates("{{ 'x' * 5000 }}", "{{ 'é' * 100000 }}")).unwrap();
    let rendered = voice.render(&sample(Kind::BoxDark, EventKind::Opened));
    assert_eq!(rendered.title.len(), TITLE_BYTES);
    assert!(rendered.text.len() <= TEXT_BYTES && rendered.text.starts_with('é'));
}

#[test]
fn a_template_that_fails_on_a_real_incident_is_replaced() {
    let voice = Voice::new("x", &templates("{{ details.foo.bar }}", "t")).unwrap();
    let rendered = voice.render(&sample(Kind::BoxDark, EventKind::Opened));
    assert!(
        rendered.title.starts_with("PAGE: box_dark box-17"),
        "{}",
        rendered.title
    );
    assert!(
        rendered.text.contains("Witness: 10.0.0.17:22 is unreachable"),
        "{}",
        rendered.text
    );
}

proptest! {
    #[test]
    fn what_boxes_say_is_never_read_as_a_template(text in "\\PC{0,40}", name in "\\PC{1,20}") {
        let voice = Voice::new("x", &templates("{{ summary }}", "{{ details.name }}")).unwrap();
        let mut alert = sample(Kind::BoxDark, EventKind::Opened);
        alert.incident.summary = format!("{{{{ 7 * 7 }}}}{text}");
        alert.incident.details.insert("name".into(), name.into());
        let rendered = voice.render(&alert);
        prop_assert!(rendered.title.starts_with("{{ 7 * 7 }}"));
        prop_assert!(!rendered.title.contains('\n'));
    }
}
