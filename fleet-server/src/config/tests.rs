//! What an operator is told about a configuration file.

use std::path::Path;
use std::time::Duration;

use protocol::incident::{Kind, Severity};

use super::parse;
use crate::settings::{ReceiverKind, Settings};

fn read(text: &str) -> Result<Settings, String> {
    parse(Path::new("/etc/fleet-server/fleet-server.toml"), text.as_bytes()).map_err(|err| err.to_string())
}

const GOOD: &str = r#"
listen = "127.0.0.1:8470"
data_dir = "/var/lib/fleet-server"
public_url = "https://fleet.example.net"
[liveness]
every = "1s"
dark_after = "6s"
dark_after_max = "30s"
[[receiver]]
name = "hook"
webhook = { url = "http://127.0.0.1:9999/alert?x=1" }
[[receiver]]
name = "am"
alertmanager = { urls = ["http://127.0.0.1:9093"] }
[[route]]
match = { severity = "page", kind = ["box_dark", "site_dark"], box = "box-1", labels = { site = "fsn1" } }
receivers = ["hook"]
[[route]]
receivers = []
"#;

#[test]
fn the_documented_file_is_read() {
    let settings = read(GOOD).unwrap();
    assert_eq!(settings.liveness.dark_after, Duration::from_secs(6));
    assert!(matches!(settings.receivers[1].kind, ReceiverKind::Alertmanager(ref am) if am.urls.len() == 1));
    let route = &settings.routes[0];
    assert_eq!(route.matcher.severity, [Severity::Page]);
    assert_eq!(route.matcher.kind, [Kind::BoxDark, Kind::SiteDark]);
    assert_eq!(route.matcher.labels.get("site"), Some("fsn1"));
    assert!(settings.routes[1].receivers.is_empty());
}

const ON_CALL: &str = r#"
[[receiver]]
name = "hook"
webhook = { url = "http://127.0.0.1:9999/" }
[[receiver]]
name = "phone"
webhook = { url = "http://127.0.0.1:9998/" }
[[route]]
match = { severity = "page", labels = { customer = "acme" } }
receivers = ["hook"]
when = { days = ["mon-fri"], hours = "08:00-18:00", time_zone = "Europe/Berlin" }
steps = [{ after = "5m", receivers = ["phone"] }, { after = "15m", receivers = ["hook", "phone"] }]
remind = "1h"
remind_acked = "8h"
[[route]]
receivers = ["phone"]
when = { days = ["fri-mon", "wed"], hours = ["22:00-06:00", "12:00-13:00"] }
[[severity]]
match = { kind = "backup", labels = { tier = "gold" } }
severity = "page"
[flapping]
after = 6
within = "1h"
"#;

#[test]
fn routes_with_steps_hours_and_reminders_are_read() {
    let settings = read(ON_CALL).unwrap();
    let route = &settings.routes[0];
    let hour = Duration::from_secs(3600);
    assert_eq!((route.remind, route.remind_acked), (Some(hour), Some(8 * hour)));
    let steps: Vec<_> = route
        .steps
        .iter()
        .map(|step| (step.after.as_secs(), step.receivers.len()))
        .collect();
    assert_eq!(steps, [(300, 1), (900, 2)]);
    let open = |route: usize, at: &str| {
        settings.routes[route]
            .when
            .as_ref()
            .unwrap()
            .at(at.parse().unwrap())
            .open
    };
    // A Monday in winter, then in summer.
    assert!(open(0, "2026-01-12T07:00:00Z") && !open(0, "2026-01-12T06:59:59Z"));
    assert!(open(0, "2026-07-13T06:00:00Z") && !open(0, "2026-07-13T16:00:00Z"));
    assert!(!open(0, "2026-01-11T12:00:00Z"), "a Sunday");
    assert!(
        open(1, "2026-01-12T23:00:00Z") && open(1, "2026-01-13T05:59:59Z"),
        "Monday night"
    );
    assert!(!open(1, "2026-01-13T23:00:00Z"), "not Tuesday");
    assert!(open(1, "2026-01-14T12:30:00Z"), "Wednesday noon");
    let rules = &settings.incidents;
    assert_eq!(
        (rules.severities.len(), rules.severities[0].severity),
        (1, Severity::Page)
    );
    let flapping = rules.flapping.unwrap();
    assert_eq!(
        (flapping.after, flapping.within, flapping.calm),
        (6, hour, hour / 6)
    );
    assert!(
        read("[flapping]\nenabled = false")
            .unwrap()
            .incidents
            .flapping
            .is_none()
    );
}

#[test]
fn an_empty_file_gives_the_defaults() {
    let settings = read("").unwrap();
    assert_eq!(settings.listen.to_string(), "127.0.0.1:8470");
    assert_eq!(settings.liveness.dark_after_max, Duration::from_secs(30));
    assert!(settings.receivers.is_empty() && settings.tls.is_none());
}

#[test]
fn a_slower_fleet_gets_longer_defaults() {
    let settings = read("[liveness]\nevery = \"10s\"").unwrap();
    assert_eq!(settings.liveness.dark_after, Duration::from_secs(60));
}

#[test]
fn the_shipped_example_is_valid() {
    read(include_str!("../../../deploy/etc/fleet-server/fleet-server.toml")).unwrap();
}

#[test]
fn every_mistake_names_file_line_key_value_and_fix() {
    // The text, the line, and what the message must hold: key, value, fix.
    let hook = "[[receiver]]\nname = \"hook\"\nwebhook = { url = \"http://h/\" }\n";
    let with_hook = |more: &str| format!("{hook}{more}");
    let mistakes: Vec<(String, usize, &[&str])> = vec![
        ("listen = 8470".into(), 1, &["listen = 8470", "type integer", "a text in quotes"]),
        ("listen = \"localhost\"".into(), 1, &["listen", "\"localhost\"", "127.0.0.1:8470"]),
        ("listen = \"1.2.3.4:99999\"".into(), 1, &["listen", "99999", "port"]),
        ("\nlisten = \"\"".into(), 2, &["listen", "must not be empty"]),
        ("listne = \"127.0.0.1:1\"".into(), 1, &["listne", "did you mean \"listen\""]),
        ("data_dir = \"data\"".into(), 1, &["data_dir = \"data\"", "absolute"]),
        ("public_url = \"fleet\"".into(), 1, &["public_url", "no URL", "https://"]),
        ("public_url = \"https://a?b\"".into(), 1, &["public_url", "must end with its host or path"]),
        ("public_url = \"ftp://a\"".into(), 1, &["public_url", "\"ftp\"", "https://"]),
        ("[tls]\ncert_file = \"/etc/hosts\"".into(), 1, &["tls.key_file", "missing", "PEM"]),
        ("[tls]\ncert_file = \"/no/such\"\nkey_file = \"/etc/hosts\"".into(), 2, &["tls.cert_file", "/no/such", "cannot be read"]),
        ("[liveness]\nevery = 1".into(), 2, &["liveness.every = 1", "unit", "90s"]),
        ("[liveness]\nevery = \"10ms\"".into(), 2, &["liveness.every", "10ms", "250ms to 1h"]),
        ("[liveness]\nevery = \"soon\"".into(), 2, &["liveness.every", "soon", "no duration"]),
        ("[liveness]\ndark_after = \"1s\"".into(), 2, &["liveness.dark_after", "1s", "two beats (2s)"]),
        ("[liveness]\ndark_after_max = \"3s\"".into(), 2, &["liveness.dark_after_max", "3s", "dark_after (6s)"]),
        ("[liveness]\ntolerance = \"7s\"".into(), 2, &["liveness.tolerance", "7s", "dark_after (6s)"]),
        ("[liveness]\nfalse_alarms_per_box_year = -1".into(), 2, &["false_alarms_per_box_year = -1", "0.001 to 1000"]),
        ("[liveness]\nfalse_alarms_per_box_year = nan".into(), 2, &["false_alarms_per_box_year = nan", "0.001 to 1000"]),
        ("[liveness]\ndark = \"6s\"".into(), 2, &["liveness.dark:", "no such key", "dark_after"]),
        ("[liveness]\nwarm_up = \"2h\"".into(), 2, &["liveness.warm_up", "2h", "10m"]),
        ("[receiver]\nname = \"x\"".into(), 1, &["receiver", "[[receiver]]"]),
        ("[[receiver]]\nwebhook = { url = \"http://h/\" }".into(), 1, &["receiver[0]", "has no name"]),
        ("[[receiver]]\nname = \"My Hook\"\nwebhook = { url = \"http://h/\" }".into(), 2, &["receiver[0].name", "My Hook", "a-z"]),
        ("[[receiver]]\nname = \"x\"".into(), 1, &["receiver[0]", "webhook, alertmanager"]),
        ("[[receiver]]\nname = \"x\"\nslak = {}\nwebhook = { url = \"http://h/\" }".into(), 3, &["receiver[0].slak", "did you mean \"slack\""]),
        ("[[receiver]]\nname = \"x\"\nwebhook = { url = \"http://h/\" }\nalertmanager = { urls = [\"http://h\"] }".into(), 1, &["receiver[0]", "make two receivers"]),
        ("[[receiver]]\nname = \"x\"\nwebhook = {}".into(), 3, &["receiver[0].webhook", "has no url"]),
        ("[[receiver]]\nname = \"x\"\nwebhook = { url = \"https://u:hunter2@h/\" }".into(), 3, &["receiver[0].webhook.url", "secret in a file"]),
        ("[[receiver]]\nname = \"x\"\nwebhook = { url = \"http://h/\", secret_file = \"/no/such\" }".into(), 3, &["webhook.secret_file", "/no/such", "cannot be read"]),
        ("[[receiver]]\nname = \"x\"\nwebhook = { url = \"http://h/\", secret_file = \"/dev/null\" }".into(), 3, &["webhook.secret_file", "is empty"]),
        ("[[receiver]]\nname = \"x\"\nalertmanager = { urls = [] }".into(), 3, &["alertmanager.urls", "1 to 8"]),
        ("[[receiver]]\nname = \"x\"\nalertmanager = { url = \"http://h\" }".into(), 3, &["receiver[0].alertmanager", "urls = ["]),
        (with_hook(hook), 1, &["receiver", "\"hook\"", "its own name"]),
        (with_hook("[[route]]\nmatch = { severity = \"loud\" }\nreceivers = [\"hook\"]"), 5, &["route[0].match.severity", "\"loud\"", "page, ticket, info"]),
        (with_hook("[[route]]\nmatch = { kind = [] }\nreceivers = [\"hook\"]"), 5, &["route[0].match.kind", "match nothing"]),
        (with_hook("[[route]]\nmatch = { kind = \"dark\" }\nreceivers = [\"hook\"]"), 5, &["route[0].match.kind", "\"dark\"", "box_dark"]),
        (with_hook("[[route]]\nmatch = { labels = { site = 1 } }\nreceivers = [\"hook\"]"), 5, &["route[0].match.labels", "site", "in quotes"]),
        (with_hook("[[route]]\nmatch = { site = \"fsn1\" }\nreceivers = [\"hook\"]"), 5, &["route[0].match.site", "labels"]),
        (with_hook("[[route]]\nreceivers = [\"hok\"]"), 5, &["route[0].receivers[0]", "\"hok\"", "receivers are hook"]),
        (with_hook("[[route]]\nmatch = { severity = \"page\" }"), 4, &["route[0]", "has no receivers"]),
        ("[dead_man]".into(), 1, &["dead_man", "has no url", "url_file"]),
        ("[dead_man]\nurl = \"hc-ping.com/hunter2\"".into(), 2, &["dead_man.url", "no web address", "https://"]),
        ("[dead_man]\nurl = \"http://hc-ping.com/hunter2\"".into(), 2, &["dead_man.url", "in the clear", "https://"]),
        ("[dead_man]\nurl_file = \"/no/such\"".into(), 2, &["dead_man.url_file", "/no/such", "cannot be read"]),
        ("[dead_man]\nurl_file = \"/dev/null\"".into(), 2, &["dead_man.url_file", "/dev/null", "is empty"]),
        ("[dead_man]\nurl = \"https://h/hunter2\"\nurl_file = \"/x\"".into(), 3, &["dead_man.url_file", "only one"]),
        ("[dead_man]\nurl = \"https://h/\"\nmethod = \"PUT\"".into(), 3, &["dead_man.method", "PUT", "GET"]),
        ("[dead_man]\nurl = \"https://h/\"\nevery = \"2h\"".into(), 3, &["dead_man.every", "2h", "1s to 1h"]),
        ("[dead_man]\nurl = \"https://h/\"\nafter = \"2m\"".into(), 3, &["dead_man.after", "no such key", "unheard_after"]),
        ("[canary]\nevery = \"100ms\"".into(), 2, &["canary.every", "100ms", "1s to 1d"]),
        ("[canary]\ngrace = \"1h\"".into(), 2, &["canary.grace", "1h", "10m"]),
        ("[canary]\nreceiver = \"hok\"".into(), 2, &["canary.receiver", "hok", "no [[receiver]]"]),
        (with_hook("[canary]\nreceiver = \"hok\""), 5, &["canary.receiver", "hok", "receivers are hook"]),
        ("[[receiver]]\nname = \"fleet-canary\"\nwebhook = { url = \"http://h/\" }".into(), 1, &["receiver", "fleet-canary", "own canary"]),
        (with_hook("[[route]]\nreceivers = [\"hook\"]\nremind = \"1ms\""), 6, &["route[0].remind", "1ms", "1s to 7d"]),
        (with_hook("[[route]]\nreceivers = [\"hook\"]\nsteps = [{ after = \"5m\" }]"), 6, &["route[0].steps[0]", "receivers = [\"phone\"]"]),
        (with_hook("[[route]]\nreceivers = [\"hook\"]\nsteps = [{ after = \"5m\", receivers = [\"x\"] }]"), 6, &["route[0].steps[0].receivers[0]", "receivers are hook"]),
        (with_hook("[[route]]\nreceivers = [\"hook\"]\nsteps = [{ after = \"5m\", receivers = [\"hook\"] }, { after = \"4m\", receivers = [\"hook\"] }]"), 6, &["route[0].steps[1]", "later than the step before"]),
        (with_hook("[[route]]\nreceivers = [\"hook\"]\nsteps = [{ after = \"5m\", receivers = [] }]"), 6, &["route[0].steps[0]", "tells nobody"]),
        (with_hook("[[route]]\nreceivers = [\"hook\"]\nwhen = { time_zone = \"UTC\" }"), 6, &["route[0].when", "neither days nor hours"]),
        (with_hook("[[route]]\nreceivers = [\"hook\"]\nwhen = { days = \"monday\" }"), 6, &["route[0].when.days", "\"monday\"", "mon-fri"]),
        (with_hook("[[route]]\nreceivers = [\"hook\"]\nwhen = { hours = \"8-18\" }"), 6, &["route[0].when.hours", "\"8-18\"", "08:00-18:00"]),
        (with_hook("[[route]]\nreceivers = [\"hook\"]\nwhen = { hours = \"08:00-08:00\" }"), 6, &["route[0].when.hours", "00:00-24:00"]),
        (with_hook("[[route]]\nreceivers = [\"hook\"]\nwhen = { days = \"mon\", time_zone = \"Berlin\" }"), 6, &["route[0].when.time_zone", "\"Berlin\"", "Europe/Berlin"]),
        (with_hook("[[route]]\nreceivers = [\"hook\"]\nwhen = { day = \"mon\" }"), 6, &["route[0].when.day", "did you mean \"days\""]),
        ("[[severity]]\nmatch = { kind = \"disk\" }".into(), 1, &["severity[0]", "how loud", "ticket"]),
        ("[[severity]]\nseverity = \"loud\"".into(), 2, &["severity[0].severity", "\"loud\"", "page, ticket, info"]),
        ("[flapping]\nafter = 1".into(), 2, &["flapping.after", "2 to 50"]),
        ("[flapping]\ncalm = \"2d\"".into(), 2, &["flapping.calm", "2d", "1s to 1d"]),
        ("listen = ".into(), 1, &["not valid TOML"]),
        ("[liveness\n".into(), 1, &["not valid TOML"]),
    ];
    assert!(mistakes.len() >= 20);
    for (text, line, wanted) in mistakes {
        let err = read(&text).expect_err(&text);
        let place = format!("/etc/fleet-server/fleet-server.toml:{line}: ");
        assert!(
            err.contains(&place),
            "{text:?}: {err:?} names another line than {line}"
        );
        for word in wanted {
            assert!(err.contains(word), "{text:?}: {err:?} lacks {word:?}");
        }
        assert!(!err.contains("hunter2"), "{err}");
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let err =
        read("listen = 1\ndata_dir = \"x\"\n[liveness]\nevery = 5\n[[receiver]]\nname = \"A\"").unwrap_err();
    assert_eq!(err.lines().count(), 5, "{err}");
}

#[test]
fn what_is_not_text_is_refused() {
    let err = parse(Path::new("f"), b"listen = \"\xff\"")
        .unwrap_err()
        .to_string();
    assert!(err.contains("UTF-8"), "{err}");
}

/// A receiver `x` of this kind, on the third line.
fn receiver(kind: &str) -> String {
    format!("[[receiver]]\nname = \"x\"\n{kind}\n")
}

#[test]
fn every_mistake_in_a_receiver_is_named_and_no_secret_shown() {
    let mistakes: &[(&str, &[&str])] = &[
        ("slack = {}", &["receiver[0].slack", "has no url_file"]),
        (
            "slack = { url = \"https://hooks.slack.com/services/hunter2\" }",
            &["receiver[0].slack.url", "a secret", "url_file"],
        ),
        (
            "slack = { token_file = \"/etc/hosts\" }",
            &["has no channel", "more than one line"],
        ),
        (
            "slack = { url_file = \"/no/such\", chanel = \"C1\" }",
            &["slack.chanel", "did you mean \"channel\""],
        ),
        (
            "discord = { url_file = \"/dev/null\" }",
            &["discord.url_file", "is empty; put the URL of a channel's webhook"],
        ),
        (
            "pagerduty = {}",
            &["receiver[0].pagerduty", "has no routing_key_file"],
        ),
        (
            "pagerduty = { routing_key = \"hunter2\" }",
            &["pagerduty.routing_key:", "did you mean \"routing_key_file\""],
        ),
        (
            "pagerduty = { url = \"http://pd.example.net\", routing_key_file = \"/dev/null\" }",
            &["pagerduty.url", "in the clear"],
        ),
        (
            "telegram = { token_file = \"/no/such\", chat_id = \"ops\" }",
            &["token_file", "cannot be read", "chat_id", "-1001234567890"],
        ),
        ("telegram = { token_file = \"/no/such\" }", &["has no chat_id"]),
        ("ntfy = {}", &["has no topic"]),
        ("ntfy = { topic = \"a b\" }", &["letters, digits"]),
        (
            "ntfy = { topic = \"a\", url = \"http://ntfy.example.net\" }",
            &["ntfy.url", "in the clear"],
        ),
        ("email = {}", &["has no server", "has no from", "has no to"]),
        (
            "email = { server = \"smtp.example.net\", from = \"x\", to = [\"a@example.net\"] }",
            &["email.from", "is no mail address", "ops@example.net"],
        ),
        (
            "email = { server = \"smtp.example.net\", from = \"a@example.net\", to = [] }",
            &["email.to", "1 to 32"],
        ),
        (
            "email = { server = \"smtp.example.net:25\", from = \"a@example.net\", to = \"a@example.net\" }",
            &["email.server", "the port stands in port"],
        ),
        (
            "email = { server = \"smtp.example.net\", username = \"u\", from = \"a@example.net\", to = \"a@example.net\" }",
            &["only one of username and password_file"],
        ),
        (
            "email = { server = \"smtp.example.net\", tls = \"none\", from = \"a@example.net\", to = \"a@example.net\" }",
            &["email.server", "in the clear"],
        ),
        (
            "email = { server = \"smtp.example.net\", tls = \"ssl\", from = \"a@example.net\", to = \"a@example.net\" }",
            &["email.tls", "starttls, tls, none"],
        ),
        ("command = {}", &["has no argv"]),
        (
            "command = { argv = \"/bin/sh\" }",
            &["command.argv", "must be a list"],
        ),
        (
            "command = { argv = [\"on-call\"] }",
            &["command.argv[0]", "absolute path"],
        ),
        (
            "command = { argv = [\"/no/such\"] }",
            &["command.argv[0]", "no such program"],
        ),
        (
            "command = { argv = [\"/bin/sh\"], timeout = \"5m\" }",
            &["command.timeout", "1s to 1m"],
        ),
        (
            "title = \"{{ sumary }}\"\ncommand = { argv = [\"/bin/sh\"] }",
            &["receiver[0].title", "line 1 of the template", "undefined"],
        ),
        (
            "text = \"\"\"\nBox {{ box }}\n{% if link %}\"\"\"\ncommand = { argv = [\"/bin/sh\"] }",
            &["receiver[0].text", "line 2 of the template", "syntax"],
        ),
        (
            "text = \"{{ details.group }}\"\ncommand = { argv = [\"/bin/sh\"] }",
            &["receiver[0].text", "kind box_dark", "default"],
        ),
        (
            "text = \"x\"\ntext_file = \"/no/such\"\ncommand = { argv = [\"/bin/sh\"] }",
            &["both text and text_file"],
        ),
        (
            "text_file = \"/no/such\"\ncommand = { argv = [\"/bin/sh\"] }",
            &["receiver[0].text_file", "/no/such", "cannot be read"],
        ),
    ];
    for (text, wanted) in mistakes {
        let err = read(&receiver(text)).expect_err(text);
        for word in *wanted {
            assert!(err.contains(word), "{text}: {err:?} lacks {word:?}");
        }
        assert!(!err.contains("hunter2"), "{err}");
    }
}

#[test]
fn a_mistake_in_a_template_file_names_that_file_and_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("page.j2");
    std::fs::write(&file, "{{ summary }}\n\n{{ box | shout }}\n").unwrap();
    let text = format!("command = {{ argv = [\"/bin/sh\"] }}\ntext_file = {file:?}");
    let err = read(&receiver(&text)).unwrap_err();
    assert!(
        err.contains("fleet-server.toml:4: receiver[0].text_file"),
        "{err}"
    );
    assert!(
        err.contains(&format!("{}:3: ", file.display())) && err.contains("shout"),
        "{err}"
    );
}

#[test]
fn secrets_come_from_files_and_are_never_printed() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, format!("{content}\n")).unwrap();
        path
    };
    let url = file("url", "https://hooks.slack.com/services/T0/B0/hunter2");
    let key = file("key", "hunter2-hunter2-hunter2-hunter2-");
    let topic = file("topic", "hunter2");
    let text = format!(
        "{}{}{}",
        receiver(&format!("slack = {{ url_file = {url:?} }}")),
        receiver(&format!("pagerduty = {{ routing_key_file = {key:?} }}")).replace("\"x\"", "\"y\""),
        receiver(&format!("ntfy = {{ topic_file = {topic:?} }}")).replace("\"x\"", "\"z\""),
    );
    let settings = read(&text).unwrap();
    assert!(!format!("{settings:?}").contains("hunter2"), "{settings:?}");
    let places: Vec<String> = settings
        .receivers
        .iter()
        .map(|receiver| receiver.kind.place())
        .collect();
    assert_eq!(
        places,
        ["hooks.slack.com:443", "events.pagerduty.com:443", "ntfy.sh:443"]
    );
    let wrong = file("wrong", "hooks.slack.com/services/hunter2");
    let err = read(&receiver(&format!("slack = {{ url_file = {wrong:?} }}"))).unwrap_err();
    assert!(
        err.contains("one URL, https://") && !err.contains("hunter2"),
        "{err}"
    );
}

#[test]
fn whom_the_server_asks_about_itself_is_whom_it_must_reach_unless_it_is_told() {
    const FAR: &str = r#"
[dead_man]
url = "https://hc-ping.com/3e0b1f6c-secret"
[[receiver]]
name = "near"
alertmanager = { urls = ["http://127.0.0.1:9093", "http://[fd00::7]:9093"] }
[[receiver]]
name = "far"
webhook = { url = "https://Hooks.Example.NET/alert?token=secret" }
[[receiver]]
name = "again"
webhook = { url = "https://hooks.example.net/other" }
[[receiver]]
name = "six"
webhook = { url = "http://[2001:db8::1]:8080/" }
"#;
    let own = |text: &str| read(text).unwrap().witness.own;
    assert_eq!(
        own(FAR),
        ["hc-ping.com:443", "hooks.example.net:443", "[2001:db8::1]:8080"]
    );
    assert_eq!(own(&format!("{FAR}[witness]\nself = []\n")), Vec::<String>::new());
    let told = own(&format!("{FAR}[witness]\nself = [\"192.0.2.1:443\"]\n"));
    assert_eq!(told, ["192.0.2.1:443"]);
    assert_eq!(own(""), Vec::<String>::new());
}
