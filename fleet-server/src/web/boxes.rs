//! `/v1/boxes`: who is there, how they do, and their tokens.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};
use axum::response::{IntoResponse, Json, Response};
use jiff::SignedDuration;
use protocol::api::{AddBox, BoxDetail, BoxPage, BoxRow, DeclareWitnesses, Liveness, RotateBox};
use protocol::enroll::EnrollAnswerBody;
use protocol::incident::Incident;
use protocol::limits;
use protocol::names::{BoxName, Labels};
use protocol::report::Report;

use super::auth::{self, Purpose, new_secret};
use super::body;
use super::problem::{Refusal, Segment};
use super::query::Query;
use super::state::App;
use crate::directory::{BoxEntry, Role, TokenHash};
use crate::incident::canary;
use crate::liveness::BoxIx;
use crate::store::{BoxRecord, NewBox, StoreError};
use crate::sweep::view::BoxView;

/// How long an old token stays good after a rotation, unless the request says otherwise.
const OVERLAP: Duration = Duration::from_secs(3600);
/// The longest overlap: a rotation that takes longer is none.
const OVERLAP_MAX: u64 = 7 * 24 * 3600;

/// `GET /v1/boxes[?state=&label=name=value&q=&canary=true&page=&per_page=]`. The server's own canary only if asked for.
pub async fn list(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Json<BoxPage>, Refusal> {
    auth::operator(&app, &headers, Role::Viewer)?;
    let query = Query::of(&uri, &["state", "label", "q", "canary", "page", "per_page"])?;
    let page = query.page()?;
    let state: Option<Liveness> = query.parsed("state")?;
    let show_canary = query.parsed("canary")?.unwrap_or(false);
    let text = query.one("q")?.map(str::to_lowercase);
    let labels: Vec<(&str, &str)> = query.all("label").map(label).collect::<Result<_, _>>()?;
    let mut views: HashMap<BoxIx, BoxView> = app
        .view
        .boxes()
        .into_iter()
        .map(|view| (view.info.ix, view))
        .collect();
    let mut found: Vec<(BoxEntry, Option<BoxView>)> = app
        .directory()
        .iter()
        .filter(|entry| show_canary || !entry.record.id.is_canary())
        .filter(|entry| {
            text.as_ref()
                .is_none_or(|text| entry.record.name.as_str().to_lowercase().contains(text))
        })
        .filter(|entry| {
            labels
                .iter()
                .all(|(name, value)| entry.labels.get(name) == Some(value))
        })
        .map(|entry| (entry.clone(), views.remove(&entry.ix)))
        .filter(|(_, view)| state.is_none_or(|state| liveness(view.as_ref()) == state))
        .collect();
    found.sort_by(|(a, _), (b, _)| a.record.name.cmp(&b.record.name));
    let total = found.len() as u64;
    let boxes = found
        .iter()
        .skip(usize::try_from(page.offset()).unwrap_or(usize::MAX))
        .take(page.rows as usize)
        .map(|(entry, view)| row(entry, view.as_ref()))
        .collect();
    Ok(Json(BoxPage {
        boxes,
        total,
        next_page: page.next(total),
    }))
}

/// `GET /v1/boxes/{name}`.
pub async fn show(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Segment(name): Segment,
) -> Result<Json<BoxDetail>, Refusal> {
    auth::operator(&app, &headers, Role::Viewer)?;
    let entry = find(&app, &name)?;
    Ok(Json(detail(&app, &entry)))
}

/// `POST /v1/boxes`.
pub async fn add(State(app): State<Arc<App>>, request: Request<Body>) -> Result<Response, Refusal> {
    let (head, content) = request.into_parts();
    let operator = auth::operator(&app, &head.headers, Role::Operator)?;
    let bytes = body::read(&head.headers, content, limits::REQUEST_BODY_BYTES).await?;
    let wanted: AddBox = body::json(&bytes)?;
    not_reserved(&wanted.name)?;
    let token = new_secret(Purpose::BoxToken).map_err(no_random)?;
    let new = NewBox {
        name: wanted.name,
        labels: wanted.labels,
        declared: Labels::default(),
        witnesses: wanted.witnesses,
        token: TokenHash::of(&token),
        at: app.clock.wall(),
    };
    let name = new.name.clone();
    let _order = app.changes.lock().await;
    let record = app
        .store
        .call("add a box", move |store| store.add_box(&new))
        .await?;
    put(&app, record);
    tracing::info!(box_name = %name, by = %operator.name, "box added");
    let body = EnrollAnswerBody {
        token: token.expose(),
        name: &name,
    };
    let mut response = (StatusCode::CREATED, Json(body)).into_response();
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/boxes/{name}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(never_kept(response))
}

/// `DELETE /v1/boxes/{name}`.
pub async fn remove(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Segment(name): Segment,
) -> Result<StatusCode, Refusal> {
    let operator = auth::operator(&app, &headers, Role::Admin)?;
    let _order = app.changes.lock().await;
    let entry = changeable(&app, &name)?;
    let id = entry.record.id;
    match app
        .store
        .call("remove a box", move |store| store.remove_box(id))
        .await
    {
        // Already gone there, or perhaps: it must not be served any more either way.
        Ok(()) | Err(StoreError::NotFound { .. }) => {}
        Err(err) => return Err(err.into()),
    }
    app.directory_mut().remove(entry.ix);
    app.announce(entry.ix);
    tracing::info!(box_name = %entry.record.name, by = %operator.name, "box removed");
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/boxes/{name}/rotate`.
pub async fn rotate(
    State(app): State<Arc<App>>,
    Segment(name): Segment,
    request: Request<Body>,
) -> Result<Response, Refusal> {
    let (head, content) = request.into_parts();
    let operator = auth::operator(&app, &head.headers, Role::Operator)?;
    let bytes = body::read(&head.headers, content, limits::REQUEST_BODY_BYTES).await?;
    let wanted: RotateBox = body::json(&bytes)?;
    let overlap = wanted.overlap_secs.unwrap_or(OVERLAP.as_secs());
    if overlap > OVERLAP_MAX {
        return Err(Refusal::invalid(
            "overlap_secs",
            format!("is over {OVERLAP_MAX} (a week)"),
        ));
    }
    let token = new_secret(Purpose::BoxToken).map_err(no_random)?;
    let hash = TokenHash::of(&token);
    let at = app.clock.wall();
    let until = at
        .saturating_add(SignedDuration::from_secs(overlap as i64))
        .unwrap_or(at);
    let _order = app.changes.lock().await;
    let entry = changeable(&app, &name)?;
    let id = entry.record.id;
    let record = app
        .store
        .call("rotate a token", move |store| store.rotate(id, &hash, at, until))
        .await?;
    put(&app, record);
    tracing::info!(box_name = %entry.record.name, by = %operator.name, overlap_secs = overlap, "token rotated");
    let body = EnrollAnswerBody {
        token: token.expose(),
        name: &entry.record.name,
    };
    Ok(never_kept(Json(body).into_response()))
}

/// `POST /v1/boxes/{name}/witnesses`: also for a box that enrolled by itself.
pub async fn declare_witnesses(
    State(app): State<Arc<App>>,
    Segment(name): Segment,
    request: Request<Body>,
) -> Result<Json<BoxDetail>, Refusal> {
    let (head, content) = request.into_parts();
    let operator = auth::operator(&app, &head.headers, Role::Operator)?;
    let bytes = body::read(&head.headers, content, limits::REQUEST_BODY_BYTES).await?;
    let wanted: DeclareWitnesses = body::json(&bytes)?;
    let _order = app.changes.lock().await;
    let entry = changeable(&app, &name)?;
    let (id, witnesses) = (entry.record.id, wanted.witnesses);
    let record = app
        .store
        .call("declare witnesses", move |store| {
            store.set_witnesses(id, &witnesses)
        })
        .await?;
    tracing::info!(box_name = %entry.record.name, by = %operator.name, witnesses = %record.witnesses, "witnesses declared");
    put(&app, record);
    Ok(Json(detail(&app, &find(&app, &name)?)))
}

/// `POST /v1/boxes/{name}/revoke`.
pub async fn revoke(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Segment(name): Segment,
) -> Result<StatusCode, Refusal> {
    let operator = auth::operator(&app, &headers, Role::Operator)?;
    let _order = app.changes.lock().await;
    let entry = changeable(&app, &name)?;
    // First here: whatever the store says, these tokens are good for nothing from now on.
    put(
        &app,
        BoxRecord {
            tokens: Vec::new(),
            ..entry.record.clone()
        },
    );
    let (id, at) = (entry.record.id, app.clock.wall());
    app.store
        .call("revoke tokens", move |store| store.revoke(id, at))
        .await?;
    tracing::info!(box_name = %entry.record.name, by = %operator.name, "tokens revoked");
    Ok(StatusCode::NO_CONTENT)
}

/// Puts a changed box into the directory and tells the judging side.
pub(super) fn put(app: &App, record: BoxRecord) {
    let ix = app.directory_mut().put(record);
    app.announce(ix);
}

/// An answer with a secret in it is kept by no cache.
pub(super) fn never_kept(mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

pub(super) fn no_random(err: getrandom::Error) -> Refusal {
    tracing::error!(error = %err, "no random numbers from the system");
    Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "random",
        "No random numbers",
        "the system gives no random numbers; try again",
    )
}

fn find(app: &App, name: &str) -> Result<BoxEntry, Refusal> {
    let known = BoxName::new(name)
        .ok()
        .and_then(|name| app.directory().by_name(&name).cloned());
    let shown: String = name.chars().take(limits::NAME_BYTES).collect();
    known.ok_or_else(|| Refusal::not_found(format!("there is no box named {shown:?}")))
}

/// As [`find`], for a change: the canary is the server's own affair.
fn changeable(app: &App, name: &str) -> Result<BoxEntry, Refusal> {
    let entry = find(app, name)?;
    if entry.record.id.is_canary() {
        return Err(reserved());
    }
    Ok(entry)
}

/// No box may be named as the canary is.
pub(super) fn not_reserved(name: &BoxName) -> Result<(), Refusal> {
    if *name == canary::name() {
        return Err(reserved());
    }
    Ok(())
}

fn reserved() -> Refusal {
    let detail = format!(
        "{} is the server's own canary; the server's configuration has it under [canary]",
        canary::NAME
    );
    Refusal::new(StatusCode::CONFLICT, "reserved", "A reserved name", detail)
}

fn row(entry: &BoxEntry, view: Option<&BoxView>) -> BoxRow {
    BoxRow {
        name: entry.record.name.clone(),
        state: liveness(view),
        state_since: view.and_then(|view| view.since),
        last_seen: view.and_then(|view| view.last_seen),
        labels: entry.labels.clone(),
        worst: view.and_then(|view| view.worst),
        open_incidents: view.map_or(0, |view| view.open_incidents),
        paused: view.and_then(|view| view.paused.clone()),
        canary: entry.record.id.is_canary(),
    }
}

fn detail(app: &App, entry: &BoxEntry) -> BoxDetail {
    let view = app.view.one(entry.ix);
    let row = row(entry, view.as_ref());
    let about = |incident: &Incident| incident.box_name.as_ref() == Some(&entry.record.name);
    let (report, units, clock_skew_ms) = match view {
        Some(view) => (view.report, view.units, view.clock_skew_ms),
        None => (None, Vec::new(), None),
    };
    let (report, report_received_at) = report.map(|(report, at)| (Report::clone(&report), at)).unzip();
    let now = app.clock.wall();
    let maintenance = app.mutes().may_be_gone(&entry.record.name, &entry.labels, now);
    BoxDetail {
        row,
        added_at: entry.record.added_at,
        report,
        report_received_at,
        units,
        clock_skew_ms,
        witnesses: entry.record.witnesses.clone(),
        maintenance: maintenance.map(|by| by.to_string()),
        incidents: app.view.open(about),
    }
}

fn liveness(view: Option<&BoxView>) -> Liveness {
    view.map_or(Liveness::Unseen, |view| view.state)
}

fn label(text: &str) -> Result<(&str, &str), Refusal> {
    text.split_once('=')
        .ok_or_else(|| Refusal::invalid("label", "write label=name=value, such as label=site=fsn1"))
}
