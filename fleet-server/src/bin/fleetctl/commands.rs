//! Each command: its request, and what is printed of the answer.

use std::io::Write;

use jiff::Timestamp;
use protocol::api::{
    AckIncident, AddBox, BoxDetail, BoxPage, CreateEnrollCode, DeclareWitnesses, IncidentDetail,
    IncidentPage, ReceiverList, RotateBox,
};
use protocol::names::Labels;
use protocol::witness::Targets;
use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::client::{Client, Failed};
use crate::flags::{
    BoxCommand, Command, EnrollCodeCommand, IncidentCommand, OperatorCommand, ReceiverCommand,
};
use crate::mutes;
use crate::show;
use crate::table::{Cell, render};

/// Does `command`.
pub(crate) async fn run(client: &Client, json: bool, command: Command) -> Result<(), Failed> {
    let out = Out { json, now: now() };
    match command {
        Command::Box(command) => boxes(client, &out, command).await,
        Command::EnrollCode(EnrollCodeCommand::Create { uses, expires }) => {
            let wanted = CreateEnrollCode {
                uses: Some(uses),
                expires_secs: Some(expires.as_secs()),
            };
            out.secret(&client.post(&["enroll-codes"], &wanted).await?, "code")
        }
        Command::Incident(command) => incidents(client, &out, command).await,
        Command::Silence(command) => mutes::silences(client, &out, command).await,
        Command::Maintenance(command) => mutes::maintenance(client, &out, command).await,
        Command::Operator(command) => operators(client, &out, command).await,
        Command::Receiver(command) => receivers(client, &out, command).await,
    }
}

async fn boxes(client: &Client, out: &Out, command: BoxCommand) -> Result<(), Failed> {
    match command {
        BoxCommand::Add {
            name,
            labels,
            witnesses,
        } => {
            let labels =
                Labels::from_texts(labels).map_err(|err| Failed::Usage(format!("--label: {err}")))?;
            let witnesses =
                Targets::new(witnesses).map_err(|err| Failed::Usage(format!("--witness: {err}")))?;
            let wanted = AddBox {
                name,
                labels,
                witnesses,
            };
            out.secret(&client.post(&["boxes"], &wanted).await?, "token")
        }
        BoxCommand::List { state, labels, text } => {
            let mut query: Vec<(&str, String)> = Vec::new();
            query.extend(state.map(|state| ("state", state.to_string())));
            query.extend(
                labels
                    .iter()
                    .map(|(name, value)| ("label", format!("{name}={value}"))),
            );
            query.extend(text.map(|text| ("q", text)));
            let answer = all_pages(client, "boxes", query).await?;
            out.show(answer, |page: &BoxPage| show::boxes(page, out.now))
        }
        BoxCommand::Show { name } => {
            let answer = client.get(&["boxes", name.as_str()], &[]).await?;
            out.show(answer, |detail: &BoxDetail| show::one_box(detail, out.now))
        }
        BoxCommand::Witness { name, witnesses } => {
            let witnesses = Targets::new(witnesses).map_err(|err| Failed::Usage(err.to_string()))?;
            let wanted = DeclareWitnesses { witnesses };
            let path = ["boxes", name.as_str(), "witnesses"];
            out.show(client.post(&path, &wanted).await?, |detail: &BoxDetail| {
                show::one_box(detail, out.now)
            })
        }
        BoxCommand::Rotate { name, overlap } => {
            let wanted = RotateBox {
                overlap_secs: Some(overlap.as_secs()),
            };
            out.secret(
                &client.post(&["boxes", name.as_str(), "rotate"], &wanted).await?,
                "token",
            )
        }
        BoxCommand::Revoke { name } => {
            client
                .tell(Method::POST, &["boxes", name.as_str(), "revoke"])
                .await?;
            out.done(&format!("all tokens of {name} are revoked"))
        }
        BoxCommand::Remove { name } => {
            client.tell(Method::DELETE, &["boxes", name.as_str()]).await?;
            out.done(&format!("{name} is removed"))
        }
    }
}

async fn incidents(client: &Client, out: &Out, command: IncidentCommand) -> Result<(), Failed> {
    match command {
        IncidentCommand::List { all, kind, box_name } => {
            let mut query: Vec<(&str, String)> = Vec::new();
            query.extend((!all).then(|| ("open", "true".to_owned())));
            query.extend(kind.map(|kind| ("kind", kind.to_string())));
            query.extend(box_name.map(|name| ("box", name.to_string())));
            let answer = if all {
                client.get(&["incidents"], &query).await?
            } else {
                all_pages(client, "incidents", query).await?
            };
            out.show(answer, |page: &IncidentPage| show::incidents(page, out.now))
        }
        IncidentCommand::Show { id } => {
            let answer = client.get(&["incidents", &id.to_string()], &[]).await?;
            out.show(answer, |detail: &IncidentDetail| {
                show::one_incident(detail, out.now)
            })
        }
        IncidentCommand::Ack { id, note } => hand(client, out, id, "ack", note).await,
        IncidentCommand::Unack { id, note } => hand(client, out, id, "unack", note).await,
    }
}

async fn receivers(client: &Client, out: &Out, command: ReceiverCommand) -> Result<(), Failed> {
    match command {
        ReceiverCommand::List => {
            let answer = client.get(&["receivers"], &[]).await?;
            out.show(answer, |list: &ReceiverList| show::receivers(list, out.now))
        }
        ReceiverCommand::Test { name } => {
            let answer: Value = client.post(&["receivers", &name, "test"], &json!({})).await?;
            let delivered = answer["delivered"] == true;
            out.show(answer, show::receiver_test)?;
            if delivered {
                Ok(())
            } else {
                Err(Failed::Refused(format!("the test did not arrive at {name}")))
            }
        }
    }
}

async fn hand(client: &Client, out: &Out, id: i64, how: &str, note: String) -> Result<(), Failed> {
    let path = ["incidents", &id.to_string(), how];
    let answer = client.post(&path, &AckIncident { note }).await?;
    out.show(answer, |detail: &IncidentDetail| {
        show::one_incident(detail, out.now)
    })
}

async fn operators(client: &Client, out: &Out, command: OperatorCommand) -> Result<(), Failed> {
    match command {
        OperatorCommand::Add { name, role } => {
            let wanted = json!({ "name": name, "role": role });
            out.secret(&client.post(&["operators"], &wanted).await?, "token")
        }
        OperatorCommand::List => {
            let answer = client.get(&["operators"], &[]).await?;
            out.show(answer, |rows: &Vec<Value>| {
                let cell = |row: &Value, key: &str| Cell::plain(row[key].as_str().unwrap_or("-"));
                let rows: Vec<_> = rows
                    .iter()
                    .map(|row| ["name", "role", "created_at"].map(|key| cell(row, key)).into())
                    .collect();
                render(&["NAME", "ROLE", "CREATED"], &rows)
            })
        }
        OperatorCommand::Remove { name } => {
            client.tell(Method::DELETE, &["operators", &name]).await?;
            out.done(&format!("the token of {name} is removed"))
        }
    }
}

/// All rows of a listing, as if it had one page.
pub(crate) async fn all_pages(
    client: &Client,
    what: &'static str,
    query: Vec<(&'static str, String)>,
) -> Result<Value, Failed> {
    let mut whole: Value = client.get(&[what], &query).await?;
    while let Some(page) = whole["next_page"].as_u64() {
        let mut query = query.clone();
        query.push(("page", page.to_string()));
        let mut next: Value = client.get(&[what], &query).await?;
        if let (Some(rows), Some(more)) = (whole[what].as_array_mut(), next[what].as_array_mut()) {
            rows.append(more);
        }
        whole["next_page"] = next["next_page"].take();
    }
    Ok(whole)
}

/// Where and how answers are printed.
pub(crate) struct Out {
    json: bool,
    pub(crate) now: Timestamp,
}

impl Out {
    /// An answer: as it is, or as `show` puts it for people.
    pub(crate) fn show<T: DeserializeOwned>(
        &self,
        answer: Value,
        show: impl Fn(&T) -> String,
    ) -> Result<(), Failed> {
        if self.json {
            return print_json(&answer);
        }
        let value = serde_json::from_value(answer).map_err(|err| {
            Failed::Unreachable(format!(
                "the server's answer is of another version ({err}); try --json"
            ))
        })?;
        print(&show(&value))
    }

    /// The one secret in an answer, and nothing else, so that it can be put into a file or a variable.
    fn secret(&self, answer: &Value, key: &str) -> Result<(), Failed> {
        if self.json {
            return print_json(answer);
        }
        match answer[key].as_str() {
            Some(secret) => print(&format!("{secret}\n")),
            None => Err(Failed::Unreachable(format!("the server's answer has no {key}"))),
        }
    }

    fn done(&self, text: &str) -> Result<(), Failed> {
        if self.json {
            print_json(&json!({}))
        } else {
            print(&format!("{text}\n"))
        }
    }
}

fn print_json(answer: &Value) -> Result<(), Failed> {
    print(&format!("{answer:#}\n"))
}

/// A reader that has seen enough (`| head`) is no error.
fn print(text: &str) -> Result<(), Failed> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => Ok(()),
        Err(err) if err.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(err) => Err(Failed::Usage(format!("cannot print: {err}"))),
    }
}

#[expect(clippy::disallowed_methods, reason = "ages are shown by this machine's clock")]
fn now() -> Timestamp {
    Timestamp::now()
}
