//! Operators: boxes, tokens, codes, roles, and the errors that a script meets.

use serde_json::json;

use crate::fixture::{Running, beat, request};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_boxs_life() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path(), "").await;
    let add = json!({"name": "box-1", "labels": {"site": "fsn1"}, "witness_tcp": "192.0.2.1:22"}).to_string();
    let (status, added) = server.admin("POST", "/v1/boxes", &add).await;
    assert_eq!(status, 201);
    let old = added["token"].as_str().unwrap().to_owned();
    assert_eq!(server.admin("POST", "/v1/boxes", &add).await.0, 409);
    server.add_box("other").await;

    let (_, found) = server
        .admin("GET", "/v1/boxes?label=site=fsn1&q=BOX&state=unseen", "")
        .await;
    assert_eq!(
        (found["total"].as_u64(), found["boxes"][0]["name"].as_str()),
        (Some(1), Some("box-1"))
    );
    assert_eq!(
        server.admin("GET", "/v1/boxes?state=live", "").await.1["total"],
        0
    );
    let (_, page) = server.admin("GET", "/v1/boxes?per_page=1", "").await;
    assert_eq!(
        (page["total"].as_u64(), page["next_page"].as_u64()),
        (Some(2), Some(2))
    );
    let (_, page) = server.admin("GET", "/v1/boxes?per_page=1&page=2", "").await;
    assert_eq!(
        (page["boxes"][0]["name"].as_str(), page["next_page"].as_u64()),
        (Some("other"), None)
    );

    let send = async |token: &str, seq: u64| {
        server
            .send("POST", "/v1/heartbeat", token, beat(seq).to_string().as_bytes())
            .await
            .status
    };
    assert_eq!(send(&old, 1).await, 200);
    let (_, rotated) = server.admin("POST", "/v1/boxes/box-1/rotate", "").await;
    let new = rotated["token"].as_str().unwrap().to_owned();
    assert_eq!(
        (send(&old, 2).await, send(&new, 3).await),
        (200, 200),
        "both are good for a while"
    );
    let (_, shown) = server.admin("GET", "/v1/boxes/box-1", "").await;
    assert_eq!(
        (shown["state"].as_str(), shown["witnesses"][0].as_str()),
        (Some("live"), Some("192.0.2.1:22"))
    );
    assert_eq!(server.admin("POST", "/v1/boxes/box-1/revoke", "").await.0, 204);
    assert_eq!((send(&old, 4).await, send(&new, 5).await), (401, 401));
    assert_eq!(server.admin("DELETE", "/v1/boxes/box-1", "").await.0, 204);
    assert_eq!(server.admin("GET", "/v1/boxes/box-1", "").await.0, 404);
    server.stop().await;

    let server = Running::start(dir.path(), "").await;
    assert_eq!(
        server.admin("GET", "/v1/boxes", "").await.1["total"],
        1,
        "the rest is there after a restart"
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn enrolment_by_code() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path(), "").await;
    let (status, made) = server.admin("POST", "/v1/enroll-codes", "{\"uses\":2}").await;
    assert_eq!(status, 201);
    let enroll = async |code: &str, name: &str| {
        let body = json!({"code": code, "name": name, "labels": {"site": "hel1"}}).to_string();
        server
            .raw(&request("POST", "/v1/enroll", &[], body.as_bytes()))
            .await
    };
    let code = made["code"].as_str().unwrap();
    let answer = enroll(code, "new-1").await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert!(answer.head.contains("cache-control: no-store"));
    let token = answer.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(
        server
            .send("POST", "/v1/heartbeat", &token, beat(1).to_string().as_bytes())
            .await
            .status,
        200
    );
    let (_, shown) = server.admin("GET", "/v1/boxes/new-1", "").await;
    assert_eq!(shown["labels"]["site"], "hel1");
    assert_eq!(
        enroll(code, "new-1").await.status,
        409,
        "nobody takes another box's name"
    );
    assert_eq!(enroll("fwe_wrong", "new-2").await.status, 403);
    assert_eq!(enroll(code, "bad name").await.status, 400);
    assert_eq!(enroll(code, "new-2").await.status, 201);
    assert_eq!(enroll(code, "new-3").await.status, 403, "it is used up");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path(), "").await;
    let make = async |name: &str, role: &str| {
        let body = json!({"name": name, "role": role}).to_string();
        let (status, made) = server.admin("POST", "/v1/operators", &body).await;
        assert_eq!(status, 201, "{made}");
        made["token"].as_str().unwrap().to_owned()
    };
    let (viewer, operator) = (make("vera", "viewer").await, make("otto", "operator").await);
    let ask = async |token: &str, method: &str, path: &str, body: &str| {
        server.send(method, path, token, body.as_bytes()).await.status
    };
    assert_eq!(ask(&viewer, "GET", "/v1/boxes", "").await, 200);
    assert_eq!(ask(&viewer, "POST", "/v1/boxes", "{\"name\":\"a\"}").await, 403);
    assert_eq!(ask(&viewer, "POST", "/v1/incidents/1/ack", "").await, 403);
    assert_eq!(ask(&operator, "POST", "/v1/boxes", "{\"name\":\"a\"}").await, 201);
    assert_eq!(ask(&operator, "DELETE", "/v1/boxes/a", "").await, 403);
    assert_eq!(ask(&operator, "GET", "/v1/operators", "").await, 403);
    let box_token = server.add_box("b").await;
    assert_eq!(
        ask(&box_token, "GET", "/v1/boxes", "").await,
        401,
        "a box is no operator"
    );
    assert_eq!(server.admin("DELETE", "/v1/operators/admin", "").await.0, 409);
    assert_eq!(server.admin("DELETE", "/v1/operators/vera", "").await.0, 204);
    assert_eq!(ask(&viewer, "GET", "/v1/boxes", "").await, 401);
    server.stop().await;

    // Who removes the file gets a new token at the next start, and the old one is good no longer.
    let old = server_admin(dir.path());
    std::fs::remove_file(dir.path().join("data/admin.token")).unwrap();
    let server = Running::start(dir.path(), "").await;
    assert_ne!(server.admin, old);
    assert_eq!(server.send("GET", "/v1/boxes", &old, b"").await.status, 401);
    assert_eq!(server.send("GET", "/v1/boxes", &operator, b"").await.status, 200);
    server.stop().await;
}

fn server_admin(dir: &std::path::Path) -> String {
    std::fs::read_to_string(dir.join("data/admin.token"))
        .unwrap()
        .trim()
        .to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_script_gets_wrong_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path(), "").await;
    let cases = [
        ("GET", "/v1/boxes?stat=live", "", 400, "stat"),
        ("GET", "/v1/boxes?state=alive", "", 400, "unseen, live"),
        ("GET", "/v1/boxes?page=0", "", 400, "page"),
        ("GET", "/v1/boxes?page=x", "", 400, "page"),
        ("GET", "/v1/boxes?per_page=5000", "", 400, "1000"),
        ("GET", "/v1/boxes?label=site", "", 400, "label=site=fsn1"),
        ("GET", "/v1/boxes?q=a&q=b", "", 400, "once"),
        ("GET", "/v1/boxes/nobody", "", 404, "nobody"),
        ("GET", "/v1/boxes/%2e%2e%2f", "", 404, "there is no"),
        ("GET", "/v1/boxes/%ff", "", 404, ""),
        ("POST", "/v1/boxes", "{}", 400, "name"),
        ("POST", "/v1/boxes", "{\"name\":\"a b\"}", 400, "name"),
        (
            "POST",
            "/v1/boxes",
            "{\"name\":\"a\",\"lables\":{}}",
            400,
            "lables",
        ),
        (
            "POST",
            "/v1/boxes",
            "{\"name\":\"a\",\"labels\":{\"job\":\"x\"}}",
            400,
            "reserved",
        ),
        (
            "POST",
            "/v1/boxes",
            "{\"name\":\"a\",\"witness_tcp\":\"http://x\"}",
            400,
            "host:port",
        ),
        ("POST", "/v1/boxes/nobody/rotate", "", 404, "nobody"),
        ("POST", "/v1/enroll-codes", "{\"uses\":0}", 400, "uses"),
        (
            "POST",
            "/v1/enroll-codes",
            "{\"expires_secs\":99999999}",
            400,
            "expires_secs",
        ),
        ("GET", "/v1/incidents?kind=dark", "", 400, "box_dark"),
        ("GET", "/v1/incidents?open=maybe", "", 400, "open"),
        ("GET", "/v1/incidents/7", "", 404, "7"),
        ("GET", "/v1/incidents/x", "", 404, "x"),
        ("POST", "/v1/incidents/7/ack", "{\"note\":\"a\\nb\"}", 400, "note"),
        ("POST", "/v1/incidents/7/ack", "", 404, "7"),
        (
            "POST",
            "/v1/operators",
            "{\"name\":\"a\",\"role\":\"king\"}",
            400,
            "role",
        ),
        ("DELETE", "/v1/boxes", "", 405, "DELETE"),
        ("GET", "/", "", 404, "/v1/"),
    ];
    for (method, path, body, status, says) in cases {
        let answer = server.send(method, path, &server.admin, body.as_bytes()).await;
        assert_eq!(answer.status, status, "{method} {path} {body}: {answer:?}");
        assert!(
            answer.body.contains(says),
            "{method} {path} {body}: {answer:?} lacks {says:?}"
        );
        assert!(
            answer.head.contains("application/problem+json"),
            "{method} {path}: {answer:?}"
        );
    }
    let list = server.raw(&request("GET", "/v1/boxes", &[], b"")).await;
    assert_eq!(list.status, 401);
    assert!(list.head.contains("www-authenticate: bearer"), "{}", list.head);
    server.stop().await;
}
