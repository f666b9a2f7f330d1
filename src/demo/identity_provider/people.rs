//! The three people of the demo.

/// A person who can sign in; the password equals the user name.
#[derive(Clone, Debug)]
pub(super) struct DemoPerson {
    pub(super) username: &'static str,
    pub(super) name: String,
    pub(super) about: &'static str,
    pub(super) roles: Vec<String>,
    pub(super) groups: Vec<String>,
    /// Sign-ins and refreshes fail.
    pub(super) disabled: bool,
}

impl DemoPerson {
    pub(super) fn subject(&self) -> String {
        format!("demo-{}", self.username)
    }

    pub(super) fn email(&self) -> String {
        format!("{}@example.com", self.username)
    }
}

pub(super) fn everybody() -> Vec<DemoPerson> {
    let person = |username, name: &str, about, roles: &[&str], groups: &[&str]| DemoPerson {
        username,
        name: name.to_owned(),
        about,
        roles: roles.iter().map(|&role| role.to_owned()).collect(),
        groups: groups.iter().map(|&group| group.to_owned()).collect(),
        disabled: false,
    };
    vec![
        person("alice", "Alice Adams", "administrator", &["Admin"], &["staff", "admins"]),
        person("bob", "Bob Brown", "user", &["User"], &["staff"]),
        person("mallory", "Mallory Miller", "has no access", &[], &[]),
    ]
}
