//! `/v1/silences` and `/v1/maintenance`: what is not to be told, from when until when, by whom and why.
//!
//! Both are kept and listed alike; boxes' own pauses stand among the maintenances.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Request, StatusCode, Uri};
use axum::response::Json;
use jiff::tz::TimeZone;
use protocol::limits;
use protocol::mute::{
    CreateMute, MaintenancePage, MuteKind, MuteRecord, MuteState, MuteView, Signed, SilencePage,
};
use serde::Deserialize;

use super::problem::{Refusal, Segment};
use super::query::Query;
use super::state::App;
use super::{auth, body};
use crate::directory::Role;
use crate::mute::MUTES;

/// What is listed under `/v1/silences` …
const SILENCES: &[MuteKind] = &[MuteKind::Silence];
/// … and under `/v1/maintenance`.
const MAINTENANCE: &[MuteKind] = &[MuteKind::Maintenance, MuteKind::Pause];

/// `POST …/expire` takes nothing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expire {}

/// A listing's rows, the count of all, and the next page.
type Rows = (Vec<MuteView>, u64, Option<u32>);

/// `GET /v1/silences[?state=active|pending|expired&page=&per_page=]`; `state` may be given several times.
pub async fn silences(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Json<SilencePage>, Refusal> {
    let (silences, total, next_page) = list(&app, &headers, &uri, SILENCES).await?;
    Ok(Json(SilencePage {
        silences,
        total,
        next_page,
    }))
}

/// `GET /v1/maintenance[?state=active|pending|expired&page=&per_page=]`; `state` may be given several times.
pub async fn maintenance(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Json<MaintenancePage>, Refusal> {
    let (maintenance, total, next_page) = list(&app, &headers, &uri, MAINTENANCE).await?;
    Ok(Json(MaintenancePage {
        maintenance,
        total,
        next_page,
    }))
}

/// `POST /v1/silences`.
pub async fn add_silence(
    State(app): State<Arc<App>>,
    request: Request<Body>,
) -> Result<(StatusCode, Json<MuteView>), Refusal> {
    add(&app, request, MuteKind::Silence).await
}

/// `POST /v1/maintenance`.
pub async fn add_maintenance(
    State(app): State<Arc<App>>,
    request: Request<Body>,
) -> Result<(StatusCode, Json<MuteView>), Refusal> {
    add(&app, request, MuteKind::Maintenance).await
}

/// `GET /v1/silences/{id}`.
pub async fn silence(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Segment(id): Segment,
) -> Result<Json<MuteView>, Refusal> {
    show(&app, &headers, &id, SILENCES).await
}

/// `GET /v1/maintenance/{id}`.
pub async fn one_maintenance(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Segment(id): Segment,
) -> Result<Json<MuteView>, Refusal> {
    show(&app, &headers, &id, MAINTENANCE).await
}

/// `POST /v1/silences/{id}/expire`.
pub async fn expire_silence(
    State(app): State<Arc<App>>,
    Segment(id): Segment,
    request: Request<Body>,
) -> Result<Json<MuteView>, Refusal> {
    expire(&app, &id, request, SILENCES).await
}

/// `POST /v1/maintenance/{id}/expire`.
pub async fn expire_maintenance(
    State(app): State<Arc<App>>,
    Segment(id): Segment,
    request: Request<Body>,
) -> Result<Json<MuteView>, Refusal> {
    expire(&app, &id, request, MAINTENANCE).await
}

async fn list(
    app: &App,
    headers: &HeaderMap,
    uri: &Uri,
    kinds: &'static [MuteKind],
) -> Result<Rows, Refusal> {
    auth::operator(app, headers, Role::Viewer)?;
    let query = Query::of(uri, &["state", "page", "per_page"])?;
    let page = query.page()?;
    let states = query.all("state").map(str::parse::<MuteState>);
    let states: Vec<MuteState> = states
        .collect::<Result<_, _>>()
        .map_err(|err| Refusal::invalid("state", err.to_string()))?;
    let wanted = |state: MuteState| states.is_empty() || states.contains(&state);
    let now = app.clock.wall();
    let mut at_hand = app.mutes().list(now);
    at_hand.retain(|view| kinds.contains(&view.record.kind) && wanted(view.state));
    let mut total = at_hand.len() as u64;
    let first = usize::try_from(page.offset()).unwrap_or(usize::MAX);
    let mut rows: Vec<MuteView> = at_hand.into_iter().skip(first).take(page.rows as usize).collect();
    if wanted(MuteState::Expired) {
        let left = page.rows - rows.len() as u32;
        let from = (page.offset().saturating_sub(total), left);
        let (over, count) = app
            .store
            .call("list mutes", move |store| store.mutes_over(kinds, now, from))
            .await?;
        let mutes = app.mutes();
        rows.extend(over.into_iter().map(|record| mutes.view(record, now)));
        total += count;
    }
    Ok((rows, total, page.next(total)))
}

async fn show(
    app: &App,
    headers: &HeaderMap,
    id: &str,
    kinds: &[MuteKind],
) -> Result<Json<MuteView>, Refusal> {
    auth::operator(app, headers, Role::Viewer)?;
    let record = find(app, id, kinds).await?;
    Ok(Json(app.mutes().view(record, app.clock.wall())))
}

async fn add(
    app: &App,
    request: Request<Body>,
    kind: MuteKind,
) -> Result<(StatusCode, Json<MuteView>), Refusal> {
    let (head, content) = request.into_parts();
    let operator = auth::operator(app, &head.headers, Role::Operator)?;
    let bytes = body::read(&head.headers, content, limits::REQUEST_BODY_BYTES).await?;
    let wanted: CreateMute = body::json(&bytes)?;
    let now = app.clock.wall();
    wanted.check(kind, now)?;
    if let Some(every) = &wanted.every
        && TimeZone::get(every.tz.as_str()).is_err()
    {
        let detail = format!(
            "there is no time zone {:?}; write it like \"Europe/Berlin\" or \"UTC\"",
            every.tz.as_str()
        );
        return Err(Refusal::invalid("every.tz", detail));
    }
    let _order = app.changes.lock().await;
    let id = {
        let mut mutes = app.mutes();
        if mutes.count(now) >= MUTES {
            let detail = format!(
                "there are already {MUTES} silences and maintenances, as many as this server keeps; end some, or mute by a label"
            );
            return Err(Refusal::new(
                StatusCode::CONFLICT,
                "full",
                "A limit of this server",
                detail,
            ));
        }
        mutes.new_id()
    };
    let created = Signed {
        by: operator.name,
        at: now,
    };
    let record = wanted.into_record(id, kind, created);
    let view = keep(app, record).await?;
    Ok((StatusCode::CREATED, Json(view)))
}

async fn expire(
    app: &App,
    id: &str,
    request: Request<Body>,
    kinds: &[MuteKind],
) -> Result<Json<MuteView>, Refusal> {
    let (head, content) = request.into_parts();
    let operator = auth::operator(app, &head.headers, Role::Operator)?;
    let bytes = body::read(&head.headers, content, limits::REQUEST_BODY_BYTES).await?;
    let Expire {} = body::json(&bytes)?;
    let _order = app.changes.lock().await;
    let record = find(app, id, kinds).await?;
    let now = app.clock.wall();
    if app.mutes().view(record.clone(), now).state == MuteState::Expired {
        let over = record
            .over_at()
            .map_or_else(String::new, |at| format!(" since {at}"));
        let by = record
            .ended
            .as_ref()
            .map_or_else(String::new, |ended| format!(", ended by {}", ended.by));
        let detail = format!(
            "{} {} is over{over}{by}; there is nothing left to end",
            record.kind, record.id
        );
        return Err(Refusal::new(
            StatusCode::CONFLICT,
            "over",
            "It is over already",
            detail,
        ));
    }
    let ended = Some(Signed {
        by: operator.name,
        at: now,
    });
    Ok(Json(keep(app, MuteRecord { ended, ..record }).await?))
}

/// Written first, then in force: what is answered with success survives anything.
async fn keep(app: &App, record: MuteRecord) -> Result<MuteView, Refusal> {
    let stored = record.clone();
    app.store
        .call("write a mute", move |store| store.put_mute(&stored))
        .await?;
    let by = record.ended.as_ref().unwrap_or(&record.created);
    tracing::info!(
        id = record.id, kind = %record.kind, matcher = %record.matcher, by = %by.by, reason = %record.reason,
        until = ?record.over_at(), "{}", if record.ended.is_some() { "a mute was ended" } else { "a mute was made" }
    );
    let mut mutes = app.mutes();
    mutes.put(record.clone());
    Ok(mutes.view(record, app.clock.wall()))
}

async fn find(app: &App, id: &str, kinds: &[MuteKind]) -> Result<MuteRecord, Refusal> {
    let missing = || {
        let id: String = id.chars().take(32).collect();
        let what = if kinds == SILENCES {
            "silence"
        } else {
            "maintenance"
        };
        Refusal::not_found(format!("there is no {what} {id:?}; it may be too long ago"))
    };
    let number: i64 = id.parse().map_err(|_| missing())?;
    let at_hand = app.mutes().get(number).cloned();
    let found = match at_hand {
        Some(record) => Some(record),
        None => {
            app.store
                .call("read a mute", move |store| store.mute(number))
                .await?
        }
    };
    found
        .filter(|record| kinds.contains(&record.kind))
        .ok_or_else(missing)
}
