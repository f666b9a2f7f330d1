//! Removes connected services: one, all of a service, or all of a person. A page asks first.

use axum::response::Response;

use crate::admin::confirm::{self, RemovedServices};
use crate::admin::links::{person_path, query};
use crate::admin::visit::{AdminForm, missing};
use crate::web::page_error::PageError;

/// `POST /connections`.
pub(in crate::admin) async fn act(action: AdminForm) -> Result<Response, PageError> {
    let visit = &action.visit;
    let (which, back) = match action.field("action") {
        "one" => {
            let row = visit.app().storage().connection_row(action.field("id")).await?;
            let row = row.ok_or_else(missing)?;
            let from_person = action.field("back") == "person";
            let back =
                if from_person { person_path(&row.subject) } else { "/connections?".to_owned() };
            (RemovedServices::One { id: row.id, from: action.field("back").to_owned() }, back)
        }
        "service" => {
            let name = action.field("name").to_owned();
            let back = query("/connections").append_pair("name", &name).finish();
            (RemovedServices::OfService(name), back)
        }
        "person" => {
            let subject = action.field("sub").to_owned();
            let back = person_path(&subject);
            (RemovedServices::OfPerson(subject), back)
        }
        _ => return Err(missing()),
    };
    let removed = match confirm::remove_services(&action, &which).await? {
        Ok(removed) => removed,
        Err(asks_first) => return Ok(asks_first),
    };
    let to_person = back.starts_with("/person");
    let done = if to_person { "services".to_owned() } else { removed.to_string() };
    Ok(visit.go(&format!("{back}&done={done}")))
}
