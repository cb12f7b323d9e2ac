//! What a server makes of beats that are wrong in every way that can be thought of: the right refusal, and no change.

use serde_json::{Value, json};

use crate::fixture::{Answer, Running, beat, request};

/// What is sent, and what it must be answered.
struct Case {
    what: &'static str,
    bytes: Vec<u8>,
    status: u16,
    /// What the problem must hold (its field, its kind, or its text); empty for what the HTTP layer itself refuses.
    says: &'static str,
}

/// A good beat with one thing changed.
fn with(path: &str, value: Value) -> Value {
    let mut beat = full();
    match beat.pointer_mut(path) {
        Some(place) => *place = value,
        None => {
            beat.as_object_mut()
                .unwrap()
                .insert(path.trim_start_matches('/').to_owned(), value);
        }
    }
    beat
}

fn without(key: &str) -> Value {
    let mut beat = full();
    beat.as_object_mut().unwrap().remove(key);
    beat
}

fn full() -> Value {
    let mut beat: Value =
        serde_json::from_str(include_str!("../../../protocol/golden/heartbeat-full.json")).unwrap();
    beat["seq"] = json!(100);
    beat.as_object_mut().unwrap().remove("goodbye");
    beat
}

fn nested(depth: usize) -> String {
    format!("{{\"values\":{}{}}}", "[".repeat(depth), "]".repeat(depth))
}

fn cases(token: &str, revoked: &str, expired: &str, operator: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    let bearer = format!("Bearer {token}");
    let auth = [("authorization", bearer.as_str())];
    let mut add = |what, bytes, status, says| {
        cases.push(Case {
            what,
            bytes,
            status,
            says,
        });
    };
    let post = |body: &[u8]| request("POST", "/v1/heartbeat", &auth, body);
    let text = |value: &Value| post(value.to_string().as_bytes());

    // Who.
    let good = beat(100).to_string();
    let as_who = |value: &str| {
        request(
            "POST",
            "/v1/heartbeat",
            &[("authorization", value)],
            good.as_bytes(),
        )
    };
    add(
        "no token",
        request("POST", "/v1/heartbeat", &[], good.as_bytes()),
        401,
        "Bearer",
    );
    add("an unknown token", as_who("Bearer fwb_0000"), 401, "unknown");
    add(
        "a revoked token",
        as_who(&format!("Bearer {revoked}")),
        401,
        "revoked",
    );
    add(
        "an expired token",
        as_who(&format!("Bearer {expired}")),
        401,
        "expired",
    );
    add(
        "an operator's token",
        as_who(&format!("Bearer {operator}")),
        401,
        "unknown",
    );
    add("another scheme", as_who(&format!("Basic {token}")), 401, "Bearer");
    add("an empty token", as_who("Bearer "), 401, "Bearer");
    add(
        "a token with one letter more",
        as_who(&format!("Bearer {token}0")),
        401,
        "unknown",
    );
    add(
        "a huge token",
        as_who(&format!("Bearer {}", "x".repeat(4000))),
        401,
        "Bearer",
    );
    add("a token that is not ASCII", as_who("Bearer tökén"), 401, "ASCII");
    let two = [
        ("authorization", bearer.as_str()),
        ("authorization", "Bearer fwb_1"),
    ];
    add(
        "two tokens",
        request("POST", "/v1/heartbeat", &two, good.as_bytes()),
        401,
        "one header",
    );

    // How.
    add("GET", request("GET", "/v1/heartbeat", &auth, b""), 405, "GET");
    add(
        "PUT",
        request("PUT", "/v1/heartbeat", &auth, good.as_bytes()),
        405,
        "PUT",
    );
    add(
        "another path",
        request("POST", "/v2/heartbeat", &auth, good.as_bytes()),
        404,
        "/v2/heartbeat",
    );
    let form = format!(
        "POST /v1/heartbeat HTTP/1.1\r\nhost: f\r\nconnection: close\r\nauthorization: {bearer}\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: 3\r\n\r\na=b"
    );
    add("a form", form.into_bytes(), 415, "application/json");
    let head = |more: &str| {
        format!("POST /v1/heartbeat HTTP/1.1\r\nhost: f\r\nauthorization: {bearer}\r\n{more}\r\n\r\n")
            .into_bytes()
    };
    add(
        "a length that is no number",
        head("content-length: many"),
        400,
        "",
    );
    add("a negative length", head("content-length: -1"), 400, "");
    add(
        "two lengths",
        head("content-length: 5\r\ncontent-length: 6"),
        400,
        "",
    );
    add(
        "a length over the limit",
        head("content-length: 99999999999"),
        413,
        "65536",
    );
    let chunked = |chunks: usize| {
        let mut bytes = head("transfer-encoding: chunked");
        for _ in 0..chunks {
            bytes.extend_from_slice(b"1000\r\n");
            bytes.extend(std::iter::repeat_n(b' ', 0x1000));
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        bytes
    };
    add("a chunked body over the limit", chunked(20), 413, "65536");
    add(
        "a chunk without a size",
        [head("transfer-encoding: chunked"), b"zz\r\n{}\r\n".to_vec()].concat(),
        400,
        "the body",
    );
    add("too many headers", head(&"x: y\r\n".repeat(200)), 431, "");
    add(
        "a head over the buffer",
        head(&format!("x: {}", "y".repeat(70_000))),
        431,
        "",
    );
    add(
        "no HTTP at all",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(),
        400,
        "",
    );

    // What: not JSON, not an object, not a whole one.
    add("an empty body", post(b""), 400, "the body");
    add("not JSON", post(b"beat"), 400, "the body");
    add("half a beat", post(&good.as_bytes()[..good.len() / 2]), 400, "");
    add(
        "two beats",
        post(format!("{good}{good}").as_bytes()),
        400,
        "the body",
    );
    add("a list", post(b"[]"), 400, "the body");
    add("null", post(b"null"), 400, "the body");
    add(
        "bad UTF-8",
        post(&[good.as_bytes(), b"\xff\xfe"].concat()),
        400,
        "the body",
    );
    add(
        "bad UTF-8 in a text",
        post(good.replace("2026-11", "20\u{fffd}6").as_bytes()),
        400,
        "sent_at",
    );
    add(
        "a lone surrogate",
        post(
            with("/units", json!([]))
                .to_string()
                .replace("\"units\":[]", "\"units\":[{\"name\":\"\\ud800\"}]")
                .as_bytes(),
        ),
        400,
        "units",
    );
    add("a NUL", post(b"\0\0\0\0"), 400, "the body");
    add("deep nesting", post(nested(100_000 / 4).as_bytes()), 400, "");
    add(
        "deep nesting in a known place",
        text(&with(
            "/report/checks/0/values",
            serde_json::from_str(&nested(100)).unwrap(),
        )),
        400,
        "report.checks[0].values",
    );
    add("a body over the limit", post(&vec![b' '; 70_000]), 413, "65536");
    add(
        "the same key twice",
        post(good.replacen('{', "{\"seq\":1,", 1).as_bytes()),
        400,
        "seq",
    );

    // What: fields that are missing, of another type, or out of bounds.
    for key in ["boot_id", "session", "seq", "every_ms", "sent_at"] {
        add("a field is missing", text(&without(key)), 400, key);
    }
    add(
        "a boot id that is none",
        text(&with("/boot_id", json!("abc"))),
        400,
        "boot_id",
    );
    add(
        "a session that is a number",
        text(&with("/session", json!(5))),
        400,
        "session",
    );
    add("a negative seq", text(&with("/seq", json!(-1))), 400, "seq");
    add(
        "a seq with a fraction",
        text(&with("/seq", json!(1.5))),
        400,
        "seq",
    );
    add("a seq as text", text(&with("/seq", json!("17"))), 400, "seq");
    add(
        "a seq over 2^53",
        text(&with("/seq", json!(1_u64 << 53))),
        400,
        "seq",
    );
    add(
        "a seq over 2^64",
        post(
            good.replace("\"seq\":100", "\"seq\":99999999999999999999999")
                .as_bytes(),
        ),
        400,
        "seq",
    );
    add(
        "a huge exponent",
        post(good.replace(":1000", ":1e999").as_bytes()),
        400,
        "every_ms",
    );
    add(
        "NaN",
        post(good.replace(":1000", ":NaN").as_bytes()),
        400,
        "every_ms",
    );
    add(
        "Infinity",
        post(good.replace(":1000", ":Infinity").as_bytes()),
        400,
        "every_ms",
    );
    add(
        "an interval of nothing",
        text(&with("/every_ms", json!(0))),
        400,
        "every_ms",
    );
    add(
        "an interval too short",
        text(&with("/every_ms", json!(249))),
        400,
        "every_ms",
    );
    add(
        "an interval too long",
        text(&with("/every_ms", json!(3_600_001))),
        400,
        "every_ms",
    );
    add(
        "a time that is none",
        text(&with("/sent_at", json!("yesterday"))),
        400,
        "sent_at",
    );
    add(
        "a time of the year 99999",
        text(&with("/sent_at", json!("99999-01-01T00:00:00Z"))),
        400,
        "sent_at",
    );
    add(
        "units that are no list",
        text(&with("/units", json!({}))),
        400,
        "units",
    );
    add(
        "too many units",
        text(&with("/units", Value::from(vec![full()["units"][0].clone(); 9]))),
        400,
        "units",
    );
    add(
        "a unit with a path in its name",
        text(&with("/units/0/name", json!("../x.service"))),
        400,
        "units[0].name",
    );
    add(
        "a state that is no word",
        text(&with("/units/0/active", json!("<b>"))),
        400,
        "units[0].active",
    );
    add(
        "an unknown goodbye",
        text(&with("/goodbye", json!({"why": "tired", "back_within_secs": 1}))),
        400,
        "goodbye.why",
    );
    add(
        "a goodbye for ever",
        text(&with(
            "/goodbye",
            json!({"why": "reboot", "back_within_secs": 86_401}),
        )),
        400,
        "goodbye.back_within_secs",
    );
    add(
        "a pause with a novel",
        text(&with(
            "/paused",
            json!({"until": "2026-11-21T21:00:00Z", "reason": "x".repeat(300)}),
        )),
        400,
        "paused.reason",
    );
    add(
        "a report id that is another's",
        text(&with("/report_id", json!("00000000-0000-4000-8000-000000000000"))),
        400,
        "report_id",
    );
    add(
        "a status that is none",
        text(&with("/report/checks/0/status", json!("fine"))),
        400,
        "report.checks[0].status",
    );
    add(
        "too many checks",
        text(&with(
            "/report/checks",
            Value::from(vec![full()["report"]["checks"][1].clone(); 33]),
        )),
        400,
        "report.checks",
    );
    add(
        "a label that is reserved",
        text(&with("/report/labels", json!({"box": "other"}))),
        400,
        "report.labels",
    );
    add(
        "too many labels",
        {
            let labels: serde_json::Map<_, _> = (0..17).map(|n| (format!("l{n}"), json!("v"))).collect();
            text(&with("/report/labels", labels.into()))
        },
        400,
        "report.labels",
    );
    add(
        "a summary with a novel",
        text(&with("/report/checks/0/summary", json!("x".repeat(600)))),
        400,
        "report.checks[0].summary",
    );
    add(
        "values of many bytes",
        text(&with("/report/checks/0/values", json!({"v": "x".repeat(20_000)}))),
        400,
        "report.checks[0].values",
    );

    // When.
    add("an old seq", text(&beat(4)), 409, "old-seq");
    add("the same seq", text(&beat(5)), 409, "old-seq");
    cases
}

/// All that the server shows of the box, but what changes by itself.
async fn shown(server: &Running) -> Value {
    let (status, mut detail) = server.admin("GET", "/v1/boxes/box-1", "").await;
    assert_eq!(status, 200);
    // From live to suspect is time's doing.
    detail.as_object_mut().unwrap().remove("state");
    detail.as_object_mut().unwrap().remove("state_since");
    detail
}

async fn counted(server: &Running) -> String {
    let metrics = server.raw(&request("GET", "/metrics", &[], b"")).await.body;
    let line = metrics
        .lines()
        .find(|line| line.starts_with("fleet_box_heartbeats_total{box=\"box-1\"}"));
    line.unwrap_or_default().to_owned()
}

fn judge(case: &Case, answer: &Answer) -> Result<(), String> {
    if answer.status != case.status {
        return Err(format!(
            "{}: {} instead of {}: {}",
            case.what, answer.status, case.status, answer.body
        ));
    }
    let problem = answer.json();
    if case.says.is_empty() {
        return Ok(());
    }
    if !answer.head.contains("content-type: application/problem+json") || problem["status"] != case.status {
        return Err(format!(
            "{}: no problem+json: {} {}",
            case.what, answer.head, answer.body
        ));
    }
    if !answer.body.contains(case.says) {
        return Err(format!(
            "{}: {} does not say {:?}",
            case.what, answer.body, case.says
        ));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_beats_are_refused_and_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // Nobody goes dark while the bad ones are sent.
    let patient = "[liveness]\ndark_after = \"10m\"\ndark_after_max = \"10m\"\nwarm_up = \"0s\"\n";
    let server = Running::start(dir.path(), patient).await;
    let token = server.add_box("box-1").await;
    let revoked = server.add_box("revoked").await;
    server.admin("POST", "/v1/boxes/revoked/revoke", "").await;
    let expired = server.add_box("expired").await;
    server
        .admin("POST", "/v1/boxes/expired/rotate", "{\"overlap_secs\":0}")
        .await;
    let accepted = server
        .send("POST", "/v1/heartbeat", &token, beat(5).to_string().as_bytes())
        .await;
    assert_eq!(
        (accepted.status, accepted.json()["every_ms"].as_u64()),
        (200, Some(1000)),
        "{accepted:?}"
    );

    let before = (shown(&server).await, counted(&server).await);
    assert!(before.1.ends_with(" 1"), "{before:?}");
    let cases = cases(&token, &revoked, &expired, &server.admin);
    assert!(cases.len() >= 50, "{}", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        let answer = server.raw(&case.bytes).await;
        wrong.extend(judge(case, &answer).err());
        assert!(!answer.body.contains(&token), "{} repeats the token", case.what);
        // Not faster than a box may: what is counted against the rate is not what this test is about.
        tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
    assert_eq!((shown(&server).await, counted(&server).await), before);
    let next = server
        .send("POST", "/v1/heartbeat", &token, beat(6).to_string().as_bytes())
        .await;
    assert_eq!(next.status, 200, "{next:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_machines_with_one_token_are_refused_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path(), "").await;
    let token = server.add_box("box-1").await;
    let from = |machine: u8, seq: u64| {
        let mut beat = beat(seq);
        beat["session"] = json!(format!("3f1d2f53-8a8e-4f0e-9a57-6f0d1a1b2c0{machine}"));
        beat["boot_id"] = json!(format!("7b0c2b9e-9d0b-4a52-8f27-2f6d6a1f8f0{machine}"));
        beat.to_string()
    };
    let mut refused = Vec::new();
    for seq in 1..12 {
        for machine in [1, 2] {
            let answer = server
                .send("POST", "/v1/heartbeat", &token, from(machine, seq).as_bytes())
                .await;
            if answer.status == 409 {
                refused.push(answer.json()["type"].as_str().unwrap_or_default().to_owned());
            }
            tokio::time::sleep(std::time::Duration::from_millis(130)).await;
        }
    }
    assert!(
        refused.iter().any(|kind| kind == "/problems/duplicate-identity"),
        "{refused:?}"
    );
    let mut found = Value::Null;
    for _ in 0..50 {
        found = server
            .admin("GET", "/v1/incidents?kind=duplicate_identity&box=box-1", "")
            .await
            .1;
        if found["total"] == 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(found["total"], 1, "{found}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_box_that_hammers_is_told_to_wait_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path(), "").await;
    let (loud, calm) = (server.add_box("loud").await, server.add_box("calm").await);
    let mut limited = None;
    for seq in 1..200 {
        let answer = server
            .send("POST", "/v1/heartbeat", &loud, beat(seq).to_string().as_bytes())
            .await;
        if answer.status == 429 {
            limited = Some(answer);
            break;
        }
        assert_eq!(answer.status, 200);
    }
    let limited = limited.expect("a limit");
    assert!(limited.head.contains("retry-after: 1"), "{}", limited.head);
    let other = server
        .send("POST", "/v1/heartbeat", &calm, beat(1).to_string().as_bytes())
        .await;
    assert_eq!(other.status, 200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_seq_is_known_after_a_restart_too() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path(), "").await;
    let token = server.add_box("box-1").await;
    let first = server
        .send("POST", "/v1/heartbeat", &token, beat(50).to_string().as_bytes())
        .await;
    assert_eq!(first.status, 200);
    server.stop().await;
    let server = Running::start(dir.path(), "").await;
    let replay = server
        .send("POST", "/v1/heartbeat", &token, beat(50).to_string().as_bytes())
        .await;
    assert_eq!(replay.status, 409, "{replay:?}");
    let next = server
        .send("POST", "/v1/heartbeat", &token, beat(51).to_string().as_bytes())
        .await;
    assert_eq!(next.status, 200, "{next:?}");
    server.stop().await;
}
