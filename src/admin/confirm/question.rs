//! The acts that a confirmation page asks about.

use crate::admin::day::midnight;
use crate::admin::links::{client_path, person_path, query};
use crate::clock::Timestamp;
use crate::storage::{ConnectionFilter, Counted, Ending, Selection};

/// From ten connections on, an act is a bulk act: it needs a reason, and its number typed.
const BULK: u64 = 10;

/// Connected services that are removed together.
pub(in crate::admin) enum RemovedServices {
    /// One, by the id of its row. `from`: `person` if the button was on a person's page.
    One { id: String, from: String },
    /// All of a service, by its name.
    OfService(String),
    /// All of a person, by `sub`.
    OfPerson(String),
}

/// An act that needs confirmation: its name in the URL, and the form that carries it out.
pub(super) struct Question {
    pub(super) act: &'static str,
    /// What is counted and ends. `None`: the handler of the form carries the act out.
    pub(super) ending: Option<Ending>,
    /// The connected services that are removed.
    pub(super) removes: Option<ConnectionFilter>,
    /// Target of the form, and the field that names the object of the act.
    pub(super) form: &'static str,
    pub(super) field: (&'static str, String),
    pub(super) action: &'static str,
    /// A page to return to, as the form names it; usually empty.
    pub(super) from: String,
    /// The page that the person came from.
    pub(super) back: String,
}

impl Question {
    /// Returns the question that these query parameters ask for, if it is valid.
    pub(super) fn asked<'a>(param: impl Fn(&'static str) -> &'a str) -> Option<Self> {
        let (id, subject) = (param("id"), param("sub"));
        match param("act") {
            "block_client" => Some(Self::of_client("block", id)),
            "refuse_client" => Some(Self::of_client("refuse", id)),
            "delete_client" => Some(Self::of_client("delete", id)),
            "end_client" => Some(Self::of_client("end", id)),
            "rotate_secret" => Some(Self::of_client("rotate", id)),
            "delete_unused" => Self::unused(param("since")),
            "remove_pattern" => Some(Self::pattern(param("host"))),
            "block_person" => Some(Self::of_person("block", subject)),
            "sign_out_person" => Some(Self::of_person("sign_out", subject)),
            "end_person" => Some(Self::of_person("end", subject)),
            "end_one" => Some(Self::of_grant(id, param("back"))),
            "before" => Self::before(param("day")),
            "remove_service" => {
                let from = param("back").to_owned();
                Some(Self::services(&RemovedServices::One { id: id.to_owned(), from }))
            }
            "remove_services" => {
                Some(Self::services(&RemovedServices::OfService(param("name").to_owned())))
            }
            "remove_services_of" => {
                Some(Self::services(&RemovedServices::OfPerson(subject.to_owned())))
            }
            _ => None,
        }
    }

    pub(super) fn of_client(action: &str, id: &str) -> Self {
        let owned = id.to_owned();
        let (act, action, ending) = match action {
            "block" => ("block_client", "block", Some(Ending::BlockClient(owned))),
            "refuse" => ("refuse_client", "refuse", Some(Ending::RefuseClient(owned))),
            "delete" => ("delete_client", "delete", Some(Ending::DeleteClient(owned))),
            "rotate" => ("rotate_secret", "rotate", None),
            _ => ("end_client", "end", Some(Ending::Grants(Selection::Client(owned)))),
        };
        Self {
            act,
            ending,
            removes: None,
            form: "/client",
            field: ("id", id.to_owned()),
            action,
            from: String::new(),
            back: client_path(id),
        }
    }

    pub(super) fn of_person(action: &str, subject: &str) -> Self {
        let owned = subject.to_owned();
        let (act, action, ending) = match action {
            "block" => ("block_person", "block", Ending::BlockPerson(owned)),
            "sign_out" => ("sign_out_person", "sign_out", Ending::SignOut(owned)),
            _ => ("end_person", "end", Ending::Grants(Selection::Person(owned))),
        };
        Self {
            act,
            ending: Some(ending),
            removes: None,
            form: "/person",
            field: ("sub", subject.to_owned()),
            action,
            from: String::new(),
            back: person_path(subject),
        }
    }

    /// One connection. `from`: `person` if the button was on a person's page.
    pub(super) fn of_grant(id: &str, from: &str) -> Self {
        Self {
            act: "end_one",
            ending: Some(Ending::Grants(Selection::One(id.to_owned()))),
            removes: None,
            form: "/grant",
            field: ("id", id.to_owned()),
            action: "one",
            from: from.to_owned(),
            back: "/grants".to_owned(),
        }
    }

    pub(super) fn before(day: &str) -> Option<Self> {
        Some(Self {
            act: "before",
            ending: Some(Ending::Grants(Selection::Before(midnight(day)?))),
            removes: None,
            form: "/grant",
            field: ("day", day.to_owned()),
            action: "before",
            from: String::new(),
            back: "/grants".to_owned(),
        })
    }

    /// The clients that nobody has used since a time, in Unix seconds.
    pub(super) fn unused(since: &str) -> Option<Self> {
        let moment = Timestamp::from_unix(since.parse().ok()?);
        Some(Self {
            act: "delete_unused",
            ending: Some(Ending::DeleteUnused(moment)),
            removes: None,
            form: "/clients",
            field: ("since", since.to_owned()),
            action: "delete_unused",
            from: String::new(),
            back: "/clients?standing=unused".to_owned(),
        })
    }

    pub(super) fn pattern(host: &str) -> Self {
        Self {
            act: "remove_pattern",
            ending: None,
            removes: None,
            form: "/clients/patterns",
            field: ("host", host.to_owned()),
            action: "remove",
            from: String::new(),
            back: "/clients/patterns".to_owned(),
        }
    }

    /// Connected services.
    pub(super) fn services(which: &RemovedServices) -> Self {
        let (act, action, field, back) = match which {
            RemovedServices::One { id, .. } => {
                ("remove_service", "one", ("id", id), "/connections".to_owned())
            }
            RemovedServices::OfService(name) => {
                let back = query("/connections").append_pair("name", name).finish();
                ("remove_services", "service", ("name", name), back)
            }
            RemovedServices::OfPerson(subject) => {
                ("remove_services_of", "person", ("sub", subject), person_path(subject))
            }
        };
        let mut filter = ConnectionFilter::default();
        match which {
            RemovedServices::One { id, .. } => filter.id.clone_from(id),
            RemovedServices::OfService(name) => filter.name.clone_from(name),
            RemovedServices::OfPerson(subject) => filter.subject.clone_from(subject),
        }
        Self {
            act,
            ending: None,
            removes: Some(filter),
            form: "/connections",
            field: (field.0, field.1.clone()),
            action,
            from: match which {
                RemovedServices::One { from, .. } => from.clone(),
                _ => String::new(),
            },
            back,
        }
    }

    /// Returns the path of the confirmation page.
    pub(super) fn path(&self) -> String {
        let mut query = query("/confirm");
        query.append_pair("act", self.act).append_pair(self.field.0, &self.field.1);
        if !self.from.is_empty() {
            query.append_pair("back", &self.from);
        }
        query.finish()
    }

    /// Returns the text that the confirmation is bound to: the act and its object, as it was shown.
    pub(super) fn key(&self, seen: &str) -> String {
        format!("{} {} {seen}", self.act, self.field.1)
    }

    /// Returns the number that the administrator has to type, for a bulk act.
    pub(super) fn number_to_type(&self, counted: &Counted) -> Option<u64> {
        match self.ending {
            Some(Ending::DeleteUnused(_)) => Some(counted.deleted),
            _ if self.removes.is_some() => Some(counted.services).filter(|n| *n >= BULK),
            _ => Some(counted.grants).filter(|number| *number >= BULK),
        }
    }

    /// Returns whether the act would change nothing.
    pub(super) fn is_pointless(&self, counted: &Counted) -> bool {
        match &self.ending {
            Some(Ending::Grants(Selection::One(_) | Selection::Before(_))) => counted.grants == 0,
            Some(Ending::DeleteUnused(_)) => counted.deleted == 0,
            _ => self.removes.is_some() && counted.services == 0,
        }
    }

    /// Returns the section of the navigation to which the act belongs.
    pub(super) fn section(&self) -> &'static str {
        match self.form {
            "/person" => "/people",
            "/grant" => "/grants",
            "/connections" => "/connections",
            _ => "/clients",
        }
    }
}
